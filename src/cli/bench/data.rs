//! `octet bench data`: how fast text becomes tokens and tokens become rows, and the limit.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use octet::config::Config;
use octet::data::measure::{clean_times, copy_bandwidth, cpu_speeds, fill_speed, stage_times};
use octet::data::{DataError, WindowRows, prepare};
use octet::failure::Failure;
use octet::text::Text;

use crate::cli::output::out;
use crate::cli::units::grouped;

/// Tokens that are filled for a figure.
const FILLED_TOKENS: usize = 1 << 26;

#[derive(Debug, Args)]
#[command(after_help = "Example:
  octet bench data configs/quickstart.toml")]
pub(super) struct DataArguments {
    /// The configuration (TOML).
    config: PathBuf,
    /// Set any key of the configuration: section.key=value.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

/// Measures and prints.
pub(super) fn run(arguments: &DataArguments) -> Result<ExitCode, Failure> {
    let mut config = Config::load(&arguments.config, &arguments.sets)?;
    let folder = std::env::temp_dir().join(format!("octet-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(Failure::world)?;
    config.data.cache = Some(folder.join("cache"));
    let measured = measure(&config, &folder);
    let removed = std::fs::remove_dir_all(&folder).map_err(Failure::world);
    measured?;
    removed?;
    Ok(ExitCode::SUCCESS)
}

fn measure(config: &Config, folder: &std::path::Path) -> Result<(), Failure> {
    let copy = copy_bandwidth();
    out!("copy       {:.1} GB/s from memory to memory on one thread", copy / 1e9);
    let go_on = &mut |_| ControlFlow::Continue(());
    // Once for the page cache, and for the tokenizer that may be made from the text.
    drop(prepare(&config.data, config.model.vocabulary, go_on)?);
    std::fs::remove_dir_all(folder.join("cache")).map_err(Failure::world)?;
    let at = Instant::now();
    let prepared = prepare(&config.data, config.model.vocabulary, go_on)?;
    let seconds = at.elapsed().as_secs_f64();
    let times = stage_times(&config.data, &prepared.tokenizer, folder)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    out!(
        "text       {} bytes, {} tokens by {}",
        grouped(times.text_bytes as usize),
        grouped(times.tokens as usize),
        config.data.tokenizer
    );
    out!("stage              MB/s of text   share of a copy");
    let stages = [
        ("read", times.read_s),
        ("decode", times.decode_s),
        ("tokenize", times.tokenize_s),
        ("write", times.write_s),
        ("all, one thread", times.all_s()),
        ("prepare, in all", seconds),
    ];
    for (name, seconds) in stages {
        let speed = times.mb_per_s(seconds);
        out!("{name:<16} {speed:>14.1} {:>14.2} %", speed * 1e8 / copy);
    }
    for time in clean_times(&config.data)? {
        let speed = time.bytes as f64 / time.seconds / 1e6;
        out!("clean: {:<17} {speed:>6.1} MB/s of what came to it, by processor time", time.name);
    }
    out!("           ({cores} cores; prepare also hashes the files and makes the tokenizer)");
    let speeds = cpu_speeds(&config.data, &prepared.tokenizer, folder)?;
    out!("by the processor's time of one thread   MB/s of text");
    for (name, speed) in [
        ("tokenize", speeds.tokenize),
        ("tokenize, crate tokenizers", speeds.library),
        ("exact duplicates, fingerprints", speeds.exact),
        ("near duplicates, keys", speeds.near),
    ] {
        out!("{name:<36} {speed:>15.1}");
    }
    out!("           (documents whose tokens differ between the two: {})", speeds.differing);
    let text = Text::open(config, prepared)?;
    let length = config.batch.sequence_length;
    let samples = (FILLED_TOKENS / length).max(1) as u64;
    let missing = || Failure::ours("a text that was opened for training has no samples for it");
    let stream = text.training(0).ok_or_else(missing)?.samples;
    let fill = |sample, rows: WindowRows<'_>| stream.fill(sample, rows);
    for threads in [1, 2] {
        let best = best_of(3, || fill_speed(threads, samples, length, &fill))?;
        out!(
            "rows       {:.0} million tokens/s on {threads} threads, {:.1} GB/s of rows",
            best / 1e6,
            best * 16.0 / 1e9
        );
    }
    Ok(())
}

fn best_of(
    times: usize,
    mut measure: impl FnMut() -> Result<octet::data::measure::FillSpeed, DataError>,
) -> Result<f64, Failure> {
    let mut best = 0f64;
    for _ in 0..times {
        best = best.max(measure()?.tokens_per_s);
    }
    Ok(best)
}
