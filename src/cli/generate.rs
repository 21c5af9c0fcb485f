//! `octet generate`: a run's newest good checkpoint goes on with a prompt. Prints only text.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use octet::failure::Failure;
use octet::hub::Opened;
use octet::look::{Writing, generate};
use octet::sampling::{Heard, Listener, Sampler};

use crate::cli::numbers::{at_least_1, number, whole};
use crate::cli::{output, signals};

/// What to write.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet generate runs/quickstart
  octet generate runs/quickstart --prompt \"fn main\" --temperature 0.7 --top-p 0.9")]
pub(crate) struct Arguments {
    /// A run folder, or a folder of Hugging Face's.
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
    /// Draw among tokens that are at least so likely, as a share of the most likely one; 0 for all.
    #[arg(long, default_value_t = 0.0, value_parser = number, allow_negative_numbers = true)]
    min_p: f64,
    /// Divides the logits of tokens that were there before, in the prompt too; 1 for no change.
    #[arg(long, default_value_t = 1.0, value_parser = number, allow_negative_numbers = true)]
    repetition_penalty: f64,
    /// End a text before this is written. May be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Seed of the draws.
    #[arg(long, default_value_t = 0, value_parser = whole::<u64>, allow_negative_numbers = true)]
    seed: u64,
}

/// Most texts of one command.
const TEXTS_MAX: usize = 1000;

/// Prints each prompt and its continuation as they come.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let opened = Opened::at(&arguments.run, &|| signals::is_told())?;
    let run = &opened.run;
    let sample = &run.config.sample;
    let sampler = Sampler {
        temperature: arguments.temperature.unwrap_or(sample.temperature),
        top_k: arguments.top_k.unwrap_or(sample.top_k),
        top_p: arguments.top_p.unwrap_or(sample.top_p),
        min_p: arguments.min_p,
        repetition_penalty: arguments.repetition_penalty,
        seed: arguments.seed,
        ..Sampler::default()
    };
    let refused = |(name, what): (&str, String)| {
        Failure::user(format!("--{}: {what}", name.replace('_', "-")))
    };
    sampler.check().map_err(refused)?;
    if arguments.stop.iter().any(String::is_empty) {
        return Err(Failure::user("--stop: expected some text, got \"\""));
    }
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
    let interrupted = signals::flag()?;
    let texts = vec![(String::new(), false); prompts.len()];
    let printer = Arc::new(Mutex::new(Printer { texts, now: 0 }));
    let listener = |(i, prompt): (usize, &String)| {
        let before = if i == 0 { prompt.clone() } else { format!("{SEPARATOR}{prompt}") };
        listener((i, before), printer.clone(), interrupted.clone(), diverged.clone())
    };
    let listeners = prompts.iter().enumerate().map(listener).collect();
    let writing = Writing { prompts, tokens, sampler, stop: arguments.stop.clone() };
    let looked = generate(run, writing, listeners)?;
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

/// Prints texts in their order, the first that is not over as it comes.
struct Printer {
    /// By text: what is not printed yet, and whether that is all.
    texts: Vec<(String, bool)>,
    now: usize,
}

impl Printer {
    fn add(&mut self, number: usize, piece: &str, over: bool) {
        let (text, was_over) = &mut self.texts[number];
        text.push_str(piece);
        *was_over |= over;
        while let Some((text, over)) = self.texts.get_mut(self.now) {
            output::print(format_args!("{}", std::mem::take(text)));
            if !*over {
                break;
            }
            self.now += 1;
        }
    }
}

/// Hears text `number`, which begins with `before`. Stops at a signal, and when nobody reads any
/// more; nothing is printed of a text that has not begun then.
fn listener(
    (number, before): (usize, String),
    printer: Arc<Mutex<Printer>>,
    interrupted: Arc<AtomicBool>,
    diverged: Arc<AtomicBool>,
) -> Listener {
    let mut before = Some(before);
    Box::new(move |heard| {
        let over = interrupted.load(Ordering::Relaxed) || output::is_unread();
        let mut printer = printer.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if over && before.is_some() {
            printer.add(number, "", true);
            return ControlFlow::Break(());
        }
        let mut text = before.take().unwrap_or_default();
        match heard {
            Heard::Piece(piece) => text.push_str(piece),
            Heard::End(_) => text.push('\n'),
            Heard::Diverged => diverged.store(true, Ordering::Relaxed),
            Heard::Token(_) => {}
        }
        printer.add(number, &text, matches!(heard, Heard::End(_)));
        match over {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })
}
