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
fn an_unknown_option_is_told_with_its_place() {
    for (name, option, told) in [
        (
            "unknown_field",
            "(moorgate.method) = { id: 1 deadline_ms: 5 idempotant: true }",
            "it may say id, deadline_ms, priority, idempotent, access (INTERNAL, PHONE, ANONYMOUS), one_way",
        ),
        ("unknown_extension", "(moorgate.methud) = { id: 1 deadline_ms: 5 }", "moorgate.methud"),
        (
            "unknown_value",
            "(moorgate.method) = { id: 1 deadline_ms: 5 access: EVERYBODY }",
            "INTERNAL, PHONE",
        ),
        ("unknown_plain", "idempotent = true", "idempotent"),
    ] {
        let root = folder(name, &format!("  rpc One(Ask) returns (Ask) {{\n    option {option};\n  }}"));
        let error = run(&root).expect_err("it must not compile").to_string();
        assert!(error.contains("test.proto:9:") && error.contains(told), "{name}: {error}");
    }
}

#[test]
fn a_client_s_stream_is_refused_and_a_message_of_another_package_too() {
    let root = folder(
        "elsewhere",
        "  rpc Up(stream Ask) returns (Ask) { option (moorgate.method) = { id: 3 deadline_ms: 5 }; }
  rpc Far(Ask) returns (far.Away) { option (moorgate.method) = { id: 4 deadline_ms: 5 }; }",
    );
    fs::write(root.join("far.proto"), "syntax = \"proto3\";\npackage far;\nmessage Away {}\n")
        .expect("a file");
    let text = fs::read_to_string(root.join("test.proto")).expect("it is there");
    let text = text.replace("\n\nmessage Ask", "import \"far.proto\";\n\nmessage Ask");
    fs::write(root.join("test.proto"), text).expect("a file");
    let error = run(&root).expect_err("it must not compile").to_string();
    let lines: Vec<String> =
        error.lines().map(|line| line.replace(&format!("{}/", root.display()), "")).collect();
    assert_eq!(
        lines,
        [
            "test.proto:8: test.Odd.Up streams: a call has one request and one reply",
            "test.proto:9: test.Odd.Far takes or gives far.Away, which is of another package",
        ]
    );
}

#[test]
fn the_file_of_our_options_need_not_be_there() {
    let method = "  rpc One(Ask) returns (Ask) { option (moorgate.method) = { id: 1 deadline_ms: 5 }; }";
    let root = folder("no_options", method);
    fs::remove_dir_all(root.join("moorgate")).expect("it was there");
    let code = run(&root).expect("it compiles");
    // Without a comment the documentation is what the options say.
    assert!(code.contains("/// `Odd.One`: number 0x0001, 5 ms, priority 0.\n"), "{code}");
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
        "/// About nothing.\n#[allow(",
        "pub mod odd {",
        "    use crate::pb as pb;",
        "    /// Says it.\n    pub const SAY_TWICE: Method = Method {\n        id: 0x0702,\n        service: \"Odd\",\n        \
         name: \"SayTwice\",\n        deadline_ms: 7,\n        priority: 3,\n        idempotent: true,\n        \
         access: Access::Anonymous,\n        one_way: false,\n    };",
        "async fn say_twice(&self, ctx: &C, request: pb::Ask) -> Result<pb::Ask, Status>;",
        "async fn drop(&self, ctx: &C, request: pb::Ask) -> Result<(), Status>;",
        "    fn say_twice(&self, ctx: &C, request: pb::Ask) -> Result<pb::Ask, Status>;",
        "    /// Says it.\n        pub fn say_twice(&self, options: CallOptions, request: &pb::Ask) -> Result<pb::Ask, Status> {",
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
    let files = generate_folder(&include, "moorgate", &paths, None, &out).expect("they compile");
    assert!(files.len() >= 9);
    let messages = fs::read_to_string(out.join("moorgate.rs")).expect("it was written");
    assert!(
        messages.contains("crate::prost::bytes::Bytes") && !messages.contains("prost::alloc::vec::Vec<u8>")
    );
}
