//! `octet help`: a command, a key of the configuration, or a section of it.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use octet::config::reference::{self, Key, Section};
use octet::failure::Failure;

use crate::cli::output::out;

/// What to explain.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet help train
  octet help checkpoint
  octet help schedule.learning_rate")]
pub(crate) struct Arguments {
    /// A command, a key of the configuration, or a section of it.
    topic: Option<String>,
    /// Print the reference of all keys as Markdown.
    #[arg(long)]
    markdown: bool,
}

/// Explains it. `Whole` is the whole command line.
pub(crate) fn run<Whole: CommandFactory>(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if arguments.markdown {
        out!("{}", reference::markdown().trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let mut whole = Whole::command();
    whole.build();
    let Some(topic) = &arguments.topic else {
        out!("{}", whole.render_long_help());
        return Ok(ExitCode::SUCCESS);
    };
    if let Some(command) = whole.find_subcommand_mut(topic) {
        out!("{}", command.render_long_help());
        return Ok(ExitCode::SUCCESS);
    }
    let found = reference::find(topic).map_err(|near| {
        let near = near.map_or(String::new(), |near| format!(" like {near}"));
        let what = "expected a command, a section or a key of the configuration";
        Failure::user(format!("help: {what}{near}, got {topic}"))
    })?;
    found.iter().for_each(print_section);
    Ok(ExitCode::SUCCESS)
}

fn print_section(section: &Section) {
    let mut before = section.name.as_str();
    out!("[{}]  {}", section.name, section.doc);
    for key in &section.keys {
        if key.group() != before {
            before = key.group();
            out!("\n{before}");
        }
        print_key(key);
    }
}

fn print_key(key: &Key) {
    let (form, default) = (key.form.replace('`', ""), key.default_in_words());
    out!("\n{}  ({form}; by default: {default})", key.name);
    out!("    {}", key.doc);
}
