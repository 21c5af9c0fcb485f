//! The watchdog: heartbeats, and the name of the culprit when somebody stops moving.
//!
//! Runs on a thread of its own, outside of what it watches. Beats are single atomic stores: who
//! beats never waits. It judges and tells; it restarts nothing and kills nobody.

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError};

use crate::actor::Port;
use crate::fault::{ActorName, Fault};
use crate::outside::Clock;
use crate::telemetry::status::Status;

/// What somebody is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Waits to be told something; may do so for ever, unless somebody waits for it.
    Idle,
    /// Loads state, compiles programs.
    Starting,
    /// Fills a batch slot.
    Loading,
    /// Runs programs.
    Computing,
    /// Sums gradients.
    Reducing,
    /// Updates parameters.
    Updating,
    /// Runs on held-out data.
    Evaluating,
    /// Fills a snapshot slot.
    Saving,
    /// Writes to disk.
    Writing,
    /// An actor behind a mailbox has taken a message and is not done with it.
    Handling,
    /// Waits for this one.
    WaitingFor(ActorName),
    /// Is in a collective: waits until every rank has come to it.
    WaitingForRanks,
}

const SIMPLE: [Activity; 10] = [
    Activity::Idle,
    Activity::Starting,
    Activity::Loading,
    Activity::Computing,
    Activity::Reducing,
    Activity::Updating,
    Activity::Evaluating,
    Activity::Saving,
    Activity::Writing,
    Activity::Handling,
];
/// Code of [`Activity::WaitingForRanks`]; larger codes wait for one, by its place in the table.
const RANKS: u64 = SIMPLE.len() as u64;
/// Low bits of a cell that hold the code; milliseconds above them last for 557 years.
const CODE_BITS: u32 = 20;

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::Idle => "idle",
            Self::Starting => "starting",
            Self::Loading => "loading",
            Self::Computing => "computing",
            Self::Reducing => "reducing",
            Self::Updating => "updating",
            Self::Evaluating => "evaluating",
            Self::Saving => "saving",
            Self::Writing => "writing",
            Self::Handling => "handling a message",
            Self::WaitingFor(whom) => return write!(f, "waiting for {whom}"),
            Self::WaitingForRanks => "waiting for the other ranks",
        };
        f.write_str(word)
    }
}

/// The table of heartbeats, one cell per actor. Clones are the same table.
#[derive(Clone)]
pub struct Heartbeats {
    clock: Arc<dyn Clock>,
    cells: Arc<[Cell]>,
}

struct Cell {
    actor: ActorName,
    /// Time of the last beat in milliseconds, and the code of the activity, in one word.
    beat: AtomicU64,
    deadline_ms: AtomicU64,
    at_first: Duration,
}

impl fmt::Debug for Heartbeats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.snapshot().rows).finish()
    }
}

impl Heartbeats {
    /// A table for these, each with the longest time it may go without a beat. All are idle.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, actors: &[(ActorName, Duration)]) -> Self {
        let both = |&(actor, deadline): &(ActorName, Duration)| (actor, deadline, deadline);
        Self::learning(clock, &actors.iter().map(both).collect::<Vec<_>>())
    }

    /// As [`Self::new`], where somebody may take longer: up to the second time until enough of its
    /// beats were seen, and then up to [`PATIENCE`] times as long as it ever took.
    #[must_use]
    pub fn learning(clock: Arc<dyn Clock>, actors: &[(ActorName, Duration, Duration)]) -> Self {
        let now = milliseconds(clock.monotonic());
        let cell = |&(actor, deadline, at_first): &(ActorName, Duration, Duration)| Cell {
            actor,
            beat: AtomicU64::new(now << CODE_BITS),
            deadline_ms: AtomicU64::new(milliseconds(deadline)),
            at_first,
        };
        Self { clock, cells: actors.iter().map(cell).collect() }
    }

    /// The right to beat for one of them; `None` for whom the table has no cell.
    #[must_use]
    pub fn pulse(&self, actor: ActorName) -> Option<Pulse> {
        Some(Pulse { place: self.place(actor)?, table: self.clone() })
    }

    /// What everybody is doing. Each row is consistent in itself.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let row = |cell: &Cell| {
            let word = cell.beat.load(Ordering::Relaxed);
            Row {
                actor: cell.actor,
                beat: Duration::from_millis(word >> CODE_BITS),
                activity: self.decode(word & ((1 << CODE_BITS) - 1)),
                deadline: Duration::from_millis(cell.deadline_ms.load(Ordering::Relaxed)),
                at_first: cell.at_first,
            }
        };
        Snapshot { rows: self.cells.iter().map(row).collect() }
    }

    fn place(&self, actor: ActorName) -> Option<usize> {
        self.cells.iter().position(|cell| cell.actor == actor)
    }

    /// Waiting for one without a cell is an activity without a culprit: it counts as idle.
    fn encode(&self, activity: Activity) -> u64 {
        match activity {
            Activity::WaitingForRanks => RANKS,
            Activity::WaitingFor(whom) => {
                self.place(whom).map_or(0, |place| RANKS + 1 + place as u64)
            }
            simple => SIMPLE.iter().position(|one| *one == simple).unwrap_or(0) as u64,
        }
    }

    fn decode(&self, code: u64) -> Activity {
        match code {
            RANKS => Activity::WaitingForRanks,
            code if code < RANKS => SIMPLE[code as usize],
            code => Activity::WaitingFor(self.cells[(code - RANKS - 1) as usize].actor),
        }
    }
}

