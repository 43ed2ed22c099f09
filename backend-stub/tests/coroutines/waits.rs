//! What code on a coroutine may wait for.

use std::cell::RefCell;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use backend_stub::co::{self, File, Label, Pool, PoolConfig, RunError};
use backend_stub::rt::{self, Signal};

use crate::fixture::{on_coroutine, on_loop};

#[test]
fn coroutines_take_turns_where_they_wait() {
    let seen = on_coroutine(|| {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let handles: Vec<_> = (0..3)
            .map(|number| {
                let seen = seen.clone();
                co::spawn(move || {
                    for step in 0..3 {
                        seen.borrow_mut().push((step, number));
                        co::yield_now();
                    }
                    number
                })
                .expect("a stack")
            })
            .collect();
        let ends: Vec<i32> = handles.into_iter().map(|handle| handle.join().expect("no panic")).collect();
        assert_eq!(ends, [0, 1, 2]);
        seen.take()
    });
    let steps: Vec<i32> = seen.iter().map(|(step, _)| *step).collect();
    assert!(steps.is_sorted() && steps.len() == 9, "{seen:?}");
}

#[test]
fn what_is_spawned_ends_or_panics_or_is_cancelled_by_itself() {
    on_coroutine(|| {
        let panics = co::spawn(|| -> u32 { panic!("alone") }).expect("a stack");
        let label = Label { service: "co", method: "spawn" };
        assert_eq!(panics.join(), Err(RunError::Panicked(label, "alone".into())));

        struct Told(Signal);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.raise();
            }
        }
        let (began, dropped) = (Signal::default(), Signal::default());
        let (theirs, told) = (began.clone(), Told(dropped.clone()));
        let waits = co::spawn(move || {
            let _told = told;
            theirs.raise();
            co::wait(std::future::pending::<()>());
        });
        co::wait(began.wait());
        waits.expect("a stack").cancel();
        co::wait(dropped.wait());
    });
}

#[test]
fn a_wait_may_have_an_end() {
    on_coroutine(|| {
        let never = co::wait_for(std::future::pending::<()>(), Duration::from_millis(5));
        assert_eq!(never, None);
        assert_eq!(co::wait_for(std::future::ready(3), Duration::from_secs(60)), Some(3));
    });
}

#[test]
fn all_of_several_are_waited_for_in_any_order() {
    let outputs = on_coroutine(|| {
        co::wait_all([30u64, 10, 20].map(|ms| async move {
            rt::sleep_ms(ms).await;
            ms
        }))
    });
    assert_eq!(outputs, [30, 10, 20]);
}

#[test]
fn a_pool_that_is_used_up_says_so() {
    on_loop(|| async {
        let pool = Pool::new(&PoolConfig { stacks: 1, ..PoolConfig::default() }).expect("a pool");
        let held = pool.spawn(|| co::wait(std::future::pending::<()>())).expect("the one stack");
        assert!(matches!(pool.spawn(|| ()), Err(RunError::NoStack(1))));
        let label = Label { service: "Test", method: "run" };
        assert_eq!(pool.run(label, || ()).await, Err(RunError::NoStack(1)));
        held.cancel();
        while pool.in_use() > 0 {
            rt::yield_now().await;
        }
        assert_eq!(pool.run(label, || 5).await, Ok(5));
    });
}

#[test]
fn files_are_read_while_others_go_on() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("coroutine-file");
    let bytes: Vec<u8> = (0..1_000_000u32).map(|number| (number % 251) as u8).collect();
    fs::write(&path, &bytes).expect("a file");
    on_coroutine(move || {
        assert_eq!(co::read_file(&path).expect("it is there"), bytes);
        let mut file = File::open(&path).expect("it is there");
        assert_eq!(file.seek(SeekFrom::End(-10)).expect("it is long"), 999_990);
        let mut tail = Vec::new();
        file.read_to_end(&mut tail).expect("it is read");
        assert_eq!(tail, &bytes[999_990..]);
        assert!(co::read_file("/nowhere/at/all").is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound));
        // A panic on another thread is one here.
        let caught = panic::catch_unwind(AssertUnwindSafe(|| co::unblock(|| panic!("there"))));
        assert!(caught.is_err());
        fs::remove_file(&path).expect("it was there");
    });
}

#[test]
fn outside_of_a_coroutine_nothing_waits_and_errors_say_so() {
    on_loop(|| async {
        assert!(co::try_wait(std::future::ready(())).is_err());
        let error = co::read_file("/etc/hostname").expect_err("there is no coroutine");
        assert!(error.to_string().contains("does not run on a coroutine"), "{error}");
        // What a library says on the way is printed as ever.
        writeln!(std::io::stderr(), "outside").expect("it is there");
    });
}
