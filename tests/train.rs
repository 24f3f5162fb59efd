//! `influence train`: weights from nothing, that every command reads. In builds with the feature
//! `train`.

use std::path::Path;
use std::process::{Command, Output};

fn influence(arguments: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    Command::new(env!("CARGO_BIN_EXE_influence")).args(arguments).current_dir(root).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(not(feature = "train"))]
#[test]
fn a_build_without_training_says_how_to_get_it() {
    let output = influence(&["train", "--network", "cnn", "--out", "w.safetensors"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--features train"), "{}", text(&output.stderr));
}

#[cfg(feature = "train")]
mod training {
    use std::fs;

    use tempfile::TempDir;

    use super::{influence, text};

    /// A small network on the embedded images.
    fn train(folder: &TempDir, name: &str, more: &[&str]) -> std::process::Output {
        let out = folder.path().join(name);
        let out = out.to_str().unwrap();
        let all = ["train", "--network", "cnn", "--width", "8", "--batch", "10", "--out", out];
        influence(&[&all[..], more].concat())
    }

    #[track_caller]
    fn trained(folder: &TempDir, name: &str, more: &[&str]) -> Vec<u8> {
        let output = train(folder, name, more);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(!folder.path().join(format!("{name}.training")).exists(), "checkpoints are taken away");
        fs::read(folder.path().join(name)).unwrap()
    }

    #[track_caller]
    fn refused(folder: &TempDir, name: &str, more: &[&str], says: &str) {
        let output = train(folder, name, more);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(says), "{}", text(&output.stderr));
    }

    #[test]
    fn trained_weights_are_read_and_know_the_images() {
        let folder = tempfile::tempdir().unwrap();
        let output = train(&folder, "w.safetensors", &["--epochs", "30", "--rate", "0.01", "--seed", "3"]);
        let words = text(&output.stderr);
        assert!(output.status.success(), "{words}");
        assert!(words.contains("epoch 30 of 30: loss"), "{words}");
        let weights = folder.path().join("w.safetensors");
        let scored = influence(&["score", "--weights", weights.to_str().unwrap(), "--out", "-", "--quiet"]);
        assert!(scored.status.success(), "{}", text(&scored.stderr));
        let rows = String::from_utf8(scored.stdout).unwrap();
        let right = rows.lines().skip(1).filter(|row| row.split(',').nth(1) == row.split(',').nth(2)).count();
        assert!(right > 60, "{right} of 100 embedded images, most of which it has seen");
    }

    #[test]
    fn a_seed_decides_the_weights() {
        let folder = tempfile::tempdir().unwrap();
        let run = |name: &str, seed: &str| {
            trained(&folder, name, &["--epochs", "1", "--seed", seed, "--threads", "1", "--quiet"])
        };
        let (first, again, other) =
            (run("a.safetensors", "1"), run("b.safetensors", "1"), run("c.safetensors", "2"));
        assert!(first == again, "the same seed");
        assert!(first != other, "another seed");
    }

    #[test]
    fn a_training_goes_on_as_itself_alone() {
        let folder = tempfile::tempdir().unwrap();
        // What a stopped training leaves: its settings, and no epoch yet.
        let left = folder.path().join("w.safetensors.training");
        let output = train(&folder, "w.safetensors", &["--epochs", "1"]);
        assert!(output.status.success());
        fs::create_dir_all(&left).unwrap();
        fs::write(left.join("settings.json"), r#"{"network": "cnn of width 8"}"#).unwrap();
        refused(&folder, "w.safetensors", &["--epochs", "1"], "add --resume");
        refused(&folder, "w.safetensors", &["--epochs", "1", "--resume"], "another setting");
    }

    #[test]
    fn what_cannot_be_trained_is_said() {
        let folder = tempfile::tempdir().unwrap();
        refused(&folder, "w.safetensors", &["--epochs", "0"], "at least 1");
        refused(&folder, "w.safetensors", &["--rate", "2"], "--rate 2");
        refused(&folder, "w.pt", &[], ".safetensors");
        refused(&folder, "w.safetensors", &["--images", "0..1"], "at least 2 images");
    }
}
