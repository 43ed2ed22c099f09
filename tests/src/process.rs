//! A binary of this workspace as a process: started from beside the test's own, watched by its log or its health,
//! killed at any moment, and never left behind.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::limits;
use crate::planted;
use crate::workdir::WorkDir;

/// What to start. The same launch may be started again and again: the log is appended to.
#[derive(Debug, Clone)]
pub struct Launch {
    name: String,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: PathBuf,
    log: PathBuf,
}

/// A running process. Dropped, it is killed and waited for; dropped by a failing test, it prints the end of its log.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
    log: PathBuf,
    /// Where this run's part of the log begins.
    log_from: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("{name} is not in {}: build it with `{build}`", dir.display())]
    NotBuilt { name: String, dir: PathBuf, build: String },
    #[error("cannot start {name}: {cause}")]
    NotStarted { name: String, cause: io::Error },
    #[error("{name} ended ({status}) before {awaited}; its log ends:\n{log}")]
    Ended { name: String, status: ExitStatus, awaited: String, log: String },
    #[error("{name}: no {awaited} within {within_ms} ms; its log ends:\n{log}")]
    TooLate { name: String, awaited: String, within_ms: u64, log: String },
    #[error("{name}: {cause}")]
    Io { name: String, cause: io::Error },
}

/// Where the workspace's binary `name` lies: beside this program, or above it for one in `deps/`.
pub fn binary(name: &str) -> Result<PathBuf, ProcessError> {
    let own = env::current_exe().map_err(|cause| ProcessError::Io { name: name.to_owned(), cause })?;
    let mut beside = own.parent().unwrap_or(Path::new("/")).to_owned();
    if beside.file_name() == Some(OsStr::new("deps")) {
        beside.pop();
    }
    let path = beside.join(name);
    if path.is_file() {
        return Ok(path);
    }
    let profile = match beside.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let build = format!("cargo build --profile {profile} --workspace --bins");
    Err(ProcessError::NotBuilt { name: name.to_owned(), dir: beside, build })
}

impl Launch {
    /// The workspace's binary `name`, run in `dir`, with its log there.
    pub fn of(name: &str, dir: &WorkDir) -> Result<Launch, ProcessError> {
        Ok(Launch::program(name, binary(name)?, dir))
    }

    /// Any program, such as `strace` before one of ours.
    pub fn program(name: &str, program: impl Into<OsString>, dir: &WorkDir) -> Launch {
        Launch {
            name: name.to_owned(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: dir.path().to_owned(),
            log: dir.join(format!("{name}.log")),
        }
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Launch {
        self.args.push(arg.into());
        self
    }

    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Launch {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Launch {
        self.env.push((key.into(), value.into()));
        self
    }

    /// A log of another name, for the second process of one binary.
    pub fn log_as(mut self, name: &str) -> Launch {
        self.log = self.dir.join(format!("{name}.log"));
        name.clone_into(&mut self.name);
        self
    }

    pub fn start(&self) -> Result<Process, ProcessError> {
        self.spawn().map_err(|cause| ProcessError::NotStarted { name: self.name.clone(), cause })
    }

    fn spawn(&self) -> io::Result<Process> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let log_from = log.metadata()?.len();
        let child = Command::new(&self.program)
            .args(&self.args)
            .envs(planted::environment())
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Process { name: self.name.clone(), child, status: None, log: self.log.clone(), log_from })
    }
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.status().is_none()
    }

    /// How it ended, once it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            // Only a child that was waited for by somebody else gives an error, and nobody else waits.
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Waits for a line of this run's log that holds `part`, and gives it.
    pub fn wait_for_line(&mut self, part: &str) -> Result<String, ProcessError> {
        self.wait_until(&format!("line with {part:?}"), limits::READY_WITHIN_MS, |process| {
            let log = process.log();
            // The last piece may be half a line yet.
            let (whole, _) = log.rsplit_once('\n')?;
            whole.lines().find(|line| line.contains(part)).map(str::to_owned)
        })
    }

    /// Waits until `GET path` on `address` answers 200, as `/healthz` and `/readyz` do.
    pub fn wait_for_ok(&mut self, address: SocketAddr, path: &str) -> Result<(), ProcessError> {
        self.wait_until(&format!("200 from {address}{path}"), limits::READY_WITHIN_MS, |_| {
            http_get(address, path).ok().filter(|(status, _)| *status == 200).map(drop)
        })
    }

