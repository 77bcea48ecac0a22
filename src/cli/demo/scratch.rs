//! A directory for as long as the demonstration lasts.

use std::{
    env, fs,
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// A new directory that only this user can read. It goes, with everything in it, when this is dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes the directory among the system's temporary files.
    pub fn new() -> io::Result<Self> {
        let path = env::temp_dir().join(format!("bearerd-demo-{:016x}", rand::random::<u64>()));
        // Not recursive, so a directory that somebody else put there is an error.
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file in it, as text for a configuration.
    pub fn file(&self, name: &str) -> io::Result<String> {
        let path = self.0.join(name).into_os_string().into_string();
        path.map_err(|_| io::Error::new(ErrorKind::InvalidInput, "the temporary directory's path is not UTF-8"))
    }

    /// Writes a file into it.
    pub fn write(&self, name: &str, content: &str) -> io::Result<()> {
        fs::write(self.0.join(name), content)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_private_and_goes_with_what_is_in_it() {
        let scratch = Scratch::new().unwrap();
        scratch.write("file", "content").unwrap();
        let path = scratch.path().to_owned();
        assert_eq!(fs::read_to_string(scratch.file("file").unwrap()).unwrap(), "content");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(scratch);
        assert!(!path.exists());
    }
}
