//! Thousands of damaged files, the same in every run: each is read, or refused with an error that
//! names the file; nothing panics.

use crate::common::*;
use influence_data::{Dataset, Error, Selection};

/// One to eight random changes: bytes set, bits flipped, pieces removed, duplicated or inserted.
fn mutated(original: &[u8], random: &mut Random) -> Vec<u8> {
    let mut file = original.to_vec();
    for _ in 0..=random.below(8) {
        // Headers are where damage matters most: half of all changes are made there.
        let reach = if random.below(2) == 0 { file.len().min(24) } else { file.len() };
        let at = random.below(reach).min(file.len());
        let end = (at + random.below(40)).min(file.len());
        match random.below(6) {
            0 if at < file.len() => file[at] = [0, 1, 8, 9, 0x1f, 0x7f, 0x80, 0xff][random.below(8)],
            1 if at < file.len() => file[at] ^= 1 << random.below(8),
            2 => drop(file.drain(at..end)),
            3 => {
                let piece = file[at..end].to_vec();
                drop(file.splice(at..at, piece));
            }
            4 => drop(file.splice(at..at, pixels(random.below(40)))),
            _ => file.truncate(end),
        }
    }
    file
}

/// A data set that was read satisfies its guarantees; an error names the file.
fn check(found: Result<Dataset, Error>, name: &str) {
    match found {
        Ok(set) => {
            assert!(!set.is_empty() && set.labels().iter().all(|&label| usize::from(label) < set.classes()));
            let size: usize = set.shape().iter().product();
            assert_eq!(set.image(set.len() - 1).len(), size);
        }
        Err(error) => assert!(error.to_string().contains(name), "{error} does not name {name}"),
    }
}

#[test]
fn damaged_files_are_read_or_refused() -> TestResult {
    let (images, labels, batch) = (images(20), labels(20), batch(2));
    let (packed_images, packed_labels) = (gzip(&images)?, gzip(&labels)?);
    let mut random = Random(0x5eed);
    for _ in 0..1500 {
        check(mnist(&mutated(&images, &mut random), &labels)?, "-ubyte");
        check(mnist(&images, &mutated(&labels, &mut random))?, "-ubyte");
        check(mnist(&mutated(&packed_images, &mut random), &packed_labels)?, "-ubyte");
        check(cifar(&mutated(&batch, &mut random))?, BATCH);
    }
    Ok(())
}

#[test]
fn damaged_choices_are_resolved_or_refused() {
    let mut random = Random(0xc0de);
    let letters: Vec<char> = "0123456789..,,- all+=x".chars().collect();
    for _ in 0..50_000 {
        let text: String = (0..random.below(12)).map(|_| letters[random.below(letters.len())]).collect();
        match text.parse::<Selection>().and_then(|selection| selection.resolve(100)) {
            Ok(indices) => assert!(!indices.is_empty() && indices.iter().all(|&index| index < 100), "{text}"),
            Err(error) => assert!(error.to_string().starts_with("images "), "{text}: {error}"),
        }
    }
}
