//! Faults of IDX files, each named by file and byte.

use crate::common::*;
use influence_data::{Dataset, DatasetKind, Error, Split};

#[test]
fn whole_files_are_read() -> TestResult {
    let set = mnist(&images(12), &labels(12))??;
    assert_eq!((set.name(), set.len(), set.shape(), set.classes()), ("MNIST test", 12, [1, 4, 3], 10));
    assert_eq!((set.label(11), set.image(1)), (1, &pixels(24)[12..]));
    assert_eq!(set.class_names()[9], "9");
    Ok(())
}

#[test]
fn every_name_in_use_is_found_and_gzip_recognised_by_bytes() -> TestResult {
    let plain = mnist(&images(5), &labels(5))??;
    let (packed_images, packed_labels) = (gzip(&images(5))?, gzip(&labels(5))?);
    let pairs = [
        ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
        ("t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte.gz"),
        ("t10k-images.idx3-ubyte.gz", "t10k-labels.idx1-ubyte"),
    ];
    for (images, labels) in pairs {
        let folder = folder(&[(images, &packed_images), (labels, &packed_labels)])?;
        assert_eq!(open_mnist(folder.path())?, plain, "{images}");
    }
    let both = folder(&[
        (IMAGES, &images(5)),
        (LABELS, &labels(5)),
        ("t10k-images-idx3-ubyte.gz", b"never looked at"),
    ])?;
    assert_eq!(open_mnist(both.path())?, plain);
    Ok(())
}

#[test]
fn large_gzip_is_put_together_from_its_chunks() -> TestResult {
    let (images, labels) = (idx(&[300, 28, 28], &pixels(300 * 784)), labels(300));
    let plain = mnist(&images, &labels)??;
    assert_eq!(mnist(&gzip(&images)?, &gzip(&labels)?)??, plain);
    Ok(())
}

#[test]
fn every_truncation_is_reported() -> TestResult {
    let (images, labels) = (images(300), labels(300));
    for cut in cuts(images.len()) {
        assert_corrupt(mnist(&images[..cut], &labels)?, IMAGES, Some(cut as u64), &["image"]);
    }
    for cut in cuts(labels.len()) {
        assert_corrupt(mnist(&images, &labels[..cut])?, LABELS, Some(cut as u64), &["label"]);
    }
    assert_corrupt(
        mnist(&images[..16 + 12 * 7 + 5], &labels)?,
        IMAGES,
        None,
        &["300 images of 4 x 3", ": 7 images"],
    );
    Ok(())
}

#[test]
fn every_truncation_of_gzip_is_reported() -> TestResult {
    let (packed_images, packed_labels) = (gzip(&images(300))?, gzip(&labels(300))?);
    for cut in cuts(packed_images.len()) {
        let found = mnist(&packed_images[..cut], &packed_labels)?;
        let word = if cut < 2 { "image" } else { "cut short" };
        assert_corrupt(found, IMAGES, None, &[word]);
    }
    let noise = noise_of(8 * 12);
    let packed = gzip(&idx(&[8, 4, 3], &noise))?;
    let message = mnist(&packed[..packed.len() - 8 - 30], &packed_labels)?.map_err(|error| error.to_string());
    assert!(message.as_ref().is_err_and(|text| text.contains("images of 8")), "{message:?}");
    Ok(())
}

/// Bytes that do not compress.
fn noise_of(count: usize) -> Vec<u8> {
    let mut random = Random(7);
    (0..count).map(|_| random.below(256) as u8).collect()
}

#[test]
fn every_change_of_a_header_byte_is_reported() -> TestResult {
    let (images, labels) = (images(5), labels(5));
    for (at, value) in (0..16).flat_map(|at| (0..=255).map(move |value| (at, value))) {
        let (mut images, mut labels) = (images.clone(), labels.clone());
        if images[at] != value {
            images[at] = value;
            assert_corrupt(mnist(&images, &labels)?, IMAGES, None, &[]);
        }
        if at < 8 && labels[at] != value {
            labels[at] = value;
            let whole = crate::common::images(5);
            assert_corrupt(mnist(&whole, &labels)?, LABELS, None, &[]);
        }
    }
    Ok(())
}

