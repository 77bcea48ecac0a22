//! The Unix-domain socket: a file that exists as long as somebody listens behind it.

use std::{
    fs::{self, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

use crate::server::{ServerError, unbound};

/// Its owner and group may connect.
const MODE: u32 = 0o660;

/// The file; it goes with this value.
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have removed it before.
        let _ = fs::remove_file(&self.0);
    }
}

/// Listens at a path. A file that a process which is gone has left there is replaced, and nothing else ever is.
pub(super) async fn bind(path: &Path) -> Result<(UnixListener, SocketFile), ServerError> {
    listen(path).await.map_err(|error| unbound("server.unix_socket", &path.display().to_string(), &error))
}

async fn listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    make_room(path).await?;
    // It gets its name after its mode, so nobody can connect in between whom the mode keeps out.
    let mut file = SocketFile(unnamed(path));
    let listener = UnixListener::bind(&file.0)?;
    fs::set_permissions(&file.0, Permissions::from_mode(MODE))?;
    fs::rename(&file.0, path)?;
    path.clone_into(&mut file.0);
    Ok((listener, file))
}

/// Where the file is until it gets its name. That is drawn and not made of the process's number, which is 1 in every
/// container: a file that was left by one which was killed here would keep out all that come after it.
fn unnamed(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{:08x}", rand::random::<u32>()))
}

async fn make_room(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            Err(io::Error::new(ErrorKind::AlreadyExists, "there is a file that is no socket"))
        }
        Ok(_) => match UnixStream::connect(path).await {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
            Ok(_) | Err(_) => Err(io::Error::new(ErrorKind::AddrInUse, "the socket is in use")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_nobody_listens_behind_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bearerd.sock");
        let (listener, file) = bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert!(bind(&path).await.err().unwrap().to_string().contains("in use"));
        assert!(UnixStream::connect(&path).await.is_ok(), "the one who listened before still does");

        // As after a process that was killed: the file is there, and nobody behind it.
        drop(listener);
        let (listener, second) = bind(&path).await.unwrap();
        assert!(UnixStream::connect(&path).await.is_ok());
        std::mem::forget(file);
        drop((listener, second));
        assert!(!path.exists());

        fs::write(&path, "mine").unwrap();
        assert!(bind(&path).await.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[tokio::test]
    async fn what_was_left_on_the_way_to_the_name_keeps_out_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bearerd.sock");
        // As after processes of any number that were killed right before the name was given.
        drop([unnamed(&path), unnamed(&path)].map(|left| UnixListener::bind(left).unwrap()));
        drop(UnixListener::bind(path.with_extension(format!("{}.new", std::process::id()))).unwrap());
        let (_listener, _file) = bind(&path).await.unwrap();
        assert!(UnixStream::connect(&path).await.is_ok());
    }
}
