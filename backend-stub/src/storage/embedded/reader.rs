//! The reader of a partition.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use bytes::Bytes;
use fjall::Keyspace;

use super::super::{Completion, Query, Read, ReadError, Rows, Wake};
use super::Done;

pub(super) struct Reader {
    pub keyspace: Keyspace,
    pub reads: Receiver<Read>,
    pub done: Arc<Done>,
    pub wake: Wake,
}

/// Reads answered before the owner is woken.
const MAX_READS_A_WAKE: usize = 64;

impl Reader {
    /// Answers what comes until the owner is gone.
    pub fn run(self) {
        let mut answers = Vec::new();
        while let Ok(first) = self.reads.recv() {
            let mut next = Some(first);
            while let Some(read) = next {
                let answer = read.queries.iter().map(|query| self.query(query)).collect();
                answers.push(Completion::Read { token: read.token, answer });
                next = if answers.len() < MAX_READS_A_WAKE { self.reads.try_recv().ok() } else { None };
            }
            self.done.push(answers.drain(..));
            (self.wake)();
        }
    }

    fn query(&self, query: &Query) -> Result<Rows, ReadError> {
        let error = |error: fjall::Error| ReadError(error.to_string());
        match query {
            Query::Get(key) => {
                let value = self.keyspace.get(key).map_err(error)?;
                let row = value.map(|value| (key.clone(), Bytes::copy_from_slice(&value)));
                Ok(Rows { rows: row.into_iter().collect(), more: false })
            }
            Query::Scan { from, to, .. } if from > to => Ok(Rows::default()),
            Query::Scan { from, to, max_rows, max_bytes, reverse } => {
                let range = self.keyspace.range::<&[u8], _>(from.as_slice()..=to.as_slice());
                if *reverse {
                    take(range.rev(), *max_rows, *max_bytes)
                } else {
                    take(range, *max_rows, *max_bytes)
                }
            }
        }
    }
}

fn take(range: impl Iterator<Item = fjall::Guard>, max_rows: u32, max_bytes: u32) -> Result<Rows, ReadError> {
    let mut answer = Rows::default();
    let mut bytes = 0;
    for guard in range {
        if answer.rows.len() >= max_rows as usize || bytes >= max_bytes as usize {
            answer.more = true;
            break;
        }
        let (key, value) = guard.into_inner().map_err(|error| ReadError(error.to_string()))?;
        bytes += value.len();
        answer.rows.push((key.to_vec(), Bytes::copy_from_slice(&value)));
    }
    Ok(answer)
}
