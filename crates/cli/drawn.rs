//! Writes pictures to files: PNG or SVG, by the extension of the name.

use std::path::Path;

use influence_report::Picture;

use crate::failure::{Failure, Result};
use crate::out::OutputFile;

/// A file for a picture. Its path is checked before anything is computed.
#[derive(Debug)]
pub(crate) struct PictureFile {
    target: OutputFile,
    vector: bool,
}

impl PictureFile {
    /// The file that was given with `flag`.
    pub(crate) fn new(flag: &str, path: Option<&Path>) -> Result<Option<Self>> {
        let Some(path) = path else { return Ok(None) };
        let ends = |ending: &str| path.extension().is_some_and(|end| end.eq_ignore_ascii_case(ending));
        let vector = ends("svg");
        if !vector && !ends("png") {
            let message = format!("{flag} {}: the name must end in .png or .svg", path.display());
            return Err(Failure::new(message));
        }
        let target = OutputFile::new(flag, path, if vector { "svg" } else { "png" })?;
        Ok(Some(Self { target, vector }))
    }

    pub(crate) fn write(&self, picture: &Picture) -> Result<()> {
        let bytes = if self.vector { picture.svg().into_bytes() } else { png(picture)? };
        self.target.write(&bytes)?.name()
    }
}

/// A picture as a PNG file.
pub(crate) fn png(picture: &Picture) -> Result<Vec<u8>> {
    picture.png().map_err(|error| Failure::new(error.to_string()))
}
