//! Long runs that are killed, stopped, run out of disk space, or are split into shards or piped.
//! The output always ends with the same bytes.

#![cfg(unix)]
#![expect(clippy::print_stdout, reason = "a skipped test says so")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::root;

/// How often each kind of run is killed; the environment variable raises it for long tests.
fn kills() -> usize {
    std::env::var("INFLUENCE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

fn program(arguments: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_influence"));
    program.args(arguments).current_dir(root()).stdout(Stdio::piped()).stderr(Stdio::piped());
    program
}

fn run(arguments: &[&str]) -> Output {
    program(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn succeeds(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn refused(arguments: &[&str], says: &[&str]) {
    let output = run(arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    assert!(says.iter().all(|part| message.contains(part)), "{arguments:?}: {says:?}: {message}");
}

/// The contents of every file below a folder, by name.
fn contents(path: &Path) -> Vec<(String, Vec<u8>)> {
    if path.is_file() {
        return vec![(String::new(), fs::read(path).unwrap())];
    }
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect();
    found.sort();
    found
}

/// xorshift, seeded with the clock, so that every run kills at other times.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Self(now.as_nanos() as u64 | 1)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most.max(1)
    }
}

/// The runs of these tests: arguments, and the name of the output.
fn studies() -> Vec<(Vec<&'static str>, &'static str)> {
    let relative = ["--filter", "tikhonov:1:relative"];
    let with = |first: &[&'static str], images| [first, &["--images", images], &relative].concat();
    let mut studies = vec![
        (with(&["score", "--perturb", "layers"], "0..24"), "rows.csv"),
        (with(&["score", "--perturb", "layers"], "0..24"), "rows.jsonl"),
        (with(&["layers"], "0..24"), "layers.csv"),
        (vec!["map", "--images", "0..24", "--filter", "tikhonov:10", "--direction"], "maps"),
        (vec!["outliers", "--plant", "40"], "outliers.csv"),
        (vec!["compare", "--against", "crates/data/sample/resnet50w8-mnist.safetensors"], "compare.csv"),
    ];
    if cfg!(feature = "parquet") {
        studies.push((with(&["score", "--perturb", "layers"], "0..24"), "rows.parquet"));
    }
    studies
}

fn with_out<'a>(arguments: &[&'a str], out: &'a Path) -> Vec<&'a str> {
    [arguments, &["--quiet", "--out", out.to_str().unwrap()]].concat()
}

#[test]
fn a_run_that_is_killed_goes_on_to_the_same_bytes() {
    let mut random = Random::new();
    for (arguments, name) in studies() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("whole")).unwrap();
        let whole = at("whole").join(name);
        let began = Instant::now();
        succeeds(&with_out(&arguments, &whole));
        let usual = began.elapsed().as_millis() as u64;
        let (mut killed, mut gone_on) = (0, 0);
        while killed < kills() {
            fs::create_dir(at("killed")).unwrap();
            let out = at("killed").join(name);
            let mut first = with_out(&arguments, &out);
            let again = [&first[..], &["--resume"]].concat();
            loop {
                let mut child = program(&first).spawn().unwrap();
                std::thread::sleep(Duration::from_millis(random.below(usual * 5 / 4)));
                // Whether it has ended before it was killed.
                let ended = child.try_wait().unwrap();
                child.kill().unwrap();
                child.wait().unwrap();
                if let Some(status) = ended {
                    assert!(status.success(), "{arguments:?}");
                    break;
                }
                killed += 1;
                gone_on += usize::from(contents_of_journal(&out).is_some_and(|lines| lines > 1));
                first.clone_from(&again);
            }
            assert_eq!(contents(&out), contents(&whole), "{arguments:?}, {name}");
            let left: Vec<_> =
                fs::read_dir(at("killed")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(left, [name], "nothing is left but the result");
            remove(&at("killed"));
        }
        println!(
            "{name}: {killed} kills, {gone_on} of them with records in the journal; {usual} ms undisturbed"
        );
    }
}

/// The number of lines in the journal of an output, if there is one.
fn contents_of_journal(out: &Path) -> Option<usize> {
    let book = journal(out);
    fs::read_to_string(book).ok().map(|text| text.lines().count())
}

fn journal(out: &Path) -> PathBuf {
    let list = if out.extension().is_none() { out.join("maps.csv") } else { out.to_owned() };
    PathBuf::from(format!("{}.journal", list.display()))
}

fn remove(folder: &Path) {
    fs::remove_dir_all(folder).unwrap();
}

/// Starts a run and waits until its journal has a record.
fn under_way(arguments: &[&str], out: &Path) -> Child {
    let child = program(arguments).spawn().unwrap();
    let began = Instant::now();
    while contents_of_journal(out).is_none_or(|lines| lines < 2) {
        assert!(began.elapsed() < Duration::from_secs(60), "no record after a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

const LONG: [&str; 7] =
    ["score", "--perturb", "layers", "--filter", "tikhonov:1:relative", "--images", "0..60"];

#[test]
fn signals_end_a_run_cleanly_and_another_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, out) = (folder.path().join("whole.csv"), folder.path().join("rows.csv"));
    succeeds(&with_out(&LONG, &whole));
    let arguments = with_out(&LONG, &out);
    let again = [&arguments[..], &["--resume"]].concat();
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let child = under_way(&arguments, &out);
        refused(&arguments, &["rows.csv.journal", "another process writes this output"]);
        refused(&again, &["another process writes this output"]);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{message}");
        assert!(message.contains("of 60 are kept in") && message.contains("--resume"), "{message}");
        let left: Vec<_> = contents(folder.path()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(left, ["rows.csv.journal", "rows.csv.partial", "whole.csv"], "and no hidden file");
        refused(&arguments, &["add --resume to continue"]);
        succeeds(&again);
        assert_eq!(fs::read(&out).unwrap(), fs::read(&whole).unwrap());
        fs::remove_file(&out).unwrap();
    }
    assert_eq!(contents(folder.path()).len(), 1);
}

/// Summaries and reports of a resumed run include the values from before the stop.
#[test]
fn a_run_that_goes_on_says_what_the_whole_run_says() {
    for name in
        ["rows.csv", "rows.jsonl", if cfg!(feature = "parquet") { "rows.parquet" } else { "more.csv" }]
    {
        let folder = tempfile::tempdir().unwrap();
        let (out, page) = (folder.path().join(name), folder.path().join("report.html"));
        let more = ["--out", out.to_str().unwrap(), "--report", page.to_str().unwrap()];
        let arguments = [&LONG[..], &more].concat();
        let (said, drawn) = (succeeds(&arguments), fs::read(&page).unwrap());
        assert!(said.contains("of 6420 values") && said.contains("(median; "), "{said}");
        fs::remove_file(&out).unwrap();
        fs::remove_file(&page).unwrap();
        let child = under_way(&arguments, &out);
        signal(&child, "TERM");
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(143));
        assert_eq!(succeeds(&[&arguments[..], &["--resume"]].concat()), said, "{name}");
        assert!(fs::read(&page).unwrap() == drawn, "{name}: another page");
    }
}

#[test]
fn a_run_goes_on_as_itself_alone() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("rows.csv");
    let arguments = with_out(&LONG, &out);
    let mut child = under_way(&arguments, &out);
    child.kill().unwrap();
    child.wait().unwrap();
    let refused_with = |more: &[&str], says: &[&str]| {
        refused(&[&arguments[..], &["--resume"], more].concat(), says);
    };
    refused_with(&["--objective", "predicted"], &["--resume", "another run", "objective"]);
    refused_with(&["--precision", "f64"], &["--resume", "another run"]);
    refused_with(&["--shard", "1/2"], &["--resume", "rows.csv.journal", "part 1/2"]);
    // Bytes after the last record of the journal, and an incomplete record, are removed on resume.
    let partial = folder.path().join("rows.csv.partial");
    let book = journal(&out);
    let append = |path: &Path, bytes: &[u8]| {
        let torn = [&fs::read(path).unwrap()[..], bytes].concat();
        fs::write(path, torn).unwrap();
    };
    append(&partial, b"7,4,half a ro");
    append(&book, b"0badc0de 99 {\"done\":");
    succeeds(&[&arguments[..], &["--resume"]].concat());
    let whole = folder.path().join("whole.csv");
    succeeds(&with_out(&LONG, &whole));
    assert_eq!(fs::read(&out).unwrap(), fs::read(&whole).unwrap());
}

#[test]
fn a_full_disk_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.csv");
    succeeds(&with_out(&LONG, &whole));
    let full = folder.path().join("full");
    fs::create_dir(&full).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=400k", "tmpfs"]).arg(&full).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("skipped: no tmpfs can be mounted here");
        return;
    }
    let out = full.join("rows.csv");
    let output = run(&with_out(&LONG, &out));
    let message = text(&output.stderr);
    let size = |size: &str| {
        let status = Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&full).status();
        assert!(status.unwrap().success());
    };
    size("10m");
    let again = run(&[&with_out(&LONG, &out)[..], &["--resume"]].concat());
    let same = fs::read(&out).ok() == fs::read(&whole).ok();
    Command::new("umount").arg(&full).status().unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("No space left") && message.contains("are kept"), "{message}");
    assert!(again.status.success() && same, "{}", text(&again.stderr));
}

