//! What is trained: models, objectives, text, configuration, and the main path of a run.
//!
//! | Module | Holds |
//! |---|---|
//! | [`train`] | the main path: configuration, text, experiment, run folder, first state, run |
//! | [`composition`] | what a run trains: models, programs, tracks, made from the configuration |
//! | [`experiment`] | a composition made runnable: implements the runtime's contract |
//! | [`backend`] | what a run computes on, by what is there |
//! | [`models`], [`objectives`] | one file per family, one per objective |
//! | [`data`], [`text`] | documents to tokens to shards to samples; streams of samples by track |
//! | [`config`], [`schedule`] | one TOML file, checked; the learning rate |
//! | [`optimizer`] | the numbers of an update, and groups of parameters with their own |
//! | [`sampling`] | text from a model, token by token |
//! | `facts` | what a run is beside its configuration, and what older builds made of it |
//! | [`run_data`] | what a run folder keeps of its text |
//! | [`look`] | a run that is there, evaluated or made to write, and not touched |
//! | [`hub`] | folders of Hugging Face's libraries, out and in |
//! | [`branch`], [`replay`] | a run that begins with another's checkpoint; steps done again |
//! | [`events`] | what the log says, for TensorBoard |
//! | [`inspect`], [`diff`] | what lies at a path; where two runs part |
//! | [`plan`] | what a run will take, before anything is taken |
//! | [`doctor`] | what this machine has and what is missing |
//! | [`bench`] | training steps without a run around them |
//! | [`provenance`] | what program, instructions and libraries numbers come from |
//! | [`failure`] | how a command ends when it does not end well |

pub mod backend;
pub mod beginning;
pub mod bench;
pub mod branch;
pub mod composition;
pub mod config;
pub mod data;
pub mod diff;
pub mod doctor;
pub mod events;
pub mod experiment;
mod facts;
pub mod failure;
pub mod hub;
pub mod inspect;
pub mod look;
pub mod models;
pub mod objectives;
pub mod optimizer;
pub mod plan;
pub mod provenance;
pub mod replay;
pub mod run_data;
pub mod sampling;
pub mod schedule;
pub mod serve;
pub mod text;
pub mod train;
