//! `octet diff`: where two runs part. Exit code 0 if they do not, 1 if they do.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use octet::diff::{Bucket, Difference, diff};
use octet::failure::Failure;
use octet::look::Run;

use crate::cli::output::out;
use crate::cli::units::short;

/// Names of a bucket's parameters that are printed.
const NAMES: usize = 4;

/// What to compare.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet diff runs/one runs/two")]
pub(crate) struct Arguments {
    /// A run folder.
    a: PathBuf,
    /// Another one.
    b: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints how they compare.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (a, b) = (Run::open(&arguments.a, &[])?, Run::open(&arguments.b, &[])?);
    let found = diff(&a, &b)?;
    if found.equal_steps == 0 && !found.parts {
        return Err(Failure::user("the runs have no step in common: nothing to compare"));
    }
    if arguments.json {
        out!("{}", serde_json::to_string_pretty(&found).map_err(Failure::ours)?);
    } else {
        print_difference(&found);
    }
    Ok(ExitCode::from(u8::from(found.parts)))
}

fn print_difference(found: &Difference) {
    for key in &found.config {
        let [a, b] = key.values.each_ref().map(|value| value.as_deref().unwrap_or("not given"));
        out!("config       {}: {a}, {b}", key.key);
    }
    let same = |same| if same { "the same" } else { "different" };
    out!("numbers      {} by configuration", same(found.same_numbers));
    out!("data         {}", found.same_data.map_or("unknown", same));
    out!("steps        {} and {}", found.steps[0], found.steps[1]);
    if let Some(loss) = &found.loss {
        let ([a, b], [c, d]) = (loss.loss, loss.grad_norm);
        out!("loss         first differs at step {}: {a}, {b} (norm {c}, {d})", loss.step);
        if !loss.tracks.is_empty() {
            out!("             in {}", loss.tracks.join(", "));
        }
    }
    for task in &found.tasks {
        let [a, b] = task.loss;
        out!("task         {} first differs at step {}: {a}, {b}", task.task, task.step);
    }
    if let Some(difference) = &found.fingerprint {
        out!("fingerprint  first differs at step {}", difference.step);
        match difference.recorded {
            Some(step) => out!("buckets      as recorded at step {step}"),
            None => out!("buckets      not recorded from there on"),
        }
        for bucket in &difference.buckets {
            out!("             bucket {}: {}", bucket.bucket, parameters(bucket));
        }
    }
    if let Some(step) = found.checkpoint {
        out!("checkpoint   first differs at step {step}");
    }
    for newest in found.newest.iter().flatten() {
        out!("digest       {} at step {}", short(&newest.1), newest.0);
    }
    let equal = found.equal_steps;
    match found.parts {
        true => out!("they part after {equal} equal steps"),
        false => out!("equal in all {equal} steps that both have"),
    }
}

fn parameters(bucket: &Bucket) -> String {
    let names = &bucket.parameters;
    match names.len() {
        0 => "of a layout that only one of them has".to_string(),
        n if n > NAMES => format!("{} and {} more", names[..NAMES].join(", "), n - NAMES),
        _ => names.join(", "),
    }
}
