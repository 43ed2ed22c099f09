//! A server of the comparison: started on one core, met on its port, metered by its process, stopped at the end.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use super::limits;

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("{name} is not installed here ({hint})")]
    Missing { name: &'static str, hint: &'static str },
    #[error("cannot start {name}: {cause}")]
    NotStarted { name: &'static str, cause: io::Error },
    #[error("{name} did not listen on {address} within {} s; its log ends:\n{log}", limits::LISTEN_WITHIN_MS / 1_000)]
    NotReady { name: &'static str, address: SocketAddr, log: String },
}

/// What to start.
#[derive(Debug)]
pub struct Plan<'a> {
    pub name: &'static str,
    pub program: PathBuf,
    pub args: Vec<OsString>,
    /// Where its configuration and its log lie.
    pub directory: &'a Path,
    pub core: usize,
    pub address: SocketAddr,
}

/// A running one. Dropped, it is stopped.
#[derive(Debug)]
pub struct Server {
    pub name: &'static str,
    pub address: SocketAddr,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts it, pinned with all its threads, and waits until its port answers.
    pub fn start(plan: Plan<'_>) -> Result<Self, ServerError> {
        let Plan { name, program, args, directory, core, address } = plan;
        let not_started = |cause| ServerError::NotStarted { name, cause };
        let log = directory.join(format!("{name}.log"));
        let out = File::create(&log).map_err(not_started)?;
        let errors = out.try_clone().map_err(not_started)?;
        // A child inherits the signals that this program keeps for one thread, and would never hear SIGTERM.
        let _ = crate::signals::own().thread_unblock();
        let child = Command::new("taskset")
            .args(["-c", &core.to_string()])
            .arg(program)
            .args(args)
            .env("GOMAXPROCS", "1")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            .spawn();
        if crate::signals::is_watching() {
            let _ = crate::signals::own().thread_block();
        }
        let mut server = Self { name, address, child: child.map_err(not_started)?, log };
        let until = Instant::now() + Duration::from_millis(limits::LISTEN_WITHIN_MS);
        while TcpStream::connect(address).is_err() {
            let has_ended = server.child.try_wait().ok().flatten().is_some();
            if has_ended || Instant::now() > until || crate::signals::interrupted() {
                return Err(ServerError::NotReady { name, address, log: server.log_tail() });
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// User and system time of the process.
    pub fn cpu_us(&self) -> u64 {
        tuning::proc_cpu_us(self.child.id()).unwrap_or(0)
    }

    pub fn rss_bytes(&self) -> u64 {
        tuning::proc_memory(self.child.id()).unwrap_or(0)
    }

    pub fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let from = log.len().saturating_sub(crate::limits::LOG_TAIL_BYTES);
        String::from_utf8_lossy(&log[from..]).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let until = Instant::now() + Duration::from_millis(limits::END_WITHIN_MS);
        while Instant::now() < until {
            if self.child.try_wait().ok().flatten().is_some() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a program is: on the path, or where Debian puts servers.
pub fn find(name: &'static str, hint: &'static str) -> Result<PathBuf, ServerError> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
        .ok_or(ServerError::Missing { name, hint })
}

/// What a program says of itself when it is asked with this flag: its first line.
pub fn version(program: &Path, flag: &str) -> String {
    let told = Command::new(program).arg(flag).stdin(Stdio::null()).output();
    told.map_or_else(
        |error| error.to_string(),
        |told| {
            let text = if told.stdout.is_empty() { told.stderr } else { told.stdout };
            String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
        },
    )
}

/// A port of loopback that was free just now.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

/// Writes a configuration of the tree with its places filled in.
pub fn configuration(directory: &Path, name: &str, text: &str, fill: &[(&str, u16)]) -> io::Result<PathBuf> {
    let mut text = text.to_owned();
    for (place, port) in fill {
        text = text.replace(place, &port.to_string());
    }
    let path = directory.join(name);
    fs::write(&path, text)?;
    Ok(path)
}
