//! Where records end up.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::file;

/// An open place to write to.
pub(super) enum Sink {
    Stdout,
    Stderr,
    File { path: PathBuf, file: File },
}

impl Sink {
    /// Opens a file for appending; a new one is for its owner alone.
    pub fn file(path: &Path) -> io::Result<Self> {
        file::append(path).map(|file| Self::File { path: path.to_owned(), file })
    }

    /// Writes all of it. A file that was moved away or deleted since is opened again under its name, so that it can be
    /// rotated without a word to this process.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Self::Stderr => io::stderr().lock().write_all(bytes),
            Self::File { path, file: open } => {
                if !is_still(open, path) {
                    *open = file::append(path)?;
                }
                open.write_all(bytes)
            }
        }
    }
}

fn is_still(file: &File, path: &Path) -> bool {
    let which = |found: fs::Metadata| (found.dev(), found.ino());
    let (open, there) = (file.metadata().map(which), fs::symlink_metadata(path).map(which));
    open.ok().zip(there.ok()).is_some_and(|(open, there)| open == there)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_appended_to_and_can_be_moved_deleted_or_cut() {
        let directory = tempfile::tempdir().unwrap();
        let (path, rotated) = (directory.path().join("audit.log"), directory.path().join("audit.log.1"));
        fs::write(&path, "before\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let mut sink = Sink::file(&path).unwrap();
        sink.write(b"a\n").unwrap();
        fs::rename(&path, &rotated).unwrap();
        sink.write(b"b\n").unwrap();
        assert_eq!(fs::read_to_string(&rotated).unwrap(), "before\na\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "b\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(&path).unwrap();
        sink.write(b"c\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "c\n");
        File::create(&path).unwrap();
        sink.write(b"d\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "d\n");
    }

    #[test]
    fn what_cannot_be_opened_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Sink::file(directory.path()).is_err());
        assert!(Sink::file(&directory.path().join("no/such/place")).is_err());
    }
}
