//! How a run is run: the model-agnostic runtime.

pub mod actor;
pub mod evaluator;
pub mod fault;
pub mod outside;
pub mod report;
pub mod run_folder;
pub mod snapshot;
pub mod telemetry;
