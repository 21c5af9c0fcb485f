//! Which instructions the CPU has, and the macro that compiles one body for each of them.
//!
//! Bodies state every fma (`f32::mul_add`), so that each instruction set gives the same bits.

use std::fmt;
use std::sync::OnceLock;

/// Sets of instructions that code is compiled for, from the plainest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What the compiler's target always has. On x86-64 that has no fma instruction: slow.
    Plain,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, VL, BW and DQ.
    Avx512,
    /// AVX-512 with dot products of bf16 pairs.
    Avx512Bf16,
}

/// All of them.
const LEVELS: [Level; 4] = [Level::Plain, Level::Avx2, Level::Avx512, Level::Avx512Bf16];

/// A level that this CPU has: the proof that its instructions may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Isa(Level);

impl Isa {
    /// The best level; looked up once.
    pub fn detect() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Self::supported().last().unwrap_or(Isa(Level::Plain)))
    }

    /// All levels of this CPU, from the plainest.
    pub fn supported() -> impl Iterator<Item = Self> {
        LEVELS.into_iter().filter(|&level| has(level)).map(Self)
    }

    /// What a dispatched function is compiled for.
    pub const fn level(self) -> Level {
        self.0
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Level::Plain => "plain",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Avx512Bf16 => "avx512_bf16",
        })
    }
}

#[cfg(target_arch = "x86_64")]
fn has(level: Level) -> bool {
    match level {
        Level::Plain => true,
        Level::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        Level::Avx512Bf16 => has(Level::Avx512) && is_x86_feature_detected!("avx512bf16"),
        Level::Avx512 => {
            has(Level::Avx2)
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn has(level: Level) -> bool {
    level == Level::Plain
}

/// Compiles functions for every level; each gets a first argument `isa` that picks one.
///
/// Bodies may call only `#[inline(always)]` functions in their loops.
macro_rules! dispatch {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($($arg:ident: $kind:ty),* $(,)?) $(-> $result:ty)? $body:block
    )*) => {$(
        $(#[$meta])*
        $vis fn $name(isa: $crate::cpu::isa::Isa, $($arg: $kind),*) $(-> $result)? {
            #[inline(always)]
            fn body($($arg: $kind),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $kind),*) $(-> $result)? { body($($arg),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512bw,avx512dq")]
            fn avx512($($arg: $kind),*) $(-> $result)? { body($($arg),*) }
            match isa.level() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa` of this level exists only if the CPU has the features.
                $crate::cpu::isa::Level::Avx512 | $crate::cpu::isa::Level::Avx512Bf16 => unsafe {
                    avx512($($arg),*)
                },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::cpu::isa::Level::Avx2 => unsafe { avx2($($arg),*) },
                _ => body($($arg),*),
            }
        }
    )*};
}

pub(crate) use dispatch;
