//! NVIDIA GPUs.
//!
//! | Module | Holds |
//! |---|---|
//! | [`find`] | where NVIDIA's libraries are on this machine, and which of them will do |
//! | [`library`] | a shared library that stays loaded, and tables of its functions |
//! | [`nvrtc`], [`cache`] | the compiler, and what it has compiled before |
//! | [`images`] | our kernels, as a driver loads them |
//! | [`driver`] | the driver's functions, and the GPUs that it shows |
//! | `context`, `modules`, `gpu` | one GPU as this process has it, with our kernels loaded |
//! | [`step`] | the kernels that no op asks for |
//! | `device` | that GPU as a [`crate::device::Device`] |
//! | `blas` | matrix products by cuBLASLt |
//! | `host` | how a device computes whose driver is a stand-in |
//! | [`testing`] | shared libraries made by tests, and tests that say why they skip |
//!
//! The static gate (`gate`, tests only) holds every kernel against what its source expects of the
//! compiler. Nothing here is linked: one binary starts on any machine, and what is missing is a
//! sentence.

mod blas;
pub mod cache;
pub(crate) mod context;
pub(crate) mod device;
pub mod driver;
pub mod find;
#[cfg(test)]
mod gate;
pub(crate) mod gpu;
mod host;
pub mod images;
pub mod library;
mod modules;
pub mod nvrtc;
pub mod step;
pub mod testing;
