//! The loop by itself, with real sockets.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::{self, TcpStream};
use std::rc::Rc;
use std::sync::mpsc::channel;

use super::*;

fn run<T: Send + 'static, F: Future<Output = T> + 'static>(make: impl FnOnce() -> F + Send + 'static) -> T {
    Executor::start("test", None, make).expect("an executor").join().expect("no panic")
}

/// Both ends of a connection; the second blocks.
fn pair() -> (TcpStream, TcpStream) {
    let listener = net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("accepted");
    (ours, listener.accept().expect("it has connected").0)
}

#[test]
fn what_a_slow_peer_does_not_take_at_once_arrives_whole() {
    const BYTES: usize = 8 << 20;
    let (ours, mut theirs) = pair();
    let peer = std::thread::spawn(move || {
        let mut got = vec![0; BYTES];
        theirs.read_exact(&mut got).expect("all of it");
        theirs.write_all(b"thanks").expect("taken");
        got.iter().enumerate().all(|(at, &byte)| byte == at as u8)
    });
    let answer = run(move || async move {
        let stream = Stream::adopt(ours).expect("adopted");
        let bytes: Vec<u8> = (0..BYTES).map(|at| at as u8).collect();
        let at_once = stream.write_now(&bytes).expect("the peer is there");
        assert!(at_once > 0 && at_once < BYTES);
        stream.write_all(&bytes[at_once..]).await.expect("taken in the end");
        let (mut answer, mut filled) = ([0; 16], 0);
        while filled < 6 {
            filled += stream.read(&mut answer[filled..]).await.expect("there");
        }
        (answer[..filled].to_vec(), stream.read(&mut answer).await.expect("the end"))
    });
    assert_eq!(answer, (b"thanks".to_vec(), 0));
    assert!(peer.join().expect("no panic"));
}

#[test]
fn an_end_that_came_with_the_last_bytes_is_told_after_them() {
    let (ours, mut theirs) = pair();
    theirs.write_all(b"last").expect("taken");
    drop(theirs);
    let told = run(move || async move {
        let stream = Stream::adopt(ours).expect("adopted");
        let mut told = Vec::new();
        for _ in 0..3 {
            told.push(stream.read(&mut [0; 64]).await.expect("no error"));
        }
        told
    });
    assert_eq!(told, [4, 0, 0]);
}

#[test]
fn a_shutdown_ends_the_read_that_waits() {
    let (ours, _theirs) = pair();
    let read = run(move || async move {
        let stream = Rc::new(Stream::adopt(ours).expect("adopted"));
        let other = stream.clone();
        spawn(async move {
            yield_now().await;
            other.shutdown();
        });
        stream.read(&mut [0; 8]).await
    });
    assert_eq!(read.expect("no error"), 0);
}

#[test]
fn sleepers_wake_in_the_order_of_their_times_and_one_that_was_given_up_does_not() {
    let order = run(|| async {
        let order = Rc::new(RefCell::new(Vec::new()));
        for ms in [30, 10, 20, 0] {
            let order = order.clone();
            spawn(async move {
                sleep_ms(ms).await;
                order.borrow_mut().push(ms);
            });
        }
        let never = Signal::default();
        signal_or_ms(&never, 5).await;
        never.raise();
        // The sleep is given up: it wakes nobody for an hour.
        signal_or_ms(&never, 3_600_000).await;
        while order.borrow().len() < 4 {
            sleep_ms(1).await;
        }
        order.take()
    });
    assert_eq!(order, [0, 10, 20, 30]);
}

#[test]
fn a_task_that_never_waits_for_the_kernel_does_not_keep_it_away() {
    let (ours, mut theirs) = pair();
    theirs.write_all(b"x").expect("taken");
    let turns = run(move || async move {
        let done = Signal::default();
        let told = done.clone();
        spawn(async move {
            let stream = Stream::adopt(ours).expect("adopted");
            assert_eq!(stream.read(&mut [0; 8]).await.expect("there"), 1);
            told.raise();
        });
        let mut turns = 0;
        let mut done = std::pin::pin!(done.wait());
        while futures_lite::future::poll_once(&mut done).await.is_none() {
            yield_now().await;
            turns += 1;
        }
        turns
    });
    assert!(turns > 0);
}

#[test]
fn tasks_that_are_left_at_the_end_are_dropped() {
    struct Tells(std::sync::mpsc::Sender<()>);
    impl Drop for Tells {
        fn drop(&mut self) {
            // Its end may ask for the loop.
            spawn(async {});
            self.0.send(()).expect("heard");
        }
    }
    let (sender, dropped) = channel();
    run(move || async move {
        for _ in 0..3 {
            let tells = Tells(sender.clone());
            spawn(async move {
                sleep_ms(3_600_000).await;
                drop(tells);
            });
        }
        yield_now().await;
    });
    assert_eq!(dropped.iter().count(), 3);
}

#[test]
fn a_place_of_a_task_that_ended_serves_the_next_and_old_wakers_do_no_harm() {
    let ended = run(|| async {
        let (kept, ended) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(0)));
        for round in 0..100 {
            let (wakers, count) = (kept.clone(), ended.clone());
            spawn(async move {
                std::future::poll_fn(|context| {
                    wakers.borrow_mut().push(context.waker().clone());
                    std::task::Poll::Ready(())
                })
                .await;
                if round % 3 == 0 {
                    sleep_ms(1).await;
                }
                *count.borrow_mut() += 1;
            });
            kept.borrow().iter().for_each(std::task::Waker::wake_by_ref);
            yield_now().await;
        }
        while *ended.borrow() < 100 {
            sleep_ms(1).await;
        }
        ended.take()
    });
    assert_eq!(ended, 100);
}

#[test]
fn a_panic_is_told_where_the_end_is_waited_for() {
    let executor = Executor::start("panics", None, || async { panic!("planted") }).expect("an executor");
    assert!(matches!(executor.join(), Err::<(), _>(RuntimeError::Panicked)));
    let executor = Executor::start("nowhere", Some(100_000), || async {}).expect("a thread");
    assert!(matches!(executor.join(), Err(RuntimeError::Core { core: 100_000, .. })));
}
