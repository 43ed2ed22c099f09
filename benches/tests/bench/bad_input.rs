//! Whatever is wrong with what it is given ends with exit code 2 and a sentence.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Output;
use std::time::Duration;

use crate::run::{Bench, said};
use crate::standin::{Service, start};

fn refused(output: &Output, words: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn an_unreachable_target() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = listener.local_addr().expect("an address");
    drop(listener);
    let output = Bench::new("unreachable", nobody).run("call --clients 2 --seconds 1");
    refused(&output, &[&nobody.to_string(), "cannot be reached", "--spawn"]);
}

#[test]
fn a_target_that_speaks_http() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let http = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let output = Bench::new("http", http).run("hold --connections 2 --seconds 1");
    refused(&output, &["does not speak Moorgate's protocol", "HTTP/1.1 400"]);
}

#[test]
fn a_rate_that_cannot_be_made() {
    let service = Service { each: Duration::from_millis(20), ..Service::default() };
    let bench = Bench::new("rate", start(service));
    let output = bench.run("call --clients 2 --seconds 1 --rate 5000 --warm-up 0");
    refused(&output, &["the rate of 5000 a second was not made", "--clients"]);
    refused(&bench.run("call --clients 2 --seconds 1 --rate 1e9"), &["0.1 to 10000000"]);
}

#[test]
fn too_many_connections_for_the_ports() {
    let bench = Bench::new("ports", start(Service::default()));
    let output = bench.run("hold --connections 200000 --seconds 1 --source 127.5.0.1,127.5.0.2");
    refused(&output, &["will not fit", "local ports", "mend:", "source addresses"]);
    let output = bench.run("call --clients 2 --seconds 1 --source 203.0.113.7");
    refused(&output, &["nothing can connect from 203.0.113.7", "ip address add"]);
}

#[test]
fn a_full_disk_and_a_directory_that_is_not_there() {
    let bench = Bench::new("full", start(Service::default()));
    let load = "call --clients 2 --rate 50 --seconds 1 --warm-up 0";
    let output = bench.run(&format!("{load} --json /dev/full"));
    refused(&output, &["cannot write the report /dev/full", "No space left"]);
    assert!(said(&output).contains("forwarded calls a second"), "the summary is not lost with it");
    let output = bench.run(&format!("{load} --html /no/such/dir/x.html"));
    refused(&output, &["/no/such/dir/x.html"]);
    assert!(!said(&output).contains("forwarded calls"), "known before the run");
}

#[test]
fn reports_that_are_not_comparable() {
    let bench = Bench::new("schemas", start(Service::default()));
    let report = |name: &str, text: &str| {
        let path = bench.dir.join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let one = report("1.json", r#"{"schema": 1, "command": "call", "calls_per_second": 5.0}"#);
    let two = report("2.json", r#"{"schema": 2, "command": "call", "calls_per_second": 5.0}"#);
    let broken = report("3.json", "{");
    let compare = |a: &std::path::Path, b: &std::path::Path| {
        let program = env!("CARGO_BIN_EXE_moorgate-bench");
        std::process::Command::new(program).arg("compare").args([a, b]).output().expect("it runs")
    };
    refused(&compare(&one, &two), &["different schemas, 1 and 2"]);
    refused(&compare(&one, &broken), &["cannot read", "3.json"]);
    let other = report(
        "4.json",
        r#"{"schema": 1, "command": "call", "calls_per_second": 5.0, "host": {"kernel": "x"}}"#,
    );
    refused(&compare(&one, &other), &["different hosts"]);
}
