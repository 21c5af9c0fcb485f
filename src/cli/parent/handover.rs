//! What goes from a parent to its engines and back: the order, resolved once for all of them; the
//! memory of snapshots; how far an engine came; and the last word of one that fails.
//!
//! All of it lies behind descriptors that a child inherits, whose numbers stand in its environment.
//! Whatever changes outside while a run goes on, a file that is edited or moved, the next engine
//! does not see it.

use std::ffi::{CStr, OsString};
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use octet::config::{Config, Origins};
use octet::failure::Failure;
use octet_actors::snapshot::SnapshotSlots;
use serde::{Deserialize, Serialize};

/// The descriptor of the snapshot memory, for the engine.
const SNAPSHOTS: &str = "OCTET_SNAPSHOTS";
/// The descriptor of the order.
const ORDER: &str = "OCTET_ORDER";
/// The descriptor of the place where an engine writes how far it is.
const REACHED: &str = "OCTET_REACHED";
/// The descriptor of a pipe, for the engine's last word.
const LAST_WORD: &str = "OCTET_LAST_WORD";
/// Why the engine before it ended.
const RESTARTED: &str = "OCTET_RESTARTED";

/// Longest last word: it must fit in the pipe while nobody reads.
const WORD_BYTES_MAX: usize = 16 << 10;

/// What all engines of a run are told to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The resolved configuration, as it is stored with the run.
    config: String,
    /// Where its keys were given, for mistakes that only show later.
    pub(crate) origins: Origins,
    /// The run folder.
    #[serde(serialize_with = "path_bytes", deserialize_with = "path_from_bytes")]
    pub(crate) folder: PathBuf,
    /// Begin anew beside what is there.
    pub(crate) fresh: bool,
    /// Go on although numbers will differ.
    pub(crate) accept_new_numerics: bool,
}

impl Order {
    pub(crate) fn new(
        (config, origins): (&Config, Origins),
        folder: PathBuf,
        fresh: bool,
        accept_new_numerics: bool,
    ) -> Self {
        Self { config: config.to_toml(), origins, folder, fresh, accept_new_numerics }
    }
}

/// A path need not be text.
fn path_bytes<S: serde::Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    path.as_os_str().as_bytes().serialize(to)
}

fn path_from_bytes<'de, D: serde::Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    Ok(OsString::from_vec(Vec::deserialize(from)?).into())
}

/// What an engine says when it fails, for its parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastWord {
    /// Steps done.
    pub(crate) step: u64,
    /// Why.
    pub(crate) what: String,
    /// Another engine would come to the same end.
    pub(crate) lasting: bool,
}

/// What a parent holds for all its engines.
pub(crate) struct Handover {
    snapshots: OwnedFd,
    order: File,
    reached: File,
}

impl Handover {
    /// Writes the order down.
    pub(crate) fn new(order: &Order) -> Result<Self, Failure> {
        let text = serde_json::to_vec(order).map_err(Failure::ours)?;
        let mut file = memory(c"octet-order")?;
        file.write_all(&text).map_err(Failure::world)?;
        let reached = memory(c"octet-reached")?;
        // It outlives engines; the first one decides how much there is.
        let snapshots = SnapshotSlots::reserve()?;
        Ok(Self { snapshots, order: file, reached })
    }

    /// Lets a child inherit all of it, and a pipe for its last word.
    pub(crate) fn pass_on(
        &self,
        command: &mut Command,
        restarted: Option<&str>,
    ) -> Result<Said, Failure> {
        let (said, says) = std::io::pipe().map_err(Failure::world)?;
        let Self { snapshots, order, reached } = self;
        for (name, descriptor) in [
            (SNAPSHOTS, snapshots.as_fd()),
            (ORDER, order.as_fd()),
            (REACHED, reached.as_fd()),
            (LAST_WORD, says.as_fd()),
        ] {
            command.env(name, descriptor.as_raw_fd().to_string());
        }
        command.env_remove(RESTARTED);
        if let Some(why) = restarted {
            command.env(RESTARTED, why);
        }
        // What the last engine reached is not what the next one has.
        reached.set_len(0).map_err(Failure::world)?;
        Ok(Said { said, says: Some(says) })
    }

