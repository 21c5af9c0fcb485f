//! Whole runs of the real program: the same bits for any ranks and any interruption, and one clear
//! sentence for whatever goes wrong.

mod branches;
mod cuda;
mod damage;
mod disk;
mod harness;
mod kills;
mod memory;
mod output;
mod preparing;
mod ramp;
mod ranks;
mod recovery;
mod refusals;
mod signals;
mod web;