    /// Looks every 20 ms until `look` gives something, the process ends, or `within_ms` have passed.
    pub fn wait_until<T>(
        &mut self,
        awaited: &str,
        within_ms: u64,
        mut look: impl FnMut(&mut Process) -> Option<T>,
    ) -> Result<T, ProcessError> {
        let until = Instant::now() + Duration::from_millis(within_ms);
        loop {
            // Before the look, so that what a process said last is still found.
            let status = self.status();
            if let Some(found) = look(self) {
                return Ok(found);
            }
            let (name, awaited) = (self.name.clone(), awaited.to_owned());
            if let Some(status) = status {
                return Err(ProcessError::Ended { name, status, awaited, log: self.log_tail() });
            }
            if Instant::now() > until {
                let log = self.log_tail() + &self.threads();
                return Err(ProcessError::TooLate { name, awaited, within_ms, log });
            }
            thread::sleep(Duration::from_millis(limits::POLL_EVERY_MS));
        }
    }

    /// What each of its threads does: its state, and where in the kernel it waits.
    fn threads(&self) -> String {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let of = |task: PathBuf| {
            let part = |name: &str| fs::read_to_string(task.join(name)).unwrap_or_default();
            let status = part("status");
            let state = status.lines().find_map(|line| line.strip_prefix("State:\t")).unwrap_or_default();
            format!("\nthread {}: {state}, in {}", part("comm").trim(), part("wchan").trim())
        };
        tasks.into_iter().flatten().flatten().map(|task| of(task.path())).collect()
    }

    /// Waits until it ends by itself.
    pub fn wait_for_end(&mut self, within_ms: u64) -> Result<ExitStatus, ProcessError> {
        self.wait_until("end", within_ms, |process| process.status())
    }

    /// Sends a signal, such as SIGSTOP to make it a slow one.
    pub fn signal(&mut self, signal: Signal) -> Result<(), ProcessError> {
        let pid = Pid::from_raw(self.child.id() as i32);
        // One that was waited for has given its number back: another may have it.
        if self.status().is_some() {
            return Ok(());
        }
        kill(pid, signal).map_err(|errno| ProcessError::Io { name: self.name.clone(), cause: errno.into() })
    }

    /// SIGSTOP, and waits until every thread stands still: the slowest of all processes. SIGCONT lets it go on.
    pub fn pause(&mut self) -> Result<(), ProcessError> {
        self.signal(Signal::SIGSTOP)?;
        let tasks = PathBuf::from(format!("/proc/{}/task", self.pid()));
        self.wait_until("standstill", limits::STOP_WITHIN_MS, |_| {
            let mut states =
                fs::read_dir(&tasks).ok()?.flatten().map(|task| fs::read_to_string(task.path().join("stat")));
            // The state follows the name, which stands in brackets.
            let stands = |stat: io::Result<String>| {
                stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
            };
            states.all(stands).then_some(())
        })
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) -> Result<(), ProcessError> {
        let name = self.name.clone();
        let ended = self.child.kill().and_then(|()| self.child.wait());
        self.status = Some(ended.map_err(|cause| ProcessError::Io { name, cause })?);
        Ok(())
    }

    /// SIGTERM, and waits for a clean end.
    pub fn stop(&mut self) -> Result<ExitStatus, ProcessError> {
        self.signal(Signal::SIGTERM)?;
        self.wait_for_end(limits::STOP_WITHIN_MS)
    }

    /// RSS in bytes, as [`tuning::proc_memory`] counts it.
    pub fn memory(&self) -> Result<u64, tuning::ReadError> {
        tuning::proc_memory(self.pid())
    }

    pub fn cpu_us(&self) -> Result<u64, tuning::ReadError> {
        tuning::proc_cpu_us(self.pid())
    }

    /// All that this run has written so far.
    pub fn log(&self) -> String {
        let whole = fs::read(&self.log).unwrap_or_default();
        let own = whole.get(self.log_from as usize..).unwrap_or_default();
        String::from_utf8_lossy(own).into_owned()
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let mut from = log.len().saturating_sub(limits::LOG_TAIL_BYTES);
        while !log.is_char_boundary(from) {
            from += 1;
        }
        log[from..].to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status().is_none()
            && let Err(error) = self.kill()
        {
            eprintln!("{error}");
        }
        if thread::panicking() {
            eprintln!("--- the end of {}'s log ---\n{}---", self.name, self.log_tail());
        }
    }
}

/// One question to a process's admin port, as `/healthz`, `/metrics` or `/status`: the answer's status and body.
pub fn http_get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    http_ask(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"))
}

/// One order to it, as `/broadcast` or `/drain`.
pub fn http_post(address: SocketAddr, path: &str, body: &str) -> io::Result<(u16, String)> {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n");
    http_ask(address, &(head + body))
}

