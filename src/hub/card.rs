//! The model card of an export: what it is, where it comes from, how it was made.

use std::fmt::Write;

use super::export::{Exported, Source};
use crate::inspect::{Inspected, inspect};

/// `README.md`.
pub(super) fn write(source: &Source, exported: &Exported, kind: &str, command: &str) -> String {
    let run = &source.run;
    let folder = std::path::absolute(&run.folder).unwrap_or_else(|_| run.folder.clone());
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let Exported { step, digest, architecture, parameters, .. } = exported;
    let mut card = format!(
        "---\npipeline_tag: text-generation\ntags:\n- octet\n---\n\n\
         # {name}\n\n\
         A `{architecture}` with {parameters} parameters in {kind}, after {step} steps of a run \
         of Octet.\n\n## Figures\n\n"
    );
    // Writing to a string does not fail.
    let mut line = |text: String| writeln!(card, "{text}").expect("a string takes any text");
    line(format!("- digest of the checkpoint: `{digest}`"));
    exported.notes.iter().for_each(|note| line(format!("- {note}")));
    if let Ok(Inspected::Run(summary)) = inspect(&run.folder) {
        let log = &summary.log;
        line(format!("- tokens trained on at the end of the log: {}", log.tokens));
        if let Some(loss) = log.final_loss {
            line(format!("- training loss of the last step, {}: {loss:.4}", log.steps));
        }
        for task in &log.evaluations {
            for (which, at) in [("last", task.last), ("best", task.best)] {
                if let Some(at) = at {
                    let perplexity = at.loss.exp();
                    line(format!(
                        "- {}, {which}: loss {:.4}, perplexity {perplexity:.2}, at step {}",
                        task.task, at.loss, at.step
                    ));
                }
            }
        }
    }
    let data = &run.config.data;
    line(format!("\n## Data\n\n- tokenizer: `{}`", data.tokenizer));
    for text in data.texts() {
        let name = if text.name.is_empty() { "text" } else { &text.name };
        line(format!("- {name}: `{}`, weight {}", text.text, text.weight));
    }
    line("\n## Recipe\n\n```toml".to_owned());
    line(run.config.to_toml().trim_end().to_owned());
    line(format!("```\n\n## Command\n\n```sh\n{command}\n```"));
    card
}
