//! What an update of flat parameters is: a rule over named state vectors, and how those are stored.
//!
//! Ownership: nothing; [`crate::device::Device::update`] is told all of it. A rule is one folder in
//! [`crate::ops`]: its state vectors, its constants and its CPU run. Prohibition: an update is
//! elementwise. Element `i` of every vector belongs to parameter `i`, and nothing depends on where
//! a shard begins.

use std::fmt::Debug;
use std::sync::Arc;

use crate::cpu::isa::Isa;
use crate::dtype::DType;
use crate::memory::DeviceSlice;
use crate::random::{RandomStream, Site};

/// Most state vectors of a rule.
pub const VECTORS_MAX: usize = 2;

/// Most constants of a rule, and most numbers that they are computed from.
pub const CONSTANTS_MAX: usize = 8;

/// Values that share a scale in [`Storage::Blocks8`]. Parameters begin at multiples of it.
pub const SCALED: usize = 64;

/// What a rule's constants of a step follow from, besides the number of the update, which only the
/// device knows: what kernels are given, in the rule's own order.
pub type Numbers = [f64; CONSTANTS_MAX];

/// The constants of one update, computed in `f64` and rounded once: on a GPU by the kernel.
pub type Constants = [f32; CONSTANTS_MAX];

/// How state vectors are stored. Narrow ones are rounded to either neighbour at random, so that
/// what is too small to change a value changes it in the mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// As they are computed.
    #[default]
    F32,
    /// Rounded to `BF16`.
    Bf16,
    /// Eight bits a value, and for [`SCALED`] values one power of two: 4 bits of exponent, and 4 of
    /// mantissa for a vector that is never negative, or 3 and a sign. What is above zero never
    /// becomes zero in a vector that is never negative.
    Blocks8,
}

/// A state vector of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VectorName {
    /// In tables.
    pub title: &'static str,
    /// In checkpoints, behind the parameter's name.
    pub suffix: &'static str,
    /// Whether it can be negative.
    pub signed: bool,
}

/// What a rule is told of one step of some parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepNumbers {
    /// What the schedule and the parameter's group make of the learning rate.
    pub learning_rate: f64,
    /// Decoupled weight decay; 0 for parameters that do not decay.
    pub weight_decay: f64,
}

/// `base` to the power of a whole number, by squaring: products alone, so that every device has the
/// same bits and no library of functions enters them.
pub fn power(mut base: f64, mut exponent: u64) -> f64 {
    let mut result = 1.0;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result *= base;
        }
        base *= base;
        exponent >>= 1;
    }
    result
}

/// Values of one piece of the flat vectors, all of one length. Vectors that the rule has not are
/// empty.
#[derive(Debug)]
pub struct Piece<'a> {
    /// Parameters, or their masters; updated.
    pub weights: &'a mut [f32],
    /// Before the clip factor.
    pub gradients: &'a [f32],
    /// The clip factor.
    pub gradient_scale: f32,
    /// State vectors; updated.
    pub states: [&'a mut [f32]; VECTORS_MAX],
}

/// How parameters and state vectors follow from gradients.
pub trait Rule: Debug + Send + Sync {
    /// As people call it.
    fn name(&self) -> &'static str;

    /// The folder of its kernels in [`crate::ops`].
    fn module(&self) -> &'static str;

    /// Its state vectors, which begin as zeros.
    fn vectors(&self) -> &'static [VectorName];

    /// What the constants of a step follow from.
    fn numbers(&self, step: &StepNumbers) -> Numbers;

    /// The constants of update number `update`. Panics if updates are not counted from 1.
    fn constants(&self, numbers: &Numbers, update: u64) -> Constants;

    /// Updates a piece.
    fn run_cpu(&self, isa: Isa, constants: &Constants, piece: Piece<'_>);
}

/// A rule and how its state vectors are stored.
#[derive(Debug, Clone)]
pub struct OptimizerSpec {
    /// How parameters change.
    pub rule: Arc<dyn Rule>,
    /// How its state vectors are stored.
    pub storage: Storage,
}

/// A flat run of stored items: a state vector, or the scales of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plane {
    /// The state vector.
    pub vector: VectorName,
    /// Whether it holds the scales.
    pub scales: bool,
    /// Type of an item.
    pub dtype: DType,
    /// Elements of the flat vectors that an item is for.
    pub elements: usize,
}

