//! TensorBoard's event files: what the log says of steps and evaluations, as scalars.
//!
//! Duty: one file for each engine, in `events/` of the run folder, that any TensorBoard reads.
//! Where a run goes on or goes back, a session begins, at which TensorBoard drops what came after.
//! Lossy: a disk that refuses ends the file and nothing else. Prohibition: holds nothing that the
//! log does not hold.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use octet_actors::run_folder::log::Line;
use octet_actors::telemetry::Observer;

#[cfg(test)]
mod tests;

/// What every file begins with.
const VERSION: &[u8] = b"brain.Event:2";
/// `SessionLog.SessionStatus.START`.
const START: u64 = 1;

/// Makes observers that write events of what they see, and pass it on.
pub fn beside(
    folder: PathBuf,
    mut observer: impl FnMut() -> Observer + Send + 'static,
) -> Box<dyn FnMut() -> Observer + Send> {
    Box::new(move || {
        let (mut events, mut observer) = (Events::new(&folder), observer());
        Box::new(move |line| {
            events.add(line);
            observer(line);
        })
    })
}

/// The events of one engine.
struct Events {
    path: PathBuf,
    /// Made with the first scalar; `None` once the disk has refused.
    file: Option<Option<File>>,
    /// The next scalar begins a session.
    begins: bool,
}

impl Events {
    fn new(folder: &Path) -> Self {
        let seconds = now().as_secs();
        let name = format!("events.out.tfevents.{seconds:010}.octet.{}", std::process::id());
        Self { path: folder.join(name), file: None, begins: true }
    }

    fn add(&mut self, line: &Line) {
        match line {
            Line::Step(report) => {
                let wait = report.wait_ms;
                let mut scalars = vec![
                    ("train/loss".to_owned(), report.loss),
                    ("train/grad_norm".to_owned(), report.grad_norm),
                    ("train/learning_rate".to_owned(), report.learning_rate),
                    ("train/tokens".to_owned(), report.tokens as f64),
                    ("speed/tokens_per_s".to_owned(), report.tokens_per_s),
                    ("speed/step_ms".to_owned(), report.step_ms),
                    ("wait_ms/loader".to_owned(), wait.loader),
                    ("wait_ms/reduce".to_owned(), wait.reduce),
                    ("wait_ms/checkpoint".to_owned(), wait.checkpoint),
                ];
                let named = |(name, loss): &(String, f64)| (format!("train/loss/{name}"), *loss);
                scalars.extend(report.losses.iter().map(named));
                scalars.extend(report.mfu.map(|mfu| ("speed/mfu".to_owned(), mfu)));
                self.scalars(report.step, &scalars);
            }
            Line::Evaluate(report) => {
                let of = |what: &str| format!("evaluate/{}/{what}", report.task);
                let mut scalars =
                    vec![(of("loss"), report.loss), (of("perplexity"), report.perplexity)];
                scalars.extend(report.bits_per_byte.map(|bits| (of("bits_per_byte"), bits)));
                scalars.extend(report.measures.iter().map(|(name, value)| (of(name), *value)));
                self.scalars(report.step, &scalars);
            }
            Line::RollBack(_) => self.begins = true,
            Line::Time { .. } | Line::Note { .. } | Line::Checkpoint { .. } => {}
        }
    }

    fn scalars(&mut self, step: u64, scalars: &[(String, f64)]) {
        let mut bytes = Vec::new();
        if self.file.is_none() {
            record(&mut bytes, &event(0, 3, VERSION));
        }
        if std::mem::take(&mut self.begins) {
            let mut session = Vec::new();
            number(&mut session, 1, START);
            record(&mut bytes, &event(step, 7, &session));
        }
        let mut summary = Vec::new();
        for (name, value) in scalars {
            let mut one = Vec::new();
            bytes_field(&mut one, 1, name.as_bytes());
            one.push(2 << 3 | 5);
            one.extend((*value as f32).to_le_bytes());
            bytes_field(&mut summary, 1, &one);
        }
        record(&mut bytes, &event(step, 5, &summary));
        let file = self.file.get_or_insert_with(|| File::create(&self.path).ok());
        // Half a record would hide those behind it: after a refusal nothing is written any more.
        if file.as_mut().is_some_and(|file| file.write_all(&bytes).is_err()) {
            *file = None;
        }
    }
}

fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// An `Event` with the time of day, a step, and one of its fields.
fn event(step: u64, field: u64, content: &[u8]) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend(now().as_secs_f64().to_le_bytes());
    number(&mut event, 2, step);
    bytes_field(&mut event, field, content);
    event
}

/// A field of bytes in Protocol Buffers.
fn bytes_field(out: &mut Vec<u8>, field: u64, content: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, content.len() as u64);
    out.extend(content);
}

/// A field of a whole number.
fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A record of TensorFlow's files: length, content, and checksums of both.
fn record(out: &mut Vec<u8>, content: &[u8]) {
    let length = (content.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(content);
    out.extend(masked(content).to_le_bytes());
}

/// CRC-32C as TensorFlow stores it, so that a checksum of checksums is no checksum.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}
