//! What a run computes on: this machine's cores or its GPUs, by the configuration and by what is
//! there.
//!
//! Duty: finds devices before anything is prepared, and refuses what could not run there by name.
//! Prohibition: takes no memory of a device.

use octet_actors::rank::threads_per_rank;
use octet_kernels::cuda::cache::Cache;
use octet_kernels::cuda::driver::{Card, Driver, ranks_max};
use octet_kernels::cuda::find::{Kind, Search, Version};
use octet_kernels::cuda::images::Images;
use octet_kernels::device::{Backend, Products};
use octet_kernels::graph::Target;
use octet_kernels::graph::target::Gpu;

use crate::config::{Config, Device, ProductsConfig};
use crate::experiment::Experiment;
use crate::failure::Failure;
use crate::plan::{vocabulary, without_kernels};

/// What was chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// What opens the devices.
    pub backend: Backend,
    /// What programs are compiled for.
    pub target: Target,
    /// What multiplies on GPUs, where it is cuBLASLt.
    pub blas: Option<Version>,
    /// Why it is not what one would think.
    pub note: Option<String>,
}

/// The first GPU's compute capability at least: kernels are written for 8.0 and up.
const OLDEST: [u32; 2] = [8, 0];

impl Chosen {
    /// This machine's cores, shared among the ranks.
    pub fn cpu(config: &Config) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let shared = || threads_per_rank(cores, config.run.ranks);
        let backend = Backend::Cpu { threads: config.run.threads.unwrap_or_else(shared) };
        Self { backend, target: Target::Cpu, blas: None, note: None }
    }

    /// `run.device`, as this machine has it: what keeps `"auto"` from GPUs that are there is said.
    ///
    /// # Errors
    /// [`Failure::user`] where `"cuda"` is not possible.
    pub fn by(config: &Config) -> Result<Self, Failure> {
        let expected = |why: String| {
            Failure::user(format!(
                "run.device: expected \"auto\" or \"cpu\" here, got \"cuda\": {why}"
            ))
        };
        match config.run.device {
            Device::Cpu => Ok(Self::cpu(config)),
            Device::Cuda => {
                let (driver, card) = cards_for(config).map_err(expected)?;
                let gpus = Self::gpus(config, &driver, &card);
                // Tests train on a stand-in, whose host computes what has no kernels. A driver of
                // NVIDIA's is none, and gets no program with such an op.
                if !driver.is_stand_in {
                    refuse(config, gpus.target)?;
                }
                Ok(gpus)
            }
            Device::Auto => {
                match any_card() {
                    Ok(true) => {}
                    Ok(false) => return Ok(Self::cpu(config)),
                    Err(why) => return Ok(Self { note: unusable(&why), ..Self::cpu(config) }),
                }
                let chosen = cards_for(config).and_then(|(driver, card)| {
                    let gpus = Self::gpus(config, &driver, &card);
                    refuse(config, gpus.target).map(|()| gpus).map_err(|failure| failure.what)
                });
                Ok(chosen.unwrap_or_else(|why| {
                    let note = format!("trained on the CPU, although there is a GPU: {why}");
                    Self { note: Some(note), ..Self::cpu(config) }
                }))
            }
        }
    }

    fn gpus(config: &Config, driver: &Driver, card: &Card) -> Self {
        let target = Target::Gpu(Gpu::probed(card.gpu()));
        let (blas, note) = match config.run.products {
            ProductsConfig::Own => (None, None),
            ProductsConfig::Auto => {
                match Search::here().newest(Kind::CublasLt, Some(driver.version)) {
                    Ok(found) => (Some(found.version), None),
                    Err(why) => (None, Some(format!("matrix products could be faster: {why}"))),
                }
            }
        };
        let products = if blas.is_some() { Products::Library } else { Products::Own };
        Self { backend: Backend::Cuda { products }, target, blas, note }
    }
}

/// What is said of a driver that is there and will not do; nothing where there is none.
fn unusable(why: &str) -> Option<String> {
    let found = !Search::here().candidates(Kind::Driver, None).is_empty();
    found.then(|| format!("trained on the CPU, although there is a CUDA driver: {why}"))
}

/// Whether the driver shows any GPU.
fn any_card() -> Result<bool, String> {
    let cards = Driver::open(&Search::here()).and_then(|driver| driver.cards());
    cards.map(|cards| !cards.is_empty()).map_err(|error| error.to_string())
}

/// The driver, and the kind of GPU that every rank has; why not, in words for the user.
fn cards_for(config: &Config) -> Result<(Driver, Card), String> {
    let driver = Driver::open(&Search::here()).map_err(|error| error.to_string())?;
    let mut cards = driver.cards().map_err(|error| error.to_string())?;
    let (ranks, found) = (config.run.ranks, cards.len());
    if ranks > ranks_max(found) {
        return Err(format!("run.ranks = {ranks} needs a GPU each, and the driver shows {found}"));
    }
    cards.truncate(ranks);
    let first = cards[0].clone();
    if first.architecture < OLDEST {
        return Err(format!("{first} is older than compute capability 8.0"));
    }
    if let Some(other) = cards.iter().find(|card| **card != first) {
        return Err(format!("its GPUs are of two kinds: {first}; {other}"));
    }
    if !driver.is_stand_in {
        let cache = Cache::of_user();
        let images = Images::new(Search::here(), first.architecture, driver.version, cache);
        images.obtainable()?;
    }
    Ok((driver, first))
}

/// Names the ops of a run's programs that have no form for GPUs.
///
/// # Errors
/// [`Failure::user`] if there are any, or if the programs do not compile.
pub fn refuse(config: &Config, target: Target) -> Result<(), Failure> {
    let (vocabulary, _assumed) = vocabulary(config)?;
    let experiment = Experiment::for_target(config, vocabulary, None, target)?;
    let missing = without_kernels(&experiment);
    let ops: Vec<&str> = missing.keys().map(String::as_str).collect();
    if ops.is_empty() { Ok(()) } else { Err(no_gpu_form(&ops)) }
}

/// The refusal of a run on GPUs for ops that ask for nothing there.
pub fn no_gpu_form(ops: &[&str]) -> Failure {
    Failure::user(format!(
        "run.device: expected \"cpu\", since there is no GPU form yet of {}",
        ops.join(", ")
    ))
}
