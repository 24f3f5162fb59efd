//! `influence layers` and `influence score --perturb` with parameters, run as a user runs them.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::root;
use safetensors::SafeTensors;

fn influence(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_influence")).args(arguments).current_dir(root()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn shown(arguments: &[&str]) -> String {
    let output = influence(arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn refused(arguments: &[&str], words: &[&str]) {
    let output = influence(arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(words.iter().all(|word| message.contains(word)), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

/// The cells of a CSV file that contains no quotes.
fn cells(path: &Path) -> Vec<Vec<String>> {
    let row = |line: &str| line.split(',').map(str::to_owned).collect();
    fs::read_to_string(path).unwrap().lines().map(row).collect()
}

const RELATIVE: [&str; 4] = ["--images", "0..3", "--filter", "tikhonov:1:relative"];

#[test]
fn a_table_and_a_plot_are_what_a_person_gets() {
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("layers.png");
    let shown = shown(&[&["layers", "--plot", plot.to_str().unwrap()], &RELATIVE[..]].concat());
    // Sentences are wrapped at the terminal width; join the lines before searching.
    let said = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        said.starts_with("Influence of each layer, f = -log P(label), filter tikhonov:1:relative, 3 images"),
        "{shown}"
    );
    let rows: Vec<&str> = shown.lines().filter(|line| line.contains('#')).collect();
    assert!(
        rows.len() > 100 && rows[0].contains(" conv1 ") && rows[rows.len() - 1].contains(" fc "),
        "{shown}"
    );
    assert!(said.contains("107 layers") && said.contains("most influential over 3 images"), "{shown}");
    let picture = fs::read(&plot).unwrap();
    let reader = png::Decoder::new(std::io::Cursor::new(picture)).read_info().unwrap();
    assert!(reader.info().width > 400 && reader.info().height > 250);
    let exact = influence(&["layers", "--images", "0"]);
    assert!(text(&exact.stdout).contains("all saturated in"), "{}", text(&exact.stdout));
}

#[test]
fn files_have_a_row_per_layer_in_the_order_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("layers.csv");
    let run = |order: &str| {
        let arguments = ["layers", "--sort", order, "--out", path.to_str().unwrap()];
        assert!(shown(&[&arguments[..], &RELATIVE[..]].concat()).contains("layers.csv"));
        cells(&path)
    };
    let by_depth = run("depth");
    let head = "network,group,depth,parameters,images,objective,filter,influence_q1,influence_median,influence_q3,saturated,\
                reach_median,rank_median,jacobian_norm_median,weights,dataset,split,precision,engine,near_bound,\
                odds_correlation";
    assert_eq!(by_depth[0].join(","), head);
    let golden = common::cases().remove(0).golden.layers();
    assert_eq!(by_depth[1..].iter().map(|row| row[1].clone()).collect::<Vec<_>>(), golden);
    assert!(by_depth[1..].iter().enumerate().all(|(at, row)| row[2] == at.to_string() && row[4] == "3"));
    assert_eq!((by_depth[1][3].as_str(), by_depth[107][3].as_str()), ("80", "10250"));
    let by_influence = run("influence");
    let medians: Vec<f64> = by_influence[1..].iter().map(|row| row[8].parse().unwrap()).collect();
    assert!(medians.is_sorted_by(|a, b| a >= b), "{medians:?}");
    let mut rows = by_influence[1..].to_vec();
    rows.sort_by_key(|row| row[2].parse::<usize>().unwrap());
    assert_eq!(rows, by_depth[1..]);
}

#[test]
fn two_networks_stand_side_by_side() {
    let weights = "crates/data/sample/resnet50w8-mnist.safetensors";
    let shown = shown(&[&["layers", "--against", weights, "--sort", "influence"], &RELATIVE[..]].concat());
    assert_eq!(shown.matches("Network: ").count(), 2, "{shown}");
    let row = shown.lines().find(|line| line.contains(" fc ")).unwrap();
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(words.len(), 8, "{row}");
    assert_eq!(words[2..5], words[5..8], "the same network against itself");
}

#[test]
fn scores_have_a_row_per_image_and_group() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scores.csv");
    let run = |what: &str| {
        let arguments = ["score", "--perturb", what, "--out", path.to_str().unwrap()];
        shown(&[&arguments[..], &RELATIVE[..]].concat());
        let rows = cells(&path);
        assert!(rows[1..].iter().all(|row| row[5] == what));
        rows[1..].iter().map(|row| (row[0].clone(), row[6].clone())).collect::<Vec<_>>()
    };
    for (what, groups, last) in
        [("parameters", 1, ""), ("layers", 107, "fc"), ("tensors", 214, "fc.bias"), ("both", 1, "")]
    {
        let found = run(what);
        assert_eq!(found.len(), 3 * groups, "{what}");
        let expected = |at: usize| (at / groups).to_string();
        assert!(found.iter().enumerate().all(|(at, (index, _))| *index == expected(at)), "{what}");
        assert_eq!(found[groups - 1].1, last);
    }
}

#[test]
fn the_direction_has_the_network_s_names_and_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("worst.safetensors");
    let arguments =
        ["score", "--perturb", "parameters", "--images", "7", "--direction", path.to_str().unwrap()];
    assert!(shown(&arguments).contains("214 tensors"));
    let (found, weights) = (fs::read(&path).unwrap(), fs::read(&common::cases()[0].weights).unwrap());
    let [found, weights] = [&found, &weights].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    assert_eq!(found.len(), 214);
    for (name, view) in found.iter() {
        assert_eq!(view.shape(), weights.tensor(name).unwrap().shape(), "{name}");
    }
    let squares = |bytes: &[u8]| {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).powi(2)).sum::<f32>()
    };
    let length: f32 = found.iter().map(|(_, view)| squares(view.data())).sum();
    assert!((length - 1.0).abs() < 1e-4, "{length}");
}

#[test]
fn wrong_words_are_refused_with_the_right_ones() {
    refused(&["layers", "--sort", "name"], &["--sort name", "depth or influence"]);
    refused(&["layers", "--plot", "plot.pdf"], &["--plot plot.pdf", ".png or .svg"]);
    refused(&["layers", "--plot", "/nowhere/plot.png"], &["--plot", "no folder /nowhere"]);
    refused(&["layers", "--filter", "paper:relative"], &["only tikhonov has a budget"]);
    refused(&["score", "--filter", "tikhonov:1:relative"], &["relative", "perturb parameters"]);
    refused(&["score", "--perturb", "layer"], &["--perturb layer", "layers"]);
    refused(&["score", "--direction", "d.safetensors"], &["--direction", "--perturb parameters"]);
    let direction = ["score", "--perturb", "parameters", "--direction"];
    refused(&[&direction[..], &["d.pt"]].concat(), &["d.pt", ".safetensors"]);
    refused(&[&direction[..], &["d.safetensors", "--images", "0..2"]].concat(), &["2 images", "--images 7"]);
    refused(&["layers", "--against", "nowhere.safetensors"], &["nowhere.safetensors"]);
}
