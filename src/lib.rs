//! Placeholder

pub mod data;
