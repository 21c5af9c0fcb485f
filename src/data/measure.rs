//! Times the hot paths of data: the stages of the preparation, and filling rows.
//!
//! Duty: the figures of `octet bench data`. Ownership: temporary files of what is measured.
//! Prohibition: no printing.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use serde::Serialize;

use super::clean::{Chain, Document};
use super::config::DataConfig;
use super::error::DataError;
use super::shard::ShardWriter;
use super::source::Corpus;
use super::source::parts::Part;
use super::tokenize::Tokenizer;
use super::window::WindowRows;

mod cpu;

pub use cpu::{CpuSpeeds, cpu_speeds};

/// Bytes that are copied to find the speed of copying: far more than a cache holds.
const COPY_BYTES: usize = 64 << 20;
/// Samples that a thread takes at once.
const SAMPLES_AT_ONCE: u64 = 16;

/// Seconds of each stage of the preparation, on one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct StageTimes {
    /// UTF-8 bytes of text.
    pub text_bytes: u64,
    /// Tokens they became.
    pub tokens: u64,
    /// Reading files from the page cache, decompressing, checking UTF-8, cutting into parts.
    pub read_s: f64,
    /// Finding texts in JSON lines.
    pub decode_s: f64,
    /// Encoding.
    pub tokenize_s: f64,
    /// Writing shards with their checksums, and making sure that they are on the disk.
    pub write_s: f64,
}

impl StageTimes {
    /// Megabytes of text per second in a stage of so many seconds.
    pub fn mb_per_s(&self, seconds: f64) -> f64 {
        self.text_bytes as f64 / seconds / 1e6
    }

    /// Seconds of all stages.
    pub fn all_s(&self) -> f64 {
        self.read_s + self.decode_s + self.tokenize_s + self.write_s
    }
}

/// Takes the corpora of a configuration through all stages once, on one thread, without
/// keeping anything. The shard is made, and removed again, in `folder`.
///
/// # Errors
/// As the preparation's.
pub fn stage_times(
    config: &DataConfig,
    tokenizer: &Tokenizer,
    folder: &Path,
) -> Result<StageTimes, DataError> {
    let mut times = StageTimes::default();
    let mut encoder = tokenizer.encoder();
    let path = folder.join("measured.oct");
    let mut writer = ShardWriter::create(&path, tokenizer.vocabulary(), tokenizer.digest())?;
    let mut tokens = Vec::new();
    let mut texts: Vec<(String, bool)> = Vec::new();
    for text in config.texts() {
        let corpus = Corpus::scan(&text, &mut |_| Ok(()))?;
        let cut = |text: &str| tokenizer.last_cut(text);
        let mut at = Instant::now();
        corpus.for_each_part(&cut, &mut || Ok(Part::default()), &mut |part| {
            times.read_s += lap(&mut at);
            // The copies are for the clock's sake: encoding is timed apart from finding.
            texts.clear();
            corpus.documents(&part, &mut |piece| {
                texts.push((piece.text.to_owned(), piece.begins));
                Ok(())
            })?;
            times.decode_s += lap(&mut at);
            for (text, begins) in &texts {
                tokens.clear();
                encoder.encode(text, &mut tokens)?;
                times.tokenize_s += lap(&mut at);
                if *begins {
                    writer.begin_document();
                }
                writer.push(&tokens)?;
                times.write_s += lap(&mut at);
                times.text_bytes += text.len() as u64;
                times.tokens += tokens.len() as u64;
            }
            Ok(())
        })?;
    }
    let at = Instant::now();
    writer.finish()?;
    times.write_s += at.elapsed().as_secs_f64();
    std::fs::remove_file(&path).map_err(DataError::io(&path, "remove"))?;
    Ok(times)
}

/// What a step of cleaning takes on one thread.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepTime {
    /// The step.
    pub name: String,
    /// UTF-8 bytes of the documents that came to it.
    pub bytes: u64,
    /// Seconds of the processor, whatever else it had to do meanwhile.
    pub seconds: f64,
}

/// Takes the documents of a configuration through its chains on one thread; what each step took,
/// in order, over all sources. A document that is dropped does not come to the next step.
///
/// # Errors
/// As the preparation's.
pub fn clean_times(config: &DataConfig) -> Result<Vec<StepTime>, DataError> {
    let mut times: Vec<StepTime> = Vec::new();
    for text in config.texts() {
        let clean = text.clean.clone().unwrap_or_default();
        let corpus = Corpus::scan(&text, &mut |_| Ok(()))?;
        let chain = Chain::open(&clean, &corpus, &mut || Ok(()))?;
        let mut document = Document::default();
        corpus.for_each_part(&Chain::cut, &mut || Ok(Part::default()), &mut |part| {
            let timed = chain.timed(&corpus, &part, &mut document, &mut processor_time)?;
            for (name, bytes, seconds) in timed {
                match times.iter_mut().find(|time| time.name == name) {
                    Some(time) => {
                        (time.bytes, time.seconds) = (time.bytes + bytes, time.seconds + seconds)
                    }
                    None => times.push(StepTime { name, bytes, seconds }),
                }
            }
            Ok(())
        })?;
    }
    Ok(times)
}

/// Seconds that this thread has had the processor.
fn processor_time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec, which lives through it.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(failed, 0, "every Linux has this clock");
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Seconds since `at`, which becomes now.
fn lap(at: &mut Instant) -> f64 {
    let before = std::mem::replace(at, Instant::now());
    at.duration_since(before).as_secs_f64()
}

/// Bytes per second of a copy from memory to memory on one thread, the best of a few.
pub fn copy_bandwidth() -> f64 {
    let from = vec![1u8; COPY_BYTES];
    let mut to = vec![0u8; COPY_BYTES];
    let mut seconds = f64::INFINITY;
    for _ in 0..6 {
        let at = Instant::now();
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&mut to);
        seconds = seconds.min(at.elapsed().as_secs_f64());
    }
    COPY_BYTES as f64 / seconds
}

/// Speed of filling rows.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FillSpeed {
    /// Threads.
    pub threads: usize,
    /// Samples filled.
    pub samples: u64,
    /// Labels that are not ignored.
    pub targets: u64,
    /// Tokens per second, all four rows of each included.
    pub tokens_per_s: f64,
}

/// Fills `samples` samples of `length` tokens on some threads. `fill` fills one by its number and
/// returns its targets.
///
/// # Errors
/// Those of `fill`.
pub fn fill_speed(
    threads: usize,
    samples: u64,
    length: usize,
    fill: &(dyn Fn(u64, WindowRows<'_>) -> Result<u64, DataError> + Sync),
) -> Result<FillSpeed, DataError> {
    let next = AtomicU64::new(0);
    let work = || -> Result<u64, DataError> {
        let mut rows = [vec![0; length], vec![0; length], vec![0; length], vec![0; length]];
        let mut targets = 0;
        loop {
            let first = next.fetch_add(SAMPLES_AT_ONCE, Ordering::Relaxed);
            if first >= samples {
                return Ok(targets);
            }
            for sample in first..samples.min(first + SAMPLES_AT_ONCE) {
                let [tokens, labels, segments, positions] = &mut rows;
                let rows = WindowRows { tokens, labels, segments, positions };
                targets += fill(sample, rows)?;
            }
        }
    };
    let at = Instant::now();
    let targets = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.sum::<Result<u64, _>>()
    })?;
    let tokens = samples as f64 * length as f64;
    let tokens_per_s = tokens / at.elapsed().as_secs_f64();
    Ok(FillSpeed { threads, samples, targets, tokens_per_s })
}

#[cfg(test)]
mod tests;
