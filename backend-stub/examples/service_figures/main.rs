//! What the services of the backend do and cost: the real core over the real store in a directory, without a
//! network. `service_figures NAME DIR [args] [--json]` prints one line a figure.
//!
//! The calls are made on the logic's thread, so making them is in the figures of CPU. `DIR` must be empty or not be
//! there; what `fill` and `pend` leave behind is theirs only.

mod disk;
mod fanout;
mod host;
mod kinds;
mod load;
mod memory;
mod report;
mod sync;
mod town;

use std::path::PathBuf;
use std::{env, process};

use report::Report;

const USAGE: &str = "service_figures NAME DIR [args] [--json], where NAME is
  kinds [SECONDS [KIND]]   acknowledged changes a second, and what a change costs, by kind
  sync                     1, 100 and 10 000 missing changes, cold and hot; users who lack nothing
  snapshot                 a user with 20 000 items
  fanout                   a group of 500, a moment for 5 000 contacts, 5 000 who ask one user
  disk [USERS CHANGES]     room on the disk, memory, start after an abort (100 000 x 20)
  filled USERS CHANGES     the same on what `fill` left
  memory [USERS]           users in memory and out of it (100 000)
  recovery [DUTIES]        start after an abort with duties left (100 000)
  fill USERS CHANGES       what `disk` starts: writes, then aborts
  pend DUTIES              what `recovery` starts: writes, then aborts";

fn main() {
    let mut args: Vec<String> = env::args().skip(1).collect();
    let json = args.iter().any(|arg| arg == "--json");
    args.retain(|arg| arg != "--json");
    let (Some(name), Some(dir)) = (args.first(), args.get(1).map(PathBuf::from)) else { usage() };
    let number = |at: usize, otherwise: u64| match args.get(at) {
        Some(word) => word.parse().unwrap_or_else(|_| usage()),
        None => otherwise,
    };
    let report = Report { json };
    match name.as_str() {
        "kinds" => kinds::run(&report, &dir, number(2, 4), args.get(3).map(String::as_str)),
        "sync" => sync::sync(&report, &dir),
        "snapshot" => sync::snapshot(&report, &dir),
        "fanout" => fanout::run(&report, &dir),
        "disk" => disk::disk(&report, &dir, number(2, 100_000), number(3, 20)),
        "filled" => disk::filled(&report, &dir, number(2, 100_000), number(3, 20)),
        "memory" => memory::run(&report, &dir, number(2, 100_000)),
        "recovery" => disk::recovery(&report, &dir, number(2, 100_000)),
        "fill" => disk::fill(&report, &dir, number(2, 100_000), number(3, 20)),
        "pend" => disk::pend(&dir, number(2, 100_000)),
        _ => usage(),
    }
}

fn usage() -> ! {
    eprintln!("{USAGE}");
    process::exit(2);
}
