//! Pictures of every supported kind, against the bytes that PIL reads from them.

use std::fs;
use std::path::{Path, PathBuf};

use influence_data::{Error, Listing, OnError, Recipe, Resize};

use crate::common::{Random, TestResult};

/// Height and width of the fixtures.
const SIZE: [usize; 2] = [18, 24];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A folder with these fixtures.
fn folder(names: &[&str]) -> std::io::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    for name in names {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap_or(folder.path()))?;
        fs::copy(fixture(Path::new(name).file_name().unwrap_or_default().to_str().unwrap_or("")), file)?;
    }
    Ok(folder)
}

/// Converts PIL's interleaved channels to planes.
fn planes(values: &[f64]) -> Vec<f64> {
    (0..3).flat_map(|channel| values.iter().skip(channel).step_by(3).copied()).collect()
}

fn furthest(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn pictures_are_what_pil_reads() -> TestResult {
    // Lossless formats are equal to the bit. JPEG decoders may round the transform differently, by
    // one or two levels.
    let level = 1.0 / 255.0;
    for (name, tolerance) in [
        ("plain.png", 0.0),
        ("grey.png", 0.0),
        ("palette.png", 0.0),
        ("alpha.png", 0.0),
        ("plain.webp", 0.0),
        ("plain.jpg", 2.5 * level),
        ("turned.jpg", 2.5 * level),
        ("cmyk.jpg", 3.5 * level),
    ] {
        let folder = folder(&[name])?;
        let (pictures, refused) =
            Listing::folder(folder.path())?.load(&[0], &Recipe::default(), OnError::Stop)?;
        assert!(refused.is_empty());
        assert_eq!(pictures.shape(), [3, SIZE[0], SIZE[1]], "{name}");
        let expected = fs::read(fixture(&format!("{name}.rgb")))?;
        let expected: Vec<f64> = expected.into_iter().map(|byte| f64::from(byte) / 255.0).collect();
        let off = furthest(&pictures.batch::<f64>(&[0]), &planes(&expected));
        assert!(off <= tolerance, "{name}: {} levels", off / level);
    }
    Ok(())
}

#[test]
fn sixteen_bits_are_kept() -> TestResult {
    let folder = folder(&["deep.png"])?;
    let (pictures, _) = Listing::folder(folder.path())?.load(&[0], &Recipe::default(), OnError::Stop)?;
    let bytes = fs::read(fixture("deep.png.rgb"))?;
    let words = bytes.as_chunks().0.iter().map(|pair| f64::from(u16::from_le_bytes(*pair)) / 65535.0);
    let found = pictures.batch::<f64>(&[0]);
    assert_eq!(found, planes(&words.collect::<Vec<_>>()));
    assert!(found.iter().any(|value| (value * 255.0).fract() > 0.1), "more than 8 bits");
    Ok(())
}

#[test]
fn sizes_are_changed_as_pil_does() -> TestResult {
    let folder = folder(&["plain.png"])?;
    let load = |recipe: Recipe| -> Result<_, Error> {
        Ok(Listing::folder(folder.path())?.load(&[0], &recipe, OnError::Stop)?.0)
    };
    let small = load(Recipe { resize: Some(Resize::Shorter(9)), ..Recipe::default() })?;
    assert_eq!(small.shape(), [3, 9, 12]);
    let expected: Vec<f64> =
        fs::read(fixture("small.rgb"))?.into_iter().map(|byte| f64::from(byte) / 255.0).collect();
    let off = furthest(&small.batch::<f64>(&[0]), &planes(&expected));
    assert!(off <= 1.5 / 255.0, "{} levels", off * 255.0);
    let middle = load(Recipe { crop: Some([5, 4]), ..Recipe::default() })?;
    assert_eq!(middle.shape(), [3, 5, 4]);
    // (18 - 5) / 2 rounds to the even 6, (24 - 4) / 2 is 10.
    let whole = load(Recipe::default())?.batch::<f64>(&[0]);
    let at = |row: usize, column: usize| whole[(6 + row) * SIZE[1] + 10 + column];
    let expected: Vec<f64> = (0..5).flat_map(|row| (0..4).map(move |column| at(row, column))).collect();
    assert_eq!(middle.batch::<f64>(&[0])[..20], expected);
    let grey = load(Recipe { grey: true, ..Recipe::default() })?;
    assert_eq!(grey.shape(), [1, SIZE[0], SIZE[1]]);
    let expected: Vec<u8> = fs::read(fixture("grey.png.rgb"))?.into_iter().step_by(3).collect();
    let expected: Vec<f64> = expected.into_iter().map(|byte| f64::from(byte) / 255.0).collect();
    assert_eq!(grey.batch::<f64>(&[0]), expected);
    Ok(())
}

#[test]
fn classes_are_folders_in_order_and_bad_pictures_are_named() -> TestResult {
    let folder =
        folder(&["b/plain.png", "a/deep.png", "a/cut.jpg", "c/cmyk.jpg", "c/one.png", "c/inner/plain.jpg"])?;
    fs::write(folder.path().join("c/note.txt"), "no picture")?;
    fs::write(folder.path().join("b/text.png"), "no picture")?;
    // Names come in the order of the folders. Three pictures are refused: cut short, not a picture,
    // and of another size than the first good one.
    let listing = Listing::folder(folder.path())?;
    assert!(listing.is_labelled());
    let all: Vec<usize> = (0..listing.len()).collect();
    let (pictures, refused) = listing.clone().load(&all, &Recipe::default(), OnError::Skip)?;
    assert_eq!(pictures.class_names(), ["a", "b", "c"]);
    let names: Vec<_> = all.iter().filter_map(|&index| pictures.file(index)).collect();
    assert_eq!(
        names,
        [
            "a/cut.jpg",
            "a/deep.png",
            "b/plain.png",
            "b/text.png",
            "c/cmyk.jpg",
            "c/one.png",
            "c/inner/plain.jpg"
        ]
    );
    let labels: Vec<_> = all.iter().filter_map(|&index| pictures.label(index)).collect();
    assert_eq!(labels, [0, 0, 1, 1, 2, 2, 2]);
    let found: Vec<_> = refused.iter().map(|refused| (refused.index, refused.name.as_str())).collect();
    assert_eq!(found, [(0, "a/cut.jpg"), (3, "b/text.png"), (5, "c/one.png")]);
    assert!(refused[2].why.contains("1 x 1 pixels, where a/deep.png has 18 x 24"), "{}", refused[2].why);
    let (resized, refused) = listing.clone().load(
        &all,
        &Recipe { resize: Some(Resize::To([32, 32])), ..Recipe::default() },
        OnError::Skip,
    )?;
    assert_eq!((resized.shape(), refused.len()), ([3, 32, 32], 3));
    assert!(refused[2].why.contains("16 times larger"), "{}", refused[2].why);
    match listing.load(&all, &Recipe::default(), OnError::Stop) {
        Err(Error::Picture { name, .. }) => assert_eq!(name, "a/cut.jpg"),
        other => panic!("{other:?}"),
    }
    Ok(())
}

#[test]
fn tables_give_labels_by_number_or_name() -> TestResult {
    let folder = folder(&["plain.png", "grey.png"])?;
    let rows = |labels: [&str; 2]| {
        [("plain.png", labels[0]), ("grey.png", labels[1])].map(|(a, b)| (a.to_owned(), b.to_owned()))
    };
    let labels = |rows: &[(String, String)]| -> Result<_, Error> {
        let listing = Listing::labelled(folder.path(), rows)?;
        let (pictures, _) = listing.load(&[0, 1], &Recipe::default(), OnError::Stop)?;
        Ok(([0, 1].map(|index| pictures.label(index)), pictures.class_names().to_vec()))
    };
    assert_eq!(labels(&rows(["7", "2"]))?, ([Some(7), Some(2)], vec![]));
    assert_eq!(labels(&rows(["cat", "7"]))?, ([Some(1), Some(0)], vec!["7".to_owned(), "cat".to_owned()]));
    let out = [("../secret.png".to_owned(), "0".to_owned())];
    let message = labels(&out).expect_err("a path that leads out").to_string();
    assert!(message.contains("leads out"), "{message}");
    let absent = [("gone.png".to_owned(), "0".to_owned())];
    let listing = Listing::labelled(folder.path(), &absent)?;
    let message = listing.load(&[0], &Recipe::default(), OnError::Stop).expect_err("no file").to_string();
    assert!(message.starts_with("gone.png: "), "{message}");
    Ok(())
}

#[test]
fn a_folder_without_pictures_says_what_is_looked_for() -> TestResult {
    let folder = tempfile::tempdir()?;
    let message = Listing::folder(folder.path()).expect_err("no pictures").to_string();
    assert!(message.contains(".png, .jpg, .jpeg or .webp"), "{message}");
    fs::create_dir(folder.path().join("class"))?;
    fs::copy(fixture("plain.png"), folder.path().join("stray.png"))?;
    let message = Listing::folder(folder.path()).expect_err("a stray").to_string();
    assert!(message.contains("stray.png") && message.contains("--labels"), "{message}");
    Ok(())
}

#[test]
fn a_picture_cut_anywhere_is_refused() -> TestResult {
    for name in ["plain.png", "plain.jpg", "cmyk.jpg", "turned.jpg", "plain.webp"] {
        let whole = fs::read(fixture(name))?;
        // A PNG may lack the checksum of its empty end chunk.
        let last = if name.ends_with("png") { 4 } else { 0 };
        let cut = (0..whole.len() - last).map(|length| (String::new(), whole[..length].to_vec(), None));
        let pictures = std::iter::once((name.to_owned(), whole.clone(), None)).chain(cut).collect::<Vec<_>>();
        let all: Vec<usize> = (0..pictures.len()).collect();
        let listing = Listing::from_encoded(name, pictures, vec![])?;
        let (_, refused) = listing.load(&all, &Recipe::default(), OnError::Skip)?;
        let found: Vec<usize> = refused.iter().map(|refused| refused.index).collect();
        assert_eq!(found, all[1..], "{name}");
    }
    Ok(())
}

#[test]
fn damaged_pictures_are_refused_or_read_and_no_more() -> TestResult {
    let mut random = Random(7);
    for name in ["plain.png", "palette.png", "deep.png", "plain.jpg", "cmyk.jpg", "turned.jpg", "plain.webp"]
    {
        let whole = fs::read(fixture(name))?;
        let cut = (0..whole.len()).step_by(7).map(|length| whole[..length].to_vec());
        let changed = (0..300).map(|_| {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                bytes[at] = random.below(256) as u8;
            }
            bytes
        });
        let damaged: Vec<_> = cut.chain(changed).map(|bytes| (String::new(), bytes, None)).collect();
        let all: Vec<usize> = (0..=damaged.len()).collect();
        let sound = (name.to_owned(), whole.clone(), None);
        let listing = Listing::from_encoded("damaged", [vec![sound], damaged].concat(), vec![])?;
        let (pictures, refused) = listing.load(&all, &Recipe::default(), OnError::Skip)?;
        assert_eq!(pictures.shape(), [3, SIZE[0], SIZE[1]]);
        assert!(refused.len() > 5 && !pictures.has(1), "{name}: {}", refused.len());
    }
    Ok(())
}
