//! What goes wrong in the world and in our own code, as messages to the supervisor.
//!
//! Bad user input never gets this far: it is refused before any actor starts.

use std::fmt;

use octet_kernels::error::Error;

/// Who is to blame, which decides what the supervisor does (DESIGN section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Disk, memory, network, a device: restart what failed, or stop with a saved state.
    World,
    /// The run stops: another engine would find the world as it is. Once that is mended, another
    /// try may help.
    Lasting,
    /// The run has decided to stop, saved: the same command comes to the same end, so that somebody
    /// has to change it. Exit code 2.
    Decided,
    /// A broken assertion of ours: stop, dump, exit code 70.
    Ours,
}

/// A typed report that something failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{actor}: {what}")]
pub struct Fault {
    /// The actor that reports.
    pub actor: ActorName,
    /// World or ours.
    pub blame: Blame,
    /// One sentence.
    pub what: String,
}

impl Fault {
    /// The world failed.
    pub fn world(actor: ActorName, what: impl fmt::Display) -> Self {
        Self { actor, blame: Blame::World, what: what.to_string() }
    }

    /// The run stops, since another engine would too.
    pub fn lasting(actor: ActorName, what: impl fmt::Display) -> Self {
        Self { actor, blame: Blame::Lasting, what: what.to_string() }
    }

    /// A device, or a meeting of devices, failed: another engine can go on with what was only
    /// broken, and finds what is too small or gone as it is.
    pub fn of_device(actor: ActorName, error: Error) -> Self {
        match error {
            Error::OutOfMemory(_) | Error::Lost(_) => Self::lasting(actor, error),
            _ => Self::world(actor, error),
        }
    }

    /// The run stops, and the same command would come to the same end.
    pub fn decided(actor: ActorName, what: impl fmt::Display) -> Self {
        Self { actor, blame: Blame::Decided, what: what.to_string() }
    }

    /// We failed.
    pub fn ours(actor: ActorName, what: impl fmt::Display) -> Self {
        Self { actor, blame: Blame::Ours, what: what.to_string() }
    }
}

/// Every actor of a run, by name and rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ActorName {
    /// The run as a state machine.
    Supervisor,
    /// One rank's reader of batches.
    Loader(usize),
    /// One rank's device thread: worker, reducer and optimizer in turn.
    Rank(usize),
    /// Writes snapshots to disk.
    Checkpointer,
    /// Sums what workers report on held-out data.
    Evaluator,
    /// Metrics, log lines, progress.
    Telemetry,
    /// Heartbeats.
    Watchdog,
    /// HTTP.
    Web,
}

impl fmt::Display for ActorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Supervisor => f.write_str("supervisor"),
            Self::Loader(rank) => write!(f, "loader {rank}"),
            Self::Rank(rank) => write!(f, "rank {rank}"),
            Self::Checkpointer => f.write_str("checkpointer"),
            Self::Evaluator => f.write_str("evaluator"),
            Self::Telemetry => f.write_str("telemetry"),
            Self::Watchdog => f.write_str("watchdog"),
            Self::Web => f.write_str("web"),
        }
    }
}
