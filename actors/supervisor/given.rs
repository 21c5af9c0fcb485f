//! Steps that ranks were given and that have not said how they went.
//!
//! Another one may come as soon as all ranks have the last with their devices: they give up what
//! they are interrupted in at one place of one step ([`crate::agreement`]). What a step says means
//! nothing once one before it is to be done again.

use std::collections::VecDeque;

use crate::rank::{RankMessage, StepOutcome};
use crate::schedule::Work;
use crate::supervisor::Supervisor;
use crate::telemetry::status::RunState;

/// In the order in which they were given.
#[derive(Debug)]
pub(super) struct Given {
    ranks: usize,
    depth: usize,
    steps: VecDeque<GivenStep>,
}

#[derive(Debug)]
struct GivenStep {
    step: u64,
    attempt: usize,
    void: bool,
    /// By rank.
    enqueued: Vec<bool>,
    outcomes: Vec<Option<StepOutcome>>,
}

/// A step of which all ranks have said how it went.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) step: u64,
    pub(super) attempt: usize,
    /// It is to be done again, or never was to be done.
    pub(super) void: bool,
    /// By rank.
    pub(super) outcomes: Vec<StepOutcome>,
}

impl Given {
    /// Room for `depth` steps of so many ranks.
    pub(super) fn new(ranks: usize, depth: usize) -> Self {
        Self { ranks, depth, steps: VecDeque::with_capacity(depth) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether ranks may be given another step.
    pub(super) fn has_room(&self) -> bool {
        let is_settled = |of: &GivenStep| !of.void && of.enqueued.iter().all(|&enqueued| enqueued);
        self.steps.len() < self.depth && self.steps.iter().all(is_settled)
    }

    pub(super) fn push(&mut self, step: u64, attempt: usize) {
        let (enqueued, outcomes) = (vec![false; self.ranks], vec![None; self.ranks]);
        self.steps.push_back(GivenStep { step, attempt, void: false, enqueued, outcomes });
    }

    /// A rank has the next of its steps with its device. Returns whether it was given one.
    pub(super) fn enqueued(&mut self, rank: usize) -> bool {
        let next = self.steps.iter_mut().find(|of| !of.enqueued[rank]);
        next.map(|of| of.enqueued[rank] = true).is_some()
    }

    /// Whether a rank has a step whose outcome it has not told.
    pub(super) fn awaits(&self, rank: usize) -> bool {
        self.steps.iter().any(|of| of.enqueued[rank] && of.outcomes[rank].is_none())
    }

    /// How the next of a rank's steps went.
    pub(super) fn told(&mut self, rank: usize, outcome: StepOutcome) {
        let next = self.steps.iter_mut().find(|of| of.outcomes[rank].is_none());
        next.expect("somebody awaits it").outcomes[rank] = Some(outcome);
    }

    /// The first step, if all ranks have said how it went.
    pub(super) fn take_done(&mut self) -> Option<Done> {
        let is_done = |of: &GivenStep| of.outcomes.iter().all(Option::is_some);
        let of =
            if self.steps.front().is_some_and(is_done) { self.steps.pop_front() } else { None };
        let GivenStep { step, attempt, void, outcomes, .. } = of?;
        Some(Done { step, attempt, void, outcomes: outcomes.into_iter().flatten().collect() })
    }

    /// What is in flight was given in vain.
    pub(super) fn void(&mut self) {
        self.steps.iter_mut().for_each(|of| of.void = true);
    }
}

impl Supervisor {
    /// Tells ranks to begin a piece of work.
    pub(super) fn give(&mut self, work: Work, message: &RankMessage) {
        if self.given.is_empty() {
            self.work_began = self.clock.seconds();
        }
        match work {
            Work::Step { step, attempt } => self.given.push(step, attempt),
            _ => self.current = Some(work),
        }
        self.show(match work {
            _ if self.interrupted || self.stopping.is_some() => RunState::Draining,
            Work::Evaluate { .. } => RunState::Evaluating,
            _ => RunState::Training,
        });
        self.tell_ranks(message);
    }

    /// Whether the next piece of work may be given while steps go on: another step, unless somebody
    /// waits for the state between them. What else there is depends on how they went.
    pub(super) fn may_follow(&self) -> bool {
        let next = self.agenda.front();
        let is_step = next.is_some_and(|(_, work)| matches!(work, Work::Step { .. }));
        is_step && self.given.has_room() && !self.asked_to_save
    }
}
