//! An acknowledgement means that fdatasync returned. strace makes it slow, or makes it fail, and its own log tells
//! the order: phone and backend run under one strace, and the phone writes down in it what it does.

use std::fs;
use std::path::{Path, PathBuf};

use tests::{Launch, Process, System, binary, fleet, limits};

/// Messages, one after the other.
const MESSAGES: u32 = 3;

const ALICE: u64 = 11;
const BOB: u64 = 12;

/// What a line of strace's log says, where it matters here.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// A sync began, in this thread.
    Begins(u32),
    /// It returned well.
    Synced(u32),
    Failed(u32),
    Sends(u32),
    /// The backend handed the text of a message to the kernel, in this thread.
    Writes(u32, u32),
    Acknowledged(u32),
}

#[test]
fn no_acknowledgement_is_written_before_the_sync_returns_by_straces_own_log() {
    let (mut system, log) = system_under_strace("delay_enter=500000");
    let mut traced = start_traced(&mut system, &log, "delay_enter=500000");
    traced
        .wait_until("acknowledgements", 2 * limits::SOON_MS, |_| {
            let acknowledged =
                lines(&log).iter().filter(|line| matches!(line, Line::Acknowledged(_))).count();
            (acknowledged == MESSAGES as usize).then_some(())
        })
        .expect("all acknowledged");
    end(&mut traced);
    let lines = lines(&log);
    for message in 0..MESSAGES {
        let at = |wanted: Line| lines.iter().position(|line| *line == wanted).expect("the phone's line");
        let between = &lines[at(Line::Sends(message))..at(Line::Acknowledged(message))];
        assert!(
            is_on_disk(between, message),
            "message {message} was acknowledged before it was on disk: {between:?}"
        );
    }
}

#[test]
fn strace_with_a_failing_sync_nothing_is_acknowledged_and_the_backend_stops_with_the_reason() {
    let (mut system, log) = system_under_strace("error=EIO");
    let mut traced = start_traced(&mut system, &log, "error=EIO");
    let said = traced.wait_for_line("the store cannot write").expect("the reason");
    assert!(said.contains("nothing is acknowledged"), "{said}");
    traced.wait_for_line("backend ended").expect("the backend's end");
    end(&mut traced);
    let lines = lines(&log);
    assert!(lines.contains(&Line::Sends(0)), "{lines:?}");
    assert!(lines.iter().any(|line| matches!(line, Line::Failed(_))), "{lines:?}");
    assert!(!lines.iter().any(|line| matches!(line, Line::Acknowledged(_))), "{lines:?}");
    // With a good disk again: nothing that was acknowledged was there, and what was sent may be there or not.
    system.backend.start().expect("started on what is there");
    system.gateway().wait_until_ready().expect("connected");
}

/// Whether a message was written, and a sync that began after that returned well, all in these lines.
fn is_on_disk(lines: &[Line], message: u32) -> bool {
    let is_write = |line: &Line| matches!(line, Line::Writes(_, of) if *of == message);
    let Some(written) = lines.iter().position(is_write) else { return false };
    let Line::Writes(thread, _) = lines[written] else { return false };
    let after = &lines[written..];
    let Some(begun) = after.iter().position(|line| *line == Line::Begins(thread)) else { return false };
    after[begun..].contains(&Line::Synced(thread))
}

#[test]
fn an_acknowledgement_that_comes_too_early_would_be_found_in_the_log() {
    let parsed = |log: &str| log.lines().flat_map(line).collect::<Vec<_>>();
    let good = "7 write(4, \"phone sends 0\", 13) = 13\n\
                8 write(13, \"\\0\\3traced text 0\\0\", 17) = 17\n\
                8 fdatasync(13 <unfinished ...>\n\
                9 write(21, \"\\1\", 1) = 1\n\
                8 <... fdatasync resumed>) = 0 (DELAYED)\n";
    assert!(is_on_disk(&parsed(good), 0), "{:?}", parsed(good));
    assert!(!is_on_disk(&parsed(good), 1));
    let failed = good.replace("= 0 (DELAYED)", "= -1 EIO (Input/output error) (INJECTED)");
    assert!(!is_on_disk(&parsed(&failed), 0));
    let unended: Vec<&str> = good.lines().take(4).collect();
    assert!(!is_on_disk(&parsed(&unended.join("\n")), 0));
    // The sync of something earlier does not count.
    let earlier = "8 fdatasync(13)      = 0\n8 write(13, \"traced text 0\", 13) = 13\n";
    assert!(!is_on_disk(&parsed(earlier), 0));
    let whole = format!("{earlier}8 fdatasync(13)      = 0 (DELAYED)\n");
    assert!(is_on_disk(&parsed(&whole), 0));
}

