//! How a run is run: the model-agnostic runtime.

pub mod actor;
pub mod fault;
pub mod outside;
pub mod report;
pub mod snapshot;
