//! The most similar of several names, as a suggestion in an error message.
//!
//! Similarity is Levenshtein's edit distance in characters. A name further away than a third of its
//! length is no help and is not suggested. The work is bounded even for a hostile file, because
//! long names and the tail of long lists are skipped.

/// Names longer than this are not compared.
const LONGEST: usize = 256;
/// The largest number of candidates that are compared.
const MOST: usize = 4096;

/// The candidate most similar to `name` (the first of equals), or `None` if none is similar.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.chars().collect();
    if name.len() > LONGEST {
        return None;
    }
    let mut best = None;
    let mut limit = (name.len() / 3).max(2);
    for candidate in candidates.into_iter().take(MOST) {
        if candidate.len() > LONGEST {
            continue;
        }
        let letters: Vec<char> = candidate.chars().collect();
        // The difference of the lengths is a lower bound of the distance.
        if letters.len().abs_diff(name.len()) > limit {
            continue;
        }
        let distance = edit_distance(&name, &letters);
        if distance <= limit {
            best = Some(candidate);
            if distance == 0 {
                break;
            }
            limit = distance - 1;
        }
    }
    best
}

/// The number of insertions, deletions and substitutions that turn `a` into `b`.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    // One row of the table of distances between prefixes of `a` and of `b`; `diagonal` is the entry
    // above and to the left.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distance(a: &str, b: &str) -> usize {
        edit_distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>())
    }

    #[test]
    fn distances_known_by_hand() {
        assert_eq!(distance("", ""), 0);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("conv1.weight", "conv1.wieght"), 2);
        assert_eq!(distance("größe", "grosse"), 3);
    }

    #[test]
    fn the_nearest_is_offered_and_a_far_one_is_not() {
        let names = ["fc.bias", "fc.weight", "conv1.weight"];
        assert_eq!(nearest("fc.wight", names), Some("fc.weight"));
        assert_eq!(nearest("conv2.weight", names), Some("conv1.weight"));
        assert_eq!(nearest("something.else", names), None);
        assert_eq!(nearest("fc.weight", names), Some("fc.weight"));
    }

    #[test]
    fn work_is_bounded() {
        let long = "x".repeat(1_000_000);
        assert_eq!(nearest(&long, [long.as_str()]), None);
        assert_eq!(nearest("x", [long.as_str(), "x"]), Some("x"));
    }
}
