//! Runs the program against a target, in a directory of its own.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use proto_wire_token::IssuerKey;
use serde_json::Value;

pub struct Bench {
    pub dir: PathBuf,
    target: SocketAddr,
    backend_admin: SocketAddr,
}

/// Nobody listens there.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

impl Bench {
    pub fn new(name: &str, target: SocketAddr) -> Self {
        let dir = std::env::temp_dir().join(format!("moorgate-bench-it-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("made");
        fs::write(dir.join("issuer.pem"), IssuerKey::generate().to_pem()).expect("written");
        Self { dir, target, backend_admin: NOBODY }
    }

    /// With the admin port of a backend.
    pub fn with_admin(mut self, backend_admin: SocketAddr) -> Self {
        self.backend_admin = backend_admin;
        self
    }

    /// The command with what it needs to find the target.
    pub fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moorgate-bench"));
        command.args(args.split_ascii_whitespace());
        command.arg("--target").arg(self.target.to_string());
        command.arg("--issuer-key").arg(self.dir.join("issuer.pem"));
        // The stand-in has no status.
        command.args(["--admin", &NOBODY.to_string(), "--backend-admin", &self.backend_admin.to_string()]);
        command.current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &str) -> Output {
        self.command(args).output().expect("it runs")
    }

    /// Its JSON, and that it fits its schema; the run must have ended well.
    pub fn report(&self, args: &str) -> Value {
        let path = self.dir.join("report.json");
        let output = self.run(&format!("{args} --json {}", path.display()));
        assert!(output.status.success(), "{}", said(&output));
        let report = read(&path);
        let command = report["command"].as_str().expect("a command");
        fits_its_schema(command, &report);
        report
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("a report")).expect("JSON")
}

pub fn fits_its_schema(command: &str, report: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schema/{command}.json"));
    let told = jsonschema::validate(&read(&path), report).map_err(|error| error.to_string());
    assert_eq!(told, Ok(()), "{command}");
}

pub fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}
