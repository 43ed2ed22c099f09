//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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
}

/// Flags override the file.
#[derive(Debug, Args)]
pub struct Serve {
    /// Where gateways connect; port 0 takes a free one [default: 127.0.0.1:7610].
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
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
        config.admin = self.admin.or(config.admin);
        config.data = self.data.unwrap_or(config.data);
        config.cores = self.cores.unwrap_or(config.cores);
        config.insecure_listen |= self.insecure_listen;
        config.clock_offset_s = self.clock_offset_s.unwrap_or(0);
        config.check()?;
        Ok(config)
    }
}
