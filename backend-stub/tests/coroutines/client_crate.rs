//! An existing synchronous client crate, `http_io`, runs on coroutines as it is: it takes any `Read + Write`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Barrier};
use std::thread;

use backend_stub::co::{self, TcpStream};
use http_io::client::HttpRequestBuilder;

use crate::fixture::on_coroutine;

const REQUESTS: usize = 20;

/// A plain HTTP server that answers none before all have asked: a client that blocked its thread would wait for ever.
fn start_server() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let addr = listener.local_addr().expect("it is bound");
    let all = Arc::new(Barrier::new(REQUESTS));
    thread::spawn(move || {
        for stream in listener.incoming().take(REQUESTS) {
            let (stream, all) = (stream.expect("a connection"), all.clone());
            thread::spawn(move || {
                let mut lines = BufReader::new(&stream).lines().map(|line| line.expect("text"));
                let first = lines.next().expect("a request");
                lines.find(String::is_empty).expect("the end of the headers");
                all.wait();
                let path = first.split(' ').nth(1).expect("GET path HTTP/1.1");
                let body = format!("you asked for {path}").repeat(1000);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                (&stream).write_all((head + &body).as_bytes()).expect("it is read");
            });
        }
    });
    addr
}

#[test]
fn a_synchronous_http_client_runs_on_coroutines_as_it_is() {
    let addr = start_server();
    let bodies = on_coroutine(move || {
        let requests: Vec<_> = (0..REQUESTS)
            .map(|number| {
                co::spawn(move || {
                    let stream = TcpStream::connect(addr).expect("it listens");
                    let url = format!("http://{addr}/{number}");
                    let request = HttpRequestBuilder::get(url.as_str()).expect("a URL");
                    let mut response = request.send(stream).expect("it is sent").finish().expect("an answer");
                    let mut body = String::new();
                    response.body.read_to_string(&mut body).expect("it comes whole");
                    body
                })
                .expect("a stack")
            })
            .collect();
        let join = |request: co::Handle<String>| request.join().expect("no panic");
        requests.into_iter().map(join).collect::<Vec<_>>()
    });
    for (number, body) in bodies.iter().enumerate() {
        assert_eq!(*body, format!("you asked for /{number}").repeat(1000));
    }
}
