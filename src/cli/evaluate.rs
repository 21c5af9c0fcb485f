//! `octet evaluate`: the held-out losses of a run's newest good checkpoint.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use octet::failure::{Failure, INTERRUPTED};
use octet::look::{Looked, Run, evaluate};

use crate::cli::output::{self, out};
use crate::cli::signals;

/// What to evaluate.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet evaluate runs/quickstart
  octet evaluate runs/quickstart --set data.text=other.txt --json")]
pub(crate) struct Arguments {
    /// The run folder.
    run: PathBuf,
    /// One task only, for example validation.
    #[arg(long)]
    task: Option<String>,
    /// Set a key of the run's configuration, for example data.text=PATH to evaluate on all of
    /// another text.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints one row per task.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let run = Run::open(&arguments.run, &arguments.sets)?;
    let interrupts = signals::interrupts("ending; once more ends at once")?;
    let looked = evaluate(&run, arguments.task.as_deref(), interrupts)?;
    for note in &looked.notes {
        output::complain(format_args!("octet: {note}"));
    }
    if looked.interrupted {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    if arguments.json {
        let json = serde_json::to_string_pretty(&looked.reports).map_err(Failure::ours)?;
        out!("{json}");
    } else {
        print_table(&looked);
    }
    Ok(ExitCode::SUCCESS)
}

fn print_table(looked: &Looked) {
    out!("task                  step      loss  perplexity  bits/byte     targets");
    for report in &looked.reports {
        let bits = report.bits_per_byte.map_or("-".to_string(), |bits| format!("{bits:.4}"));
        let (loss, perplexity) = match report.targets {
            0 => ("-".to_string(), "-".to_string()),
            _ => (format!("{:.4}", report.loss), format!("{:.3}", report.perplexity)),
        };
        out!(
            "{:<18} {:>7} {loss:>9} {perplexity:>11} {bits:>10} {:>11}",
            report.task,
            report.step,
            report.targets
        );
    }
}
