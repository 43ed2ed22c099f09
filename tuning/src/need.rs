//! What is asked of a host.

use crate::limits;

/// Which parts run on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The server's end only.
    Gateway,
    /// The phones' end only.
    Bench,
    /// Both ends of every connection.
    Both,
}

impl Role {
    pub fn serves(self) -> bool {
        self != Role::Bench
    }

    pub fn connects(self) -> bool {
        self != Role::Gateway
    }

    /// How many ends of a connection are on this host.
    pub fn ends(self) -> u64 {
        if self == Role::Both { 2 } else { 1 }
    }
}

/// What a run needs. [`Need::new`] fills in what the design says; the caller changes what it knows better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    pub role: Role,
    pub connections: u64,
    /// The port that the gateway listens on; `None` or 0 is "any".
    pub listen_port: Option<u16>,
    /// In user space, all processes of the role together.
    pub user_bytes_per_connection: u64,
    /// In the kernel, all ends on this host together.
    pub kernel_bytes_per_connection: u64,
    /// How many source addresses the phones connect from (127.1.x.1 on loopback are free).
    pub source_addresses: u32,
    /// The accept queue that the listener asks for.
    pub backlog: u32,
    /// Buffers that are registered with a ring, and so locked.
    pub registered_bytes: u64,
}

impl Need {
    pub fn new(role: Role, connections: u64) -> Need {
        Need {
            role,
            connections,
            listen_port: None,
            user_bytes_per_connection: limits::USER_BYTES_DEFAULT * role.ends(),
            kernel_bytes_per_connection: limits::KERNEL_BYTES_ONE_END * role.ends(),
            source_addresses: 1,
            backlog: limits::BACKLOG_DEFAULT,
            registered_bytes: 0,
        }
    }
}
