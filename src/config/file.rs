//! The files that a configuration was read from, and whether they are still what they were.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// A file as it was just before it was read: whatever happens to it from then on is a change. `Debug` does not show the
/// path: somebody may have written a secret where a path belongs.
#[derive(Clone, PartialEq, Eq)]
pub struct ReadFile {
    path: PathBuf,
    stamp: Option<Stamp>,
}

/// What tells one state of a file from the next. Symbolic links are followed, so that a directory which is replaced as a
/// whole, as Kubernetes does with a Secret, is noticed too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    /// Device and inode.
    place: (u64, u64),
    length: u64,
    /// Seconds and nanoseconds. The kernel keeps this one itself: a program that sets a file's modification time back
    /// cannot hide a change.
    changed: (i64, i64),
    modified: (i64, i64),
}

impl ReadFile {
    /// The file as it is now; it need not exist.
    pub(super) fn now(path: &Path) -> Self {
        Self { path: path.to_owned(), stamp: stamp(path) }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was written to, replaced, removed or made since.
    pub fn has_changed(&self) -> bool {
        stamp(&self.path) != self.stamp
    }
}

impl fmt::Debug for ReadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadFile").field("is_there", &self.stamp.is_some()).finish_non_exhaustive()
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let file = fs::metadata(path).ok()?;
    Some(Stamp {
        place: (file.dev(), file.ino()),
        length: file.size(),
        changed: (file.ctime(), file.ctime_nsec()),
        modified: (file.mtime(), file.mtime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_kind_of_change_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let absent = ReadFile::now(&path);
        assert!(!absent.has_changed());
        fs::write(&path, "one").unwrap();
        assert!(absent.has_changed(), "it was made");

        let one = ReadFile::now(&path);
        assert!(!one.has_changed());
        fs::write(&path, "longer").unwrap();
        assert!(one.has_changed(), "it was written to");

        let longer = ReadFile::now(&path);
        fs::write(directory.path().join("draft"), "longer").unwrap();
        fs::rename(directory.path().join("draft"), &path).unwrap();
        assert!(longer.has_changed(), "another file took its place");

        let replaced = ReadFile::now(&path);
        fs::remove_file(&path).unwrap();
        assert!(replaced.has_changed(), "it was removed");
    }

    /// A Secret in a pod: `secret` leads through `..data` to a directory, and an update swaps that link.
    #[test]
    fn a_link_that_leads_elsewhere_is_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for version in ["v1", "v2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("secret"), "same").unwrap();
        }
        symlink("v1", at("..data")).unwrap();
        symlink("..data/secret", at("secret")).unwrap();
        let file = ReadFile::now(&at("secret"));
        assert!(!file.has_changed());
        symlink("v2", at("..next")).unwrap();
        fs::rename(at("..next"), at("..data")).unwrap();
        assert!(file.has_changed());
    }
}
