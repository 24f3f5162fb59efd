//! Reports: pages that are self-contained and small, and that work in a browser if one is
//! installed.

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::root;

fn made(arguments: &[&str], report: &Path) -> String {
    let all = [arguments, &["--quiet", "--report", report.to_str().unwrap()]].concat();
    let output =
        Command::new(env!("CARGO_BIN_EXE_influence")).args(&all).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{all:?}: {}", String::from_utf8_lossy(&output.stderr));
    fs::read_to_string(report).unwrap()
}

#[test]
fn every_command_makes_a_page_that_fetches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let maps = at("maps");
    let against = "crates/data/sample/resnet50w8-mnist.safetensors";
    for (arguments, says) in [
        (&["score", "--perturb", "family:rotation"][..], &["None of 100 values is saturated", "family"][..]),
        (
            &["layers", "--images", "0..3", "--filter", "tikhonov:1:relative"],
            &["stages.3.2.conv3", "bar: quartiles"],
        ),
        (
            &["map", "--images", "0..2", "--scales", "0", "--out", maps.to_str().unwrap()],
            &["map-1.png", "half-width 0"],
        ),
        (&["outliers", "--plant", "20"], &["AUROC", "known to be bad", "20 planted outliers"]),
        (&["compare", "--against", against, "--images", "0..20"], &["99.9", "p of D", "accuracy 100.00 %"]),
    ] {
        let page = made(arguments, &at("report.html"));
        for part in ["What was run", "hash of the weights", "cpu (", "byte / 255", "What the numbers mean"]
            .iter()
            .chain(says)
        {
            assert!(page.contains(part), "{arguments:?}: {part:?} is not in the page");
        }
        let outside = page.replace("http://www.w3.org/2000/svg", "");
        for way in ["http:", "https:", "<link", "@import", "src=\"/", "file:"] {
            assert!(!outside.contains(way), "{arguments:?}: {way}");
        }
        assert!(page.len() < 5_000_000);
    }
}

#[test]
fn what_cannot_have_a_page_is_refused() {
    for (arguments, says) in [
        (&["score", "--report", "page.pdf"][..], "must end in .html"),
        (&["score", "--shard", "1/2", "--report", "page.html"], "leave out --direction and --shard"),
        (&["layers", "--shard", "1/2", "--out", "layers.csv", "--report", "page.html"], "leave out --shard"),
        (&["map", "--check", "--report", "page.html"], "leave out --check"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_influence")).args(arguments).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && message.contains(says), "{arguments:?}: {message}");
    }
}

/// Opens a page in headless Chromium and returns its output; none if Chromium is not installed.
fn chromium(arguments: &[&str], page: &Path) -> Option<Vec<u8>> {
    let profile = tempfile::tempdir().unwrap();
    let profile = format!("--user-data-dir={}", profile.path().display());
    let usual = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", &profile];
    let address = format!("file://{}", page.display());
    let output = Command::new("chromium").args(usual).args(arguments).arg(address).output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

/// A script in the page that clicks a column header, moves the pointer over a point and writes what
/// it finds to the title, which `--dump-dom` prints.
const DRIVER: &str = r#"<script>
{
const head = document.querySelectorAll("th button")[1];
const column = () => Array.from(head.closest("table").tBodies[0].rows, (row) => Number(row.cells[1].dataset.n));
head.click();
const down = column();
head.click();
const plot = document.querySelector("[data-points]"), svg = plot.querySelector("svg");
const point = JSON.parse(document.getElementById(plot.dataset.points).textContent).at(-1);
svg.scrollIntoView();
const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
const place = { clientX: box.left + point[0] * scale, clientY: box.top + point[1] * scale };
plot.dispatchEvent(new PointerEvent("pointermove", place));
document.title = JSON.stringify([down, column(), tip.textContent, tip.querySelectorAll("img").length,
  document.documentElement.scrollWidth <= innerWidth]);
}
</script></body>"#;

#[test]
fn a_browser_sorts_tables_and_tells_dots_and_draws_light_and_dark() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let page = made(&["outliers", "--plant", "20"], &at("report.html"));
    fs::write(at("driven.html"), page.replace("</body>", DRIVER)).unwrap();
    let Some(shown) = chromium(&["--dump-dom", "--window-size=500,900"], &at("driven.html")) else {
        println!("skipped: there is no chromium");
        return;
    };
    let shown = String::from_utf8(shown).unwrap();
    let title = shown.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next()).unwrap();
    let title = title.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let found: (Vec<f64>, Vec<f64>, String, usize, bool) = serde_json::from_str(&title).unwrap();
    assert!(found.0.len() == 12 && found.0.is_sorted_by(|a, b| a >= b) && found.1.is_sorted(), "{title}");
    assert!(found.2.starts_with("image ") && found.2.contains("influence") && found.3 == 1, "{title}");
    assert!(found.4, "on a phone nothing is wider than the page");
    let ground = |mode: &[&str], name: &str| {
        let to = format!("--screenshot={}", at(name).display());
        chromium(&[&[to.as_str(), "--window-size=1200,900"], mode].concat(), &at("report.html")).unwrap();
        let bytes = fs::read(at(name)).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut dots = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut dots).unwrap();
        let own = info.color_type.samples();
        assert!(dots.chunks(own).any(|dot| dot[0].abs_diff(dots[0]) > 150), "there is ink");
        dots[0]
    };
    assert_eq!(ground(&[], "light.png"), 255);
    assert!(ground(&["--blink-settings=preferredColorScheme=0"], "dark.png") < 64);
}
