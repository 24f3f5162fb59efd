//! Picture files (PNG, JPEG and WebP) as samples of one shape.
//!
//! A [`Listing`] lists pictures by name, without opening them; [`Listing::load`] decodes the
//! requested ones. A picture's number is its index in the listing, even if others are skipped.

mod decode;
mod folder;
mod whole;

use std::collections::HashMap;
use std::path::PathBuf;

use crate::error::counted;
use crate::{Error, Pixel};

/// The preprocessing of every picture, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recipe {
    /// Resize, with a triangle filter that is widened for downscaling, like PIL's bilinear filter.
    pub resize: Option<Resize>,
    /// Height and width of the centre crop.
    pub crop: Option<[usize; 2]>,
    /// Convert to one channel, with the weights of ITU-R 601.
    pub grey: bool,
}

/// The size to resize to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// Length of the shorter side; the longer one keeps the aspect ratio, rounded down.
    Shorter(usize),
    /// Height and width.
    To([usize; 2]),
}

/// One picture of a listing.
#[derive(Debug, Clone, PartialEq)]
struct ListedPicture {
    /// Its path below the folder, or its name in the table.
    name: String,
    label: Option<usize>,
    origin: EncodedPicture,
}

/// Where the encoded bytes of a picture are.
#[derive(Debug, Clone, PartialEq)]
enum EncodedPicture {
    File(PathBuf),
    Bytes(Vec<u8>),
}

/// A list of at least one picture by name, none of them opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    name: String,
    entries: Vec<ListedPicture>,
    class_names: Vec<String>,
}

/// A picture that cannot be a sample, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its number.
    pub index: usize,
    /// Its path or name.
    pub name: String,
    /// The cause.
    pub why: String,
}

/// What to do with a picture that cannot be a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// [`Error::Picture`] for the first one.
    #[default]
    Stop,
    /// Skip it, and report it.
    Skip,
}

impl Listing {
    /// A listing of encoded pictures from a table, each with its name, its bytes and, if it has
    /// one, its label.
    ///
    /// # Errors
    /// [`Error::Parts`] if there are none.
    pub fn from_encoded(
        name: impl Into<String>,
        pictures: Vec<(String, Vec<u8>, Option<usize>)>,
        class_names: Vec<String>,
    ) -> Result<Self, Error> {
        let entry =
            |(name, bytes, label)| ListedPicture { name, label, origin: EncodedPicture::Bytes(bytes) };
        Self::new(name.into(), pictures.into_iter().map(entry).collect(), class_names)
    }

    fn new(name: String, entries: Vec<ListedPicture>, class_names: Vec<String>) -> Result<Self, Error> {
        if entries.is_empty() {
            let why = "no pictures: files that end in .png, .jpg, .jpeg or .webp are looked for".to_owned();
            return Err(Error::Parts { name, why });
        }
        Ok(Self { name, entries, class_names })
    }

    /// The name of the listing.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of pictures.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Always false: there is at least one picture.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether every picture has a label.
    #[must_use]
    pub fn is_labelled(&self) -> bool {
        self.entries.iter().all(|entry| entry.label.is_some())
    }

    /// The files that are read for these pictures.
    pub fn files(&self, indices: &[usize]) -> impl Iterator<Item = &std::path::Path> {
        indices.iter().filter_map(|&index| match &self.entries.get(index)?.origin {
            EncodedPicture::File(path) => Some(path.as_path()),
            EncodedPicture::Bytes(_) => None,
        })
    }

