//! `moorgate-backend call`.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use backend_stub::config::BackendConfig;
use backend_stub::embedded;
use serde_json::{Value, json};

use crate::fixture::Callee;

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_moorgate-backend")).arg("call").args(args).output().expect("it runs")
}

fn json_of(args: &[&str]) -> Value {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn refusal_of(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    assert!(output.stdout.is_empty(), "{args:?}");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn a_method_is_called_over_every_transport() {
    let callee = Callee::start();
    let (inet, unix) = (callee.addr.to_string(), format!("unix:{}", callee.unix.display()));
    let said = r#"{"payload":"aGk="}"#;
    for (addr, transport) in
        [(&inet, "long"), (&inet, "short"), (&inet, "udp"), (&unix, "long"), (&unix, "short")]
    {
        assert_eq!(json_of(&[addr, "Echo.Say", said, "--transport", transport]), json!({"payload": "aGk="}));
    }
    for name in ["moorgate.Echo.Say", "moorgate.Echo/Say"] {
        assert_eq!(json_of(&[&inet, name, said]), json!({"payload": "aGk="}));
    }
    assert_eq!(json_of(&[&inet, "Standing.Health"]), json!({"takesCalls": true}));
    let mut piped = Command::new(env!("CARGO_BIN_EXE_moorgate-backend"));
    let mut child = piped
        .args(["call", &inet, "Echo.Say", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    child.stdin.take().expect("a pipe").write_all(said.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).expect("JSON"), json!({"payload": "aGk="}));
}

#[test]
fn without_a_method_all_of_them_are_listed() {
    let callee = Callee::start();
    let output = run(&[&callee.addr.to_string()]);
    let listed = String::from_utf8(output.stdout).expect("text");
    let expected = [
        "moorgate.Echo.Say (moorgate.EchoRequest) -> moorgate.EchoReply",
        "moorgate.Standing.Health (moorgate.HealthRequest) -> moorgate.HealthReply",
        "moorgate.Standing.Reflect (moorgate.ReflectRequest) -> moorgate.ReflectReply",
        "moorgate.Standing.Fetch (moorgate.FetchRequest) -> moorgate.FetchReply",
    ];
    let mut lines: Vec<&str> = listed.lines().collect();
    lines.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[test]
fn what_is_wrong_is_told() {
    let callee = Callee::start();
    let addr = callee.addr.to_string();
    for (args, what) in [
        (["Echo.Shout", "{}"], "Echo has no method Shout, but Say"),
        (["Sync.Pull", "{}"], "it serves no Sync, but moorgate.Standing, moorgate.Echo"),
        (["Say", "{}"], "\"Say\" is not a service and a method"),
        (["Echo.Say", "{\"text\":\"hi\"}"], "the request is no moorgate.EchoRequest { payload }"),
        (["Echo.Say", "{\"payload\":\"aGk=\"} x"], "the request is no moorgate.EchoRequest"),
        (["Standing.Fetch", "{\"ticket\":\"aGk=\"}"], "invalid: a ticket has 16 bytes"),
        (["Standing.Fetch", "{\"ticket\":\"AAAAAAAAAAAAAAAAAAAAAA==\"}"], "not_found: nothing is held"),
    ] {
        let said = refusal_of(&[&addr, args[0], args[1]]);
        assert!(said.contains(what), "{args:?}: {said}");
    }
    let nobody = "127.0.0.1:1";
    let said = refusal_of(&[nobody, "Echo.Say", "{}"]);
    assert!(said.contains(nobody) && said.contains("Connection refused"), "{said}");
    let output = run(&["localhost:80"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn the_reference_backend_answers_as_well() {
    let free = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let data = std::env::temp_dir().join(format!("moorgate-call-{}", std::process::id()));
    let unix = data.with_extension("sock");
    let config = BackendConfig {
        listen: free,
        unix: Some(unix.clone()),
        udp: true,
        admin: None,
        data: data.clone(),
        ..BackendConfig::default()
    };
    let backend = embedded::start(config).expect("it starts");
    let addr = backend.listen.to_string();
    let listed = String::from_utf8(run(&[&addr]).stdout).expect("text");
    for method in ["moorgate.Account.SignUp ", "moorgate.Sync.Pull ", "moorgate.Moments."] {
        assert!(listed.contains(method), "{method}: {listed}");
    }
    assert!(!listed.contains("moorgate.Gateway."), "gateways serve that: {listed}");
    assert_eq!(json_of(&[&addr, "Standing.Health"]), json!({"takesCalls": true}));
    assert_eq!(
        json_of(&[&format!("unix:{}", unix.display()), "Standing.Health"]),
        json!({"takesCalls": true})
    );
    assert_eq!(json_of(&[&addr, "Standing.Health", "{}", "--transport", "udp"]), json!({"takesCalls": true}));
    let denied = refusal_of(&[&addr, "Sync.Pull", "{}"]);
    assert!(denied.contains("denied: this call needs a token"), "{denied}");
    let pulled = json_of(&[&addr, "Sync.Pull", "{\"maxChanges\":10}", "--user", "4711"]);
    assert!(pulled.is_object(), "{pulled}");
    backend.stop().expect("a clean end");
    let _ = std::fs::remove_dir_all(data);
}

#[test]
fn a_door_that_cannot_be_opened_ends_the_start_with_the_reason() {
    let data = std::env::temp_dir().join(format!("moorgate-door-{}", std::process::id()));
    let data_arg = data.display().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_moorgate-backend"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", &data_arg])
        .args(["--unix", "/nowhere/at/all.sock"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("--unix /nowhere/at/all.sock: No such file"), "{said}");
    let _ = std::fs::remove_dir_all(data);
}
