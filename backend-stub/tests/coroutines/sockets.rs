//! Sockets that read as synchronous.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use backend_stub::co::{self, TcpListener, TcpStream};

use crate::fixture::on_coroutine;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[test]
fn a_server_and_its_clients_read_as_synchronous_on_one_thread() {
    let sums = on_coroutine(|| {
        let listener = TcpListener::bind(LOOPBACK).expect("a port");
        let addr = listener.local_addr();
        let server = co::spawn(move || {
            for _ in 0..10 {
                let stream = listener.accept().expect("a connection");
                co::spawn(move || answer(stream).expect("lines")).expect("a stack");
            }
        });
        let clients: Vec<_> = (0..10u32)
            .map(|number| co::spawn(move || ask(addr, number).expect("answers")).expect("a stack"))
            .collect();
        let sums: Vec<u32> = clients.into_iter().map(|client| client.join().expect("no panic")).collect();
        server.expect("a stack").join().expect("no panic");
        sums
    });
    assert_eq!(sums, (0..10).map(|number| 20 * number).collect::<Vec<u32>>());
}

/// Doubles the number in each line.
fn answer(stream: TcpStream) -> io::Result<()> {
    let mut writer = BufWriter::new(stream.clone());
    for line in BufReader::new(stream).lines() {
        let number: u32 = line?.parse().map_err(io::Error::other)?;
        writeln!(writer, "{}", 2 * number)?;
        writer.flush()?;
    }
    Ok(())
}

fn ask(addr: SocketAddr, number: u32) -> io::Result<u32> {
    let stream = TcpStream::connect(addr)?;
    let mut reader = BufReader::new(stream.clone());
    let mut sum = 0;
    for _ in 0..10 {
        writeln!(&stream, "{number}")?;
        let mut line = String::new();
        reader.read_line(&mut line)?;
        sum += line.trim().parse::<u32>().map_err(io::Error::other)?;
    }
    Ok(sum)
}

#[test]
fn more_than_the_sockets_hold_arrives_whole() {
    const BYTES: usize = 8 * 1024 * 1024;
    let read = on_coroutine(|| {
        let listener = TcpListener::bind(LOOPBACK).expect("a port");
        let addr = listener.local_addr();
        let writer = co::spawn(move || {
            let bytes: Vec<u8> = (0..BYTES).map(|at| (at % 253) as u8).collect();
            let mut stream = TcpStream::connect(addr).expect("it listens");
            stream.write_all(&bytes).expect("it is read");
        });
        let mut stream = listener.accept().expect("a connection");
        let mut read = Vec::new();
        stream.read_to_end(&mut read).expect("it is written");
        writer.expect("a stack").join().expect("no panic");
        read
    });
    assert_eq!(read.len(), BYTES);
    assert!(read.iter().enumerate().all(|(at, &byte)| byte == (at % 253) as u8));
}

#[test]
fn a_read_that_takes_too_long_ends_and_loses_nothing() {
    on_coroutine(|| {
        let listener = TcpListener::bind(LOOPBACK).expect("a port");
        let mut client = TcpStream::connect(listener.local_addr()).expect("it listens");
        let mut server = listener.accept().expect("a connection");
        client.set_read_timeout(Some(Duration::from_millis(10)));
        let mut bytes = [0; 8];
        let ended = client.read(&mut bytes).map_err(|error| error.kind());
        assert_eq!(ended, Err(io::ErrorKind::TimedOut));
        server.write_all(b"later").expect("it is open");
        client.set_read_timeout(None);
        client.read_exact(&mut bytes[..5]).expect("it came");
        assert_eq!(&bytes[..5], b"later");
        server.shutdown();
        assert_eq!(client.read(&mut bytes).expect("an end"), 0);
    });
}

#[test]
fn nobody_there_is_an_error() {
    on_coroutine(|| {
        let listener = TcpListener::bind(LOOPBACK).expect("a port");
        let addr = listener.local_addr();
        drop(listener);
        let refused = TcpStream::connect(addr).map(drop).map_err(|error| error.kind());
        assert_eq!(refused, Err(io::ErrorKind::ConnectionRefused));
        assert!(TcpStream::connect_timeout(&addr, Duration::from_secs(5)).is_err());
        // A name is looked up.
        assert!(TcpStream::connect(("localhost", addr.port())).is_err());
    });
}

#[test]
fn one_that_is_unwound_in_a_read_closes_its_socket() {
    on_coroutine(|| {
        let listener = TcpListener::bind(LOOPBACK).expect("a port");
        let addr = listener.local_addr();
        let reads = co::spawn(move || {
            let stream = TcpStream::connect(addr).expect("it listens");
            // Its buffer is flushed when it is dropped, which is refused without harm.
            let mut writer = BufWriter::new(stream.clone());
            writer.write_all(b"never sent").expect("the buffer has room");
            let mut reader = stream;
            reader.read(&mut [0; 1]).map(drop)
        });
        let mut server = listener.accept().expect("a connection");
        reads.expect("a stack").cancel();
        assert_eq!(server.read(&mut [0; 16]).expect("an end"), 0);
    });
}
