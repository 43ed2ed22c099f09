//! A caller that is the framework's own client, for transports of which the client is half: short connections and UDP.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use backend_stub::clock::Clock;
use backend_stub::co::all;
use backend_stub::rpc::client::{Client, ClientConfig, Transport};
use backend_stub::rt::{Executor, Waker};
use hdrhistogram::Histogram;
use proto_wire::rpc::method::CallOptions;

use crate::caller::{Load, WARM_UP, tell};
use crate::pb;
use crate::services::echo;

pub fn call(load: Load, core: usize, transport: Transport) -> Result<(), String> {
    let go = Waker::default();
    let told = go.clone();
    let executor = Executor::start("caller", Some(core), move || async move {
        let config =
            ClientConfig { endpoints: vec![load.target.to_string()], transport, ..ClientConfig::default() };
        let client = Client::with(config, Clock::start()).map_err(|error| error.to_string())?;
        let client = echo::Client(client);
        run(&client, &load, WARM_UP).await?;
        println!("warm");
        std::thread::spawn(move || {
            // The bench has closed the pipe: then nobody waits.
            let _ = std::io::stdin().read_line(&mut String::new());
            go.raise();
        });
        told.wait().await;
        let began = Instant::now();
        let latency = run(&client, &load, Duration::from_millis(load.ms)).await?;
        Ok::<_, String>((latency, began.elapsed().as_secs_f64()))
    });
    let (latency, seconds) = executor.and_then(Executor::join).map_err(|error| error.to_string())??;
    tell(&latency, seconds);
    Ok(())
}

/// Calls until the time is over, each again when it is answered.
async fn run(client: &echo::Client<Client>, load: &Load, time: Duration) -> Result<Histogram<u64>, String> {
    let until = Instant::now() + time;
    let latency = RefCell::new(Histogram::new(3).expect("three digits are allowed"));
    let request = pb::SayRequest { payload: vec![7; load.payload].into() };
    let ends = all((0..load.in_flight).map(|_| async {
        while Instant::now() < until {
            let began = Instant::now();
            let reply =
                client.say(CallOptions::default(), &request).await.map_err(|status| format!("{status:?}"))?;
            if reply.payload.len() != load.payload {
                return Err("an echo of another length".to_owned());
            }
            latency.borrow_mut().record(began.elapsed().as_nanos() as u64).expect("it grows");
        }
        Ok(())
    }))
    .await;
    ends.into_iter().collect::<Result<(), _>>()?;
    let latency = latency.borrow().clone();
    Ok(latency)
}
