//! `moorgate-bench`: load for a gateway, and a phone to talk through it.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use benches::cli::{ChatArgs, Cli, Command, PlaceArgs, resolve};
use benches::mixed::{MixOptions, Weights};
use benches::report::HostFacts;
use benches::session::RunError;
use benches::{call, chat, hold, phone, report, signals};
use clap::Parser;
use serde::Serialize;

/// Something was lost, doubled or out of order.
const BAD: u8 = 1;
/// The run could not be made.
const NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(BAD),
        Err(told) => {
            eprintln!("moorgate-bench: {told}");
            ExitCode::from(if signals::interrupted() { 130 } else { NOT_RUN })
        }
    }
}

fn run(command: Command) -> Result<bool, String> {
    // The phone's Ctrl-C just ends it.
    if !matches!(command, Command::Phone(_)) {
        signals::watch();
    }
    match command {
        Command::Phone(args) => {
            let options = phone::PhoneOptions {
                user: args.user,
                password: args.password,
                target: resolve(&args.target)?,
            };
            phone::run(&options).map(|()| true).map_err(|error| error.to_string())
        }
        Command::Chat(args) => {
            let options = chat::ChatOptions {
                clients: args.clients,
                seconds: args.seconds,
                rate: args.rate,
                kill_backend_at_s: args.kill_backend_at,
                kill_gateway_at_s: args.kill_gateway_at,
                text_bytes: args.text.into(),
                mix: mix(&args)?,
                place: args.place.place()?,
            };
            let made = chat::run(&options);
            tell(&args.place, made, |report| (report.summary(), &report.host, report.is_good()))
        }
        Command::Peer(args) => args.run(),
        Command::Peers(args) => args.run(),
        Command::Floor(args) => args.run(),
        Command::Hold(args) => {
            let options = hold::HoldOptions {
                connections: args.connections,
                seconds: args.seconds,
                heartbeat_s: args.heartbeat,
                place: args.place.place()?,
            };
            let made = hold::run(&options);
            tell(&args.place, made, |report| (report.summary(), &report.host, report.is_good()))
        }
        Command::Call(args) => {
            let options = call::CallOptions {
                clients: args.clients,
                payload_bytes: args.payload.into(),
                seconds: args.seconds,
                place: args.place.place()?,
            };
            let made = call::run(&options);
            tell(&args.place, made, |report| (report.summary(), &report.host, report.is_good()))
        }
    }
}

/// What a mixed chat is told.
fn mix(args: &ChatArgs) -> Result<Option<MixOptions>, String> {
    let Some(file) = &args.mix else { return Ok(None) };
    Ok(Some(MixOptions { weights: Weights::read(file)?, devices: args.devices }))
}

/// Prints a report, writes it where it is wanted, and says whether it is good.
fn tell<R: Serialize>(
    place: &PlaceArgs,
    made: Result<R, RunError>,
    read: impl Fn(&R) -> (String, &HostFacts, bool),
) -> Result<bool, String> {
    let report = made.map_err(|error| error.to_string())?;
    let (summary, host, is_good) = read(&report);
    println!("{summary}");
    if let Some(told) = host.disturbance() {
        println!("{told}");
    }
    if let Some(path) = &place.json {
        write(path, &report)?;
    }
    Ok(is_good)
}

fn write(path: &Path, report: &impl Serialize) -> Result<(), String> {
    report::write_json(path, report).map_err(|error| error.to_string())
}
