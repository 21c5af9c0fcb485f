//! What is trained: models, objectives, text, configuration, and the main path of a run.
//!
//! | Module | Holds |
//! |---|---|
//! | [`train`] | the main path: configuration, text, experiment, run folder, first state, run |
//! | [`experiment`] | a configuration made runnable: implements the runtime's contract |
//! | [`models`], [`objectives`] | one file per family, one per objective |
//! | [`data`], [`text`] | documents to tokens to shards to samples; samples to records |
//! | [`config`], [`schedule`] | one TOML file, checked; the learning rate |
//! | [`plan`] | what a run will take, before anything is taken |
//! | [`failure`] | how a command ends when it does not end well |

pub mod config;
pub mod data;
pub mod experiment;
pub mod failure;
pub mod models;
pub mod objectives;
pub mod plan;
pub mod schedule;
pub mod text;
pub mod train;
