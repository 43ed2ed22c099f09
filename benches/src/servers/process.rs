//! A server as a process: started from beside the bench, watched by its log, killed, never left behind.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::limits;

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("{name} is not in {}: build it with `{build}`", dir.display())]
    NotBuilt { name: &'static str, dir: PathBuf, build: String },
    #[error("cannot start {name}: {cause}")]
    NotStarted { name: &'static str, cause: io::Error },
    #[error("{name} ended before it was ready ({status}); its log ends:\n{log}")]
    Ended { name: &'static str, status: String, log: String },
    #[error("{name} was not ready within {} s; its log ends:\n{log}", limits::READY_WITHIN_MS / 1000)]
    TooLate { name: &'static str, log: String },
    #[error("{}", crate::signals::NOTHING_RAN)]
    Interrupted,
}

/// What to start, again and again.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    name: &'static str,
    program: PathBuf,
    args: Vec<OsString>,
    dir: PathBuf,
    log: PathBuf,
}

/// A running one. Dropped, it is stopped; killed when it does not stop.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    /// Where this run's part of the log begins.
    log_from: u64,
}

impl Launch {
    /// The program `name` of `package`, which lies beside this one.
    pub fn beside(name: &'static str, package: &str, dir: &Path) -> Result<Self, ProcessError> {
        let own = env::current_exe().map_err(|cause| ProcessError::NotStarted { name, cause })?;
        let mut beside = own.parent().unwrap_or(Path::new("/")).to_owned();
        if beside.file_name() == Some(OsStr::new("deps")) {
            beside.pop();
        }
        let program = beside.join(name);
        if !program.is_file() {
            let profile = match beside.file_name().and_then(OsStr::to_str) {
                Some("release") => "--release".to_owned(),
                Some("debug") | None => String::new(),
                Some(profile) => format!("--profile {profile}"),
            };
            let build = format!("cargo build {profile} -p {package}").replace("  ", " ");
            return Err(ProcessError::NotBuilt { name, dir: beside, build });
        }
        let log = dir.join(format!("{name}.log"));
        Ok(Self { name, program, args: Vec::new(), dir: dir.to_owned(), log })
    }

    /// Its log has this name, so that two of a kind can be told apart.
    pub fn log_as(mut self, name: &str) -> Self {
        self.log = self.dir.join(format!("{name}.log"));
        self
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub fn cores(self, cores: &[usize]) -> Self {
        if cores.is_empty() {
            return self;
        }
        let list: Vec<String> = cores.iter().map(usize::to_string).collect();
        self.arg("--cores").arg(list.join(","))
    }

    /// Starts it and waits for its line `ready ...`.
    pub fn start_ready(&self) -> Result<Process, ProcessError> {
        let mut process =
            self.start().map_err(|cause| ProcessError::NotStarted { name: self.name, cause })?;
        let until = Instant::now() + Duration::from_millis(limits::READY_WITHIN_MS);
        loop {
            // Before the look, so that what it said last is still seen.
            let status = process.child.try_wait().ok().flatten();
            if process.log().lines().any(|line| line.starts_with("ready")) {
                return Ok(process);
            }
            if let Some(status) = status {
                let log = process.log_tail();
                return Err(ProcessError::Ended { name: self.name, status: status.to_string(), log });
            }
            if crate::signals::interrupted() {
                return Err(ProcessError::Interrupted);
            }
            if Instant::now() > until {
                return Err(ProcessError::TooLate { name: self.name, log: process.log_tail() });
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn start(&self) -> io::Result<Process> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let log_from = log.metadata()?.len();
        // A child inherits the signals that this program keeps for one thread, and would never hear SIGTERM.
        let _ = crate::signals::own().thread_unblock();
        let child = Command::new(&self.program)
            .args(&self.args)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        if crate::signals::is_watching() {
            let _ = crate::signals::own().thread_block();
        }
        let child = child?;
        Ok(Process { name: self.name, child, log: self.log.clone(), log_from })
    }
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        // Both fail only for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Why it no longer runs, if so.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("{} ended ({status}); its log ends:\n{}", self.name, self.log_tail()))
    }

    fn log(&self) -> String {
        let whole = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(whole.get(self.log_from as usize..).unwrap_or_default()).into_owned()
    }

    pub fn log_tail(&self) -> String {
        let log = self.log();
        let mut from = log.len().saturating_sub(limits::LOG_TAIL_BYTES);
        while !log.is_char_boundary(from) {
            from += 1;
        }
        log[from..].to_owned()
    }

    fn stop(&mut self) {
        if self.child.try_wait().ok().flatten().is_some() {
            return;
        }
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let until = Instant::now() + Duration::from_millis(limits::STOP_WITHIN_MS);
        while Instant::now() < until {
            if self.child.try_wait().ok().flatten().is_some() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} did not stop within {} s and was killed", self.name, limits::STOP_WITHIN_MS / 1000);
        self.kill();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_says_which_command_makes_it() {
        let told =
            Launch::beside("moorgate-no-such", "no-such", Path::new("/tmp")).expect_err("none").to_string();
        assert!(told.contains("cargo build") && told.contains("-p no-such"), "{told}");
    }

    #[test]
    fn one_that_ends_early_tells_its_log() {
        let dir = env::temp_dir().join(format!("moorgate-bench-test-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let launch = |script: &str| Launch {
            name: "shell",
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            dir: dir.clone(),
            log: dir.join("shell.log"),
        };
        let told = launch("echo port in use >&2; exit 3").start_ready().expect_err("it ended").to_string();
        assert!(told.contains("port in use") && told.contains("exit status: 3"), "{told}");
        let mut process = launch("echo ready; exec sleep 600").start_ready().expect("it is ready");
        assert!(process.ended().is_none());
        process.kill();
        assert!(process.ended().is_some_and(|told| told.contains("signal: 9")));
        fs::remove_dir_all(&dir).expect("removed");
    }
}
