//! How ranks of one process meet, apart from what moves their bytes.
//!
//! Duty: a call publishes its addresses, meets the others, lets its [`Carrier`] bring what it
//! receives, and meets them again. Agreement of calls and lengths is checked where all are known.
//! Ownership: tables sized when the group is made; no call allocates unless it fails.
//! Prohibitions: a rank writes only its own memory; nobody waits longer than the timeout for a rank
//! to arrive; no lock is held while bytes are carried.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::collectives::{Communicator, JoinTree, RANKS_MAX, refuse};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::memory::DeviceSlice;

/// Looks at the group this often before a waiting rank sleeps: a few microseconds. Ranks may
/// outnumber cores, so a longer spin would keep the awaited rank from running.
const SPINS: usize = 128;

/// What a rank is to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Whose it is.
    pub sender: usize,
    /// In the sender's memory.
    pub from: DeviceSlice,
    /// In this rank's, as long.
    pub to: DeviceSlice,
}

/// What moves the bytes of one rank, at once or in the order of a stream.
pub trait Carrier {
    /// Before the others are met: what this rank sends is there where its stream now stands, and
    /// what it receives into is free.
    fn ready(&mut self) -> Result<()>;

    /// Brings this rank what it receives; all ranks are ready.
    ///
    /// # Safety
    /// All slices are live; nobody writes what is sent or touches what is received until all ranks
    /// have called [`Self::carried`] and their streams have passed it.
    unsafe fn carry(&mut self, deliveries: &[Delivery]) -> Result<()>;

    /// When all ranks have carried: what this rank sent is its own again where its stream then
    /// stands.
    fn carried(&mut self) -> Result<()>;

    /// Of [`Communicator::join`].
    ///
    /// # Safety
    /// Of [`Communicator::join`].
    unsafe fn join(
        &mut self,
        tree: &JoinTree,
        dtype: DType,
        pieces: &[DeviceSlice],
        output: DeviceSlice,
    ) -> Result<()>;
}

/// One rank's end of a group of ranks in this process. Dropping it leaves the group.
#[derive(Debug)]
pub struct Member<C> {
    shared: Arc<Shared>,
    rank: usize,
    /// What this call brings. Kept for its capacity.
    deliveries: Vec<Delivery>,
    pub(crate) carrier: C,
}

/// The ends of a group, in rank order, to be handed to the ranks' threads.
///
/// A call that waits for others longer than `timeout` fails, on every rank. Panics unless there is
/// a carrier for each of `1..=RANKS_MAX` ranks.
pub(crate) fn group<C>(carriers: Vec<C>, timeout: Duration) -> Vec<Member<C>> {
    let size = carriers.len();
    assert!((1..=RANKS_MAX).contains(&size), "{size} ranks: expected 1..={RANKS_MAX}");
    let entry = |_| Entry {
        call: Call::Barrier,
        arrived: false,
        send: Vec::with_capacity(size),
        receive: Vec::with_capacity(size),
    };
    let entries = (0..size).map(entry).collect();
    let shared = Arc::new(Shared {
        size,
        timeout,
        state: Mutex::new(State { entries, met: 0, copying: 0, finished: 0, failure: None }),
        changed: Condvar::new(),
        epoch: AtomicU64::new(0),
    });
    let member = |(rank, carrier)| {
        let (shared, deliveries) = (Arc::clone(&shared), Vec::with_capacity(size));
        Member { shared, rank, deliveries, carrier }
    };
    carriers.into_iter().enumerate().map(member).collect()
}

/// Which collective a rank is in, with what all ranks must agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Barrier,
    Broadcast { root: usize },
    AllGather,
    AllToAll,
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Self::Barrier => "barrier",
            Self::Broadcast { .. } => "broadcast",
            Self::AllGather => "all_gather",
            Self::AllToAll => "all_to_all",
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broadcast { root } => write!(f, "broadcast from rank {root}"),
            _ => f.write_str(self.name()),
        }
    }
}

