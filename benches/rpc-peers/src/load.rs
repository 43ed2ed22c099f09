//! The closed loop of a peer's own client: tasks that call again when they are answered.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::BufRead as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Error;

/// Before the measured time.
const WARM_UP: Duration = Duration::from_millis(150);

/// What is done.
pub struct Load {
    pub target: SocketAddr,
    pub payload: usize,
    pub connections: usize,
    pub in_flight: usize,
    pub ms: u64,
    /// `Gather` is called, not `Say`.
    pub gather: bool,
}

/// Runs `call` over each client as often as the load says, in the rhythm that the bench asks for.
pub async fn drive<C: Clone + 'static, F: Future<Output = Result<(), Error>> + 'static>(
    load: &Load,
    clients: Vec<C>,
    call: impl Fn(C) -> F + Clone + 'static,
) -> Result<(), Error> {
    run(load, &clients, call.clone(), WARM_UP).await?;
    println!("warm");
    std::io::stdin().lock().read_line(&mut String::new())?;
    let began = Instant::now();
    let latency = run(load, &clients, call, Duration::from_millis(load.ms)).await?;
    let seconds = began.elapsed().as_secs_f64();
    let us = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1e3;
    let told = serde_json::json!({
        "calls": latency.len(), "seconds": seconds,
        "p50_us": us(0.5), "p99_us": us(0.99), "p999_us": us(0.999), "max_us": latency.max() as f64 / 1e3,
    });
    println!("{told}");
    // The bench looks at what this process used, and closes the pipe.
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())?;
    Ok(())
}

async fn run<C: Clone + 'static, F: Future<Output = Result<(), Error>> + 'static>(
    load: &Load,
    clients: &[C],
    call: impl Fn(C) -> F + Clone + 'static,
    time: Duration,
) -> Result<Histogram<u64>, Error> {
    let until = Instant::now() + time;
    let latency = Rc::new(RefCell::new(Histogram::<u64>::new(3)?));
    let failed: Rc<Cell<Option<Error>>> = Rc::default();
    let mut tasks = Vec::new();
    for client in clients {
        for _ in 0..load.in_flight {
            let (client, call) = (client.clone(), call.clone());
            let (latency, failed) = (latency.clone(), failed.clone());
            tasks.push(tokio::task::spawn_local(async move {
                loop {
                    let began = Instant::now();
                    if let Err(error) = call(client.clone()).await {
                        return failed.set(Some(error));
                    }
                    let now = Instant::now();
                    latency.borrow_mut().record((now - began).as_nanos() as u64).expect("it grows");
                    if now >= until {
                        return;
                    }
                }
            }));
        }
    }
    for task in tasks {
        task.await?;
    }
    match failed.take() {
        Some(error) => Err(error),
        None => Ok(latency.borrow().clone()),
    }
}
