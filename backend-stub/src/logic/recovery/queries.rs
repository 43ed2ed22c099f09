//! What recovery asks the store: the duties of a section, and the memories that tell whether one has landed.

use proto_wire::names::section_of;

use crate::logic::duty::StoredTask;
use crate::logic::values::decode_number;
use crate::logic::{keys, limits};
use crate::storage::{Query, Rows};

pub(super) fn duties_after(section: u16, sequence: u64) -> Query {
    Query::Scan {
        from: keys::duty(section, sequence + 1).to_vec(),
        to: keys::duty(section, u64::MAX).to_vec(),
        max_rows: limits::RECOVERY_ROWS,
        max_bytes: u32::MAX,
        reverse: false,
    }
}

/// What the receiver remembers of the origin, and the sender's row: with their sections.
pub(super) fn message_queries(task: &StoredTask) -> [(u16, Query); 2] {
    let get = |section, key: keys::Key| (section, Query::Get(key.to_vec()));
    match task {
        StoredTask::User { receiver, sender, number }
        | StoredTask::Group { group: receiver, sender, number } => {
            let section = section_of(*receiver);
            [
                get(section, keys::origin(section, *receiver, *sender)),
                get(section_of(*sender), keys::row(*sender, *number)),
            ]
        }
        StoredTask::Peer { receiver, sender, .. } | StoredTask::Receipt { receiver, sender, .. } => {
            let section = section_of(*receiver);
            let memory = get(section, keys::origin(section, *receiver, *sender));
            [memory.clone(), memory]
        }
        StoredTask::Member { receiver, group, number } => {
            let (section, home) = (section_of(*receiver), section_of(*group));
            [
                get(section, keys::origin(section, *receiver, *group)),
                get(home, keys::body(home, *group, *number)),
            ]
        }
        StoredTask::Reference { receiver, author, .. } => {
            let memory = get(section_of(*receiver), keys::seen(*receiver, *author));
            [memory.clone(), memory]
        }
        StoredTask::Moment { author, moment, .. } => {
            let head = get(section_of(*author), keys::moment(*author, *moment));
            [head.clone(), head]
        }
        StoredTask::Create { group, .. } | StoredTask::Fanout { group, .. } => {
            let section = section_of(*group);
            [get(section, keys::group(*group, 1)), get(section, keys::group(*group, 1))]
        }
    }
}

/// The number in a memory of an origin; 0: none.
pub(super) fn remembered(rows: &Rows) -> u64 {
    rows.value().and_then(|value| decode_number(value).ok()).unwrap_or(0)
}
