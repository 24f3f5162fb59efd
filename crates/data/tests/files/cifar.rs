//! Faults of CIFAR-10 batches, each named by file and byte.

use crate::common::*;
use influence_data::{Dataset, DatasetKind, Split};

#[test]
fn a_split_is_its_batches_in_order() -> TestResult {
    let batches: Vec<Vec<u8>> = (1..=5).map(batch).collect();
    let names: Vec<String> = (1..=5).map(|n| format!("data_batch_{n}.bin")).collect();
    let files: Vec<_> =
        names.iter().zip(&batches).map(|(name, batch)| (name.as_str(), batch.as_slice())).collect();
    let folder = folder(&files)?;
    let set = Dataset::open_own(DatasetKind::Cifar10, folder.path(), Split::Train)?;
    assert_eq!((set.name(), set.len(), set.shape(), set.classes()), ("CIFAR-10 train", 15, [3, 32, 32], 10));
    assert_eq!(set.labels(), [0, 0, 1, 0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3, 4]);
    assert_eq!(set.image(14), pixels(3072));
    assert_eq!(set.class_names()[9], "truck");
    Ok(())
}

#[test]
fn every_truncation_is_reported() -> TestResult {
    let whole = batch(3);
    for cut in cuts(whole.len()) {
        let found = cifar(&whole[..cut])?;
        match cut {
            RECORD => assert_eq!(found?.len(), 1),
            _ if cut == 2 * RECORD => assert_eq!(found?.len(), 2),
            _ => assert_corrupt(found, BATCH, Some((cut / RECORD * RECORD) as u64), &["image"]),
        }
    }
    Ok(())
}

#[test]
fn lengths_are_reported_with_the_images_found() -> TestResult {
    let cases: [(usize, u64, &[&str]); 4] = [
        (0, 0, &["the file is empty: no images"]),
        (3072, 0, &["3 072 bytes", "records of 3 073 bytes", "0 images and 3 072 bytes more"]),
        (2 * RECORD + 1, 2 * RECORD as u64, &["2 images and 1 byte more"]),
        (2 * 3074, 2 * RECORD as u64, &["CIFAR-100"]),
    ];
    for (length, offset, words) in cases {
        assert_corrupt(cifar(&vec![0; length])?, BATCH, Some(offset), words);
    }
    Ok(())
}

#[test]
fn labels_without_a_class_are_reported_with_their_image() -> TestResult {
    for (image, label) in [(0, 10), (2, 255), (1, b'<')] {
        let mut file = batch(3);
        file[image * RECORD] = label;
        let words =
            format!("label {label} of image {image} of this file's 3 is not a class: they are 0 to 9");
        let words = if (image, label) == (0, b'<') { "web page" } else { &words };
        assert_corrupt(cifar(&file)?, BATCH, Some((image * RECORD) as u64), &[words]);
    }
    Ok(())
}

#[test]
fn files_of_another_sort_are_reported() -> TestResult {
    let page = [b"<html>".as_slice(), &vec![b' '; RECORD - 6]].concat();
    assert_corrupt(cifar(&page)?, BATCH, Some(0), &["not a CIFAR-10 batch; it is a web page"]);
    assert_corrupt(cifar(b"<html>")?, BATCH, Some(0), &["web page"]);
    assert_corrupt(cifar(&gzip(&batch(3))?)?, BATCH, Some(0), &["gzip"]);
    Ok(())
}

#[test]
fn class_names_are_read_where_they_are() -> TestResult {
    let read = |names: &[u8]| -> Result<_, std::io::Error> {
        let folder = folder(&[(BATCH, &batch(1)), ("batches.meta.txt", names)])?;
        Ok(Dataset::open_own(DatasetKind::Cifar10, folder.path(), Split::Test))
    };
    let set = read(b"a\nb\r\nc c\nd\n\ne\nf\ng\nh\ni\nj\n\n")??;
    assert_eq!(set.class_names(), ["a", "b", "c c", "d", "e", "f", "g", "h", "i", "j"]);
    let name = "batches.meta.txt";
    assert_corrupt(read(b"a\nb\n")?, name, Some(4), &["2 class names, one per line, where CIFAR-10 has 10"]);
    assert_corrupt(read(b"")?, name, Some(0), &["0 class names"]);
    assert_corrupt(read(b"a\n\xff\n")?, name, Some(2), &["UTF-8"]);
    assert_corrupt(read(b"a\nb\x1b[0m\nc\nd\ne\nf\ng\nh\ni\nj\n")?, name, Some(3), &["control character"]);
    assert_corrupt(read(&[b'a'; 5000])?, name, Some(4096), &["too long"]);
    Ok(())
}

