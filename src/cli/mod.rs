//! The command line: one file per command. The only place that prints.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the front")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use octet::failure::Failure;

mod plan;
mod progress;
mod signals;
mod train;

/// Pretrains transformers on one node with up to eight GPUs.
#[derive(Debug, Parser)]
#[command(name = "octet", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train; resumes by itself if the run folder holds a good checkpoint.
    Train(train::Arguments),
    /// What a run will take: parameters, memory, FLOPs, time. Needs no GPU.
    Plan(plan::Arguments),
    /// The engine that `train` runs as its child.
    #[command(hide = true)]
    Engine(train::Arguments),
}

/// Runs the command of this process.
pub(crate) fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Train(arguments) => train::parent(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Engine(arguments) => train::engine(&arguments),
    };
    match done {
        Ok(code) => code,
        Err(Failure { code, what }) => {
            eprintln!("octet: {what}");
            ExitCode::from(code)
        }
    }
}
