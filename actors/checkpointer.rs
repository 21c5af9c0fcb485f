//! The checkpointer: writes snapshots to disk.
use crate::fault::Fault;
#[derive(Debug)]
pub enum CheckpointerMessage {
    Save { slot: usize, step: u64, cursor: serde_json::Value },
}
#[derive(Debug)]
pub enum CheckpointerReply {
    Saved { step: u64, slot: usize, digest: String, path: String, ms: f64 },
    Failed { slot: usize, fault: Fault },
}