/// What a rank has published of its current call.
#[derive(Debug)]
struct Entry {
    call: Call,
    arrived: bool,
    send: Vec<DeviceSlice>,
    receive: Vec<DeviceSlice>,
}

#[derive(Debug)]
struct State {
    /// One per rank. Not changed from a meeting until the last rank has copied.
    entries: Vec<Entry>,
    /// Calls in which all ranks have arrived and agreed.
    met: u64,
    /// Ranks that have met and are not done copying.
    copying: usize,
    /// Calls in which all ranks are done copying.
    finished: u64,
    /// Why the group is over; the first reason stays.
    failure: Option<String>,
}

#[derive(Debug)]
struct Shared {
    size: usize,
    timeout: Duration,
    state: Mutex<State>,
    changed: Condvar,
    /// Counts changes of the state, for ranks that spin.
    epoch: AtomicU64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all waiting ranks that `_state` has changed.
    fn wake(&self, _state: &MutexGuard<'_, State>) {
        self.epoch.fetch_add(1, Ordering::Release);
        self.changed.notify_all();
    }

    /// Ends the group, unless it is over already.
    fn fail(&self, state: &mut MutexGuard<'_, State>, why: String) {
        state.failure.get_or_insert(why);
        self.wake(state);
    }

    /// Waits until `done` or the deadline; spins shortly, then sleeps.
    fn wait<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
        done: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        let seen = self.epoch.load(Ordering::Acquire);
        drop(state);
        for _ in 0..SPINS {
            if self.epoch.load(Ordering::Acquire) != seen {
                break;
            }
            std::hint::spin_loop();
        }
        let mut state = self.lock();
        while !done(&state) {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => break,
                Some(left) => {
                    let woken = self.changed.wait_timeout(state, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state
    }
}

impl<C: Carrier> Member<C> {
    /// Publishes a call, waits for all ranks, brings the bytes, waits for all ranks again.
    ///
    /// # Safety
    /// As the trait's methods.
    unsafe fn run(
        &mut self,
        call: Call,
        send: &[DeviceSlice],
        receive: &[DeviceSlice],
    ) -> Result<()> {
        if let Some(why) = self.fault(call, send, receive) {
            return Err(refuse(self, call.name(), why));
        }
        let ready = self.carrier.ready();
        self.or_end(ready)?;
        self.meet(call, send, receive)?;
        self.deliveries.retain(|delivery| delivery.from != delivery.to);
        self.deliveries.retain(|delivery| delivery.from.bytes() > 0);
        // SAFETY: all ranks vouch for their slices until they return, which they do not before this
        // rank is done; lengths agree; what is received is this rank's and overlaps nothing that is
        // sent, as the caller vouches and `fault` checks.
        let carried = unsafe { self.carrier.carry(&self.deliveries) };
        if call != Call::Barrier {
            self.part();
        }
        let carried = carried.and_then(|()| self.carrier.carried());
        self.or_end(carried)
    }

    /// Ends the group for an error of this rank's device: others would wait for it.
    fn or_end(&mut self, done: Result<()>) -> Result<()> {
        done.inspect_err(|error| self.abort(&error.to_string()))
    }

    /// What is wrong with a call that this rank alone can see.
    fn fault(&self, call: Call, send: &[DeviceSlice], receive: &[DeviceSlice]) -> Option<String> {
        let (rank, size) = (self.rank, self.shared.size);
        let counts = match call {
            Call::Barrier => (0, 0),
            Call::Broadcast { root } if root >= size => {
                return Some(format!("no rank {root} among {size}"));
            }
            Call::Broadcast { root } if root == rank => (1, 0),
            Call::Broadcast { .. } => (0, 1),
            Call::AllGather => (1, size),
            Call::AllToAll => (size, size),
        };
        let given = (send.len(), receive.len());
        if given != counts {
            return Some(format!("(send, receive) has {given:?} parts, expected {counts:?}"));
        }
        for (to, part) in receive.iter().enumerate() {
            if let Some(other) = receive[..to].iter().position(|other| overlap(*other, *part)) {
                return Some(format!("receive[{other}] overlaps receive[{to}]"));
            }
            for (from, sent) in send.iter().enumerate() {
                let own = to == rank && (from == rank || call == Call::AllGather);
                if overlap(*sent, *part) && !(own && sent == part) {
                    return Some(format!("send[{from}] overlaps receive[{to}]"));
                }
            }
        }
        None
    }

    /// Publishes the call and waits for all ranks; then `deliveries` holds what it gets.
    fn meet(&mut self, call: Call, send: &[DeviceSlice], receive: &[DeviceSlice]) -> Result<()> {
        let (rank, shared) = (self.rank, &*self.shared);
        let mut state = shared.lock();
        let meeting = state.met + 1;
        if state.failure.is_none() {
            state.publish(rank, call, send, receive);
            if let Some(why) = state.disagreement() {
                shared.fail(&mut state, why);
            } else if state.entries.iter().all(|entry| entry.arrived) {
                state.met = meeting;
                state.copying = if call == Call::Barrier { 0 } else { shared.size };
                state.entries.iter_mut().for_each(|entry| entry.arrived = false);
                shared.wake(&state);
            } else {
                let deadline = Instant::now().checked_add(shared.timeout);
                let done = |state: &State| state.met >= meeting || state.failure.is_some();
                state = shared.wait(state, deadline, done);
                if !done(&state) {
                    let why = state.absence(rank, call, shared.timeout);
                    shared.fail(&mut state, why);
                }
            }
        }
        // A meeting that took place counts, even if a rank has left the group since.
        if state.met >= meeting {
            let delivery = |sender| {
                let (from, to) = state.route(sender, rank)?;
                Some(Delivery { sender, from, to })
            };
            self.deliveries.clear();
            self.deliveries.extend((0..shared.size).filter_map(delivery));
            return Ok(());
        }
        let why = state.failure.clone().unwrap_or_default();
        Err(Error::Collective { what: call.name(), rank, why })
    }

    /// Waits until all ranks are done copying.
    ///
    /// Without a deadline, and deaf to aborts: others may be reading this rank's memory. All of
    /// them are past the meeting, where nothing but their own copies is left to do.
    fn part(&self) {
        let mut state = self.shared.lock();
        state.copying -= 1;
        if state.copying == 0 {
            state.finished += 1;
            self.shared.wake(&state);
        } else {
            let last = state.finished + 1;
            drop(self.shared.wait(state, None, |state| state.finished >= last));
        }
    }
}

impl State {
    /// Enters a rank's call into the tables, within their capacity.
    fn publish(&mut self, rank: usize, call: Call, send: &[DeviceSlice], receive: &[DeviceSlice]) {
        let entry = &mut self.entries[rank];
        entry.call = call;
        entry.arrived = true;
        entry.send.clear();
        entry.send.extend_from_slice(send);
        entry.receive.clear();
        entry.receive.extend_from_slice(receive);
    }

    /// What goes from one rank to another in the call that both are in: (source, destination).
    fn route(&self, from: usize, to: usize) -> Option<(DeviceSlice, DeviceSlice)> {
        let (sent, received) = (&self.entries[from].send, &self.entries[to].receive);
        match self.entries[to].call {
            Call::Barrier => None,
            Call::Broadcast { root } => {
                (from == root && to != root).then(|| (sent[0], received[0]))
            }
            Call::AllGather => Some((sent[0], received[from])),
            Call::AllToAll => Some((sent[to], received[from])),
        }
    }

    /// Two ranks that are in different calls or, once all are here, whose lengths differ.
    fn disagreement(&self) -> Option<String> {
        let mut arrived = self.entries.iter().enumerate().filter(|(_, entry)| entry.arrived);
        let (first, entry) = arrived.next()?;
        let mut present = 1;
        for (other, with) in arrived {
            if with.call != entry.call {
                let (one, two) = (entry.call, with.call);
                return Some(format!("rank {first} called {one}, rank {other} called {two}"));
            }
            present += 1;
        }
        let size = self.entries.len();
        if present < size {
            return None;
        }
        let pairs = (0..size).flat_map(|from| (0..size).map(move |to| (from, to)));
        for (from, to) in pairs {
            let Some((source, destination)) = self.route(from, to) else { continue };
            let (sent, expected) = (source.bytes(), destination.bytes());
            if sent != expected {
                let call = entry.call;
                return Some(format!(
                    "{call}: rank {from} sends {sent} bytes to rank {to}, which expects {expected}"
                ));
            }
        }
        None
    }

    /// The sentence of a timeout: who waited, and who did not come.
    fn absence(&self, rank: usize, call: Call, timeout: Duration) -> String {
        let absent = self.entries.iter().enumerate().filter(|(_, entry)| !entry.arrived);
        let absent: Vec<String> = absent.map(|(rank, _)| format!("rank {rank}")).collect();
        let absent = absent.join(", ");
        format!("timed out: rank {rank} waited {timeout:?} in {call}, did not arrive: {absent}")
    }
}

/// True when two ranges share a byte.
fn overlap(a: DeviceSlice, b: DeviceSlice) -> bool {
    let range = |slice: DeviceSlice| {
        let start = slice.pointer() as usize;
        (start, start + slice.bytes())
    };
    let ((a_start, a_end), (b_start, b_end)) = (range(a), range(b));
    a_start.max(b_start) < a_end.min(b_end)
}

impl<C: Carrier> Communicator for Member<C> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.shared.size
    }