    /// Decodes the pictures with these numbers. The first valid one sets the shape for all.
    ///
    /// # Errors
    /// [`Error::Picture`] for the first that cannot be a sample, unless these are to be skipped;
    /// [`Error::Parts`] if none is valid.
    pub fn load(
        self,
        indices: &[usize],
        recipe: &Recipe,
        on_error: OnError,
    ) -> Result<(Pictures, Vec<Refused>), Error> {
        // `shape` is that of the first valid picture, with its name, by which later ones are
        // refused.
        let (mut shape, mut loaded, mut refused) = (None, HashMap::new(), Vec::new());
        for (&index, entry) in indices.iter().filter_map(|index| Some((index, self.entries.get(*index)?))) {
            match decode::sample(&entry.origin, recipe).and_then(|found| fitting(found, &mut shape, entry)) {
                Ok(pixels) => {
                    loaded.insert(index, pixels);
                }
                Err(why) => refused.push(Refused { index, name: entry.name.clone(), why }),
            }
            if let (OnError::Stop, Some(first)) = (on_error, refused.first()) {
                return Err(Error::Picture { name: first.name.clone(), why: first.why.clone() });
            }
        }
        // No shape: nothing was valid, and at least one picture says why.
        let Some((shape, _)) = shape else {
            let first =
                refused.first().map_or_else(String::new, |first| format!(": {}: {}", first.name, first.why));
            let pictures = counted(refused.len(), "picture", "pictures");
            return Err(Error::Parts {
                name: self.name,
                why: format!("none of {pictures} can be read{first}"),
            });
        };
        let Self { name, entries, class_names } = self;
        let entries = entries.into_iter().map(|ListedPicture { name, label, .. }| (name, label)).collect();
        Ok((Pictures { name, shape, entries, loaded, class_names }, refused))
    }
}

/// The pixels, if they have the shape of the first picture.
fn fitting(
    (found, pixels): ([usize; 3], Pixels),
    shape: &mut Option<([usize; 3], String)>,
    entry: &ListedPicture,
) -> Result<Pixels, String> {
    let ([_, height, width], first) = shape.get_or_insert_with(|| (found, entry.name.clone()));
    if found[1..] == [*height, *width] {
        return Ok(pixels);
    }
    Err(format!(
        "{} x {} pixels, where {first} has {height} x {width}: give all the same size, with --resize HxW or \
         --crop N",
        found[1], found[2]
    ))
}

/// The values of one picture, `[C, H, W]`, in the bit depth of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pixels {
    /// 255 is white.
    Bytes(Vec<u8>),
    /// 65 535 is white.
    Words(Vec<u16>),
}

/// Decoded pictures of one shape, by their numbers in the listing.
#[derive(Clone, PartialEq)]
pub struct Pictures {
    name: String,
    shape: [usize; 3],
    entries: Vec<(String, Option<usize>)>,
    loaded: HashMap<usize, Pixels>,
    class_names: Vec<String>,
}

impl Pictures {
    /// The name of the listing.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of pictures in the listing, decoded or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Always false: there is at least one picture.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Channels, height and width.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Whether a picture was decoded.
    #[must_use]
    pub fn has(&self, index: usize) -> bool {
        self.loaded.contains_key(&index)
    }

    /// The label of a picture, if it has one.
    #[must_use]
    pub fn label(&self, index: usize) -> Option<usize> {
        self.entries.get(index)?.1
    }

    /// The path of a picture below its folder, or its name in the table.
    #[must_use]
    pub fn file(&self, index: usize) -> Option<&str> {
        Some(&self.entries.get(index)?.0)
    }

    /// The class names in the order of the labels; empty if the data have none.
    #[must_use]
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// The pictures with these numbers, concatenated: `[indices.len(), C, H, W]`, with values in
    /// [0, 1] (byte / 255, or 16 bits / 65 535). Pictures that were not decoded are left out.
    #[must_use]
    pub fn batch<T: Pixel>(&self, indices: &[usize]) -> Vec<T> {
        let size: usize = self.shape.iter().product();
        let mut values = Vec::with_capacity(indices.len() * size);
        for pixels in indices.iter().filter_map(|index| self.loaded.get(index)) {
            match pixels {
                Pixels::Bytes(bytes) => values.extend(bytes.iter().map(|&byte| T::scaled(byte))),
                Pixels::Words(words) => {
                    values.extend(words.iter().map(|&word| T::of(f64::from(word) / f64::from(u16::MAX))));
                }
            }
        }
        values
    }
}

impl std::fmt::Debug for Pictures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pictures")
            .field("name", &self.name)
            .field("len", &self.len())
            .field("shape", &self.shape)
            .field("decoded", &self.loaded.len())
            .finish_non_exhaustive()
    }
}
