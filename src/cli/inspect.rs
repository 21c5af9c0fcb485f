//! `octet inspect`: what lies at a path, in short.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use octet::data::ShardSummary;
use octet::failure::Failure;
use octet::inspect::{Inspected, RunSummary, inspect};
use octet_actors::checkpoint::Summary;

use crate::cli::output::out;
use crate::cli::units::{grouped, short, size, text};

/// Where to look.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  octet inspect runs/quickstart
  octet inspect runs/quickstart/checkpoints/step-00000400 --json")]
pub(crate) struct Arguments {
    /// A shard, the folder of a checkpoint, or a run folder.
    path: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints it.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let found = inspect(&arguments.path)?;
    if arguments.json {
        out!("{}", serde_json::to_string_pretty(&found).map_err(Failure::ours)?);
        return Ok(ExitCode::SUCCESS);
    }
    match found {
        Inspected::Shard(shard) => print_shard(&shard),
        Inspected::Checkpoint(checkpoint) => print_checkpoint(&checkpoint),
        Inspected::Run(run) => print_run(&run),
    }
    Ok(ExitCode::SUCCESS)
}

fn print_shard(shard: &ShardSummary) {
    out!("shard       {} (format {})", shard.path, shard.version);
    let (tokens, documents) = (grouped(shard.tokens as usize), grouped(shard.documents as usize));
    out!("tokens      {tokens} of {} bytes, {documents} documents", shard.token_bytes);
    let bytes = size(shard.file_bytes as usize);
    out!("file        {bytes}, {} chunks with checksums", shard.chunks);
    match shard.source.as_deref() {
        None => out!("source      unknown: no prepared.json lies beside it"),
        Some("") => out!("source      data.text"),
        Some(name) => out!("source      {name}"),
    }
    out!("tokenizer   {}", shard.tokenizer);
    out!("contents    {}", shard.contents);
    out!("begins      {:?}", shard.first_tokens);
    if let Some(text) = &shard.first_text {
        out!("            {text:?}");
    }
}

fn print_checkpoint(checkpoint: &Summary) {
    out!("checkpoint  {}", checkpoint.path.display());
    out!("step        {}", checkpoint.step);
    out!("digest      {}", checkpoint.digest);
    out!("parent      {}", checkpoint.parent.as_deref().unwrap_or("none"));
    out!(
        "elements    {} of the model, {} of the optimizer",
        grouped(checkpoint.model_elements),
        grouped(checkpoint.optimizer_elements)
    );
    for file in &checkpoint.files {
        out!("file        {:<28} {:>12}", file.name, size(file.bytes as usize));
    }
    for (key, value) in &checkpoint.identity {
        out!("identity    {key:<16} {value}");
    }
    out!("cursor      {}", checkpoint.cursor);
    for damage in &checkpoint.damaged {
        out!("damaged     {damage}");
    }
}

fn print_run(run: &RunSummary) {
    let (config, log) = (&run.config, &run.log);
    out!("run         {}", run.path.display());
    out!("config      {}", short(&config.digest));
    if let Some(edited) = &run.edited {
        out!("edited      {edited}");
    }
    out!(
        "data        {} as {}, vocabulary {}",
        config.text,
        config.tokenizer,
        config.vocabulary.map_or("unknown".to_string(), grouped)
    );
    let held = config.data.as_ref().and_then(|data| data.counts);
    if let Some(counts) = held {
        out!("text        {}", text(&counts));
    }
    if let Some(parameters) = config.parameters {
        out!("parameters  {}", grouped(parameters));
    }
    out!(
        "batch       {} tokens a step, sequences of {}, {} ranks",
        grouped(config.tokens_per_step),
        config.sequence_length,
        config.ranks
    );
    out!(
        "steps       {} of {}, {} tokens, {} updates skipped",
        log.steps,
        config.steps,
        grouped(log.tokens as usize),
        log.skipped_updates
    );
    let loss = |loss: Option<f64>| loss.map_or("none".to_string(), |loss| format!("{loss:.4}"));
    out!("loss        {} at the end, {} at best", loss(log.final_loss), loss(log.best_loss));
    for track in &config.tracks {
        let (name, objective, model) = (&track.name, &track.objective, &track.model);
        out!("{name:<11} {objective} of {model}, weight {}", track.weight);
    }
    let tracks = log.tracks.iter().map(|track| (&track.track, track.last, track.best));
    let tasks = log.evaluations.iter().map(|task| (&task.task, task.last, task.best));
    for (name, last, best) in tracks.chain(tasks) {
        let [last, best] = [last, best].map(|at| match at {
            Some(at) => format!("{:.4} at step {}", at.loss, at.step),
            None => "none".to_string(),
        });
        out!("{name:<11} {last}, best {best}");
    }
    for source in &run.sources {
        let name = if source.name.is_empty() { "text" } else { &source.name };
        let tokens = grouped(source.tokens as usize);
        out!("{name:<11} {tokens} tokens, {:.2} epochs", source.epochs);
    }
    out!("time        {:.1} s, goodput {:.1} %", log.wall_time_s, log.goodput * 100.0);
    for checkpoint in &run.checkpoints {
        let digest = checkpoint.digest.as_deref().map_or("no digest", short);
        let bytes = size(checkpoint.bytes as usize);
        let damage =
            checkpoint.damaged.first().map_or(String::new(), |d| format!("  damaged: {d}"));
        out!("checkpoint  step {:>8}  {digest}  {bytes:>10}{damage}", checkpoint.step);
    }
}