/// A batch cut at the end of an image can be recognised only by its length.
#[test]
fn batches_of_another_length_than_the_official_have_to_be_called_ones_own() -> TestResult {
    let whole = vec![0; 10_000 * RECORD];
    let opened = |last: &[u8]| -> Result<_, std::io::Error> {
        let names: Vec<String> = (1..=5).map(|n| format!("data_batch_{n}.bin")).collect();
        let contents = [&whole[..], last, &whole, &whole, &whole];
        let files: Vec<_> = names.iter().map(String::as_str).zip(contents).collect();
        let folder = folder(&files)?;
        Ok([Dataset::open, Dataset::open_own]
            .map(|open| open(DatasetKind::Cifar10, folder.path(), Split::Train)))
    };
    let long = [&whole[..], &whole[..RECORD]].concat();
    for (images, last) in [(100_usize, &whole[..100 * RECORD]), (10_001, &long)] {
        let [official, own] = opened(last)?;
        let offset = (images.min(10_000) * RECORD) as u64;
        let words = ["where a batch of CIFAR-10 has 10 000", "wrong numbers", "open_own"];
        assert_corrupt(official, "data_batch_2.bin", Some(offset), &words);
        assert_eq!(own?.len(), 40_000 + images);
    }
    let [official, own] = opened(&whole)?;
    assert_eq!((official?.len(), own?.len()), (50_000, 50_000));
    Ok(())
}

/// A record of CIFAR-100 has two labels: the coarse one, then the fine one.
#[test]
fn cifar_100_has_fine_and_coarse_labels() -> TestResult {
    let record = |coarse: u8, fine: u8| [vec![coarse, fine], pixels(RECORD - 1)].concat();
    let file = [record(0, 4), record(19, 99)].concat();
    let folder = folder(&[("test.bin", &file)])?;
    let open = |kind| Dataset::open_own(kind, folder.path(), Split::Test);
    let fine = open(DatasetKind::Cifar100)?;
    assert_eq!((fine.name(), fine.labels(), fine.classes()), ("CIFAR-100 test", &[4, 99][..], 100));
    assert_eq!(
        (fine.class_name(4), fine.class_name(99), fine.class_name(100)),
        (Some("beaver"), Some("worm"), None)
    );
    assert_eq!(fine.image(1), pixels(3072));
    let coarse = open(DatasetKind::Cifar100Coarse)?;
    assert_eq!((coarse.labels(), coarse.classes()), (&[0, 19][..], 20));
    assert_eq!(coarse.class_name(0), Some("aquatic_mammals"));
    let official = Dataset::open(DatasetKind::Cifar100, folder.path(), Split::Test);
    assert_corrupt(official, "test.bin", Some(file.len() as u64), &["where a batch of CIFAR-100 has 10 000"]);
    Ok(())
}

#[test]
fn faults_of_cifar_100_are_reported() -> TestResult {
    let read = |file: &[u8]| -> Result<_, std::io::Error> {
        let folder = folder(&[("train.bin", file)])?;
        Ok(Dataset::open_own(DatasetKind::Cifar100, folder.path(), Split::Train))
    };
    let record = [vec![0, 100], pixels(RECORD - 1)].concat();
    assert_corrupt(read(&record)?, "train.bin", Some(0), &["label 100 of image 0", "0 to 99"]);
    assert_corrupt(read(&record[1..])?, "train.bin", Some(0), &["two labels", "are CIFAR-10's"]);
    let names = folder(&[
        ("train.bin", &[vec![0, 1], pixels(RECORD - 1)].concat()),
        ("fine_label_names.txt", b"a\nb\n"),
    ])?;
    let found = Dataset::open_own(DatasetKind::Cifar100, names.path(), Split::Train);
    assert_corrupt(found, "fine_label_names.txt", Some(4), &["2 class names", "CIFAR-100 has 100"]);
    Ok(())
}