/// One actor's right to beat.
#[derive(Debug, Clone)]
pub struct Pulse {
    table: Heartbeats,
    place: usize,
}

impl Pulse {
    /// I live, and this is what I do from now on.
    pub fn beat(&self, activity: Activity) {
        let now = milliseconds(self.table.clock.monotonic());
        let word = (now << CODE_BITS) | self.table.encode(activity);
        self.table.cells[self.place].beat.store(word, Ordering::Relaxed);
    }

    /// The longest time between beats from now on.
    pub fn set_deadline(&self, deadline: Duration) {
        let cell = &self.table.cells[self.place];
        cell.deadline_ms.store(milliseconds(deadline), Ordering::Relaxed);
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// One actor at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Who.
    pub actor: ActorName,
    /// When it last beat.
    pub beat: Duration,
    /// What it has been doing since.
    pub activity: Activity,
    /// The longest time it may go without a beat.
    pub deadline: Duration,
    /// The same, while it is not known how long it takes.
    pub at_first: Duration,
}

impl Row {
    fn is_late(&self, now: Duration) -> bool {
        now.saturating_sub(self.beat) > self.deadline
    }
}

/// Everybody at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// In the order of the table.
    pub rows: Vec<Row>,
}

/// Somebody does not move, and others may wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stall {
    /// Who, for what it does itself; in a circle, one of those who wait.
    pub culprit: ActorName,
    /// What it was doing when it last beat.
    pub activity: Activity,
    /// For how long it has not beaten.
    pub age: Duration,
    /// Who waits for whom, ending before the culprit.
    pub waiting: Vec<ActorName>,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { culprit, activity, age, waiting } = self;
        write!(f, "{culprit} has been {activity} for {} s without moving", age.as_secs())?;
        match activity {
            Activity::WaitingForRanks => f.write_str(", and so has every rank")?,
            Activity::WaitingFor(_) => f.write_str(", in a circle of waits")?,
            _ => {}
        }
        let names: Vec<_> = waiting.iter().map(ToString::to_string).collect();
        match names.as_slice() {
            [] => Ok(()),
            [one] => write!(f, "; {one} waits for it"),
            many => write!(f, "; waiting for it: {}", many.join(", ")),
        }
    }
}

/// Finds the culprit of a stall, if there is one: from whoever has been late the longest along
/// the waits to the one that does not wait itself, if that one is late by its own deadline too.
/// A slow one that still moves is nobody's culprit.
#[must_use]
pub fn check(snapshot: &Snapshot, now: Duration) -> Option<Stall> {
    let is_suspect = |row: &&Row| row.activity != Activity::Idle && row.is_late(now);
    let mut suspects: Vec<&Row> = snapshot.rows.iter().filter(is_suspect).collect();
    suspects.sort_by_key(|row| row.beat);
    suspects.into_iter().find_map(|suspect| follow(snapshot, suspect, now))
}

