//! Files of this host that hold secrets, or that only bearerd may write: who else can read or write them.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use rustix::{fs::OFlags, process::geteuid};

/// The bits of others in a mode: read and write.
const OTHERS_WRITE: u32 = 0o002;
const OTHERS_READ: u32 = 0o004;
const STICKY: u32 = 0o1000;

/// What other users of this host can do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// Nothing. What its group can do is the operator's choice: Kubernetes gives mounted secrets to a group.
    None,
    /// Every user can read it.
    Readable,
    /// Every user can write it, or put another file in its place.
    Writable,
}

impl Exposure {
    /// Of what is at this path. A symbolic link is followed: Kubernetes mounts secrets behind links.
    ///
    /// # Errors
    ///
    /// The system's, if nothing can be told of it.
    pub fn of(path: &Path) -> io::Result<Self> {
        let (path, found) = (fs::canonicalize(path)?, fs::metadata(path)?);
        let mode = found.mode();
        if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
            return Ok(Self::Writable);
        }
        let reached =
            path.ancestors().skip(1).all(|parent| fs::metadata(parent).is_ok_and(|parent| parent.mode() & 0o001 != 0));
        Ok(if reached && mode & OTHERS_READ != 0 { Self::Readable } else { Self::None })
    }
}

/// Opens a file for appending, or makes it for its owner alone. A symbolic link is refused, and so is a file that another user
/// owns or can write: what is appended would go where somebody else says.
///
/// # Errors
///
/// The system's, or what is wrong with the file.
pub fn append(path: &Path) -> io::Result<File> {
    let opened = own(OpenOptions::new().append(true).create(true)).open(path);
    let file = opened.map_err(|error| match fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        true => io::Error::new(error.kind(), "it is a symbolic link; name the file itself"),
        false => error,
    })?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Ok(file);
    }
    if found.mode() & OTHERS_WRITE != 0 {
        return Err(io::Error::other("every user of this host can write it; run chmod o-w on it"));
    }
    let owner = found.uid();
    if owner != geteuid().as_raw() && owner != 0 {
        return Err(io::Error::other(format!(
            "it belongs to the user {owner}; give it to the user of bearerd, or remove it"
        )));
    }
    Ok(file)
}

/// Makes a new file for its owner alone. What is there already, or a symbolic link, is an error.
///
/// # Errors
///
/// The system's.
pub fn create_new(path: &Path) -> io::Result<File> {
    own(OpenOptions::new().write(true).create_new(true)).open(path)
}

fn own(options: &mut OpenOptions) -> &mut OpenOptions {
    // Its bits are the same in both types.
    options.mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
}

/// Refuses what every user of this host can write.
///
/// # Errors
///
/// What is wrong and how to mend it, or the system's.
pub fn refuse_writable(path: &Path) -> io::Result<()> {
    match Exposure::of(path)? {
        Exposure::None | Exposure::Readable => Ok(()),
        Exposure::Writable => Err(io::Error::other("every user of this host can write it; run chmod o-w on it")),
    }
}

/// Takes from other users of this host what they can do with a file. True if they could do something.
///
/// # Errors
///
/// The system's.
pub fn close_to_others(path: &Path) -> io::Result<bool> {
    let permissions = fs::metadata(path)?.permissions();
    let mode = permissions.mode();
    if mode & 0o007 == 0 {
        return Ok(false);
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7770))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// LOW 18.
    #[test]
    fn what_others_can_do_with_a_file_is_found_out_through_links_and_directories() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, "x").unwrap();
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        for (mode, others) in [
            (0o600, Exposure::None),
            (0o440, Exposure::None),
            (0o640, Exposure::None),
            (0o660, Exposure::None),
            (0o644, Exposure::Readable),
            (0o444, Exposure::Readable),
            (0o666, Exposure::Writable),
            (0o602, Exposure::Writable),
        ] {
            chmod(&path, mode);
            chmod(directory.path(), 0o711);
            assert_eq!(Exposure::of(&link).unwrap(), others, "{mode:o}");
            chmod(directory.path(), 0o700);
            let unreached = if others == Exposure::Writable { others } else { Exposure::None };
            assert_eq!(Exposure::of(&path).unwrap(), unreached, "{mode:o} in a directory for its owner alone");
        }
    }

    /// LOW 18: the probe of the spool emptied the file that a link led to, and the audit log was written where one led.
    #[test]
    fn no_link_is_followed_to_a_file_that_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let (target, link) = (directory.path().join("target"), directory.path().join("link"));
        fs::write(&target, "mine").unwrap();
        chmod(&target, 0o600);
        symlink(&target, &link).unwrap();
        assert!(append(&link).unwrap_err().to_string().contains("symbolic link"));
        assert!(create_new(&link).is_err() && create_new(&target).is_err());
        assert_eq!(fs::read_to_string(&target).unwrap(), "mine");
        chmod(&target, 0o666);
        assert!(append(&target).unwrap_err().to_string().contains("chmod o-w"));
        assert!(close_to_others(&target).unwrap() && !close_to_others(&target).unwrap());
        append(&target).unwrap();
        let new = directory.path().join("new");
        append(&new).unwrap();
        assert_eq!(fs::metadata(new).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