    /// Where the engine that ended had begun, if it came to a step.
    pub(crate) fn begun(&self) -> Option<u64> {
        let mut step = [0; 8];
        let read = self.reached.read_exact_at(&mut step, 0);
        read.is_ok().then(|| u64::from_le_bytes(step))
    }
}

/// Both ends of the pipe for a last word.
pub(crate) struct Said {
    said: PipeReader,
    says: Option<PipeWriter>,
}

impl Said {
    /// The end that the child alone is to keep.
    pub(crate) fn writer(&self) -> RawFd {
        self.says.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// The child has its end now.
    pub(crate) fn close_writer(&mut self) {
        self.says = None;
    }

    /// What an engine that has ended left in its pipe.
    pub(crate) fn last_word(self) -> Option<LastWord> {
        let mut text = Vec::new();
        // An engine that was killed has said nothing, or half of it.
        let _cut_off = self.said.take(WORD_BYTES_MAX as u64).read_to_end(&mut text);
        serde_json::from_slice(&text).ok()
    }
}

/// A file in memory, which children inherit.
fn memory(name: &CStr) -> Result<File, Failure> {
    // SAFETY: the name is a C string; no other memory is touched.
    let number = unsafe { libc::memfd_create(name.as_ptr(), 0) };
    if number < 0 {
        return Err(Failure::world(std::io::Error::last_os_error()));
    }
    // SAFETY: the call succeeded, and nobody else has seen the descriptor.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// What an engine has from its parent.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// Snapshot memory.
    pub(crate) snapshots: RawFd,
    /// Why the engine before it ended.
    pub(crate) restarted: Option<String>,
    order: RawFd,
    reached: RawFd,
    last_word: RawFd,
}

impl Inherited {
    /// What the parent of this process has left it.
    pub(crate) fn take() -> Result<Self, Failure> {
        let number = |name| {
            let number = std::env::var(name).ok().and_then(|number| number.parse::<RawFd>().ok());
            number.ok_or_else(|| Failure::user("an engine is started by octet train alone"))
        };
        Ok(Self {
            snapshots: number(SNAPSHOTS)?,
            restarted: std::env::var(RESTARTED).ok(),
            order: number(ORDER)?,
            reached: number(REACHED)?,
            last_word: number(LAST_WORD)?,
        })
    }

    /// What is to be done.
    pub(crate) fn order(&self) -> Result<(Config, Order), Failure> {
        // Opened anew: the place in an inherited file is shared with other engines.
        let text =
            std::fs::read(format!("/proc/self/fd/{}", self.order)).map_err(Failure::world)?;
        let order: Order = serde_json::from_slice(&text).map_err(Failure::ours)?;
        let config = Config::parse(&order.config, Path::new("the resolved configuration"), &[])?;
        Ok((config, order))
    }

    /// Where to write how far the run is.
    pub(crate) fn progress(&self) -> Reached {
        // SAFETY: the parent made it for its engines, and keeps it open in this process.
        let inherited = unsafe { BorrowedFd::borrow_raw(self.reached) };
        let file = inherited.try_clone_to_owned().map(File::from);
        Reached { file: file.ok().map(Arc::new), begun: Arc::default() }
    }

    /// Tells the parent. That nobody listens is no failure of its own.
    pub(crate) fn say(&self, mut word: LastWord) {
        word.what.truncate(word.what.floor_char_boundary(WORD_BYTES_MAX / 2));
        let text = serde_json::to_vec(&word).expect("plain data becomes JSON");
        // SAFETY: the parent made it for this process alone, and nobody else here knows it.
        let pipe = unsafe { BorrowedFd::borrow_raw(self.last_word) };
        let _nobody_listens =
            pipe.try_clone_to_owned().map(File::from).and_then(|mut pipe| pipe.write_all(&text));
    }
}

/// Says for the parent at which step this engine began. Clones say it once together.
#[derive(Debug, Clone)]
pub(crate) struct Reached {
    file: Option<Arc<File>>,
    begun: Arc<AtomicBool>,
}

impl Reached {
    /// So many steps are done.
    pub(crate) fn step(&self, done: u64) {
        if !self.begun.swap(true, Ordering::Relaxed)
            && let Some(file) = &self.file
        {
            // A parent that knows less gives up earlier.
            let _unsaid = file.write_all_at(&done.saturating_sub(1).to_le_bytes(), 0);
        }
    }
}
