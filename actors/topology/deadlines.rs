//! How long whoever works may go without a sign of life: from bytes and FLOPs where something large
//! is done in one piece, and learned by the watchdog where it can be measured.

use std::time::Duration;

use crate::fault::ActorName;
use crate::rank::PEER_TIMEOUT;
use crate::topology::RunSetup;
use crate::watchdog::Heartbeats;

/// A rank or loader that shows no life for so long is stuck, unless a run says otherwise: a program
/// of a micro-batch takes less.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// The checkpointer beats at each piece of what it writes, reads back and hashes, but not while it
/// hashes what lies in memory, which no machine does slower than this, in bytes/s.
const HASHED_PER_S: f64 = 1e8;

/// No rank that works computes slower than this, in FLOP/s: one core, with everything against it.
const FLOPS_PER_S_LEAST: f64 = 1e9;

/// The longest that so many FLOPs take a rank that works.
pub fn slowest(flops: f64) -> Duration {
    Duration::from_secs_f64((flops / FLOPS_PER_S_LEAST).clamp(0.0, 1e9))
}

/// Everybody whom a run can hang in: who computes, reads and writes.
pub(super) fn heartbeats(setup: &RunSetup) -> Heartbeats {
    let hash = Duration::from_secs_f64(setup.slots.bytes() as f64 / HASHED_PER_S);
    let patience = setup.patience;
    let (checkpointer, rank) = (patience + hash, patience + slowest_micro_batch(setup));
    let behind = [
        (ActorName::Supervisor, patience, patience),
        (ActorName::Evaluator, patience, patience),
        (ActorName::Telemetry, patience, patience),
        (ActorName::Checkpointer, checkpointer, checkpointer),
    ];
    let both = |rank| [ActorName::Rank(rank), ActorName::Loader(rank)];
    let computing = (0..setup.ranks).flat_map(both).map(|actor| (actor, patience, rank));
    let actors: Vec<_> = computing.chain(behind).collect();
    Heartbeats::learning(setup.clock.clone(), &actors)
}

/// What a program of one micro-batch takes at most; its gradient is a part of it.
fn slowest_micro_batch(setup: &RunSetup) -> Duration {
    let workload = &setup.workload;
    slowest(workload.flops_per_sample() * workload.batch().micro as f64)
}

/// How long a rank waits for the others: longer than the watchdog does, which names the culprit
/// before they give up.
pub(super) fn peers(setup: &RunSetup) -> Duration {
    PEER_TIMEOUT.max(setup.patience * 3 / 2) + slowest_micro_batch(setup)
}
