//! The program as a user sees it: what it prints, what it writes, and its error messages.

#![expect(clippy::print_stdout, reason = "a skipped engine says so")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::{Golden, root};

/// The columns of a row in order; scripts depend on them.
const COLUMNS: &str = "index,label,predicted,probability,objective,perturbation,group,influence,log10_influence,rank,bound,\
                       reach,jacobian_norm,odds,entropy,margin,cross_entropy,ambiguous";

fn influence(arguments: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_influence"));
    // Without it graphics drivers print warnings.
    program.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    program.args(arguments).current_dir(root()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs `influence score` on a few embedded images with output to a file, and returns its text.
fn scored(arguments: &[&str], name: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let images: &[&str] = if arguments.contains(&"--images") { &[] } else { &["--images", "0..3"] };
    let all = [&["score", "--out", path.to_str().unwrap()], images, arguments].concat();
    let output = influence(&all);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing but the result is left in the folder"
    );
    fs::read_to_string(path).unwrap()
}

#[test]
fn alone_it_does_the_main_job_on_the_embedded_sample() {
    let output = influence(&[]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    assert!(shown.contains("resnet50 of width 8") && shown.contains("MNIST test, first 100"), "{shown}");
    assert!(shown.contains("100 of 100 values are saturated"), "{shown}");
    let rows: Vec<f64> = shown
        .lines()
        .filter_map(|line| {
            let cells: Vec<_> = line.split_whitespace().collect();
            cells.first()?.parse::<usize>().ok().and(cells.get(4)?.parse().ok())
        })
        .collect();
    assert_eq!(rows.len(), 8);
    assert!(rows.is_sorted_by(|a, b| a >= b), "most sensitive first: {rows:?}");
}

/// The output fits one screen and shows, for families and windows, reaches below 1, which the
/// confidence does not give.
#[test]
fn the_first_screen_fits_and_shows_more_than_the_confidence() {
    let shown = text(&influence(&[]).stdout);
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines.len() <= 40 && lines.iter().all(|line| line.chars().count() <= 80), "{shown}");
    let reach = |name: &str| -> f64 {
        let line = lines.iter().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().next().unwrap().parse().unwrap()
    };
    let rotation = scored(&["--perturb", "family:rotation", "--images", "0..100", "--quiet"], "a.csv");
    let mut reaches: Vec<f64> =
        rotation.lines().skip(1).map(|line| line.split(',').nth(11).unwrap().parse().unwrap()).collect();
    reaches.sort_by(f64::total_cmp);
    assert!((reach("rotation") - (reaches[49] + reaches[50]) / 2.0).abs() < 1e-4, "{shown}");
    assert!(reach("windows of 1 x 1 pixels") < 0.9 && reach("windows of 3 x 3 pixels") > 0.9, "{shown}");
}

/// The sentence that compares influence with the confidence depends on reach and order, not only on
/// saturation.
#[test]
fn a_family_that_goes_with_the_confidence_is_not_called_more_than_it() {
    let said = |arguments: &[&str]| {
        let shown = text(&influence(&[&["score", "--top", "1"], arguments].concat()).stdout);
        shown.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let affine = said(&["--perturb", "family:affine"]);
    assert!(
        affine.contains("100 % have a reach above 0.9; rank correlation with the odds 1.0000"),
        "{affine}"
    );
    assert!(affine.contains("in effect they are functions of the probability."), "{affine}");
    let rotation = said(&["--perturb", "family:rotation"]);
    assert!(rotation.contains("None of 100 values is saturated. 39 % have a reach above 0.9"), "{rotation}");
    assert!(rotation.contains("they order the images nearly as the confidence does."), "{rotation}");
}

#[test]
fn csv_has_the_fixed_columns_and_the_reference_values() {
    let csv = scored(&["--precision", "f64", "--quiet"], "scores.csv");
    let mut lines = csv.lines();
    assert!(lines.next().unwrap().starts_with(COLUMNS));
    let golden = Golden::open(&root().join("tests/golden/resnet50w8-mnist.safetensors"));
    let (exact, labels) = (golden.floats("fi_exact"), golden.integers("labels"));
    for (index, line) in lines.enumerate() {
        let cells: Vec<_> = line.split(',').collect();
        assert_eq!(cells[0], index.to_string());
        assert_eq!(cells[1], labels[index].to_string());
        assert_eq!(&cells[4..7], ["label", "input", ""]);
        let value: f64 = cells[7].parse().unwrap();
        assert!((value / exact[index] - 1.0).abs() < 1e-8, "{value} {}", exact[index]);
        assert!((cells[8].parse::<f64>().unwrap() - value.log10()).abs() < 1e-12);
        assert_eq!((cells[9], cells[17]), ("9", "false"));
    }
}

#[test]
fn json_lines_are_the_same_numbers_as_csv() {
    let (csv, json) = (scored(&["--quiet"], "scores.csv"), scored(&["--quiet"], "scores.jsonl"));
    let header: Vec<_> = csv.lines().next().unwrap().split(',').collect();
    assert_eq!(json.lines().count(), 3);
    for (row, line) in csv.lines().skip(1).zip(json.lines()) {
        // Compared as text, because a JSON parser may round the last digit.
        let quoted = [
            "objective",
            "perturbation",
            "group",
            "filter",
            "network",
            "weights",
            "dataset",
            "split",
            "precision",
            "engine",
        ];
        let cells = header.iter().zip(row.split(',')).map(|(name, cell)| {
            if quoted.contains(name) {
                format!("\"{name}\":\"{cell}\"")
            } else if cell.is_empty() {
                format!("\"{name}\":null")
            } else {
                format!("\"{name}\":{cell}")
            }
        });
        assert_eq!(line, format!("{{{}}}", cells.collect::<Vec<_>>().join(",")));
    }
}

#[test]
fn results_do_not_depend_on_batch_threads_or_order() {
    let usual = scored(&["--quiet"], "a.csv");
    for arguments in [
        ["--batch", "1"],
        ["--batch", "2"],
        ["--threads", "1"],
        ["--threads", "3"],
        ["--threads", "7"],
        ["--memory", "20MiB"],
    ] {
        let other = scored(&[&["--quiet"][..], &arguments].concat(), "b.csv");
        assert_eq!(usual, other, "{arguments:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.csv");
    let reversed = influence(&["score", "--images", "2,1,0", "--quiet", "--out", path.to_str().unwrap()]);
    assert!(reversed.status.success());
    let reversed = fs::read_to_string(path).unwrap();
    let mut rows: Vec<_> = reversed.lines().skip(1).collect();
    rows.reverse();
    assert_eq!(rows, usual.lines().skip(1).collect::<Vec<_>>());
}

#[test]
fn objectives_and_filters_are_distinguished() {
    let column = |csv: &str, at: usize| -> Vec<String> {
        csv.lines().skip(1).map(|line| line.split(',').nth(at).unwrap().to_owned()).collect()
    };
    let class = scored(&["--objective", "class:3", "--quiet"], "a.csv");
    assert_eq!(column(&class, 4), ["class:3"; 3]);
    let predicted = scored(&["--objective", "predicted", "--quiet"], "a.csv");
    assert_eq!(column(&predicted, 4), ["predicted"; 3]);
    let (exact, paper) = (scored(&["--quiet"], "a.csv"), scored(&["--filter", "paper", "--quiet"], "a.csv"));
    assert_ne!(column(&exact, 7), column(&paper, 7));
    assert_eq!(column(&exact, 10), column(&paper, 10), "the bound is the exact one for every filter");
}

/// Entropy and margin against their closed forms at full rank, from the columns of the same row.
#[test]
fn entropy_and_margin_have_the_columns_of_the_predicted_class() {
    let cells = |arguments: &[&str]| -> Vec<Vec<String>> {
        let csv = scored(&[&["--precision", "f64", "--quiet"], arguments].concat(), "a.csv");
        csv.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
    };
    let number = |row: &[String], at: usize| row[at].parse::<f64>().unwrap();
    let predicted = cells(&["--objective", "predicted"]);
    for objective in ["entropy", "margin"] {
        for (row, known) in cells(&["--objective", objective]).iter().zip(&predicted) {
            assert_eq!(row[4], objective);
            // Probability and the classical measures, except |df|, are those of the predicted
            // class.
            for at in [2, 3, 13, 14, 15, 16] {
                assert_eq!(row[at], known[at], "{objective}, column {at}");
            }
            assert_eq!((row[9].as_str(), row[11].as_str(), row[17].as_str()), ("9", "1.0", "false"));
            assert_eq!(row[7], row[10], "saturated");
            if objective == "margin" {
                let (p, margin) = (number(row, 3), number(row, 15));
                let expected = (1.0 + margin.exp()) / p;
                assert!((number(row, 7) / expected - 1.0).abs() < 1e-10);
            }
        }
        let damped = cells(&["--objective", objective, "--filter", "tikhonov:100"]);
        assert!(damped.iter().all(|row| number(row, 11) < 1.0));
    }
    let output = influence(&["score", "--images", "0..3", "--objective", "margin"]);
    let shown = text(&output.stdout);
    assert!(shown.contains("f = margin of the prediction"), "{shown}");
    assert!(shown.contains("3 of 3 values are saturated: influence = 1 / P of the likeliest"), "{shown}");
}

/// Runs with wrong arguments; the program must explain why, exit with code 2, and leave no file.
fn refused(arguments: &[&str], says: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.csv");
    let mut all = vec!["score", "--out", path.to_str().unwrap()];
    all.extend(arguments);
    let output = influence(&all);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    assert!(!message.contains("panicked"), "{arguments:?}: {message}");
    for part in says {
        assert!(message.contains(part), "{arguments:?}: {part:?} is not in {message:?}");
    }
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{arguments:?} left a file");
}

#[test]
fn wrong_words_are_refused_with_the_remedy() {
    refused(&["--images", "8..3"], &["images", "8..3"]);
    refused(&["--images", "90..101"], &["100"]);
    refused(&["--images", "x"], &["images", "x"]);
    refused(&["--images", "-1"], &["images", "-1"]);
    refused(&["--objective", "class:10"], &["10 classes", "0 to 9"]);
    refused(&["--objective", "class:x"], &["class:3"]);
    refused(&["--objective", "loss"], &["loss", "label, predicted, class:N, entropy or margin"]);
    refused(&["--objective", "entropy:3"], &["entropy:3"]);
    refused(&["--objective", "margin", "--filter", "paper"], &["margin", "-log P", "take exact or tikhonov"]);
    refused(&["--objective", "entropy", "--filter", "paper:1e-8"], &["entropy", "take exact or tikhonov"]);
    refused(&["--filter", "paper:zero"], &["paper:zero", "exact[:TOL]"]);
    refused(&["--filter", "tikhonov"], &["tikhonov"]);
    refused(&["--filter", "tikhonov:-1"], &["lambda"]);
    refused(&["--filter", "exact:nan"], &["tolerance"]);
    refused(&["--precision", "f16"], &["f16", "f32, f64"]);
    refused(&["--engine", "tpu"], &["tpu", "flex, ndarray, wgpu[:cpu|:N]"]);
    refused(&["--engine", "wgpu:gpu"], &["wgpu:gpu", "wgpu[:cpu|:N]"]);
    refused(&["--memory", "2 pounds"], &["--memory", "2 pounds", "2GiB"]);
    refused(&["--memory", "100KiB"], &["one sample takes", "may take 100KiB", "give at least"]);
    refused(&["--direction", "d.safetensors"], &["--perturb parameters"]);
    refused(&["--perturb", "parameters", "--direction", "d.safetensors"], &["leave out --out"]);
    refused(&["--perturb", "weather"], &["weather", "input"]);
    refused(&["--batch", "0"], &["--batch 0"]);
    refused(&["--threads", "0"], &["--threads 0"]);
    refused(&["--threads", "1000000"], &["cores", "at most"]);
    refused(&["--network", "resnet51"], &["resnet51", "resnet50"]);
    refused(&["--network", "densenet121"], &["--weights"]);
    refused(&["--dataset", "imagenet"], &["imagenet", "mnist", "cifar10"]);
    refused(&["--dataset", "mnist"], &["--data DIR"]);
    refused(&["--split", "validation"], &["validation", "train", "test"]);
    refused(&["--split", "train"], &["embedded"]);
    refused(&["--frobnicate"], &["--frobnicate"]);
}

/// If the build or the machine lacks an engine, the message names it and the remedy.
#[test]
fn missing_engines_are_named() {
    for (engine, built) in [
        ("ndarray", cfg!(feature = "ndarray")),
        ("wgpu:99", cfg!(feature = "wgpu")),
        ("vulkan:99", cfg!(feature = "vulkan")),
        ("cuda:99", cfg!(feature = "cuda")),
    ] {
        let feature = engine.trim_end_matches(":99");
        if !built {
            refused(&["--engine", engine], &[&format!("--features {feature}"), "--engine cpu"]);
        } else if engine != feature {
            refused(&["--engine", engine], &["this machine has", "--engine cpu"]);
        }
    }
}

/// Compares exact influence, ranks and `tikhonov:100` in f32 with float64 references, on every
/// engine that this build and machine have.
#[test]
fn engines_give_the_reference_values() {
    let golden = Golden::open(&root().join("tests/golden/resnet50w8-mnist.safetensors"));
    let damped: Vec<f64> = golden.floats("fi_tikhonov").chunks(3).map(|row| row[1]).collect();
    let (exact, ranks) = (golden.floats("fi_exact"), golden.ranks("rank_exact"));
    for engine in ["cpu", "flex", "ndarray", "wgpu:cpu"] {
        let there = influence(&["score", "--images", "0..1", "--engine", engine, "--out", "-"]);
        if !there.status.success() {
            let message = text(&there.stderr);
            assert!(there.status.code() == Some(2) && message.contains("--engine cpu"), "{message}");
            println!("skipped: {message}");
            continue;
        }
        assert!(there.stderr.is_empty(), "{engine}: {}", text(&there.stderr));
        for (filter, expected, tolerance) in [("exact", &exact, 1e-4), ("tikhonov:100", &damped, 1e-3)] {
            let csv = scored(&["--quiet", "--engine", engine, "--filter", filter], "a.csv");
            for (index, line) in csv.lines().skip(1).enumerate() {
                let cells: Vec<_> = line.split(',').collect();
                let value: f64 = cells[7].parse().unwrap();
                assert!((value / expected[index] - 1.0).abs() < tolerance, "{engine}, {filter}: {value}");
                assert_eq!(cells[9], ranks[index].to_string(), "{engine}");
            }
        }
    }
}

#[test]
fn missing_and_broken_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| -> String {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let weights = fs::read(root().join("crates/data/sample/resnet50w8-mnist.safetensors")).unwrap();
    let network = ["--network", "resnet50", "--width", "8", "--weights"];
    let with = |path: &str| -> Vec<String> {
        network.iter().map(ToString::to_string).chain([path.to_owned()]).collect()
    };
    let refused_weights = |path: &str, says: &[&str]| {
        let arguments = with(path);
        refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), says);
    };
    refused_weights("no-such-file.safetensors", &["no-such-file.safetensors"]);
    refused_weights(&file("cut.safetensors", &weights[..weights.len() - 1000]), &["cut.safetensors", "byte"]);
    refused_weights(&file("text.safetensors", b"these are no weights at all"), &["text.safetensors"]);
    refused_weights(&file("empty.safetensors", b""), &["empty.safetensors"]);
    refused_weights(&file("nan.safetensors", &with_nan(&weights)), &["nan.safetensors", "NaN", "fc.bias"]);
    refused_weights(&file("key.safetensors", &with_misspelt_key(&weights)), &["fc.bias", "fc.bjas"]);
    refused(&["--weights", &file("w8.safetensors", &weights), "--network", "densenet121"], &["resnet50"]);
    refused(&["--dataset", "mnist", "--data", folder.path().to_str().unwrap()], &["t10k-images-idx3-ubyte"]);
}

#[test]
fn weights_of_pytorch_are_read_and_whole_models_are_refused() {
    let fixture =
        |name: &str| root().join("crates/zoo/tests/fixtures").join(name).to_str().unwrap().to_owned();
    refused(
        &["--weights", &fixture("model.pt")],
        &["model.pt", "Sequential", "torch.save(model.state_dict()"],
    );
    // The file is read and its network recognised; it is refused only because it has three classes.
    for name in ["cnn.pt", "cnn-nested.pth", "cnn-before-1.6.pt"] {
        refused(&["--weights", &fixture(name)], &[name, "cnn", "3 classes, not 10"]);
    }
}

/// The weights with a NaN as the first element of fc.bias.
fn with_nan(weights: &[u8]) -> Vec<u8> {
    let mut bytes = weights.to_vec();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let start = header + json["fc.bias"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[start..start + 2].copy_from_slice(&0x7e00_u16.to_le_bytes());
    bytes
}

/// The weights with one key misspelt, with the same number of letters.
fn with_misspelt_key(weights: &[u8]) -> Vec<u8> {
    let mut bytes = weights.to_vec();
    let at = bytes.windows(9).position(|window| window == b"\"fc.bias\"").unwrap();
    bytes[at..at + 9].copy_from_slice(b"\"fc.bjas\"");
    bytes
}

/// Writes images and labels under MNIST's official file names.
fn mnist_folder(folder: &Path, images: &[u8], labels: &[u8]) -> String {
    fs::write(folder.join("t10k-images-idx3-ubyte"), images).unwrap();
    fs::write(folder.join("t10k-labels-idx1-ubyte"), labels).unwrap();
    folder.to_str().unwrap().to_owned()
}

#[test]
fn data_sets_that_do_not_fit_are_reported() {
    let sample = root().join("crates/data/sample");
    let images = fs::read(sample.join("t10k-images-idx3-ubyte")).unwrap();
    let labels = fs::read(sample.join("t10k-labels-idx1-ubyte")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut fewer = labels[..labels.len() - 1].to_vec();
    fewer[4..8].copy_from_slice(&99_u32.to_be_bytes());
    let path = mnist_folder(folder.path(), &images, &fewer);
    refused(&["--dataset", "mnist", "--data", &path], &["99", "100"]);
    let path = mnist_folder(folder.path(), &images[..images.len() - 1], &labels);
    refused(&["--dataset", "mnist", "--data", &path], &["t10k-images-idx3-ubyte", "offset"]);
    let mut high = labels.clone();
    high[8 + 41] = 10;
    let path = mnist_folder(folder.path(), &images, &high);
    refused(&["--dataset", "mnist", "--data", &path], &["t10k-labels-idx1-ubyte", "10"]);
    let path = mnist_folder(folder.path(), &images, &labels);
    let whole = scored(&["--dataset", "mnist", "--data", &path, "--quiet"], "a.csv");
    let named = scored(&["--quiet"], "b.csv").replace(",embedded,embedded,", ",embedded,mnist,");
    assert_eq!(whole, named, "the embedded sample is these files");
}

#[test]
fn places_that_cannot_be_written_are_refused_before_anything_runs() {
    let output = influence(&["score", "--out", "no/such/folder/a.csv"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no/such/folder"));
    let output = influence(&["score", "--out", "scores.txt"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains(".csv, .jsonl or .parquet"));
}

#[cfg(unix)]
#[test]
fn results_keep_the_mode_and_the_links_of_an_older_file() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let (target, link) = (folder.path().join("target.csv"), folder.path().join("link.csv"));
    fs::write(&target, "old").unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&target, &link).unwrap();
    let output = influence(&["score", "--images", "0..1", "--quiet", "--out", link.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read_to_string(&target).unwrap().starts_with("index,"));
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&target, fs::Permissions::from_mode(0o400)).unwrap();
    let output = influence(&["score", "--images", "0..1", "--quiet", "--out", link.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("may not be written"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_report_of_how_the_weights_were_read_comes_with_a_file_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    let output = influence(&["score", "--images", "0..1", "--out", path.to_str().unwrap()]);
    let shown = text(&output.stdout);
    assert!(shown.contains("320 tensors") && shown.contains("F16") && shown.contains("1 rows in"), "{shown}");
}

#[test]
fn help_and_version_are_no_errors() {
    for arguments in [&["--help"][..], &["score", "--help"], &["--version"]] {
        let output = influence(arguments);
        assert!(output.status.success(), "{arguments:?}");
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn a_merged_tail_has_bounds_beside_the_value() {
    let merged = scored(&["--images", "0..40", "--tail", "0.01", "--objective", "label"], "a.csv");
    let whole = scored(&["--images", "0..40", "--objective", "label"], "a.csv");
    let header: Vec<&str> = merged.lines().next().unwrap().split(',').collect();
    let column = |name: &str| header.iter().position(|found| *found == name).unwrap();
    assert_eq!(header.last(), Some(&"tail"));
    let number = |row: &str, name: &str| row.split(',').nth(column(name)).unwrap().parse::<f64>().unwrap();
    let mut some = 0;
    for (row, all) in merged.lines().zip(whole.lines()).skip(1) {
        let (value, bound) = (number(row, "influence"), number(row, "bound"));
        assert!(number(all, "influence") <= value * 1.0001 && value <= bound * 1.0001, "{row}");
        assert_eq!(number(all, "entropy"), number(row, "entropy"), "{row}");
        let classes = row.split(',').nth(column("merged_classes")).unwrap();
        if classes.is_empty() {
            continue;
        }
        some += 1;
        assert!((2..10).contains(&classes.parse::<usize>().unwrap()), "{row}");
        assert!(number(row, "merged_probability") <= 0.01, "{row}");
        assert!(number(row, "at_least") <= number(all, "influence") * 1.0001, "{row}");
    }
    assert!(some > 30, "most images have classes that carry little: {some}");
    for (arguments, says) in [
        (&["score", "--tail", "1.5"][..], "--tail 1.5"),
        (&["score", "--tail", "0.01", "--filter", "paper"], "no bounds where classes are merged"),
        (&["score", "--tail", "0.01", "--objective", "entropy"], "every class"),
        (&["outliers", "--tail", "0.01", "--filters", "paper:1e-3"], "leave one out"),
        (&["jacobian", "--tail", "0.01", "--out", "J.safetensors"], "a row for every class"),
    ] {
        let output = influence(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(says), "{}", text(&output.stderr));
    }
}

#[test]
fn help_has_no_flag_that_the_command_refuses() {
    for (command, absent) in [
        ("compare", &["--shard"][..]),
        ("outliers", &["--shard", "--objective"]),
        ("jacobian", &["--shard", "--tail", "--filter"]),
        ("check", &["--shard", "--tail", "--filter"]),
    ] {
        let help = text(&influence(&[command, "--help"]).stdout);
        let options: Vec<&str> = help.lines().map(str::trim_start).collect();
        for flag in absent {
            let listed = options.iter().any(|line| line.starts_with(&format!("{flag} <")));
            assert!(!listed, "{command} lists {flag}");
        }
        assert!(options.iter().any(|line| line.starts_with("--network <")), "{help}");
    }
}
