//! What the engine says of its failures: its own threads only log why they ended, and the next commit then fails
//! without the reason.

use log::{LevelFilter, Log, Metadata, Record};

struct Said;

static SAID: Said = Said;

/// The crates of the engine.
const ENGINE: [&str; 2] = ["fjall", "lsm_tree"];

/// Listens from now on. Where somebody listens to all logs already, the engine is heard there.
pub(super) fn listen() {
    if log::set_logger(&SAID).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

impl Log for Said {
    fn enabled(&self, metadata: &Metadata) -> bool {
        let of = metadata.target().split("::").next().unwrap_or_default();
        metadata.level() <= LevelFilter::Warn && ENGINE.contains(&of)
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            // To where the sentence of a stop goes as well, which often follows.
            eprintln!("moorgate: the store's engine says: {}", record.args());
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    #[test]
    fn warnings_of_the_engine_are_heard_and_nobody_else() {
        let is_heard = |target: &'static str, level: Level| {
            SAID.enabled(&Metadata::builder().target(target).level(level).build())
        };
        assert!(is_heard("fjall::worker_pool", Level::Error) && is_heard("lsm_tree", Level::Warn));
        assert!(!is_heard("fjall", Level::Info) && !is_heard("fjallish", Level::Error));
        assert!(!is_heard("another_crate", Level::Error));
    }
}
