//! The server's side of Unix sockets.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::rt::{self, Inbox, InboxSender};

/// After an accept that failed for want of descriptors: no storm of the same error.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A listening Unix socket. Its file goes with it.
pub struct Unix {
    listener: UnixListener,
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Unix {
    /// A file that a process left behind when it was killed is replaced; one that somebody listens behind is not.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let is_left = fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket())
            && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if is_left {
            fs::remove_file(path)?;
        }
        Ok(Self { listener: UnixListener::bind(path)?, path: path.to_owned(), thread: None })
    }

    /// Accepts until `close`. Each connection goes to the inbox, for `Server::adopt_unix`.
    pub fn start(&mut self) -> io::Result<Inbox<UnixStream>> {
        let (sender, inbox) = rt::inbox();
        let listener = self.listener.try_clone()?;
        let thread =
            thread::Builder::new().name("accept-unix".into()).spawn(move || accept(&listener, &sender))?;
        self.thread = Some(thread);
        Ok(inbox)
    }

    /// Accepts no more.
    pub fn close(mut self) {
        // Wakes the accept with an error.
        let _ = socket2::SockRef::from(&self.listener).shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; nothing more hangs on it.
            let _ = thread.join();
        }
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = fs::remove_file(&self.path);
    }
}

fn accept(listener: &UnixListener, sender: &InboxSender<UnixStream>) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => sender.put(stream),
            // The socket was shut down.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                thread::sleep(ACCEPT_RETRY);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_is_in_use_stays_and_one_that_was_left_is_replaced() {
        let path = std::env::temp_dir().join(format!("moorgate-unix-{}.sock", std::process::id()));
        let first = Unix::bind(&path).expect("a free path");
        assert_eq!(Unix::bind(&path).err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
        drop(first);
        assert!(!path.exists(), "its file goes with it");
        // As a process leaves it that is killed: the file stays, and nobody listens.
        drop(UnixListener::bind(&path).expect("a free path"));
        assert!(path.exists());
        drop(Unix::bind(&path).expect("it is replaced"));
        fs::write(&path, "a letter").expect("a file");
        assert!(Unix::bind(&path).is_err(), "what is no socket is not touched");
        assert_eq!(fs::read(&path).expect("it is there"), b"a letter");
        fs::remove_file(&path).expect("it is ours");
    }
}
