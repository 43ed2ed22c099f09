//! A server or a caller of the comparison: a process that says on its standard output how far it is.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use super::limits;

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("cannot start {what}: {cause}")]
    NotStarted { what: String, cause: io::Error },
    #[error(
        "{what} ended, or said nothing for too long, before it said what was waited for (its errors stand above)"
    )]
    Silent { what: String },
    #[error("{what} said {line:?}")]
    Babbled { what: String, line: String },
}

/// A running one. Dropped, it ends.
pub struct Process {
    what: String,
    child: Child,
    /// It ends when this does.
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    pub fn start(program: &Path, args: &[String]) -> Result<Self, ProcessError> {
        let what = format!("{} {}", program.display(), args.join(" "));
        let not_started = |cause| ProcessError::NotStarted { what: what.clone(), cause };
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(not_started)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout.into_iter().next()?).lines() {
                sender.send(line.ok()?).ok()?;
            }
            Some(())
        });
        Ok(Self { what, child, stdin, lines })
    }

    /// The next line that it says.
    pub fn line(&self, within: Duration) -> Result<String, ProcessError> {
        self.lines.recv_timeout(within).map_err(|error| match error {
            RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected => {
                ProcessError::Silent { what: self.what.clone() }
            }
        })
    }

    /// The next line, of which `read` makes something.
    pub fn told<T>(&self, within: Duration, read: impl FnOnce(&str) -> Option<T>) -> Result<T, ProcessError> {
        let line = self.line(within)?;
        read(&line).ok_or_else(|| ProcessError::Babbled { what: self.what.clone(), line })
    }

    /// Lets a caller that is warm begin.
    pub fn go(&mut self) {
        if let Some(stdin) = &mut self.stdin {
            // It has ended: then its next line does not come.
            let _ = stdin.write_all(b"\n").and_then(|()| stdin.flush());
        }
    }

    /// What all its threads have run, to the nanosecond.
    pub fn cpu_ns(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        tasks
            .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
            .filter_map(|told| told.split_whitespace().next()?.parse::<u64>().ok())
            .sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let until = Instant::now() + Duration::from_millis(limits::END_WITHIN_MS);
        while Instant::now() < until {
            if self.child.try_wait().ok().flatten().is_some() {
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
