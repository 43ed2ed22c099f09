//! A shard's thread: pinned, made, run to its end.

use std::net::SocketAddr;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use gateway_ring::{Doorbell, PinError, pin_current_thread};

use super::{Command, Mailbox, Shard, ShardConfig, ShardError};
use crate::limits;

/// Why a shard did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error(transparent)]
    Shard(#[from] ShardError),
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error("no thread for a shard: {0}")]
    Thread(std::io::Error),
    #[error("the shard ended while it started")]
    Ended,
}

/// A shard that runs.
pub struct ShardHandle {
    pub listen: SocketAddr,
    pub mailbox: Mailbox,
    thread: JoinHandle<()>,
}

/// Starts a shard; returns when it accepts, or with what is wrong.
pub fn spawn(config: ShardConfig) -> Result<ShardHandle, SpawnError> {
    let (mailbox, commands) = sync_channel(limits::MAILBOX);
    let doorbell = Doorbell::new().map_err(ShardError::Doorbell)?;
    let (started, start) = sync_channel(1);
    let bell = doorbell.clone();
    let thread = std::thread::Builder::new()
        .name(format!("shard-{}", config.index))
        .spawn(move || {
            let index = config.index;
            let made = match config.core.map_or(Ok(()), pin_current_thread) {
                Ok(()) => Shard::new(config, commands, bell).map_err(SpawnError::from),
                Err(error) => Err(error.into()),
            };
            let mut shard = match made {
                Ok(shard) => shard,
                Err(error) => {
                    // The spawner waits for this, so it is there.
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let listen = shard.local_addr().map_err(|error| SpawnError::Thread(error));
            let _ = started.send(listen);
            drop(started);
            run(&mut shard, index);
        })
        .map_err(SpawnError::Thread)?;
    let listen = start.recv().map_err(|_| SpawnError::Ended)??;
    Ok(ShardHandle { listen, mailbox: Mailbox { sender: mailbox, doorbell }, thread })
}

fn run(shard: &mut Shard, index: u16) {
    shard.read_clocks();
    shard.start_links();
    shard.arm_accept();
    loop {
        match shard.turn() {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                // Nothing can be done without the ring. The other shards go on; the control thread sees the end.
                tracing::error!(shard = index, "the kernel refuses to run the ring: {error}");
                return;
            }
        }
    }
}

impl ShardHandle {
    /// Puts a command in the shard's mailbox. False when it is full, or the shard is gone.
    pub fn send(&self, command: Command) -> bool {
        self.mailbox.send(command)
    }

    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("a shard panicked");
        }
    }
}
