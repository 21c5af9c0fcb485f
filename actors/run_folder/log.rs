//! `log.jsonl` and the like: one JSON object per line, appended whole, dropped whole.
//!
//! A line counts when its newline is there; a torn last line never does. Knows files and lines,
//! not what a run makes of them.

use std::io::{self, BufRead, BufReader};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::outside::{Disk, DiskError, DiskFile, DiskReader};
use crate::report::{Counts, EvaluationReport, RollBackReport, StepReport};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    /// What the clocks show and what was counted: at each start, after each evaluation, before
    /// each rewind, and every few seconds. No rewind drops it, for time spent is spent.
    Time {
        /// Milliseconds since the Unix epoch.
        unix_ms: u64,
        /// Seconds that the processes of this run have lived until now, together.
        wall_time_s: f64,
        /// Counted until now.
        #[serde(default)]
        counts: Counts,
    },
    /// A step.
    Step(StepReport),
    /// An evaluation.
    Evaluate(EvaluationReport),
    /// The run went back after bad updates. No rewind drops it: it has happened.
    #[serde(rename = "rollback")]
    RollBack(RollBackReport),
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
        /// When it was there, in milliseconds since the Unix epoch.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        unix_ms: Option<u64>,
    },
}

impl Line {
    /// The step that it belongs to; `None` for a line of no step.
    #[must_use]
    pub fn step(&self) -> Option<u64> {
        match self {
            Self::Time { .. } | Self::RollBack(_) => None,
            Self::Step(report) => Some(report.step),
            Self::Evaluate(report) => Some(report.step),
            Self::Note { step, .. } | Self::Checkpoint { step, .. } => Some(*step),
        }
    }
}

/// What a line of such a file says.
pub trait Numbered: Serialize + DeserializeOwned {
    /// The step that it belongs to; `None` for a line of no step.
    fn step(&self) -> Option<u64>;
}

impl Numbered for Line {
    fn step(&self) -> Option<u64> {
        Self::step(self)
    }
}

/// A line of `fingerprints.jsonl`: what every bucket was after a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketLine {
    /// Steps done.
    pub step: u64,
    /// By bucket: its fingerprint.
    pub buckets: Vec<u64>,
}

impl Numbered for BucketLine {
    fn step(&self) -> Option<u64> {
        Some(self.step)
    }
}

/// A log that cannot be read.
#[derive(Debug, Error)]
pub enum LogError {
    /// A line in the middle is not one of ours.
    #[error("{}:{line}: not a line of a log: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
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
pub struct Log<L = Line> {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    torn: bool,
    lines: PhantomData<fn(L)>,
}

impl<L: Numbered> Log<L> {
    /// Opens or creates the log, and cuts off a torn last line. Calls `each` with every line that
    /// can be read, and says how many cannot.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        mut each: impl FnMut(&L),
    ) -> Result<(Self, usize), DiskError> {
        let mut unreadable = 0;
        let torn = disk.exists(path)
            && scan(&*disk, path, |line: Result<L, String>, _| {
                match line {
                    Ok(line) => each(&line),
                    Err(_) => unreadable += 1,
                }
                Ok(())
            })?;
        let file = disk.append(path)?;
        let mut log = Self { disk, path: path.to_owned(), file, torn, lines: PhantomData };
        if torn {
            log.rewrite(|_| true)?;
        }
        Ok((log, unreadable))
    }