/// A gateway in front of a backend that does not run yet, with a store that was made, and where strace logs.
fn system_under_strace(name: &str) -> (System, PathBuf) {
    let mut system = System::start(name.split('=').next().unwrap_or(name)).expect("a system");
    system.backend.running().stop().expect("stopped");
    system.backend.process = None;
    let log = system.dir.join("syscalls");
    (system, log)
}

/// Backend and phone under one strace.
fn start_traced(system: &mut System, log: &Path, inject: &str) -> Process {
    let token = fleet::token(&system.issuer().expect("a key"), ALICE);
    let gateway = system.gateway().address();
    let file = system.dir.join("phone");
    let phone = binary("faults").expect("built");
    let backend = binary("moorgate-backend").expect("built");
    let script = format!(
        "({} serve --listen {} --admin {} --data data; echo backend ended) & exec {} traced-phone {gateway} {token} {BOB} {MESSAGES} {}",
        backend.display(),
        system.backend.address(),
        system.backend.admin(),
        phone.display(),
        file.display()
    );
    Launch::program("strace", "strace", &system.dir)
        .args([
            "-f",
            "-qq",
            "-s",
            "4096",
            "-e",
            "trace=fdatasync,write",
            "-e",
            &format!("inject=fdatasync:{inject}"),
        ])
        .arg("-o")
        .arg(log)
        .args(["/bin/sh", "-c", &script])
        .start()
        .expect("strace")
}

/// Ends what strace started, by their own ids, and strace with it.
fn end(traced: &mut Process) {
    // Killed, strace detaches and leaves its children; told to end, it ends them first.
    for child in children(traced.pid()) {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(child as i32),
            nix::sys::signal::Signal::SIGKILL,
        );
    }
    traced.kill().expect("strace's end");
}

fn children(of: u32) -> Vec<u32> {
    let listed = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    let direct: Vec<u32> = listed.split(' ').filter_map(|pid| pid.trim().parse().ok()).collect();
    direct.iter().flat_map(|&pid| children(pid).into_iter().chain([pid])).collect()
}

fn lines(log: &Path) -> Vec<Line> {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().flat_map(line).collect()
}

/// `1234 fdatasync(7) = 0 (DELAYED)`, the same in two halves when another thread's line came between, or the phone's
/// `1235 write(3, "phone sends 0", 13) = 13`.
fn line(text: &str) -> Vec<Line> {
    let Some((thread, text)) = text.split_once(' ') else { return vec![] };
    let (Ok(thread), text) = (thread.parse(), text.trim_start()) else { return vec![] };
    let number = |after: &str| {
        let rest = text.split_once(after)?.1;
        rest.chars().next()?.to_digit(10)
    };
    let end = || if text.contains(" = 0") { Line::Synced(thread) } else { Line::Failed(thread) };
    if text.starts_with("<... fdatasync resumed>") {
        return vec![end()];
    }
    if text.starts_with("fdatasync(") {
        // A whole line: nothing happened between its halves.
        return if text.contains("<unfinished") {
            vec![Line::Begins(thread)]
        } else {
            vec![Line::Begins(thread), end()]
        };
    }
    if !text.starts_with("write(") {
        return vec![];
    }
    match (number("\"phone sends "), number("\"phone acknowledged ")) {
        (Some(message), _) => vec![Line::Sends(message)],
        (_, Some(message)) => vec![Line::Acknowledged(message)],
        _ => number("traced text ").map(|message| Line::Writes(thread, message)).into_iter().collect(),
    }
}
