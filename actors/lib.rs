//! How a run is run: the model-agnostic runtime.

pub mod actor;
pub mod checkpoint;
pub mod checkpointer;
pub mod contract;
pub mod evaluator;
pub mod fault;
pub mod host;
pub mod loader;
pub mod optimizer;
pub mod outside;
pub mod rank;
pub mod rank_memory;
pub mod reducer;
pub mod report;
pub mod run_folder;
pub mod schedule;
pub mod snapshot;
pub mod step_plan;
pub mod step_report;
pub mod supervisor;
pub mod telemetry;
pub mod testing;
pub mod transfer;
pub mod watchdog;
pub mod web;
pub mod worker;