    fn barrier(&mut self) -> Result<()> {
        // SAFETY: nothing is moved.
        unsafe { self.run(Call::Barrier, &[], &[]) }
    }

    unsafe fn broadcast(&mut self, root: usize, buffer: DeviceSlice) -> Result<()> {
        let call = Call::Broadcast { root };
        let (send, receive): (&[_], &[_]) =
            if root == self.rank { (&[buffer], &[]) } else { (&[], &[buffer]) };
        // SAFETY: the caller's promise is the one that `run` asks for.
        unsafe { self.run(call, send, receive) }
    }

    unsafe fn all_gather(&mut self, send: DeviceSlice, receive: &[DeviceSlice]) -> Result<()> {
        // SAFETY: the caller's promise is the one that `run` asks for.
        unsafe { self.run(Call::AllGather, &[send], receive) }
    }

    unsafe fn all_to_all(&mut self, send: &[DeviceSlice], receive: &[DeviceSlice]) -> Result<()> {
        // SAFETY: the caller's promise is the one that `run` asks for.
        unsafe { self.run(Call::AllToAll, send, receive) }
    }

    unsafe fn join(
        &mut self,
        tree: &JoinTree,
        dtype: DType,
        pieces: &[DeviceSlice],
        output: DeviceSlice,
    ) -> Result<()> {
        // SAFETY: the caller's promise is the one that the carrier asks for.
        let joined = unsafe { self.carrier.join(tree, dtype, pieces, output) };
        joined.map_err(|error| refuse(self, "join", error.to_string()))
    }

    fn abort(&mut self, why: &str) {
        let why = format!("rank {} aborted: {why}", self.rank);
        self.shared.fail(&mut self.shared.lock(), why);
    }
}

impl<C> Drop for Member<C> {
    fn drop(&mut self) {
        let how = if std::thread::panicking() { "panicked" } else { "left the group" };
        let why = format!("rank {} {how}", self.rank);
        self.shared.fail(&mut self.shared.lock(), why);
    }
}
