//! A stack that overflows ends the process, and its last words say whose it was. Each case runs in a child: this same
//! program, asked for that case alone.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::task::{Context, Waker};
use std::{env, hint, thread};

use backend_stacks::{Arena, ArenaConfig, Coroutine, Guard, Label};

const DEEP: Label = Label { service: "Echo", method: "Dig" };
const IN_CHILD: &str = "STACKS_TEST_CHILD";

fn is_child() -> bool {
    env::var_os(IN_CHILD).is_some()
}

fn child(test: &str) -> Output {
    Command::new(env::current_exe().expect("it runs"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(IN_CHILD, "1")
        .output()
        .expect("it starts")
}

#[inline(never)]
fn dig(depth: u64) -> u64 {
    let frame = hint::black_box([depth; 16]);
    if depth == u64::MAX { 0 } else { dig(depth + 1) + hint::black_box(frame[3]) }
}

fn overflow(guard: Option<Guard>, rounds: usize) {
    let config = ArenaConfig { stacks: 8, keep_bytes: 0, guard, ..ArenaConfig::default() };
    let arena = Arena::new(&config).expect("an arena");
    // The first stack's guard page was tried when the arena was made.
    let _first = arena.take(DEEP).expect("a stack");
    let mut context = Context::from_waker(Waker::noop());
    let mut run = |body: fn() -> u64| {
        let mut coroutine = Coroutine::new(arena.take(DEEP).expect("a stack"), body);
        assert!(coroutine.poll(&mut context).is_ready());
    };
    // Used and given back: the guard page must still be there.
    (0..rounds).for_each(|_| run(|| 7));
    run(|| dig(0));
}

fn assert_told(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("the coroutine of Echo.Dig has overflowed its stack of 61440 bytes"),
        "{said}\n{:?}",
        output.status
    );
    assert_eq!(output.status.signal(), Some(6), "{said}");
}

#[test]
fn an_overflow_is_told_by_name() {
    if is_child() {
        return overflow(None, 0);
    }
    assert_told(&child("an_overflow_is_told_by_name"));
}

#[test]
fn an_overflow_is_told_where_pages_are_protected() {
    if is_child() {
        return overflow(Some(Guard::Protect), 0);
    }
    assert_told(&child("an_overflow_is_told_where_pages_are_protected"));
}

#[test]
fn a_guard_page_stays_when_its_stack_gives_memory_back() {
    if is_child() {
        return overflow(None, 3);
    }
    assert_told(&child("a_guard_page_stays_when_its_stack_gives_memory_back"));
}

#[test]
fn the_overflow_of_a_plain_thread_is_left_to_the_standard_library() {
    if is_child() {
        let arena = Arena::new(&ArenaConfig::default());
        let thread = thread::Builder::new().name("plain".into()).spawn(|| dig(0)).expect("a thread");
        let _ = thread.join();
        return drop(arena);
    }
    let output = child("the_overflow_of_a_plain_thread_is_left_to_the_standard_library");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("has overflowed its stack") && !said.contains("coroutine"), "{said}");
    assert_eq!(output.status.signal(), Some(6), "{said}");
}