    /// Appends one line. What an error leaves of it is cut off before the next one.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn append(&mut self, line: &L) -> Result<(), DiskError> {
        let mut text = serde_json::to_vec(line).expect("a line has string keys only");
        text.push(b'\n');
        if self.torn {
            self.rewrite(|_| true)?;
        }
        self.torn = true;
        self.file.write_all(&text)?;
        self.torn = false;
        Ok(())
    }

    /// Puts everything appended so far on the disk.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn sync(&mut self) -> Result<(), DiskError> {
        self.file.sync()
    }

    /// Drops the lines of steps after `step`, replacing the file in one rename. Calls `each` with
    /// every line that stays.
    ///
    /// # Errors
    /// [`DiskError`]; the old file is then still there.
    pub fn rewind(&mut self, step: u64, each: impl FnMut(&L)) -> Result<Rewound, DiskError> {
        self.drop_lines(|line| line.step().is_some_and(|of| of > step), each)
    }

    /// Drops the lines that are void, in the same way.
    ///
    /// # Errors
    /// As [`Self::rewind`].
    pub fn drop_lines(
        &mut self,
        mut is_void: impl FnMut(&L) -> bool,
        mut each: impl FnMut(&L),
    ) -> Result<Rewound, DiskError> {
        let mut rewound = Rewound::default();
        self.rewrite(|line| match line {
            Err(_) => {
                rewound.unreadable += 1;
                false
            }
            Ok(line) if is_void(line) => {
                rewound.dropped += 1;
                false
            }
            Ok(line) => {
                rewound.kept += 1;
                each(line);
                true
            }
        })?;
        Ok(rewound)
    }

    /// Replaces the file by those of its whole lines that `keep` wants.
    fn rewrite(
        &mut self,
        mut keep: impl FnMut(&Result<L, String>) -> bool,
    ) -> Result<(), DiskError> {
        /// Bytes gathered before a write.
        const BLOCK: usize = 1 << 20;
        let temporary = super::temporary_beside(&self.path);
        let mut kept = self.disk.create(&temporary)?;
        let mut block = Vec::new();
        scan(&*self.disk, &self.path, |line, text| {
            if keep(&line) {
                block.extend_from_slice(text);
            }
            if block.len() >= BLOCK {
                kept.write_all(&block)?;
                block.clear();
            }
            Ok(())
        })?;
        kept.write_all(&block)?;
        kept.sync()?;
        self.disk.rename(&temporary, &self.path)?;
        self.file = self.disk.append(&self.path)?;
        self.torn = false;
        super::sync_folder_of(&*self.disk, &self.path)
    }
}

/// Calls `each` with every line of a log, in order. A torn last line is not one.
///
/// # Errors
/// [`LogError`] naming file and line, at the first line that is not one of ours.
pub fn for_each_line<L: Numbered>(
    disk: &dyn Disk,
    path: &Path,
    mut each: impl FnMut(L),
) -> Result<(), LogError> {
    let mut number = 0;
    let mut broken = None;
    scan(disk, path, |line, _| {
        number += 1;
        match line {
            Ok(line) if broken.is_none() => each(line),
            Err(why) if broken.is_none() => broken = Some((number, why)),
            _ => {}
        }
        Ok(())
    })?;
    match broken {
        Some((line, why)) => Err(LogError::Line { path: path.to_owned(), line, why }),
        None => Ok(()),
    }
}

/// Every line of a log.
///
/// # Errors
/// As [`for_each_line`].
pub fn read_lines(disk: &dyn Disk, path: &Path) -> Result<Vec<Line>, LogError> {
    let mut lines = Vec::new();
    for_each_line(disk, path, |line| lines.push(line))?;
    Ok(lines)
}

/// Calls `each` with every whole line: what it says or why it cannot be read, and its bytes.
/// True: there is a torn line after the last.
fn scan<L: Numbered>(
    disk: &dyn Disk,
    path: &Path,
    mut each: impl FnMut(Result<L, String>, &[u8]) -> Result<(), DiskError>,
) -> Result<bool, DiskError> {
    let mut reader = BufReader::with_capacity(1 << 16, Bytes(disk.open(path)?));
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = reader.read_until(b'\n', &mut text);
        read.map_err(|why| DiskError { operation: "read", path: path.to_owned(), why })?;
        if text.last() != Some(&b'\n') {
            return Ok(!text.is_empty());
        }
        each(serde_json::from_slice(&text).map_err(|e| e.to_string()), &text)?;
    }
}

/// A reader of the disk as the standard library knows readers.
struct Bytes(Box<dyn DiskReader>);

impl io::Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| error.why)
    }
}
