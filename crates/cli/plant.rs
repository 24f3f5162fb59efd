//! `--plant`: synthetic outliers, as in the paper.
//!
//! Each is made from an image that the network classifies correctly and one of another class. Both
//! are shifted by up to 4 pixels in each direction and combined by the pixelwise maximum; the label
//! is that of the first (Shu & Zhu, AAAI-19, where two networks classify the first correctly).

use std::collections::BTreeSet;

use influence_data::Dataset;
use influence_report::statistics::Random;

use crate::data::Data;
use crate::failure::{Failure, Result};
use crate::job::Job;
use crate::logits::largest;

/// Largest shift of an image, in pixels.
const SHIFT: usize = 4;

/// Appends `count` outliers to the images of the job, as evenly over the classes as possible, and
/// returns their indices.
pub(crate) fn plant(job: &mut Job, count: usize, seed: u64) -> Result<BTreeSet<usize>> {
    let Data::Images(data) = &job.data else {
        return Err(Failure::new(
            "--plant: outliers are made from the images of a data set, not from arrays",
        ));
    };
    let right = right(job)?;
    let mut random = Random::new(seed);
    let (mut pixels, mut labels) = (Vec::new(), data.labels().to_vec());
    (0..data.len()).for_each(|index| pixels.extend_from_slice(data.image(index)));
    for at in 0..count {
        let class = at % data.classes();
        let own: Vec<usize> = right.iter().copied().filter(|index| data.label(*index) == class).collect();
        let others: Vec<usize> =
            job.images.iter().copied().filter(|index| data.label(*index) != class).collect();
        let (Some(first), Some(second)) = (random.pick(&own), random.pick(&others)) else {
            let why = format!(
                "no image of class {class} is predicted correctly, or there is none of another class"
            );
            return Err(Failure::new(format!("--plant {count}: {why}; take more images")));
        };
        let [first, second] = [*first, *second].map(|index| moved(data, index, &mut random));
        pixels.extend(first.iter().zip(&second).map(|(a, b)| a.max(b)));
        labels.push(class as u8);
    }
    let planted = data.len()..data.len() + count;
    let name = format!("{} with {count} planted outliers", data.name());
    let data = Dataset::from_parts(name, data.shape(), pixels, labels, data.class_names().to_vec())?;
    let images = job.images.iter().copied().chain(planted.clone()).collect();
    job.take(Data::Images(data), images);
    Ok(planted.collect())
}

/// The images of the job that are predicted as labelled.
fn right(job: &Job) -> Result<Vec<usize>> {
    let mut right = Vec::new();
    for indices in job.images.chunks(job.at_a_time()) {
        for (index, logits) in indices.iter().zip(job.scorer.logits(job.pixels(indices))?) {
            let predicted = largest(&logits);
            if predicted.is_some() && predicted == job.data.label(*index) {
                right.push(*index);
            }
        }
    }
    Ok(right)
}

/// A randomly shifted image, with 0 in the uncovered area.
fn moved(data: &Dataset, index: usize, random: &mut Random) -> Vec<u8> {
    let [_, height, width] = data.shape();
    let [down, right] = [(); 2].map(|()| random.below(2 * SHIFT + 1));
    let image = data.image(index);
    let from = |to: usize, by: usize, size: usize| (to + SHIFT).checked_sub(by).filter(|from| *from < size);
    let dot = |at: usize| {
        let (plane, y, x) = (at / (height * width), at / width % height, at % width);
        let (y, x) = (from(y, down, height)?, from(x, right, width)?);
        image.get((plane * height + y) * width + x).copied()
    };
    (0..image.len()).map(|at| dot(at).unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_image_keeps_its_dots() {
        let mut bytes = vec![0; 2 * 12 * 12];
        (bytes[5 * 12 + 6], bytes[144 + 5 * 12 + 6]) = (7, 9);
        let data = Dataset::from_parts("own", [2, 12, 12], bytes, vec![0], vec!["a".into()]);
        let data = data.expect("a data set");
        let mut seen = BTreeSet::new();
        let mut random = Random::new(1);
        for _ in 0..500 {
            let moved = moved(&data, 0, &mut random);
            let at = moved.iter().position(|byte| *byte == 7).expect("the dot is inside");
            assert_eq!(moved[144 + at], 9, "channels move together");
            assert_eq!(moved.iter().filter(|byte| **byte > 0).count(), 2);
            seen.insert((at / 12, at % 12));
        }
        assert_eq!(seen.len(), 81, "every shift by -4 to 4 in both directions");
        assert_eq!((seen.first(), seen.last()), (Some(&(1, 2)), Some(&(9, 10))));
    }
}
