//! Objectives and models of every kind as a run trains them: learned, the same bits on any ranks,
//! and stopped and resumed.
//!
//! One file for each kind; what they share is in `harness`.

mod distillation;
mod golden;
mod harness;
mod masked;
mod mixture;
mod overfit;
mod prefix_lm;
mod replaced_token;
