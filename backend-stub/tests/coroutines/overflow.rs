//! A handler that overflows its stack ends the process, whose last words say which method it was. In a child: this same
//! program, asked for one test.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::{env, process};

use codegen_sample::pb::order::What;

use crate::fixture::{Kind, Served, call, order};

const IN_CHILD: &str = "COROUTINES_TEST_CHILD";

#[test]
fn a_handler_that_overflows_its_stack_is_named() {
    if env::var_os(IN_CHILD).is_some() {
        let served = Served::start(Kind::Sync);
        let _ = call(served.addr, order(What::Dig, 1_000_000), 0);
        process::exit(0);
    }
    let output = Command::new(env::current_exe().expect("it runs"))
        .args(["overflow::a_handler_that_overflows_its_stack_is_named", "--exact", "--nocapture"])
        .env(IN_CHILD, "1")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the coroutine of Trial.Do has overflowed its stack of 61440 bytes"), "{said}");
    assert_eq!(output.status.signal(), Some(6), "{said}");
}
