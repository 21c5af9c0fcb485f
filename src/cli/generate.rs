//! `octet generate`: a run's newest good checkpoint goes on with a prompt. Prints only text.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use clap::Args;
use octet::failure::Failure;
use octet::look::{Run, Writing, generate};
use octet::sampling::{Heard, Listener, Sampler};

use crate::cli::signals;

/// What to write.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The run folder.
    run: PathBuf,
    /// What the text begins with; by default the run's sample.prompt.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Tokens to write; by default the run's sample.tokens.
    #[arg(long)]
    tokens: Option<usize>,
    /// 0 takes the most likely token; by default the run's sample.temperature.
    #[arg(long)]
    temperature: Option<f64>,
    /// Draw among the most likely tokens only, 0 for all; by default the run's sample.top_k.
    #[arg(long)]
    top_k: Option<usize>,
    /// Draw among the fewest tokens that have so much probability together.
    #[arg(long, default_value_t = 1.0)]
    top_p: f64,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Prints the prompt and its continuation as they come.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let run = Run::open(&arguments.run, &[])?;
    let sample = &run.config.sample;
    let sampler = Sampler {
        temperature: arguments.temperature.unwrap_or(sample.temperature),
        top_k: arguments.top_k.unwrap_or(sample.top_k),
        top_p: arguments.top_p,
        seed: arguments.seed,
    };
    check("--temperature", "at least 0", sampler.temperature, 0.0..f64::INFINITY)?;
    check("--top-p", "more than 0 and at most 1", sampler.top_p, f64::MIN_POSITIVE..1.0 + 1e-12)?;
    let tokens = arguments.tokens.unwrap_or(sample.tokens);
    if tokens == 0 {
        return Err(Failure::user("--tokens: expected at least 1, got 0"));
    }
    let prompt = arguments.prompt.clone().unwrap_or_else(|| sample.prompt.clone());
    let printed = Arc::new(Mutex::new(Ok(())));
    let listener = printer(prompt.clone(), printed.clone())?;
    let looked = generate(&run, Writing { prompt, tokens, sampler }, listener)?;
    for note in looked.notes {
        eprintln!("octet: {note}");
    }
    let printed = std::mem::replace(&mut *lock(&printed), Ok(()));
    match printed {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::world(format!("cannot print: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn check(
    option: &str,
    wanted: &str,
    value: f64,
    usable: std::ops::Range<f64>,
) -> Result<(), Failure> {
    match usable.contains(&value) {
        true => Ok(()),
        false => Err(Failure::user(format!("{option}: expected {wanted}, got {value}"))),
    }
}

/// Prints the prompt before the first piece and a line end after the last. Stops at a signal, and
/// when nobody reads any more.
fn printer(prompt: String, printed: Arc<Mutex<std::io::Result<()>>>) -> Result<Listener, Failure> {
    let stop = signals::flag()?;
    let mut before = Some(prompt);
    Ok(Box::new(move |heard| {
        let mut text = before.take().unwrap_or_default();
        text.push_str(match heard {
            Heard::Piece(piece) => piece,
            Heard::End => "\n",
        });
        let mut out = std::io::stdout().lock();
        let result = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        let failed = result.is_err();
        if failed && lock(&printed).is_ok() {
            *lock(&printed) = result;
        }
        if failed || stop.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }))
}

fn lock<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