#[test]
fn extreme_dimensions_are_reported() -> TestResult {
    let extremes = [0, 1, u32::MAX];
    for (n, h, w) in
        extremes.iter().flat_map(|&n| extremes.iter().flat_map(move |&h| extremes.map(|w| (n, h, w))))
    {
        for pack in [false, true] {
            let images = idx(&[n, h, w], &pixels(60));
            let images = if pack { gzip(&images)? } else { images };
            assert_corrupt(mnist(&images, &labels(5))?, IMAGES, None, &["image"]);
        }
    }
    let dims = |dims: &[u32]| mnist(&idx(dims, &[0; 60]), &labels(5));
    assert_corrupt(dims(&[0, 28, 28])?, IMAGES, Some(4), &["0 images of 28 x 28"]);
    assert_corrupt(dims(&[5, 28, 0])?, IMAGES, Some(12), &["5 images of 28 x 0"]);
    assert_corrupt(
        dims(&[u32::MAX; 3])?,
        IMAGES,
        Some(4),
        &["4 294 967 295 images", "more than any file holds"],
    );
    assert_corrupt(
        mnist(&images(5), &idx(&[u32::MAX], &[0; 5]))?,
        LABELS,
        Some(13),
        &["4 294 967 295 labels", "5 labels"],
    );
    Ok(())
}

#[test]
fn gzip_that_promises_too_much_is_refused() -> TestResult {
    let images = gzip(&idx(&[60_001, 28, 28], &[0; 100]))?;
    assert_corrupt(
        mnist(&images, &labels(5))?,
        IMAGES,
        Some(4),
        &["60 001 images", "47 040 016 bytes", "decompress it first"],
    );
    Ok(())
}

#[test]
fn trailing_bytes_are_reported() -> TestResult {
    for more in [1, 11, 12, 1000] {
        let longer = [images(5), vec![0; more]].concat();
        assert_corrupt(mnist(&longer, &labels(5))?, IMAGES, Some(76), &["5 images"]);
        assert_corrupt(
            mnist(&gzip(&longer)?, &labels(5))?,
            IMAGES,
            Some(76),
            &["5 images", "once decompressed"],
        );
        let garbage = [gzip(&images(5))?, vec![1; more]].concat();
        assert_corrupt(mnist(&garbage, &labels(5))?, IMAGES, Some(76), &["gzip"]);
        let longer = [labels(5), vec![0; more]].concat();
        assert_corrupt(mnist(&images(5), &longer)?, LABELS, Some(13), &["5 labels"]);
    }
    Ok(())
}

#[test]
fn other_types_are_refused_by_name() -> TestResult {
    let types = [
        (9, "signed bytes"),
        (11, "16-bit integers"),
        (12, "32-bit integers"),
        (13, "32-bit floats"),
        (14, "64-bit floats"),
        (7, "0x07"),
    ];
    for (code, name) in types {
        let mut file = images(5);
        file[2] = code;
        assert_corrupt(mnist(&file, &labels(5))?, IMAGES, Some(2), &[name, "only unsigned bytes"]);
    }
    Ok(())
}

#[test]
fn files_of_another_sort_are_reported() -> TestResult {
    let twice = gzip(&gzip(&images(5))?)?;
    let mut reversed = images(5);
    reversed[..4].reverse();
    let cases: [(&[u8], u64, &str); 8] = [
        (b"", 0, "empty: no images"),
        (b"<!DOCTYPE html><html>", 0, "web page"),
        (b"version https://git-lfs.github.com/spec/v1", 0, "git lfs pull"),
        (b"PK\x03\x04\0\0\0\0", 0, "zip archive"),
        (b"\x06\x01\x02\x03", 0, "not an IDX file"),
        (&labels(5), 3, "1 dimension where images have 3; it is a file of labels"),
        (&reversed, 0, "reversed byte order"),
        (&twice, 0, "it is a gzip file"),
    ];
    for (file, offset, words) in cases {
        assert_corrupt(mnist(file, &labels(5))?, IMAGES, Some(offset), &[words]);
    }
    assert_corrupt(mnist(&images(5), &images(5))?, LABELS, Some(3), &["it is a file of images"]);
    Ok(())
}

#[test]
fn what_is_named_gz_and_is_not_is_reported() -> TestResult {
    let name = "t10k-images-idx3-ubyte.gz";
    for (contents, words) in
        [(&b"<html>"[..], "web page"), (&images(5), "rename it to its name without .gz"), (b"", "empty")]
    {
        let folder = folder(&[(name, contents), (LABELS, &labels(5))])?;
        assert_corrupt(open_mnist(folder.path()), name, Some(0), &[words]);
    }
    Ok(())
}

#[test]
fn counts_that_differ_are_reported_with_both() -> TestResult {
    for (of_images, of_labels) in [(10_000, 9_999), (1, 2)] {
        let words =
            if of_labels == 2 { "2 labels for 1 image (" } else { "9 999 labels for 10 000 images (" };
        let found = mnist(&idx(&[of_images, 1, 1], &pixels(of_images as usize)), &labels(of_labels))?;
        assert_corrupt(found, LABELS, Some(4), &[words, IMAGES, "do not match"]);
    }
    Ok(())
}