/// 1.0, so that the body comes whole and not in chunks.
fn http_ask(address: SocketAddr, request: &str) -> io::Result<(u16, String)> {
    let bound = Duration::from_millis(limits::HEALTH_WITHIN_MS);
    let mut stream = TcpStream::connect_timeout(&address, bound)?;
    stream.set_read_timeout(Some(bound))?;
    stream.set_write_timeout(Some(bound))?;
    // In one piece: a server that answers after its first read and closes would reset us otherwise.
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(limits::HTTP_ANSWER_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn shell(dir: &WorkDir, script: &str) -> Process {
        Launch::program("shell", "/bin/sh", dir).arg("-c").arg(script).start().expect("a shell")
    }

    #[test]
    fn a_line_is_awaited_and_then_it_is_killed() {
        let dir = WorkDir::new("process").expect("a directory");
        let mut process = shell(&dir, "echo first; echo ready on 127.0.0.1:1; sleep 600");
        assert_eq!(process.wait_for_line("ready").expect("the line"), "ready on 127.0.0.1:1");
        assert!(process.is_running());
        assert!(process.memory().expect("its memory") > 0);
        process.cpu_us().expect("its CPU time");
        process.kill().expect("a dead shell");
        assert_eq!(process.status().and_then(|status| status.signal()), Some(9));
    }

    #[test]
    fn one_that_ends_early_tells_its_log() {
        let dir = WorkDir::new("process").expect("a directory");
        let mut process = shell(&dir, "echo port in use >&2; exit 3");
        let told = process.wait_for_line("ready").expect_err("it ended").to_string();
        assert!(told.contains("port in use") && told.contains("exit status: 3"), "{told}");
    }

    #[test]
    fn a_wait_ends() {
        let dir = WorkDir::new("process").expect("a directory");
        let mut process = shell(&dir, "sleep 600");
        let late = process.wait_until("sign", 50, |_| None::<()>).expect_err("there is none");
        assert!(matches!(late, ProcessError::TooLate { .. }), "{late}");
    }

    #[test]
    fn a_second_start_sees_its_own_log_only() {
        let dir = WorkDir::new("process").expect("a directory");
        let launch = Launch::program("shell", "/bin/sh", &dir).args(["-c", "echo run $RUN"]);
        let mut first = launch.clone().env("RUN", "1").start().expect("a shell");
        first.wait_for_line("run 1").expect("its line");
        let mut second = launch.env("RUN", "2").start().expect("a shell");
        second.wait_for_line("run 2").expect("its line");
        assert_eq!(second.log(), "run 2\n");
    }

    #[test]
    fn sigterm_is_a_clean_end() {
        let dir = WorkDir::new("process").expect("a directory");
        let mut process = shell(&dir, "trap 'exit 0' TERM; echo ready; while :; do sleep 0.02; done");
        process.wait_for_line("ready").expect("its line");
        assert!(process.stop().expect("an end").success());
        process.signal(Signal::SIGTERM).expect("nothing to do for one that ended");
    }

    #[test]
    fn a_paused_one_stands_still_until_it_is_let_go() {
        let dir = WorkDir::new("process").expect("a directory");
        let mut process = shell(&dir, "n=0; while :; do n=$((n + 1)); echo $n; sleep 0.01; done");
        process.wait_for_line("1").expect("its line");
        process.pause().expect("it stands");
        let log = process.log();
        thread::sleep(Duration::from_millis(100));
        assert_eq!(process.log(), log);
        process.signal(Signal::SIGCONT).expect("it goes on");
        process.wait_until("more", 10_000, |process| (process.log() > log).then_some(())).expect("more");
    }

    #[test]
    fn a_dropped_process_is_dead() {
        let dir = WorkDir::new("process").expect("a directory");
        let process = shell(&dir, "sleep 600");
        let pid = process.pid();
        drop(process);
        assert!(tuning::proc_memory(pid).is_err(), "it still lives");
    }

    #[test]
    fn a_missing_binary_says_how_to_build_it() {
        let told = binary("moorgate-no-such").expect_err("there is none").to_string();
        assert!(told.contains("cargo build --profile ") && told.contains("moorgate-no-such"), "{told}");
    }

    #[test]
    fn health_is_asked_over_http() {
        let dir = WorkDir::new("process").expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let server = thread::spawn(move || {
            for answer in ["HTTP/1.0 503 Busy\r\n\r\nno", "HTTP/1.0 200 OK\r\n\r\nok"] {
                let (mut stream, _) = listener.accept().expect("a caller");
                let mut request = [0; 1024];
                let read = stream.read(&mut request).expect("a request");
                assert!(request[..read].starts_with(b"GET /healthz HTTP/1.0\r\n"));
                stream.write_all(answer.as_bytes()).expect("an answer");
            }
        });
        let mut process = shell(&dir, "sleep 600");
        process.wait_for_ok(address, "/healthz").expect("healthy at the second look");
        server.join().expect("both answers given");
    }
}
