//! The commands as a person runs them, on a model so small that each takes a moment.

mod cleaning;
mod composing;
mod evaluating;
mod harness;
mod hub;
mod output;
mod planning;
mod prepare;
mod reading;
mod recipes;
mod sampling;
mod serving;