#[test]
fn labels_without_a_class_are_reported_with_their_image() -> TestResult {
    for label in [10, 255] {
        let mut file = labels(5);
        file[8 + 3] = label;
        let words = format!("label {label} of image 3 is not a class: they are 0 to 9");
        assert_corrupt(mnist(&images(5), &file)?, LABELS, Some(11), &[&words]);
    }
    Ok(())
}

#[test]
fn own_files_bring_their_own_classes() -> TestResult {
    let folder = folder(&[("letters", &images(3)), ("which", &idx(&[3], &[0, 11, 25]))])?;
    let (letters, which) = (folder.path().join("letters"), folder.path().join("which"));
    let names = |count| ('a'..='z').take(count).map(String::from).collect();
    let set = Dataset::from_idx_files(&letters, &which, names(26))?;
    assert_eq!((set.name(), set.classes(), set.label(1)), ("letters", 26, 11));
    assert_corrupt(Dataset::from_idx_files(&letters, &which, names(12)), "which", Some(10), &["0 to 11"]);
    let nameless = Dataset::from_idx_files(&letters, &which, vec![]);
    assert!(nameless.is_err_and(|error| error.to_string().contains("no class names")));
    Ok(())
}

#[test]
fn images_of_another_size_than_the_official_have_to_be_called_ones_own() -> TestResult {
    for (side, fits) in [(28, true), (32, false), (27, false)] {
        let images = idx(&[2, 28, side], &pixels(2 * 28 * side as usize));
        let folder = folder(&[(IMAGES, &images), (LABELS, &labels(2))])?;
        let official = Dataset::open(DatasetKind::Mnist, folder.path(), Split::Test);
        assert_eq!(open_mnist(folder.path())?.shape(), [1, 28, side as usize]);
        if fits {
            assert_eq!(official?.len(), 2);
        } else {
            let words = [&format!("images of 28 x {side} pixels"), "where MNIST has 28 x 28", "open_own"];
            assert_corrupt(official, IMAGES, Some(8), &words);
        }
    }
    Ok(())
}

/// Kaggle's archive: a folder with the file's name that contains the file, with or without the file
/// spelt with a dot next to it.
#[test]
fn a_folder_of_the_same_name_stands_in_nobody_s_way() -> TestResult {
    let plain = mnist(&images(5), &labels(5))??;
    let nested =
        ["t10k-images-idx3-ubyte/t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte/t10k-labels-idx1-ubyte"];
    let beside = ["t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"];
    let contents = [images(5), labels(5)];
    let file = |name, at: usize| (name, contents[at].as_slice());
    let both = [(0, nested), (1, beside)].map(|(_, names)| [file(names[0], 0), file(names[1], 1)]).concat();
    let hollow = [("t10k-images-idx3-ubyte/notes", &b"x"[..]), file(beside[0], 0), file(beside[1], 1)];
    for files in [&both[..], &both[..2], &hollow] {
        let folder = folder(files)?;
        assert_eq!(open_mnist(folder.path())?, plain, "{files:?}");
    }
    let folder = folder(&both)?;
    let found = influence_data::files(DatasetKind::Mnist, folder.path(), Split::Test)?;
    assert_eq!(found, beside.map(|name| folder.path().join(name)), "files before folders");
    Ok(())
}

#[test]
fn a_folder_in_place_of_a_file_is_reported() -> TestResult {
    let folder = folder(&[("t10k-images-idx3-ubyte/inside", b"x"), (LABELS, &labels(5))])?;
    let found = open_mnist(folder.path());
    assert!(matches!(&found, Err(Error::Io { .. })), "{found:?}");
    assert!(
        found.is_err_and(|error| error.to_string().ends_with("t10k-images-idx3-ubyte: a folder, not a file"))
    );
    Ok(())
}

#[test]
fn fashion_mnist_has_names_of_its_own() -> TestResult {
    let folder = folder(&[(IMAGES, &idx(&[2, 28, 28], &pixels(2 * 28 * 28))), (LABELS, &labels(2))])?;
    let set = Dataset::open("fashion-mnist".parse()?, folder.path(), Split::Test)?;
    assert_eq!(
        (set.name(), set.class_name(0), set.class_name(9)),
        ("Fashion-MNIST test", Some("T-shirt/top"), Some("Ankle boot"))
    );
    Ok(())
}
