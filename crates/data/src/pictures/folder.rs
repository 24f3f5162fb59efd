//! Lists the pictures of a folder with their labels: by sub-folder, or by a table of paths.

use std::fs;
use std::path::{Path, PathBuf};

use super::{EncodedPicture, ListedPicture, Listing};
use crate::Error;

/// Extensions of files that are taken for pictures, in upper or lower case. The format itself is
/// recognised by the file's bytes.
const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];
/// Largest nesting of folders; deeper ones are taken for a loop of links.
const DEEPEST: usize = 32;

impl Listing {
    /// The pictures below `folder`. Each sub-folder is a class, and classes are numbered in the
    /// order of their names, as in torchvision's `ImageFolder`; within a class, pictures are in the
    /// order of their paths. Pictures of a folder without sub-folders have no labels.
    ///
    /// # Errors
    /// [`Error::Io`] from the system; [`Error::Parts`] if there is no picture, or some are next to
    /// the sub-folders.
    pub fn folder(folder: &Path) -> Result<Self, Error> {
        let (folders, files) = contents(folder)?;
        let name = title(folder);
        if folders.is_empty() {
            let entries = files.into_iter().map(|path| entry(folder, path, None)).collect();
            return Self::new(name, entries, Vec::new());
        }
        if let Some(stray) = files.first() {
            let why = format!(
                "{} is outside the folders of the classes, so it has no class: move it, or give labels \
                 with --labels",
                stray.display()
            );
            return Err(Error::Parts { name, why });
        }
        let mut entries = Vec::new();
        for (label, class) in folders.iter().enumerate() {
            let mut found = Vec::new();
            below(class, DEEPEST, &mut found)?;
            entries.extend(found.into_iter().map(|path| entry(folder, path, Some(label))));
        }
        Self::new(name, entries, folders.iter().map(|class| title(class)).collect())
    }

    /// The pictures of a table, in its order: paths below `folder`, each with its label as text. If
    /// all labels are non-negative integers, they are the classes; otherwise they are names,
    /// numbered in alphabetical order.
    ///
    /// # Errors
    /// [`Error::Parts`] for an empty table, and for a path that leads out of the folder.
    pub fn labelled(folder: &Path, rows: &[(String, String)]) -> Result<Self, Error> {
        let name = title(folder);
        let inside = |path: &str| {
            Path::new(path)
                .components()
                .all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir))
        };
        if let Some((path, _)) = rows.iter().find(|(path, _)| !inside(path)) {
            let why = format!("the path {path:?} of the labels leads out of the folder {}", folder.display());
            return Err(Error::Parts { name, why });
        }
        // Labels are numbers only if all of them parse. Else a class is the place of its name in
        // the sorted list.
        let numbers: Option<Vec<usize>> = rows.iter().map(|(_, label)| label.parse().ok()).collect();
        let mut names: Vec<String> = rows.iter().map(|(_, label)| label.clone()).collect();
        names.sort();
        names.dedup();
        let label = |row: usize, text: &String| match &numbers {
            Some(numbers) => numbers.get(row).copied(),
            None => names.binary_search(text).ok(),
        };
        let entries = rows.iter().enumerate().map(|(row, (path, text))| ListedPicture {
            name: path.clone(),
            label: label(row, text),
            origin: EncodedPicture::File(folder.join(path)),
        });
        let entries = entries.collect();
        Self::new(name, entries, if numbers.is_some() { Vec::new() } else { names })
    }
}

/// The last component of a path.
fn title(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn entry(folder: &Path, path: PathBuf, label: Option<usize>) -> ListedPicture {
    let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
    ListedPicture { name, label, origin: EncodedPicture::File(path) }
}

/// The sub-folders and the pictures of a folder, each sorted by name, without hidden ones.
fn contents(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Error> {
    let io = |source| Error::Io { file: folder.to_path_buf(), source };
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for found in fs::read_dir(folder).map_err(io)? {
        let path = found.map_err(io)?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        if path.is_dir() {
            folders.push(path);
        } else if is_picture(&path) {
            files.push(path);
        }
    }
    folders.sort();
    files.sort();
    Ok((folders, files))
}

/// All pictures below a folder: its own first, then those of its sub-folders.
fn below(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let (folders, files) = contents(folder)?;
    found.extend(files);
    if depth == 0 && !folders.is_empty() {
        let why = format!("{}: folders are nested too deep", folder.display());
        return Err(Error::Parts { name: title(folder), why });
    }
    folders.iter().try_for_each(|inner| below(inner, depth - 1, found))
}

fn is_picture(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}
