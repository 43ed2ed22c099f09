//! The same `.proto` compiled by `protoc` for Python exchanges messages with the generated code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::messages::{choices, full};
use codegen_sample::pb::{Everything, OfThisYear, of_this_year};
use proto_wire::prost::Message;

/// Where `tests/run` installs what comes from PyPI.
fn python() -> PathBuf {
    let own = std::env::current_exe().expect("the test's path");
    let path = own.ancestors().nth(3).expect("the target directory").join("peers-venv/bin/python3");
    assert!(path.is_file(), "{} is missing: tests/run installs it", path.display());
    path
}

fn run(command: &mut Command) {
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{said}");
}

fn hex(message: &impl Message) -> String {
    message.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<M: Message + Default>(line: &str) -> M {
    let byte = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).expect("hex");
    let bytes: Vec<u8> = (0..line.len()).step_by(2).map(byte).collect();
    M::decode(bytes.as_slice()).expect("what Python wrote")
}

/// Python reads what we wrote and compares it with what it makes itself; it sends back both its own and ours, the latter
/// once over binary and once over JSON.
#[test]
fn messages_are_exchanged_with_protoc_for_python() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out).expect("a folder");
    let (protos, options) = (manifest.join("proto"), manifest.join("../../proto"));
    run(Command::new(python())
        .args(["-m", "grpc_tools.protoc", "-I"])
        .arg(&protos)
        .arg("-I")
        .arg(&options)
        .arg(format!("--python_out={}", out.display()))
        .args(["kinds.proto", "trial.proto", "moorgate/options.proto"]));

    let sent: Vec<Everything> = choices().into_iter().map(full).collect();
    let lines: Vec<String> = sent.iter().map(hex).collect();
    fs::write(out.join("ours"), lines.join("\n")).expect("a file");
    run(Command::new(python()).arg(manifest.join("tests/sample/exchange.py")).arg(&out));

    let back = fs::read_to_string(out.join("theirs")).expect("Python wrote it");
    let mut lines = back.lines();
    for (at, ours) in sent.iter().enumerate() {
        for way in ["binary", "json", "own"] {
            let theirs: Everything = unhex(lines.next().expect("three for each"));
            assert_eq!(&theirs, ours, "{at} by {way}");
        }
    }
    let grown: OfThisYear = unhex(lines.next().expect("one more"));
    assert_eq!(grown.shade(), of_this_year::Shade::Dark);
    assert_eq!(grown.shades, [7, 0]);
    assert_eq!(lines.next(), None);
}
