//! `moorgate-bench`: load for a gateway, and a phone to talk through it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use benches::cli::{ChatArgs, Cli, Command, resolve};
use benches::mixed::{MixOptions, Weights};
use benches::output::tell;
use benches::{
    broadcast, call, chat, compare, find_max, hold, output, phone, ramp, report, signals, soak, storm,
};
use clap::Parser;

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
            ExitCode::from(if signals::asked() { 130 } else { NOT_RUN })
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
                arrival: args.arrival,
                kill_backend_at_s: args.kill_backend_at,
                kill_gateway_at_s: args.kill_gateway_at,
                text_bytes: args.text.into(),
                mix: mix(&args)?,
                place: args.place.place()?,
            };
            tell(&args.place.output.outputs(), || chat::run(&options))
        }
        Command::FindMax(args) => {
            let options = args.options()?;
            tell(&args.place.output.outputs(), || find_max::run(&options))
        }
        Command::Ramp(args) => {
            let options = args.options()?;
            tell(&args.place.output.outputs(), || ramp::run(&options))
        }
        Command::Broadcast(args) => {
            let options = args.options()?;
            tell(&args.place.output.outputs(), || broadcast::run(&options))
        }
        Command::Storm(args) => {
            let options = args.options()?;
            tell(&args.place.output.outputs(), || storm::run(&options))
        }
        Command::Soak(args) => {
            let options = args.options()?;
            tell(&args.place.output.outputs(), || soak::run(&options))
        }
        Command::Compare(args) => {
            let made =
                compare::compare(&args.reports, args.across_hosts).map_err(|error| error.to_string())?;
            println!("{}", made.summary());
            if let Some(path) = &args.json {
                report::write_json(path, &made).map_err(|error| error.to_string())?;
            }
            match made.exit_code() {
                NOT_RUN => Err("there is no verdict (see the warning above)".to_owned()),
                code => Ok(code == 0),
            }
        }
        Command::Html(args) => output::render(&args.report, &args.page).map(|()| true),
        Command::Peer(args) => args.run(),
        Command::Peers(args) => args.run(),
        Command::Rpc(args) => args.run(),
        Command::Floor(args) => args.run(),
        Command::Hold(args) => {
            let options = args.options()?;
            tell(&args.place.output.outputs(), || hold::run(&options))
        }
        Command::Call(args) => {
            let pace = match args.rate {
                Some(rate) => call::Pace::Open { rate, arrival: args.arrival },
                None => call::Pace::Closed,
            };
            let options = call::CallOptions {
                setup: call::CallSetup {
                    clients: args.clients,
                    payload_bytes: args.payload.into(),
                    place: args.place.place()?,
                },
                seconds: args.seconds,
                warm_up_s: args.warm_up,
                pace,
            };
            tell(&args.place.output.outputs(), || call::run(&options))
        }
    }
}

/// What a mixed chat is told.
fn mix(args: &ChatArgs) -> Result<Option<MixOptions>, String> {
    let Some(file) = &args.mix else { return Ok(None) };
    Ok(Some(MixOptions { weights: Weights::read(file)?, devices: args.devices }))
}