/// Follows the waits that begin at `suspect` while everybody on the way is late.
fn follow(snapshot: &Snapshot, suspect: &Row, now: Duration) -> Option<Stall> {
    let mut row = suspect;
    let mut waiting = Vec::new();
    while row.is_late(now) {
        let next = match row.activity {
            Activity::WaitingFor(whom) => snapshot.rows.iter().find(|row| row.actor == whom),
            Activity::WaitingForRanks => absent_rank(snapshot),
            _ => None,
        };
        match next {
            Some(next) if !waiting.contains(&next.actor) && next.actor != row.actor => {
                waiting.push(row.actor);
                row = next;
            }
            // Nobody to wait for, or a circle: this is the end of the way.
            _ => {
                let age = now.saturating_sub(row.beat);
                let Row { actor: culprit, activity, .. } = *row;
                let together = activity == Activity::WaitingForRanks
                    && !snapshot.rows.iter().filter(|row| is_rank(row)).all(|r| r.is_late(now));
                return (!together).then_some(Stall { culprit, activity, age, waiting });
            }
        }
    }
    None
}

/// Of the ranks that have not come to the collective, the one that beat the longest ago.
fn absent_rank(snapshot: &Snapshot) -> Option<&Row> {
    let absent = |row: &&Row| is_rank(row) && row.activity != Activity::WaitingForRanks;
    snapshot.rows.iter().filter(absent).min_by_key(|row| row.beat)
}

fn is_rank(row: &Row) -> bool {
    matches!(row.actor, ActorName::Rank(_))
}

/// How much longer than ever before somebody may take.
pub const PATIENCE: u32 = 10;

/// Beats after which it is known how long somebody takes.
const BEATS_KNOWN: u32 = 16;

/// What was seen of somebody's beats.
#[derive(Debug, Clone, Copy)]
struct Seen {
    beat: Duration,
    activity: Activity,
    beats: u32,
    longest: Duration,
}

impl Seen {
    /// Takes what a look shows, and gives the longest time that it may go without a beat.
    fn deadline(&mut self, row: &Row) -> Duration {
        if row.beat > self.beat {
            if self.activity != Activity::Idle {
                self.beats = self.beats.saturating_add(1);
                self.longest = self.longest.max(row.beat.saturating_sub(self.beat));
            }
            (self.beat, self.activity) = (row.beat, row.activity);
        }
        let may = if self.beats < BEATS_KNOWN { row.at_first } else { PATIENCE * self.longest };
        row.deadline.max(may)
    }
}

/// What the watchdog remembers between two looks.
#[derive(Debug, Default)]
pub struct Watch {
    /// By place in the table.
    seen: Vec<Seen>,
    looked: Option<Duration>,
    /// Before this moment nobody could beat, since the process itself stood still.
    excused: Duration,
    told: Option<(ActorName, Duration)>,
}

impl Watch {
    /// Looks once; `every` is the usual time between looks. A stall is named once. After a pause
    /// of the whole process (a stopped or suspended machine) everybody gets a new deadline.
    pub fn look(
        &mut self,
        mut snapshot: Snapshot,
        now: Duration,
        every: Duration,
    ) -> Option<Stall> {
        let pause = now.saturating_sub(self.looked.replace(now).unwrap_or(now));
        if pause > 5 * every {
            self.excused = now;
        }
        let new = |row: &Row| {
            let Row { beat, activity, .. } = *row;
            Seen { beat, activity, beats: 0, longest: Duration::ZERO }
        };
        let known = self.seen.len();
        self.seen.extend(snapshot.rows.iter().skip(known).map(new));
        for (row, seen) in snapshot.rows.iter_mut().zip(&mut self.seen) {
            row.deadline = seen.deadline(row);
            row.beat = row.beat.max(self.excused);
        }
        let stall = check(&snapshot, now)?;
        let this = (stall.culprit, now.saturating_sub(stall.age));
        (self.told.replace(this) != Some(this)).then_some(stall)
    }
}

/// Watches until the other end of `until` is dropped; for a thread of its own. Each stall is told
/// to `faults` as a fault of the world that names the culprit, and shown by `status`, since whoever
/// would show it may be the culprit.
pub fn watch(
    heartbeats: &Heartbeats,
    every: Duration,
    until: &Receiver<Infallible>,
    faults: &Port<Fault>,
    status: &Status,
) {
    let mut watch = Watch::default();
    while until.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
        let now = heartbeats.clock.monotonic();
        if let Some(stall) = watch.look(heartbeats.snapshot(), now, every) {
            status.stalled();
            faults.tell(Fault::world(ActorName::Watchdog, stall));
        }
    }
}
