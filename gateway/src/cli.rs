//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use proto_wire_token::{Claims, IssuerKey};

use crate::config::Config;
use crate::control::serve;

const EXAMPLES: &str = "\
Examples:
  moorgate up                                     gateway and reference backend in one, data in ./moorgate-data
  moorgate serve --backend 127.0.0.1:7610         a gateway before a backend that runs elsewhere
  moorgate check-config gateway.toml              says what is wrong with a configuration, with its line
  moorgate token --user 42                        a token for user 42, signed with the key in ./moorgate-data";

/// An access gateway: millions of long connections, kept alive cheaply, and the news that something changed.
#[derive(Debug, Parser)]
#[command(name = "moorgate", version, after_help = EXAMPLES)]
struct Cli {
    /// What is logged: error, warn, info, debug, or a filter such as `gateway=debug`. Without: RUST_LOG, or info.
    #[arg(long, global = true, env = "MOORGATE_LOG")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts gateway and reference backend together: the way to try Moorgate.
    #[cfg(feature = "embedded-backend")]
    Up(UpArgs),
    /// Starts a gateway before backends that run elsewhere.
    Serve(ServeArgs),
    /// Checks a configuration file.
    CheckConfig {
        /// The file.
        file: PathBuf,
    },
    /// Makes a token for a user.
    Token(TokenArgs),
    /// Makes a root key of resume tickets, for a file that all gateways of a service get.
    TicketKey,
    /// Prints what a connection and a shard cost, by design.
    Budget,
}

#[cfg(feature = "embedded-backend")]
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Where keys and the store lie; made at the first start.
    #[arg(long, default_value = "moorgate-data")]
    pub data: PathBuf,
    /// Where the backend listens; port 0: any.
    #[arg(long, default_value = "127.0.0.1:7610")]
    pub backend_listen: SocketAddr,
    /// The port of the backend's metrics and status on 127.0.0.1; 0: any.
    #[arg(long, default_value_t = 7611)]
    pub backend_admin_port: u16,
    #[command(flatten)]
    pub overrides: Overrides,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// A TOML file; flags override it.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Backends of the logic tier, separated by commas.
    #[arg(long, value_delimiter = ',')]
    backend: Vec<SocketAddr>,
    /// Public keys of the issuers of tokens (PEM).
    #[arg(long)]
    verify_key: Option<PathBuf>,
    /// Root keys of resume tickets, shared by all gateways of a service; without: this process has its own.
    #[arg(long)]
    ticket_key: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

/// Flags that `up` and `serve` share.
#[derive(Debug, Args)]
pub struct Overrides {
    /// Where phones connect; port 0: any.
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Metrics, status, drain; port 0: any.
    #[arg(long)]
    pub admin: Option<SocketAddr>,
    /// Connections in all.
    #[arg(long)]
    pub max_connections: Option<usize>,
    /// Cores that shards are pinned to in turn, and that the whole process keeps to, for example 0,2.
    #[arg(long, value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// Seconds of silence after which a phone beats.
    #[arg(long)]
    pub heartbeat: Option<u64>,
    /// Lift what one peer address may do (`[limits.addresses]`): new connections a second, HELLOs that fail. For load tests
    /// from one host, and behind a balancer that connects with addresses of its own.
    #[arg(long)]
    pub no_address_limits: bool,
}

#[derive(Debug, Args)]
struct TokenArgs {
    /// The user, a number above 0.
    #[arg(long)]
    user: u64,
    /// Only this device may use it.
    #[arg(long)]
    device: Option<u64>,
    /// How long it is good, in seconds.
    #[arg(long, default_value_t = 7 * 24 * 3600)]
    ttl: u64,
    /// The issuer's private key (PEM).
    #[arg(long, default_value = "moorgate-data/keys/issuer.pem")]
    issuer_key: PathBuf,
}

impl Overrides {
    pub fn apply(&self, config: &mut Config) {
        if let Some(listen) = self.listen {
            config.listen = listen;
        }
        if let Some(admin) = self.admin {
            config.admin = admin;
        }
        if let Some(max_connections) = self.max_connections {
            config.max_connections = max_connections;
        }
        if !self.cores.is_empty() {
            config.cores = self.cores.clone();
        }
        if let Some(heartbeat_s) = self.heartbeat {
            config.limits.heartbeat_ms = heartbeat_s.saturating_mul(1000);
        }
        if self.no_address_limits {
            config.limits.addresses.lift();
        }
    }
}

/// Runs the command line. 0: fine; 1: it failed; 2: it was called wrongly (clap's own).
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    crate::control::log::start(cli.log);
    let result = match cli.command {
        #[cfg(feature = "embedded-backend")]
        Command::Up(args) => crate::up::run(&args),
        Command::Serve(args) => run_serve(&args),
        Command::CheckConfig { file } => check_config(&file),
        Command::Token(args) => make_token(&args),
        Command::TicketKey => crate::control::keys::fresh_text().map(|text| print!("{text}")),
        Command::Budget => {
            print!("{}", crate::budget::table());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("moorgate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_serve(args: &ServeArgs) -> Result<()> {
    let mut config = match &args.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    if !args.backend.is_empty() {
        config.backends = args.backend.clone();
    }
    if let Some(path) = &args.verify_key {
        config.verify_key = path.clone();
    }
    if args.ticket_key.is_some() {
        config.ticket_key = args.ticket_key.clone();
    }
    args.overrides.apply(&mut config);
    config.check()?;
    serve::run(config, |running| {
        println!("ready listen={} admin={}", running.listen, running.admin);
    })
}

fn check_config(file: &std::path::Path) -> Result<()> {
    Config::read(file)?;
    println!("{} is fine", file.display());
    Ok(())
}

fn make_token(args: &TokenArgs) -> Result<()> {
    anyhow::ensure!(
        args.user > 0 && args.user < proto_wire::names::GROUP_BIT,
        "--user must be 1 to 2^63 - 1"
    );
    let path = &args.issuer_key;
    let pem = std::fs::read_to_string(path).with_context(|| {
        format!(
            "cannot read the issuer's key {} (`moorgate up` makes one at its first start)",
            path.display()
        )
    })?;
    let key = IssuerKey::from_pem(&pem).with_context(|| format!("{} is no issuer's key", path.display()))?;
    let issued_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = Claims {
        user: args.user,
        home: 0,
        device: args.device,
        issued_s,
        expires_s: issued_s.saturating_add(args.ttl),
    };
    println!("{}", key.mint(&claims));
    Ok(())
}
