//! Tensors in files next to the model's.
//!
//! A location is a path relative to the model's folder. It may not leave that folder: absolute
//! paths, `..` and links to elsewhere are refused, because a model file must not decide which other
//! files of its user are read.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use crate::error::Refusal;
use crate::proto::TensorProto;

/// The value of `data_location` for a tensor whose elements are in another file.
const EXTERNAL: i32 = 1;

/// The bytes of a tensor that is stored in a file of `folder`; `None` when it is stored in the
/// message.
pub(crate) fn bytes(tensor: &TensorProto, folder: Option<&Path>) -> Result<Option<Vec<u8>>, Refusal> {
    if tensor.data_location != EXTERNAL {
        return Ok(None);
    }
    let name = &tensor.name;
    let entry = |key: &str| {
        tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
    };
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => text
            .parse::<u64>()
            .map(Some)
            .map_err(|_| Refusal::from(format!("the {key} of \"{name}\" is not a number: {text}"))),
    };
    let location = entry("location").ok_or_else(|| format!("\"{name}\" has no location"))?;
    let Some(folder) = folder else {
        let why = format!("\"{name}\" lies in the file {location}, and the model is in memory");
        return Err(Refusal::new(why, "read the model from its file"));
    };
    let path = inside(folder, location, name)?;
    // Offset and length are optional: without them the tensor is the whole file.
    let all = read(&path, number("offset")?.unwrap_or(0), number("length")?).map_err(|error| {
        let why = format!("\"{name}\" could not be read from {}: {error}", path.display());
        Refusal::new(why, "put the file next to the model, under the name with which it was exported")
    })?;
    Ok(Some(all))
}

/// The path of a location, if it lies in the folder.
fn inside(folder: &Path, location: &str, name: &str) -> Result<PathBuf, Refusal> {
    let refused = |how: &str| {
        let why = format!("\"{name}\" lies at \"{location}\", {how} the model's folder");
        Refusal::new(why, "export the model again with its data next to it")
    };
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    let parts = Path::new(location);
    // A backslash separates folders on one system and is a letter on another, so it is refused on
    // all.
    if location.contains(['\\', '\0']) || !parts.components().all(plain) {
        return Err(refused("which is no path inside"));
    }
    let path = folder.join(parts);
    let canonical = |path: &Path| path.canonicalize().ok();
    if let (Some(found), Some(home)) = (canonical(&path), canonical(folder))
        && !found.starts_with(home)
    {
        return Err(refused("a link to outside"));
    }
    Ok(path)
}

/// A part of a file: from `offset`, `length` bytes or all that follow. Reads never allocate more
/// than the file has.
fn read(path: &Path, offset: u64, length: Option<u64>) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    match length {
        Some(length) => {
            file.take(length).read_to_end(&mut bytes)?;
            if bytes.len() as u64 != length {
                let why = format!("it ends {} bytes after offset {offset}, not {length}", bytes.len());
                return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, why));
            }
        }
        None => {
            file.read_to_end(&mut bytes)?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    //! Paths that lead outside, files that are too short, and a tensor that is where it should be.

    use super::*;
    use crate::proto::StringStringEntryProto;

    fn tensor(entries: &[(&str, &str)]) -> TensorProto {
        let entry =
            |&(key, value): &(&str, &str)| StringStringEntryProto { key: key.into(), value: value.into() };
        let external_data = entries.iter().map(entry).collect();
        TensorProto { name: "w".into(), data_location: EXTERNAL, external_data, ..Default::default() }
    }

    #[test]
    fn a_part_of_a_file_is_read() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("weights.bin"), [1, 2, 3, 4, 5])?;
        let part = [("location", "weights.bin"), ("offset", "1"), ("length", "3")];
        assert_eq!(bytes(&tensor(&part), Some(folder.path())), Ok(Some(vec![2, 3, 4])));
        let rest = [("location", "./weights.bin"), ("offset", "3")];
        assert_eq!(bytes(&tensor(&rest), Some(folder.path())), Ok(Some(vec![4, 5])));
        assert_eq!(bytes(&TensorProto::default(), None), Ok(None));
        Ok(())
    }

    #[test]
    fn what_leads_outside_or_is_not_there_is_refused() -> std::io::Result<()> {
        let outer = tempfile::tempdir()?;
        let folder = outer.path().join("model");
        std::fs::create_dir(&folder)?;
        std::fs::write(outer.path().join("secret"), [7])?;
        let why = |location: &str| {
            let refusal = bytes(&tensor(&[("location", location)]), Some(&folder));
            refusal.expect_err("it is refused").why
        };
        for location in ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", "secret\0"] {
            assert!(why(location).contains("no path inside"), "{location}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(outer.path().join("secret"), folder.join("link"))?;
            assert!(why("link").contains("a link to outside"), "{}", why("link"));
        }
        assert!(why("absent").contains("could not be read"));
        std::fs::write(folder.join("short"), [1, 2])?;
        let long = tensor(&[("location", "short"), ("length", "99999999999999")]);
        let refusal = bytes(&long, Some(&folder)).expect_err("it is too short");
        assert!(refusal.why.contains("ends 2 bytes after offset 0"), "{}", refusal.why);
        let words = tensor(&[("location", "short"), ("offset", "two")]);
        assert!(bytes(&words, Some(&folder)).is_err_and(|refusal| refusal.why.contains("not a number")));
        assert!(bytes(&long, None).is_err_and(|refusal| refusal.why.contains("in memory")));
        Ok(())
    }
}
