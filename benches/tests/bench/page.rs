//! The HTML report in a browser. Named by what it needs: `tests/run` leaves these out, with the reason, where there is no
//! chromium.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use benches::peers::server::{Plan, Server, free_address};
use serde_json::json;

use crate::run::{Bench, fits_its_schema, read, said};
use crate::standin::{Service, start};

/// A picture of a page, and what its console said.
fn opened(bench: &Bench, page: &Path) -> (PathBuf, Vec<String>) {
    let screen = page.with_extension("png");
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", bench.dir.join("profile").display()))
        .args(["--window-size=1400,2000", "--virtual-time-budget=2000"])
        .arg(format!("--screenshot={}", screen.display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("chromium runs");
    assert!(output.status.success(), "{}", said(&output));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let console = told.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
    (screen, console)
}

/// Opens without a word, and is a page with charts.
fn is_a_page(bench: &Bench, page: &Path) {
    let (screen, console) = opened(bench, page);
    assert_eq!(console, Vec::<String>::new());
    let size = fs::metadata(&screen).expect("a screenshot").len();
    assert!(size > 40_000, "a page with charts is no {size} bytes");
    if let Some(keep) = std::env::var_os("MOORGATE_KEEP_SCREENSHOT") {
        let name = page.file_stem().expect("a name").to_string_lossy().into_owned();
        fs::copy(&screen, PathBuf::from(keep).with_file_name(format!("{name}.png"))).expect("kept");
    }
}

#[test]
fn a_page_opens_in_chromium_without_a_word_on_its_console() {
    let bench = Bench::new("page", start(Service::default()));
    let page = bench.dir.join("call.html");
    let args = "call --clients 8 --rate 500 --seconds 3";
    let output = bench.run(&format!("{args} --html {}", page.display()));
    assert!(output.status.success(), "{}", said(&output));
    is_a_page(&bench, &page);
    // A mistake of the page's own is seen to be seen: the same browser reports it.
    let broken = bench.dir.join("broken.html");
    let text = fs::read_to_string(&page).expect("a page");
    fs::write(&broken, text.replace("\"use strict\";", "nothing.such();")).expect("written");
    assert!(!opened(&bench, &broken).1.is_empty(), "an error of the page would be seen");
}

#[test]
fn the_page_of_a_peer_opens_in_chromium_and_its_report_fits_its_schema() {
    let bench = Bench::new("peer-page", start(Service::default()));
    let address = free_address().expect("a port");
    let listen = address.to_string();
    let args = ["floor", "--listen", &listen, "--how", "epoll"].map(Into::into).to_vec();
    let core = gateway_ring::available_cores()[0];
    let program = env!("CARGO_BIN_EXE_moorgate-bench");
    let plan = Plan { name: "floor", program: program.into(), args, directory: &bench.dir, core, address };
    let _floor = Server::start(plan).expect("it starts");
    let (json, page, hdr) = (bench.dir.join("peer.json"), bench.dir.join("peer.html"), bench.dir.join("hdr"));
    let output = Command::new(program)
        .args(["peer", "--protocol", "tcp", "--connections", "5", "--rate", "200", "--seconds", "3"])
        .args(["--target", &listen])
        .arg("--json")
        .arg(&json)
        .arg("--html")
        .arg(&page)
        .arg("--hdr")
        .arg(&hdr)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", said(&output));
    fits_its_schema("peer", &read(&json));
    let log = fs::read_to_string(hdr.join("request.hdr")).expect("a log");
    assert!(log.lines().any(|line| line.starts_with("Tag=measured")), "{log}");
    is_a_page(&bench, &page);
}

#[test]
fn the_page_of_a_comparison_opens_in_chromium() {
    let bench = Bench::new("peers-page", start(Service::default()));
    let rounds = |us: f64| -> Vec<_> {
        (0..15).map(|at| json!({"cpu_us_per_unit": us + f64::from(at % 4) * 0.2})).collect()
    };
    let key = |peer: &str| {
        json!({"ratio": 0.6, "low": 0.5, "high": 0.7, "must_be": "<= 1", "is_met": true, "ours": 3.0, "peer": 5.0,
            "unit": "us of CPU", "peer_name": peer, "connections": 15_000, "units_per_second": 40_000.0,
            "note": "what one side does", "ours_rounds": rounds(3.0), "peer_rounds": rounds(5.0)})
    };
    let report = json!({"schema": 1, "command": "peers", "rounds": 15, "round_ms": 3_000, "host": {"cores": 2},
        "raw": {"heartbeat_vs_mosquitto": key("mosquitto"), "forward_vs_haproxy": key("haproxy")}});
    let (json, page) = (bench.dir.join("peers.json"), bench.dir.join("peers.html"));
    fs::write(&json, report.to_string()).expect("written");
    let program = env!("CARGO_BIN_EXE_moorgate-bench");
    let output = Command::new(program).arg("html").args([&json, &page]).output().expect("it runs");
    assert!(output.status.success(), "{}", said(&output));
    is_a_page(&bench, &page);
}
