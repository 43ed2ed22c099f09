//! What an online user with an empty log costs in memory.
//!
//! `user_memory DIR N`: N users come online in reports of 500; RSS (RssAnon) before and after.

use std::path::Path;
use std::sync::mpsc::channel;
use std::{env, fs, process};

use backend_stub::logic::{Action, At, Core, CoreConfig};
use backend_stub::storage::ChangeLog;
use backend_stub::storage::embedded::{Embedded, Options};
use proto_wire::pb;

fn main() {
    let args: Vec<String> = env::args().collect();
    let [_, dir, count] = &args[..] else {
        eprintln!("user_memory DIR N");
        process::exit(2);
    };
    let count: u64 = count.parse().expect("a count is a number");
    let (wake, woken) = channel();
    let opened = Embedded::open(&Options::new(Path::new(dir)), |_| {
        let wake = wake.clone();
        Box::new(move || {
            let _ = wake.send(());
        })
    });
    let (mut store, opened) = opened.unwrap_or_else(|error| {
        eprintln!("{error}");
        process::exit(1);
    });
    let config = CoreConfig::new(1, 1, store.partitions());
    let mut core = Core::new(CoreConfig { owner_epoch: opened.owner_epoch, ..config });
    let mut at = At { now_ms: 0, unix_ms: 1 };
    let mut answered = 0;
    let mut turn = |core: &mut Core, at: At, wanted: u64, ready: bool| {
        while answered < wanted || (ready && !core.is_ready()) {
            let mut done = Vec::new();
            store.poll(&mut done);
            // The last completion of the recovery asks for nothing: it counts as movement too.
            let mut moved = !done.is_empty();
            done.into_iter().for_each(|completion| core.handle_completion(at, completion));
            while let Some(action) = core.poll_action(at) {
                moved = true;
                match action {
                    Action::Submit { partition, batch } => store.submit(partition, batch).expect("bounded"),
                    Action::Read { partition, read } => store.read(partition, read).expect("bounded"),
                    Action::Answer { .. } => answered += 1,
                    other => println!("{other:?}"),
                }
            }
            if !moved {
                let _ = woken.recv();
            }
        }
    };
    turn(&mut core, at, 0, true);
    let before = rss_bytes();
    for (call, from) in (1..=count).step_by(500).enumerate() {
        let online = (from..(from + 500).min(count + 1))
            .map(|user| pb::Online {
                user,
                device: user,
                slot: user as u32,
                generation: 1,
                counter: 1,
                log_epoch: 1,
                applied: 0,
            })
            .collect();
        at.now_ms += 1;
        core.report(at, from, &pb::ReportRequest { gateway: 1, shard: 0, online, ..Default::default() });
        turn(&mut core, at, call as u64 + 1, false);
    }
    let grown = rss_bytes() - before;
    println!("{count} users online: {} bytes each ({} KiB in all)", grown / count, rss_bytes() / 1024);
}

fn rss_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon"));
    line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0)
        * 1024
}
