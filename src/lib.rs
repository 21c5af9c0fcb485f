//! Placeholder

pub mod config;
pub mod data;
pub mod models;
pub mod objectives;
pub mod schedule;
