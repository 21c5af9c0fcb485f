//! `log.jsonl`: one JSON object per line, appended whole, dropped whole.
//!
//! A line counts when its newline is there; a torn last line never does. Knows files and lines,
//! not what a run makes of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::report::{EvaluationReport, StepReport};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// A process began to write here. No rewind drops it: time spent is spent.
    Start {
        /// When, in milliseconds since the Unix epoch.
        unix_ms: u64,
        /// Seconds that earlier processes spent on this run.
        wall_time_s: f64,
    },
    /// A step.
    Step(StepReport),
    /// An evaluation.
    Evaluate(EvaluationReport),
    /// Something a person should know.
    Note {
        /// Steps done.
        step: u64,
        /// One sentence.
        what: String,
    },
    /// A checkpoint is on disk, verified.
    Checkpoint {
        /// Steps done in it.
        step: u64,
        /// Milliseconds from the request to its last sync.
        ms: f64,
        /// Its folder.
        path: String,
    },
}

impl Line {
    /// The step that it belongs to; `None` for a line of no step.
    #[must_use]
    pub fn step(&self) -> Option<u64> {
        match self {
            Self::Start { .. } => None,
            Self::Step(report) => Some(report.step),
            Self::Evaluate(report) => Some(report.step),
            Self::Note { step, .. } | Self::Checkpoint { step, .. } => Some(*step),
        }
    }
}

/// A log that cannot be read.
#[derive(Debug, Error)]
pub enum LogError {
    /// A line in the middle is not one of ours.
    #[error("{}:{line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The operating system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a rewind did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rewound {
    /// Lines that stay.
    pub kept: usize,
    /// Lines of later steps, dropped.
    pub dropped: usize,
    /// Lines that could not be read, dropped.
    pub unreadable: usize,
}

/// The log, open for appending.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
    torn: bool,
}

impl Log {
    /// Opens or creates the log, and cuts off a torn last line.
    ///
    /// # Errors
    /// From the file system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = appending().open(path)?;
        let bytes = end_of_last_line(&mut file)?;
        file.set_len(bytes)?;
        Ok(Self { path: path.to_owned(), file, bytes, torn: false })
    }

    /// Appends one line. What an error leaves of it is cut off before the next one.
    ///
    /// # Errors
    /// From the file system.
    pub fn append(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line).map_err(io::Error::other)?;
        text.push(b'\n');
        if self.torn {
            self.file.set_len(self.bytes)?;
        }
        self.torn = true;
        self.file.write_all(&text)?;
        self.torn = false;
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// Refuses every write, like a disk that is full, or stops refusing.
    #[cfg(test)]
    pub(crate) fn refuse_writes(&mut self, refuse: bool) {
        let options = if refuse { OpenOptions::new().read(true).clone() } else { appending() };
        self.file = options.open(&self.path).unwrap();
    }

    /// Puts everything appended so far on the disk.
    ///
    /// # Errors
    /// From the file system.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Drops the lines of steps after `step`, replacing the file in one rename.
    ///
    /// # Errors
    /// From the file system; the old file is then still there.
    pub fn rewind(&mut self, step: u64) -> io::Result<Rewound> {
        let temporary = super::temporary_beside(&self.path);
        let mut rewound = Rewound::default();
        let mut kept = BufWriter::new(File::create(&temporary)?);
        let mut reader = BufReader::new(File::open(&self.path)?);
        let mut text = Vec::new();
        while next_line(&mut reader, &mut text)? {
            match serde_json::from_slice::<Line>(&text) {
                Err(_) => rewound.unreadable += 1,
                Ok(line) if line.step().is_some_and(|of| of > step) => rewound.dropped += 1,
                Ok(_) => {
                    kept.write_all(&text)?;
                    rewound.kept += 1;
                }
            }
        }
        if rewound.dropped + rewound.unreadable == 0 {
            fs::remove_file(&temporary)?;
            return Ok(rewound);
        }
        kept.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        super::sync_folder_of(&self.path)?;
        *self = Self::open(&self.path)?;
        Ok(rewound)
    }
}

fn appending() -> OpenOptions {
    OpenOptions::new().create(true).read(true).append(true).clone()
}

/// Calls `each` with every line of a log, in order. A torn last line is not one.
///
/// # Errors
/// [`LogError`] naming file and line, at the first line that is not one of ours.
pub fn for_each_line(path: &Path, mut each: impl FnMut(Line)) -> Result<(), LogError> {
    let refused = |source| LogError::Io { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(refused)?);
    let mut text = Vec::new();
    let mut number = 0;
    while next_line(&mut reader, &mut text).map_err(refused)? {
        number += 1;
        each(serde_json::from_slice(&text).map_err(|e| LogError::Line {
            path: path.to_owned(),
            line: number,
            why: format!("not a line of a log: {e}"),
        })?);
    }
    Ok(())
}

/// Calls `each` with every line that can be read, and counts the others. No log has no lines.
///
/// # Errors
/// From the file system.
pub fn for_each_readable_line(path: &Path, mut each: impl FnMut(Line)) -> io::Result<usize> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        opened => opened?,
    };
    let mut reader = BufReader::new(file);
    let mut text = Vec::new();
    let mut unreadable = 0;
    while next_line(&mut reader, &mut text)? {
        match serde_json::from_slice(&text) {
            Ok(line) => each(line),
            Err(_) => unreadable += 1,
        }
    }
    Ok(unreadable)
}

/// Every line of a log.
///
/// # Errors
/// As [`for_each_line`].
pub fn read_lines(path: &Path) -> Result<Vec<Line>, LogError> {
    let mut lines = Vec::new();
    for_each_line(path, |line| lines.push(line))?;
    Ok(lines)
}

/// Reads the next whole line with its newline; `false` at the end or at a torn line.
fn next_line(reader: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<bool> {
    text.clear();
    reader.read_until(b'\n', text)?;
    Ok(text.last() == Some(&b'\n'))
}

/// The length of the file up to its last newline; looks at the end only.
fn end_of_last_line(file: &mut File) -> io::Result<u64> {
    const WINDOW: u64 = 64 * 1024;
    let mut end = file.metadata()?.len();
    let mut window = Vec::new();
    while end > 0 {
        let begin = end.saturating_sub(WINDOW);
        window.resize((end - begin) as usize, 0);
        file.seek(SeekFrom::Start(begin))?;
        io::Read::read_exact(file, &mut window)?;
        if let Some(newline) = window.iter().rposition(|&byte| byte == b'\n') {
            return Ok(begin + newline as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}
