//! The command line: one file per command. What it says goes through [`output`].

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{PanicHookInfo, catch_unwind};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use octet::failure::Failure;

mod bench;
mod diff;
mod doctor;
mod evaluate;
mod export;
mod fork;
mod generate;
mod help;
mod import;
mod inspect;
mod numbers;
mod output;
mod parent;
mod plan;
mod prepare;
mod progress;
mod rehearse;
mod runs;
mod serve;
mod signals;
mod train;
mod train_filter;
mod units;
mod verify;

/// Pretrains transformers on one node with up to eight GPUs.
#[derive(Debug, Parser)]
#[command(
    name = "octet",
    version,
    about,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "A first run, on text that is already there:
  octet train configs/quickstart.toml
  octet generate runs/quickstart --prompt \"/// Returns\"

Any key of a configuration can be set: --set section.key=value. Exit codes: 0 done, 1 a check \
failed, 2 bad input or a run that stops until it is changed, 70 a defect of this program, 75 the \
world failed, and another try may help.
Each command has examples: octet COMMAND --help; octet help KEY explains a key"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Turn text into shards of tokens, once; train does it by itself.
    Prepare(prepare::Arguments),
    /// Make the classifier of the cleaning step "quality" from good and bad documents.
    TrainFilter(train_filter::Arguments),
    /// Train; resumes by itself if the run folder holds a good checkpoint.
    Train(train::Arguments),
    /// What a run will take: parameters, memory, FLOPs, time. Needs no GPU.
    Plan(plan::Arguments),
    /// Go on with a prompt, by a run's newest good checkpoint.
    Generate(generate::Arguments),
    /// Answer over HTTP, as clients of OpenAI's API ask.
    Serve(serve::Arguments),
    /// Held-out losses of a run's newest good checkpoint.
    Evaluate(evaluate::Arguments),
    /// Make a folder of a checkpoint that Hugging Face's libraries load.
    Export(export::Arguments),
    /// Make a run that can be trained of a folder that somebody else has stored.
    Import(import::Arguments),
    /// What lies at a path: a shard, a checkpoint or a run.
    Inspect(inspect::Arguments),
    /// The runs in a folder, a line each.
    Runs(runs::Arguments),
    /// Begin a branch of a run with one of its checkpoints.
    Fork(fork::Arguments),
    /// A run in small: steps, a save, a kill, a resume, an evaluation, a sample.
    Rehearse(rehearse::Arguments),
    /// Hash checkpoints again, and do steps again; exit code 1 if anything is not as it was.
    Verify(verify::Arguments),
    /// The first step and bucket where two runs part; exit code 1 if they do.
    Diff(diff::Arguments),
    /// What this machine has and what is missing.
    Doctor(doctor::Arguments),
    /// Measure this machine.
    Bench(bench::Arguments),
    /// What a command, a key of the configuration, or a section of it is.
    Help(help::Arguments),
    /// The engine that `train` runs as its child.
    #[command(hide = true)]
    Engine,
}

/// Runs the command of this process.
pub(crate) fn main() -> ExitCode {
    let command = Arguments::parse().command;
    lift_limits();
    load_modules_whole();
    std::panic::set_hook(Box::new(tell_of_panic));
    let done = catch_unwind(|| run(command))
        .unwrap_or_else(|_told| Err(Failure::ours("that is a defect of this program")));
    output::finish(done)
}

/// A file that may not grow is an error with a sentence, not a signal; and as many files may be
/// open as this process is allowed.
fn lift_limits() {
    let mut files = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: sets the disposition of one signal, and reads and writes one struct of ours.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut files) == 0 {
            files.rlim_cur = files.rlim_max;
            // Where that is refused, fewer will do.
            let _refused = libc::setrlimit(libc::RLIMIT_NOFILE, &raw const files);
        }
    }
}

/// Has CUDA load whole modules when they are asked for, unless somebody has said otherwise: a
/// kernel that is loaded at its first launch takes memory, and waits for the device in the middle
/// of a step.
fn load_modules_whole() {
    const LOADING: &str = "CUDA_MODULE_LOADING";
    if std::env::var_os(LOADING).is_none() {
        // SAFETY: the process has one thread yet.
        unsafe { std::env::set_var(LOADING, "EAGER") };
    }
}

/// As the standard hook does it, but without waiting for whoever reads stderr.
fn tell_of_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    output::complain(format_args!("thread '{}' {panic}", thread.name().unwrap_or("unnamed")));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        output::complain(backtrace);
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Train(arguments) => parent::parent(&arguments),
        Command::Prepare(arguments) => prepare::run(&arguments),
        Command::TrainFilter(arguments) => train_filter::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Evaluate(arguments) => evaluate::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Runs(arguments) => runs::run(&arguments),
        Command::Fork(arguments) => fork::run(&arguments),
        Command::Rehearse(arguments) => rehearse::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Diff(arguments) => diff::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Help(arguments) => help::run::<Arguments>(&arguments),
        Command::Engine => train::engine(),
    }
}
