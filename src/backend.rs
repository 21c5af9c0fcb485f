//! What a run computes on: this machine's cores or its GPUs, by the configuration and by what is
//! there.
//!
//! Duty: finds devices before anything is prepared, and refuses what could not run there by name.
//! Prohibition: takes no memory of a device.

use octet_actors::rank::threads_per_rank;
use octet_kernels::cuda::driver::{Card, Driver, ranks_max};
use octet_kernels::cuda::find::{Kind, Search};
use octet_kernels::device::Backend;
use octet_kernels::graph::Target;
use octet_kernels::graph::target::Gpu;

use crate::config::{Config, Device};
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
    /// Why it is not what one would think.
    pub note: Option<String>,
}

/// Why GPUs are not taken unless they are asked for: to be lifted when kernels were held against
/// the CPU's on one.
const UNPROVEN: &str =
    "its kernels are proven in emulation only; run.device = \"cuda\" trains on it";

/// The first GPU's compute capability at least: kernels are written for 8.0 and up.
const OLDEST: [u32; 2] = [8, 0];

impl Chosen {
    /// This machine's cores, shared among the ranks.
    pub fn cpu(config: &Config) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let shared = || threads_per_rank(cores, config.run.ranks);
        let backend = Backend::Cpu { threads: config.run.threads.unwrap_or_else(shared) };
        Self { backend, target: Target::Cpu, note: None }
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
                let gpus = Self::gpus(&card);
                // Tests train on a stand-in, whose host computes what has no kernels. A driver of
                // NVIDIA's is none, and gets no program with such an op.
                if !driver.is_stand_in {
                    refuse(config, gpus.target)?;
                }
                Ok(gpus)
            }
            Device::Auto => {
                let card = match any_card() {
                    Ok(Some(card)) => card,
                    Ok(None) => return Ok(Self::cpu(config)),
                    Err(why) => return Ok(Self { note: unusable(&why), ..Self::cpu(config) }),
                };
                let gpus = Self::gpus(&card);
                let refused = match cards_for(config) {
                    Err(why) => Some(why),
                    Ok(_) => refuse(config, gpus.target).err().map(|failure| failure.what),
                };
                let why = refused.unwrap_or_else(|| UNPROVEN.to_owned());
                let note = format!("trained on the CPU, although there is a GPU: {why}");
                Ok(Self { note: Some(note), ..Self::cpu(config) })
            }
        }
    }

    fn gpus(card: &Card) -> Self {
        let target = Target::Gpu(Gpu::probed(card.gpu()));
        Self { backend: Backend::Cuda, target, note: None }
    }
}

/// What is said of a driver that is there and will not do; nothing where there is none.
fn unusable(why: &str) -> Option<String> {
    let found = !Search::here().candidates(Kind::Driver, None).is_empty();
    found.then(|| format!("trained on the CPU, although there is a CUDA driver: {why}"))
}

/// The first GPU that the driver shows, if any.
fn any_card() -> Result<Option<Card>, String> {
    let cards = Driver::open(&Search::here()).and_then(|driver| driver.cards());
    Ok(cards.map_err(|error| error.to_string())?.into_iter().next())
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
    match cards.iter().find(|card| **card != first) {
        Some(other) => Err(format!("its GPUs are of two kinds: {first}; {other}")),
        None => Ok((driver, first)),
    }
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
