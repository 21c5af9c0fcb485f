//! How a run is run: the model-agnostic runtime. It knows no tokens; it moves batches, runs
//! programs, reduces buckets, keeps shards, writes snapshots.
//!
//! Read in this order:
//!
//! | Module | Holds |
//! |---|---|
//! | [`contract`] | what the runtime asks of a workload |
//! | [`topology`] | every actor, its mailbox, and who may tell it what |
//! | [`actor`], [`fault`], [`report`] | what actors, failures and reports are |
//! | [`step_plan`], [`schedule`] | pure: the step as a list, and as a plan; what comes after what |
//! | [`recovery`] | pure: what follows from bad updates |
//! | [`supervisor`] | the run as a state machine |
//! | [`rank`] | one device's thread |
//! | [`crew`], [`engine`] | who runs on that thread in turn: the one match; and over what |
//! | [`worker`], [`reducer`], [`optimizer`] | compute, what moves between ranks, the update |
//! | [`rank_memory`] | its arena, region by region |
//! | [`outcome`] | what steps have to say, in host memory |
//! | [`agreement`] | where all ranks give a step up |
//! | [`loader`] | fills batch slots ahead of need |
//! | [`snapshot`], [`transfer`], [`resume`] | state in memory, to and from ranks, at the start |
//! | [`checkpoint`], [`checkpointer`] | state on disk, written beside the run |
//! | [`evaluator`], [`telemetry`], [`watchdog`], [`web`] | who observes |
//! | [`run_folder`], [`outside`] | files, time |
//! | [`host`] | the only place that knows actix |
//! | [`units`] | bytes as a person reads them |
//! | [`testing`] | workloads made of closures |

pub mod actor;
pub mod agreement;
pub mod checkpoint;
pub mod checkpointer;
pub mod contract;
pub mod crew;
pub mod engine;
pub mod evaluator;
pub mod fault;
pub mod host;
pub mod loader;
pub mod optimizer;
pub mod outcome;
pub mod outside;
pub mod rank;
pub mod rank_memory;
pub mod recovery;
pub mod reducer;
pub mod report;
pub mod resume;
pub mod run_folder;
pub mod schedule;
#[cfg(test)]
mod sim;
pub mod snapshot;
pub mod step_plan;
pub mod step_report;
pub mod supervisor;
pub mod telemetry;
pub mod testing;
pub mod topology;
pub mod transfer;
pub mod units;
pub mod watchdog;
pub mod web;
pub mod worker;
