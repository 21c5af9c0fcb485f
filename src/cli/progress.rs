//! What a person sees while a run goes on: a line every few seconds, and every evaluation.

use std::time::{Duration, Instant};

use octet::beginning::Beginning;
use octet::data::{Progress, Stage};
use octet::train::Sample;
use octet_actors::report::StepReport;
use octet_actors::run_folder::log::Line;
use octet_actors::telemetry::Observer;

use crate::cli::output::say;
use crate::cli::parent::handover::Reached;
use crate::cli::units::{grouped, text};

/// Between two lines about steps.
const PERIOD: Duration = Duration::from_secs(2);

/// Prints what a run begins with.
pub(crate) fn beginning(beginning: &Beginning) {
    let parameters = grouped(beginning.parameters);
    say(format!("{}; {parameters} parameters", text(&beginning.counts)));
}

/// An observer that prints to stdout, and lets the parent know how far the run is. `steps` is the
/// length of the run.
pub(crate) fn observer(steps: u64, reached: Reached) -> Observer {
    let mut last: Option<Instant> = None;
    Box::new(move |line| match line {
        Line::Step(report) => {
            reached.step(report.step);
            let due = last.is_none_or(|at| at.elapsed() >= PERIOD);
            if due || report.step == steps || report.skipped {
                say(step_line(report, steps));
                last = Some(Instant::now());
            }
        }
        // A note says so.
        Line::Evaluate(report) if report.targets == 0 => {}
        Line::Evaluate(report) => {
            let bits = report.bits_per_byte;
            let bits = bits.map_or(String::new(), |b| format!("  {b:.4} bits/byte"));
            let measures = report.measures.iter();
            let measures: String =
                measures.map(|(name, value)| format!("  {name} {value:.4}")).collect();
            say(format_args!(
                "step {:>6}  {}: loss {:.4}  perplexity {:.2}{bits}{measures}",
                report.step, report.task, report.loss, report.perplexity
            ));
        }
        Line::Note { step, what } => say(format_args!("step {step:>6}  {what}")),
        Line::RollBack(report) => say(format_args!(
            "step {:>6}  rolled back to step {}: {}",
            report.at, report.step, report.reason
        )),
        Line::Checkpoint { .. } | Line::Time { .. } => {}
    })
}

fn step_line(report: &StepReport, steps: u64) -> String {
    let rate = report.tokens_per_s;
    let rate = if rate >= 1e4 { format!("{:.1}k", rate / 1e3) } else { format!("{rate:.0}") };
    let left = (steps - report.step.min(steps)) as f64 * report.step_ms / 1e3;
    let skipped = if report.skipped { "  update skipped" } else { "" };
    let loss = match report.targets {
        Some(0) => "of no targets".to_string(),
        _ => format!("{:.4}", report.loss),
    };
    let named = report.losses.iter().map(|(name, loss)| format!("  {name} {loss:.4}"));
    let loss = format!("{loss}{}", named.collect::<String>());
    format!(
        "step {:>6}/{steps}  loss {loss}  lr {:.2e}  norm {:.3}  {rate} tok/s  {} left{skipped}",
        report.step,
        report.learning_rate,
        report.grad_norm,
        clock(left),
    )
}

/// Seconds as `3m05s` or `2h10m`.
fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    if hours > 0 {
        format!("{hours}h{minutes:02}m")
    } else {
        format!("{minutes}m{:02}s", seconds % 60)
    }
}

/// Prints a sample.
pub(crate) fn sampled(sample: &Sample) {
    say(format_args!("step {:>6}  sample:", sample.step));
    for line in sample.text.lines() {
        // A model that has learned little may write what a terminal obeys.
        let shown = |c: char| if c.is_control() && c != '\t' { '\u{FFFD}' } else { c };
        say(format_args!("  | {}", line.chars().map(shown).collect::<String>()));
    }
    if let Some(why) = &sample.refused {
        say(format_args!("step {:>6}  the sample is not stored: {why}", sample.step));
    }
}

/// Prints a line for each stage of the preparation, and every few seconds how far it is.
pub(crate) fn preparing() -> Box<dyn FnMut(Progress)> {
    let mut shown: Option<(Stage, Instant)> = None;
    Box::new(move |progress| {
        let same = shown.filter(|(stage, _)| *stage == progress.stage);
        if same.is_none_or(|(_, at)| at.elapsed() >= PERIOD) {
            let far = if same.is_some() { far(&progress) } else { String::new() };
            say(format_args!("data: {}{far}", describe(progress.stage)));
            shown = Some((progress.stage, Instant::now()));
        }
    })
}

fn describe(stage: Stage) -> &'static str {
    match stage {
        Stage::Scan => "looking for text",
        Stage::Wait => "waiting for another process that prepares the same data",
        Stage::Clean => "cleaning",
        Stage::Dedupe => "looking for repetition",
        Stage::Tokenizer => "making the tokenizer",
        Stage::Encode => "encoding",
        Stage::Write => "writing shards",
    }
}

/// How far a stage is, as `: 120 of 500 MB`.
fn far(progress: &Progress) -> String {
    let unit = match progress.stage {
        Stage::Wait => return String::new(),
        Stage::Scan | Stage::Clean | Stage::Dedupe | Stage::Tokenizer | Stage::Encode => "MB",
        Stage::Write => "million tokens",
    };
    let [done, total] = [progress.done, progress.total].map(|count| count / 1_000_000);
    match total {
        0 => format!(": {done} {unit}"),
        _ => format!(": {done} of {total} {unit}"),
    }
}