impl Plane {
    /// Bytes of the items for so many elements, whole items.
    pub fn bytes(&self, elements: usize) -> usize {
        elements.div_ceil(self.elements) * self.dtype.bytes()
    }

    /// In tables.
    pub fn title(&self) -> String {
        let scales = if self.scales { ", scales" } else { "" };
        format!("{}{scales}", self.vector.title)
    }

    /// In checkpoints, behind the parameter's name.
    pub fn suffix(&self) -> String {
        let scales = if self.scales { ".scale" } else { "" };
        format!("{}{scales}", self.vector.suffix)
    }

    /// Shape of the items for a parameter of this shape.
    pub fn shape(&self, parameter: &[usize]) -> Vec<usize> {
        match self.elements {
            1 => parameter.to_vec(),
            of => vec![parameter.iter().product::<usize>().div_ceil(of)],
        }
    }
}

impl OptimizerSpec {
    /// All that is stored beside the weights, in order: of each vector its values, then its scales.
    pub fn planes(&self) -> Vec<Plane> {
        let plane = |&vector, scales, dtype, elements| Plane { vector, scales, dtype, elements };
        let of = |vector| match self.storage {
            Storage::F32 => vec![plane(vector, false, DType::F32, 1)],
            Storage::Bf16 => vec![plane(vector, false, DType::Bf16, 1)],
            Storage::Blocks8 => {
                vec![plane(vector, false, DType::U8, 1), plane(vector, true, DType::U8, SCALED)]
            }
        };
        self.rule.vectors().iter().flat_map(of).collect()
    }

    /// The state vectors of a slice, given the memory of each plane.
    pub fn stored(&self, plane: impl Fn(usize) -> DeviceSlice) -> [Stored; VECTORS_MAX] {
        let mut stored = [Stored::None; VECTORS_MAX];
        for (i, stored) in stored.iter_mut().take(self.rule.vectors().len()).enumerate() {
            *stored = match self.storage {
                Storage::F32 => Stored::F32(plane(i)),
                Storage::Bf16 => Stored::Bf16(plane(i)),
                Storage::Blocks8 => {
                    Stored::Blocks8 { codes: plane(2 * i), scales: plane(2 * i + 1) }
                }
            };
        }
        stored
    }
}

/// A state vector of a slice where it lies.
#[derive(Debug, Clone, Copy)]
pub enum Stored {
    /// There is none.
    None,
    /// Four bytes a value.
    F32(DeviceSlice),
    /// Two bytes a value.
    Bf16(DeviceSlice),
    /// [`Storage::Blocks8`].
    Blocks8 {
        /// `u8`: the values.
        codes: DeviceSlice,
        /// `u8`, one for [`SCALED`] values: the biased exponent of the largest one's magnitude.
        scales: DeviceSlice,
    },
}

/// Consecutive elements of the flat vectors that an update treats alike. All vectors have one
/// length.
#[derive(Debug, Clone, Copy)]
pub struct UpdateSlice {
    /// `f32`: the parameters, or their masters.
    pub weights: DeviceSlice,
    /// Where the masters are stored rounded, if parameters are narrow.
    pub rounded: Option<(DType, DeviceSlice)>,
    /// `f32`.
    pub gradient: DeviceSlice,
    /// State vectors.
    pub states: [Stored; VECTORS_MAX],
    /// Position in the flat vectors, for the fingerprint and for random numbers.
    pub first_element: u64,
    /// The run's seed.
    pub seed: u64,
}

/// The random numbers that narrow state vectors are rounded with. Of the word of (update, 0,
/// element) the first vector takes the low half, the second the high one.
pub const fn rounding(seed: u64) -> RandomStream {
    RandomStream { seed, site: Site::new("optimizer") }
}
