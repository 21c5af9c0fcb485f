//! NVIDIA GPUs.
//!
//! | Module | Holds |
//! |---|---|
//! | [`find`] | where NVIDIA's libraries are on this machine, and which of them will do |
//! | [`library`] | a shared library that stays loaded, and tables of its functions |
//! | [`driver`] | the driver's functions, and the GPUs that it shows |
//! | [`testing`] | shared libraries made by tests, and tests that say why they skip |
//!
//! Nothing here is linked: one binary starts on any machine, and what is missing is a sentence.

pub mod driver;
pub mod find;
pub mod library;
pub mod testing;
