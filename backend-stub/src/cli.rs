//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::call::Call;
use crate::config::{BackendConfig, ConfigError};

/// The reference backend of Moorgate: accounts, messages, sync and presence behind gateways.
#[derive(Debug, Parser)]
#[command(name = "moorgate-backend", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves gateways until SIGTERM or Ctrl-C.
    Serve(Serve),
    /// Reads a configuration and says what is wrong with it.
    CheckConfig { file: PathBuf },
    /// Calls a method of any server, or lists what there is to call.
    #[command(after_help = "Examples:\n  moorgate-backend call 127.0.0.1:7610\n  \
                            moorgate-backend call 127.0.0.1:7610 Echo.Say '{\"payload\":\"aGk=\"}'\n  \
                            moorgate-backend call 127.0.0.1:7610 Sync.Pull '{}' --user 4711")]
    Call(Call),
    #[command(flatten)]
    Tool(Tool),
}

/// What looks after a store while no backend runs on it.
#[derive(Debug, Subcommand)]
pub enum Tool {
    /// Shows, exports or erases all that is stored of one user.
    #[command(subcommand)]
    User(UserTool),
    /// Reads all of a store and tells everything that does not fit together; ends with 1 if anything does not.
    #[command(after_help = "Examples:\n  moorgate-backend check --data /var/lib/moorgate")]
    Check(DataArg),
    /// Merges all tables of a store, so that deleted and replaced rows give their room back.
    #[command(after_help = "Examples:\n  moorgate-backend compact --data /var/lib/moorgate")]
    Compact(DataArg),
    /// Copies the store and the keys of a data directory into a directory that is empty or does not exist. The copy holds
    /// the issuer's key: whoever reads it can be any user.
    #[command(after_help = "Examples:\n  moorgate-backend backup /backups/monday --data /var/lib/moorgate")]
    Backup {
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        #[command(flatten)]
        data: DataArg,
    },
    /// Brings a backup back into an empty data directory, once all of it is verified. Phones then take snapshots, and
    /// lose nothing that was in the backup.
    #[command(
        after_help = "Examples:\n  moorgate-backend restore /backups/monday --data /var/lib/moorgate\n  \
                            moorgate-backend restore /var/lib/moorgate --from /backups/monday"
    )]
    Restore {
        /// The backup; with --from, the data directory.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// The backup, when DIR is the data directory.
        #[arg(long, value_name = "BACKUP", conflicts_with = "data")]
        from: Option<PathBuf>,
        #[command(flatten)]
        data: DataArg,
    },
}

#[derive(Debug, Subcommand)]
pub enum UserTool {
    /// What there is of a user: log, contacts, groups, devices, moments, duties.
    #[command(after_help = "Examples:\n  moorgate-backend user show alice --data /var/lib/moorgate\n  \
                            moorgate-backend user show 4711 --json")]
    Show {
        #[command(flatten)]
        user: UserArg,
        /// As JSON; ids are strings.
        #[arg(long)]
        json: bool,
    },
    /// The rows of a user's log, oldest first.
    #[command(after_help = "Examples:\n  moorgate-backend user log alice --limit 20\n  \
                            moorgate-backend user log 4711 --from 300 --json | jq .body")]
    Log {
        #[command(flatten)]
        user: UserArg,
        /// Begins at this number.
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        from: u64,
        /// Ends after so many rows.
        #[arg(long, value_name = "ROWS")]
        limit: Option<usize>,
        /// A JSON object a line; ids are strings.
        #[arg(long)]
        json: bool,
    },
    /// Writes all that is stored of a user as JSON lines into a directory that is empty or does not exist. The password's
    /// hash is not among it.
    #[command(
        after_help = "Examples:\n  moorgate-backend user export alice ./alice --data /var/lib/moorgate"
    )]
    Export {
        #[arg(value_name = "USER", help = "A number, or a name; @NAME for a name of digits")]
        user: String,
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        #[command(flatten)]
        data: DataArg,
    },
    /// Removes all that is stored of a user. What others have of the user's messages stays theirs.
    #[command(
        after_help = "Examples:\n  moorgate-backend user erase alice        says what would be removed\n  \
                            moorgate-backend user erase alice --yes"
    )]
    Erase {
        #[command(flatten)]
        user: UserArg,
        /// Removes it. Without this it is only said what would be, and the exit code is 1.
        #[arg(long)]
        yes: bool,
    },
}

/// A user in a data directory.
#[derive(Debug, Args)]
pub struct UserArg {
    /// A number, or a name; @NAME for a name of digits.
    #[arg(value_name = "USER")]
    pub user: String,
    #[command(flatten)]
    pub data: DataArg,
}

/// A data directory that no backend runs on.
#[derive(Debug, Args)]
pub struct DataArg {
    /// The data directory that the backend serves.
    #[arg(long, value_name = "DIR", default_value = "moorgate-data")]
    pub data: PathBuf,
}

/// Flags override the file.
#[derive(Debug, Args)]
pub struct Serve {
    /// Where gateways connect; port 0 takes a free one [default: 127.0.0.1:7610].
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// A Unix socket beside it.
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Takes calls over UDP too, on the port of --listen.
    #[arg(long)]
    udp: bool,
    /// Metrics, status and readiness [default: 127.0.0.1:7611].
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Keys and store; made when it does not exist [default: moorgate-data].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Cores to run on, such as 0,2. The loop is pinned to the first.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    cores: Option<Vec<usize>>,
    /// Listen where other machines can connect. Callers are not authenticated yet.
    #[arg(long)]
    insecure_listen: bool,
    /// Makes the machine's clock wrong by so many seconds, for tests.
    #[arg(
        long,
        hide = true,
        value_name = "SECONDS",
        allow_hyphen_values = true,
        env = "MOORGATE_CLOCK_OFFSET_S"
    )]
    clock_offset_s: Option<i64>,
    /// A TOML file with the same and more.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Serve {
    /// The file, if there is one, with the flags over it.
    pub fn config(self) -> Result<BackendConfig, ConfigError> {
        let mut config = self.config.as_deref().map(BackendConfig::read).transpose()?.unwrap_or_default();
        config.listen = self.listen.unwrap_or(config.listen);
        config.unix = self.unix.or(config.unix);
        config.udp |= self.udp;
        config.admin = self.admin.or(config.admin);
        config.data = self.data.unwrap_or(config.data);
        config.cores = self.cores.unwrap_or(config.cores);
        config.insecure_listen |= self.insecure_listen;
        config.clock_offset_s = self.clock_offset_s.unwrap_or(0);
        config.check()?;
        Ok(config)
    }
}