#[test]
fn pipes_take_rows_and_end_quietly() {
    let shell = |script: &str| {
        let script = script.replace("influence", env!("CARGO_BIN_EXE_influence"));
        Command::new("bash").args(["-o", "pipefail", "-c", &script]).current_dir(root()).output().unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("rows.csv");
    succeeds(&["score", "--images", "0..8", "--quiet", "--out", out.to_str().unwrap()]);
    let piped = run(&["score", "--images", "0..8", "--out", "-"]);
    assert_eq!(piped.stdout, fs::read(&out).unwrap());
    assert!(piped.status.success() && piped.stderr.is_empty(), "{}", text(&piped.stderr));
    let few = shell("influence score --out - | head -3");
    assert_eq!((text(&few.stdout).lines().count(), few.status.code()), (3, Some(0)));
    assert!(few.stderr.is_empty(), "{}", text(&few.stderr));
    let lines = shell("influence score --images 0..2 --out - --format jsonl | cat");
    assert!(text(&lines.stdout).lines().all(|line| line.starts_with("{\"index\":")), "{lines:?}");
    let full = run(&["score", "--images", "0..8", "--out", "/dev/full"]);
    assert_eq!(full.status.code(), Some(2));
    assert!(text(&full.stderr).contains("No space left"), "{}", text(&full.stderr));
    let table = shell("influence score --images 0..8 > /dev/full");
    assert_eq!(table.status.code(), Some(2), "{}", text(&table.stderr));
    let inner = shell("cat <(influence score --images 0..2 --out >(cat >&2) 2>&1) 2>&1; true");
    assert!(!text(&inner.stdout).contains("panicked"));
    refused(&["score", "--out", "-", "--format", "parquet"], &["pipe"]);
    refused(&["score", "--quiet"], &["--quiet without --out"]);
    refused(&["score", "--resume"], &["--resume", "--out FILE"]);
}

#[test]
fn shards_make_the_bytes_of_the_single_run() {
    // Studies that rank all images cannot be split into shards.
    let whole = |arguments: &[&str]| ["outliers", "compare"].contains(&arguments[0]);
    for (arguments, name) in studies().into_iter().filter(|(arguments, _)| !whole(arguments)) {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let path = |name: &str| at(name).to_str().unwrap().to_owned();
        let whole = at(&format!("whole-{name}"));
        succeeds(&with_out(&arguments, &whole));
        let part = |number: usize| format!("part{number}-{name}");
        for number in 1..=4 {
            let shard = format!("{number}/4");
            succeeds(&[&with_out(&arguments, &at(&part(number)))[..], &["--shard", &shard]].concat());
        }
        let parts: Vec<String> = [3, 1, 4, 2].map(|number| path(&part(number))).into();
        let merge = |parts: &[String], out: &str| {
            let parts = parts.iter().map(String::as_str);
            let mut all: Vec<&str> = std::iter::once("merge").chain(parts).collect();
            all.extend(["--out", out]);
            run(&all)
        };
        let says = |output: Output, part: &str| {
            let message = text(&output.stderr);
            assert!(output.status.code() == Some(2) && message.contains(part), "{part}: {message}");
        };
        let out = path(&format!("merged-{name}"));
        says(merge(&parts[..3], &out), "part 2 of 4 is missing");
        says(merge(&[&parts[..], &parts[..1]].concat(), &out), "there twice");
        // A shard of another run.
        let other = path(&format!("other-{name}"));
        let objective = ["--objective", "predicted", "--shard", "2/4"];
        succeeds(&[&with_out(&arguments, Path::new(&other))[..], &objective].concat());
        says(merge(&[&parts[..3], &[other]].concat(), &out), "objective");
        let output = merge(&parts, &out);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(contents(Path::new(&out)), contents(&whole), "{name}");
        // A complete shard is not run again; a shard that was modified is refused.
        let first = path(&part(1));
        let resumed = [&arguments[..], &["--shard", "1/4", "--resume", "--out", &first]].concat();
        assert!(succeeds(&resumed).contains("is complete"));
        let changed = if name == "maps" { at(&part(1)).join("map-0.png") } else { at(&part(1)) };
        let mut bytes = fs::read(&changed).unwrap();
        bytes[100] ^= 1;
        fs::write(&changed, bytes).unwrap();
        says(merge(&parts, &path(&format!("again-{name}"))), "the run wrote");
    }
}

/// Runs the command of docs/scale.md, if DuckDB is installed.
#[test]
fn parquet_parts_are_one_table_to_duckdb() {
    let page = fs::read_to_string(root().join("docs/scale.md")).unwrap();
    let command = page.lines().map(str::trim).find(|line| line.starts_with("duckdb -c \"SELECT \\\"group"));
    let command = command.expect("docs/scale.md shows how parts are read as one table");
    if Command::new("duckdb").arg("--version").output().is_err() {
        println!("skipped: no duckdb here to read the parts with");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let shell = |script: &str| {
        let script = script.replace("influence ", &format!("{} ", env!("CARGO_BIN_EXE_influence")));
        let output = Command::new("bash").args(["-c", &script]).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let run = "influence score --perturb layers --quiet";
    for part in 1..=4 {
        shell(&format!("{run} --images 0..8 --shard {part}/4 --out part-{part}.parquet"));
    }
    let layers = shell(&format!("{run} --images 0..1 --out -")).lines().count() - 1;
    let found = shell(&command.replace("duckdb -c", "duckdb -csv -c"));
    assert_eq!(found.lines().count(), 1 + layers, "a line for each layer: {found}");
}

#[test]
fn folders_of_maps_are_not_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("maps");
    let arguments = ["map", "--scales", "0", "--out", out.to_str().unwrap(), "--images"];
    succeeds(&[&arguments[..], &["0"]].concat());
    refused(&[&arguments[..], &["1"]].concat(), &["maps of another run", "map-0."]);
    assert_eq!(contents(&out).len(), 2);
}

#[test]
fn images_are_a_union_and_may_stand_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("wrong.txt");
    fs::write(&list, "# found by hand\n7 3..5, 7\n12\n").unwrap();
    let out = folder.path().join("rows.csv");
    let images = format!("4,@{},0..2", list.display());
    succeeds(&["score", "--images", &images, "--quiet", "--out", out.to_str().unwrap()]);
    let csv = fs::read_to_string(&out).unwrap();
    let found: Vec<&str> = csv.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(found, ["4", "7", "3", "12", "0", "1"]);
    refused(&["score", "--images", "@no-such-list"], &["no-such-list"]);
    let images = format!("@{}", list.display());
    let lost = ["score", "--images", &images, "--out", list.to_str().unwrap(), "--format", "csv"];
    refused(&lost, &["would be lost"]);
}

#[test]
fn tables_fit_eighty_columns_and_show_what_is_asked_for() {
    for arguments in [
        &["score"][..],
        &["score", "--perturb", "family:affine"],
        &["layers", "--images", "0..2", "--filter", "tikhonov:1:relative"],
        &["layers", "--images", "0..2", "--against", "crates/data/sample/resnet50w8-mnist.safetensors"],
        &["map", "--check", "--images", "0..2", "--scales", "0"],
        &["-h"],
        &["score", "-h"],
        &["outliers", "--help"],
        &["compare", "--help"],
        &["outliers", "--plant", "10"],
        &["layers", "-h"],
        &["map", "-h"],
        &["score", "--help"],
    ] {
        let shown = succeeds(arguments);
        let long = shown.lines().find(|line| line.chars().count() > 80);
        assert!(long.is_none(), "{arguments:?}: {long:?}");
    }
    let shown = succeeds(&["score", "--top", "3", "--sort", "entropy"]);
    assert!(shown.contains("... and 97 more"), "{shown}");
    refused(&["score", "--sort", "beauty"], &["--sort beauty", "no such column"]);
    refused(&["score", "--top", "3", "--out", "rows.csv"], &["--top", "table"]);
    let layers = succeeds(&["layers", "--images", "0", "--top", "4", "--sort", "influence"]);
    assert_eq!(layers.lines().filter(|line| line.ends_with('#')).count(), 4, "{layers}");
}

#[test]
fn completions_and_the_manual_come_out_of_the_grammar() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(succeeds(&["completions", shell]).contains("resume"), "{shell}");
    }
    let manual = succeeds(&["man"]);
    assert!(manual.contains(".TH influence") && manual.contains("\\-\\-resume"), "{manual}");
}
