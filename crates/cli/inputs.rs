//! Records the files that a run reads, and prevents overwriting them.
//!
//! Two paths are the same file if the system says so (device and inode), despite links, different
//! spellings or letter case.

use std::path::{Path, PathBuf};

use same_file::Handle;

use crate::failure::{Failure, Result};

/// The files that a run reads.
#[derive(Debug, Default)]
pub(crate) struct Inputs(Vec<PathBuf>);

impl Inputs {
    /// Adds a file.
    pub(crate) fn add(&mut self, path: &Path) {
        self.0.push(path.to_owned());
    }

    /// Refuses to write to `path` if it is one of the inputs.
    pub(crate) fn spare(&self, flag: &str, path: &Path) -> Result<()> {
        // A file that does not exist yet cannot be an input.
        let Ok(output) = Handle::from_path(path) else { return Ok(()) };
        let same = |input: &Path| Handle::from_path(input).is_ok_and(|input| input == output);
        match self.0.iter().find(|input| same(input)) {
            None => Ok(()),
            Some(input) => Err(Failure::new(format!(
                "{flag} {}: this run reads that file ({}), and it would be lost; give another name",
                path.display(),
                input.display()
            ))),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_known_by_every_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("weights"), "w").expect("a file");
        fs::write(at("other"), "w").expect("a file");
        fs::create_dir(at("deeper")).expect("a folder");
        symlink(at("weights"), at("soft")).expect("a link");
        fs::hard_link(at("weights"), at("hard")).expect("a link");
        let mut inputs = Inputs::default();
        inputs.add(&at("weights"));
        for name in ["weights", "./weights", "deeper/../weights", "soft", "hard"] {
            let message = inputs.spare("--out", &at(name)).expect_err(name).to_string();
            assert!(message.contains("--out") && message.contains("would be lost"), "{message}");
        }
        for name in ["other", "not there"] {
            assert!(inputs.spare("--out", &at(name)).is_ok(), "{name}");
        }
    }
}
