//! `octet generate`: a run's newest good checkpoint goes on with a prompt. Prints only text.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use octet::failure::Failure;
use octet::look::{Run, Writing, generate};
use octet::sampling::{Heard, Listener, Sampler};

use crate::cli::numbers::{at_least_1, number, whole};
use crate::cli::{output, signals};

/// What to write.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet generate runs/quickstart
  octet generate runs/quickstart --prompt \"fn main\" --temperature 0.7 --top-p 0.9")]
pub(crate) struct Arguments {
    /// The run folder.
    run: PathBuf,
    /// What the text begins with, "" for a new document if the tokenizer marks their ends; by
    /// default the run's sample.prompt. Given several times, there is a text for each.
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,
    /// Texts for each prompt.
    #[arg(long, default_value_t = 1, value_parser = at_least_1, allow_negative_numbers = true)]
    count: usize,
    /// Tokens to write at most; by default the run's sample.tokens. A text also ends with its
    /// document.
    #[arg(long, value_parser = at_least_1, allow_negative_numbers = true)]
    tokens: Option<usize>,
    /// 0 takes the most likely token; by default the run's sample.temperature.
    #[arg(long, value_parser = number, allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Draw among the most likely tokens only, 0 for all; by default the run's sample.top_k.
    #[arg(long, value_parser = whole::<usize>, allow_negative_numbers = true)]
    top_k: Option<usize>,
    /// Draw among the fewest tokens that have so much probability together; by default the run's
    /// sample.top_p.
    #[arg(long, value_parser = number, allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0, value_parser = whole::<u64>, allow_negative_numbers = true)]
    seed: u64,
}

/// Most texts of one command.
const TEXTS_MAX: usize = 1000;

/// Prints each prompt and its continuation as they come.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let run = Run::open(&arguments.run, &[])?;
    let sample = &run.config.sample;
    let sampler = Sampler {
        temperature: arguments.temperature.unwrap_or(sample.temperature),
        top_k: arguments.top_k.unwrap_or(sample.top_k),
        top_p: arguments.top_p.unwrap_or(sample.top_p),
        seed: arguments.seed,
    };
    check("--temperature", "at least 0", sampler.temperature, 0.0..f64::INFINITY)?;
    check("--top-p", "more than 0 and at most 1", sampler.top_p, f64::MIN_POSITIVE..1.0 + 1e-12)?;
    let tokens = arguments.tokens.unwrap_or(sample.tokens);
    let given = &arguments.prompt[..];
    let prompts = if given.is_empty() { std::slice::from_ref(&sample.prompt) } else { given };
    let (most, count) = (TEXTS_MAX / prompts.len(), arguments.count);
    if count > most {
        let wanted = format!("--count: expected from 1 to {most} texts for each prompt");
        return Err(Failure::user(format!("{wanted}, got {count}")));
    }
    let each = |prompt: &String| std::iter::repeat_n(prompt.clone(), count);
    let prompts: Vec<String> = prompts.iter().flat_map(each).collect();
    let diverged = Arc::new(AtomicBool::new(false));
    let stop = signals::flag()?;
    let listener = |(i, prompt): (usize, &String)| {
        let before = if i == 0 { prompt.clone() } else { format!("{SEPARATOR}{prompt}") };
        printer(before, stop.clone(), diverged.clone())
    };
    let listeners = prompts.iter().enumerate().map(listener).collect();
    let looked = generate(&run, Writing { prompts, tokens, sampler }, listeners)?;
    for note in looked.notes {
        output::complain(format_args!("octet: {note}"));
    }
    if diverged.load(Ordering::Relaxed) {
        // The model stays what it is.
        return Err(Failure::user("the text ends early: the model gives no finite logit"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The line between two texts.
const SEPARATOR: &str = "--------\n";

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

/// Prints what comes before the first piece, and a line end after the last. Stops at a signal, and
/// when nobody reads any more; nothing is printed then.
fn printer(before: String, stop: Arc<AtomicBool>, diverged: Arc<AtomicBool>) -> Listener {
    let mut before = Some(before);
    let ends = move || stop.load(Ordering::Relaxed) || output::is_unread();
    Box::new(move |heard| {
        let over = ends() || diverged.load(Ordering::Relaxed);
        if over && before.is_some() {
            return ControlFlow::Break(());
        }
        let mut text = before.take().unwrap_or_default();
        text.push_str(match heard {
            Heard::Piece(piece) => piece,
            Heard::Diverged => {
                diverged.store(true, Ordering::Relaxed);
                ""
            }
            Heard::End => "\n",
        });
        output::print(format_args!("{text}"));
        let over = ends() || diverged.load(Ordering::Relaxed);
        if over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}
