//! What is wrong in a `.proto` is told with its file and line; what is right becomes code.

use std::fs;
use std::path::{Path, PathBuf};

use proto_wire_codegen::{CodegenError, Paths, generate, generate_folder};

const OPTIONS: &str = include_str!("../../proto/moorgate/options.proto");

/// A folder with the option's own file and `test.proto`, whose service holds `methods` from line 8 on.
fn folder(name: &str, methods: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(root.join("moorgate")).expect("a folder");
    fs::write(root.join("moorgate/options.proto"), OPTIONS).expect("a file");
    let text = format!(
        "syntax = \"proto3\";\npackage test;\nimport \"moorgate/options.proto\";\n\nmessage Ask {{ bytes body = 1; }}\n\
         // About nothing.\nservice Odd {{\n{methods}\n}}\n"
    );
    fs::write(root.join("test.proto"), text).expect("a file");
    root
}

fn run(root: &Path) -> Result<String, CodegenError> {
    let paths = Paths { pb: "crate::pb".to_owned(), wire: "proto_wire".to_owned() };
    generate(&[root], &[root.join("test.proto")], &paths, root)?;
    Ok(fs::read_to_string(root.join("services.rs")).expect("it was written"))
}

/// The faults of a service with these methods, without the folder.
fn faults(name: &str, methods: &str) -> Vec<String> {
    let root = folder(name, methods);
    let error = run(&root).expect_err("it must not compile").to_string();
    error.lines().map(|line| line.replace(&format!("{}/", root.display()), "")).collect()
}

#[test]
fn two_methods_with_one_number() {
    let one = "  rpc One(Ask) returns (Ask) { option (moorgate.method) = { id: 0x0701 deadline_ms: 5 }; }";
    let two = "  rpc Two(Ask) returns (Ask) { option (moorgate.method) = { id: 0x0701 deadline_ms: 5 }; }";
    assert_eq!(
        faults("same_id", &format!("{one}\n{two}")),
        ["test.proto:9: test.Odd.Two has id 0x0701, which test.Odd.One has"]
    );
}

#[test]
fn every_fault_is_told_at_its_line() {
    let methods = "  rpc Bare(Ask) returns (Ask);
  rpc NoId(Ask) returns (Ask) { option (moorgate.method) = { deadline_ms: 5 }; }
  rpc Large(Ask) returns (Ask) { option (moorgate.method) = { id: 0x10000 deadline_ms: 5 }; }
  rpc Endless(Ask) returns (Ask) { option (moorgate.method) = { id: 1 }; }
  rpc Low(Ask) returns (Ask) { option (moorgate.method) = { id: 2 deadline_ms: 5 priority: 256 }; }
  rpc Flow(Ask) returns (stream Ask) { option (moorgate.method) = { id: 3 deadline_ms: 5 }; }";
    assert_eq!(
        faults("faults", methods),
        [
            "test.proto:8: test.Odd.Bare has no option (moorgate.method) = { id: .. deadline_ms: .. }",
            "test.proto:9: test.Odd.NoId has id 0, outside 1 to 0xffff",
            "test.proto:10: test.Odd.Large has id 65536, outside 1 to 0xffff",
            "test.proto:11: test.Odd.Endless has no deadline_ms: a call without an end holds its place for ever",
            "test.proto:12: test.Odd.Low has priority 256, outside 0 to 255",
            "test.proto:13: test.Odd.Flow streams: a call has one request and one reply",
        ]
    );
}

#[test]
fn a_misspelt_type_is_told_with_its_place() {
    let root = folder(
        "misspelt",
        "  rpc One(Aks) returns (Ask) { option (moorgate.method) = { id: 1 deadline_ms: 5 }; }",
    );
    let error = run(&root).expect_err("it must not compile").to_string();
    assert!(error.contains("test.proto:8:") && error.contains("Aks"), "{error}");
}

#[test]
fn a_service_becomes_its_module() {
    let methods = "  // Says it.
  rpc SayTwice(Ask) returns (Ask) {
    option (moorgate.method) = { id: 0x0702 deadline_ms: 7 priority: 3 idempotent: true access: ANONYMOUS };
  }
  rpc Drop(Ask) returns (Ask) { option (moorgate.method) = { id: 0x0704 deadline_ms: 5 one_way: true }; }";
    let code = run(&folder("good", methods)).expect("it compiles");
    for expected in [
        "/// About nothing.\npub mod odd {",
        "    use crate::pb as pb;",
        "    /// Says it.\n    pub const SAY_TWICE: Method = Method {\n        id: 0x0702,\n        service: \"Odd\",\n        \
         name: \"SayTwice\",\n        deadline_ms: 7,\n        priority: 3,\n        idempotent: true,\n        \
         access: Access::Anonymous,\n        one_way: false,\n    };",
        "async fn say_twice(&self, ctx: &C, request: pb::Ask) -> Result<pb::Ask, Status>;",
        "async fn drop(&self, ctx: &C, request: pb::Ask) -> Result<(), Status>;",
        "    &odd::SAY_TWICE,\n    &odd::DROP,\n",
        "&[None, None, Some(&odd::SAY_TWICE), None, Some(&odd::DROP)],",
    ] {
        assert!(code.contains(expected), "{expected}\nis not in\n{code}");
    }
}

#[test]
fn the_repository_s_own_files_compile() {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("own");
    fs::create_dir_all(&out).expect("a folder");
    let paths = Paths { pb: "crate::pb".to_owned(), wire: "crate".to_owned() };
    let files = generate_folder(&include, "moorgate", &paths, &out).expect("they compile");
    assert!(files.len() >= 9);
    let messages = fs::read_to_string(out.join("moorgate.rs")).expect("it was written");
    assert!(messages.contains("::prost::bytes::Bytes") && !messages.contains("::prost::alloc::vec::Vec<u8>"));
}
