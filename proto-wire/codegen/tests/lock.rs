//! The numbers of methods are held against the lock file.

use std::fs;
use std::path::{Path, PathBuf};

use proto_wire_codegen::{Paths, generate_locked};

/// A folder with `test.proto`, whose service has these methods from line 6 on.
fn folder(name: &str, methods: &[(&str, u16)]) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("lock_{name}"));
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(&root).expect("a folder");
    write(&root, methods);
    root
}

fn write(root: &Path, methods: &[(&str, u16)]) {
    let mut text = "syntax = \"proto3\";\npackage test;\nimport \"moorgate/options.proto\";\nmessage Ask {}\nservice Odd {\n"
        .to_owned();
    for (name, id) in methods {
        text += &format!(
            "rpc {name}(Ask) returns (Ask) {{ option (moorgate.method) = {{ id: {id} deadline_ms: 5 }}; }}\n"
        );
    }
    fs::write(root.join("test.proto"), text + "}\n").expect("a file");
}

fn run(root: &Path) -> Result<(), String> {
    let paths = Paths { pb: "crate::pb".to_owned(), wire: "proto_wire".to_owned() };
    let ran =
        generate_locked(&[root], &[root.join("test.proto")], &paths, Some(&root.join("methods.lock")), root);
    ran.map(drop).map_err(|error| error.to_string().replace(&format!("{}/", root.display()), ""))
}

fn locked(root: &Path) -> Vec<String> {
    let text = fs::read_to_string(root.join("methods.lock")).expect("it was written");
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn new_methods_are_added_and_gone_ones_stay() {
    let root = folder("added", &[("Two", 2), ("One", 1)]);
    assert_eq!(run(&root), Ok(()));
    assert_eq!(locked(&root), ["0x0001 test.Odd.One", "0x0002 test.Odd.Two"]);
    write(&root, &[("One", 1), ("Three", 0x301)]);
    assert_eq!(run(&root), Ok(()));
    assert_eq!(locked(&root), ["0x0001 test.Odd.One", "0x0002 test.Odd.Two", "0x0301 test.Odd.Three"]);
}

#[test]
fn a_number_that_changed_is_an_error_and_changes_nothing() {
    let root = folder("changed", &[("One", 1), ("Two", 2)]);
    assert_eq!(run(&root), Ok(()));
    write(&root, &[("One", 1), ("Two", 3), ("New", 4)]);
    assert_eq!(
        run(&root),
        Err("test.proto:7: test.Odd.Two has id 0x0003, and methods.lock keeps 0x0002 for it".into())
    );
    assert_eq!(locked(&root), ["0x0001 test.Odd.One", "0x0002 test.Odd.Two"]);
}

#[test]
fn the_number_of_a_method_that_is_gone_is_not_given_to_another() {
    let root = folder("taken", &[("One", 1)]);
    assert_eq!(run(&root), Ok(()));
    write(&root, &[("Other", 1)]);
    assert_eq!(
        run(&root),
        Err("test.proto:6: test.Odd.Other has id 0x0001, which methods.lock keeps for test.Odd.One".into())
    );
}

#[test]
fn a_malformed_lock_file_is_told_by_its_lines() {
    let root = folder("malformed", &[("One", 1)]);
    fs::write(
        root.join("methods.lock"),
        "# top\n0x0001 test.Odd.One\none test.Odd.One\n0x0001 test.Odd.Two\n",
    )
    .expect("a file");
    assert_eq!(
        run(&root),
        Err("methods.lock:3: \"one test.Odd.One\" is no line like \"0x0601 moorgate.Echo.Say\"\n\
             methods.lock:4: 0x0001 stands here twice, for test.Odd.One too"
            .into())
    );
}

#[test]
fn a_lock_file_that_cannot_be_written_is_told_by_name() {
    let root = folder("unwritable", &[("One", 1)]);
    fs::create_dir(root.join("methods.lock")).expect("a folder in its place");
    assert!(run(&root).is_err_and(|told| told.starts_with("methods.lock: ")));
}
