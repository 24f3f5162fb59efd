//! Allocated memory is bounded by the real size of the data: at most twice the contents, whatever a
//! header states.
//!
//! One test in its own binary, because the allocator counts for the whole process.

#[path = "files/common.rs"]
mod common;

use common::*;
use flate2::{Compression, write::GzEncoder};
use influence_data::{Dataset, DatasetKind, Selection, Split};
use peak_alloc::PeakAlloc;
use std::io::Write;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Allowance for paths, names, messages and the buffers of two open files.
const PLAIN: usize = 64 << 10;
/// Allowance for that, the state of a decompressor and a first chunk.
const GZIP: usize = 256 << 10;
const HUGE: u32 = u32::MAX;

/// Asserts that `work` has at most `bound` bytes allocated at any time.
fn within<T>(what: &str, bound: usize, work: impl FnOnce() -> T) -> T {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let outcome = work();
    let peak = MEMORY.peak_usage() - before;
    assert!(peak <= bound, "{what}: {peak} bytes set aside, {bound} allowed");
    outcome
}

/// `header` followed by `zeros` zero bytes, in gzip, which is about a thousandth of that length.
fn bomb(header: &[u8], zeros: usize) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(header)?;
    let block = vec![0; 1 << 20];
    for start in (0..zeros).step_by(block.len()) {
        encoder.write_all(&block[..block.len().min(zeros - start)])?;
    }
    encoder.finish()
}

#[test]
fn memory_follows_the_contents_not_the_header() -> TestResult {
    plain_files()?;
    compressed_files()?;
    batches()?;
    choices();
    Ok(())
}

fn plain_files() -> TestResult {
    let (count, size) = (2000, 784);
    let whole = folder(&[(IMAGES, &idx(&[count, 28, 28], &pixels(2000 * size))), (LABELS, &labels(count))])?;
    within("whole files", 2000 * (size + 1) + PLAIN, || open_mnist(whole.path()))?;
    for dims in [[HUGE, 28, 28], [HUGE, HUGE, HUGE], [HUGE, 1, 1], [1, HUGE, 1], [60_000, 28, 28]] {
        let lying = folder(&[(IMAGES, &idx(&dims, &pixels(5000))), (LABELS, &labels(5))])?;
        let found = within("a header that lies", PLAIN, || open_mnist(lying.path()));
        assert_corrupt(found, IMAGES, None, &["image"]);
    }
    Ok(())
}

fn compressed_files() -> TestResult {
    let open = |what, images: &[u8], labels: &[u8], bound| -> Result<_, std::io::Error> {
        let folder = folder(&[(IMAGES, images), (LABELS, labels)])?;
        Ok(within(what, bound, || open_mnist(folder.path())))
    };
    // A large file takes twice its contents.
    let one = gzip(&labels(1))?;
    let large = 47_040_000;
    let found = open("a large file", &bomb(&idx(&[1, 60_000, 784], &[]), large)?, &one, 2 * large + GZIP)?;
    assert_eq!(found?.len(), 1);

    // Headers that state more than the file holds.
    let empty = bomb(&idx(&[60_000, 28, 28], &[]), 1000)?;
    assert_corrupt(open("a header that lies", &empty, &one, GZIP)?, IMAGES, None, &[": 1 image"]);
    let cut = bomb(&idx(&[60_000, 28, 28], &[]), 1 << 20)?;
    assert_corrupt(
        open("a file cut short", &cut, &one, (2 << 20) + GZIP)?,
        IMAGES,
        None,
        &[": 1 337 images"],
    );

    // Files that decompress to far more than a data set: by their header, or after the stated
    // contents.
    let promised = bomb(&idx(&[HUGE, 28, 28], &[]), 200 << 20)?;
    assert_corrupt(
        open("a bomb that is promised", &promised, &one, GZIP)?,
        IMAGES,
        Some(4),
        &["decompress it first"],
    );
    let hidden = bomb(&idx(&[1, 28, 28], &[]), 200 << 20)?;
    assert_corrupt(open("a bomb after an image", &hidden, &one, GZIP)?, IMAGES, Some(800), &["bytes follow"]);
    let in_labels = bomb(&idx(&[1], &[]), 200 << 20)?;
    assert_corrupt(
        open("a bomb after a label", &gzip(&images(1))?, &in_labels, GZIP)?,
        LABELS,
        Some(9),
        &["bytes follow"],
    );
    Ok(())
}

fn batches() -> TestResult {
    let batch = batch(100);
    let names = [1, 2, 3, 4, 5].map(|n| format!("data_batch_{n}.bin"));
    let folder = folder(&names.each_ref().map(|name| (name.as_str(), batch.as_slice())))?;
    let open = || Dataset::open_own(DatasetKind::Cifar10, folder.path(), Split::Train);
    assert_eq!(within("batches", 500 * RECORD + 2 * PLAIN, open)?.len(), 500);
    Ok(())
}

fn choices() {
    for text in ["0..99999999999", "99999999999..", "0..8,99999999999", "..18446744073709551615"] {
        let chosen =
            within(text, 4096, || text.parse::<Selection>().and_then(|selection| selection.resolve(10_000)));
        assert!(chosen.is_err(), "{text}");
    }
}
