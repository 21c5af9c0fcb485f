//! What a run's numbers come from besides its configuration: program, instructions, libraries.
//!
//! Bits are promised for one build. Another one is no reason to refuse a resume, though: whoever
//! has built a program again wants to go on, every test holds old and new builds to the same
//! references, and a refusal would only teach people to pass `--accept-new-numerics` always, which
//! also accepts another data set. So these facts stand in the manifest beside the identity, and a
//! resume that finds others says so, in the log, where somebody who looks for the step at which two
//! runs part finds it. What is known to change numbers is part of the identity and refused.

use std::collections::BTreeMap;

use octet_kernels::cpu::isa::Isa;

/// The facts of this process, by name.
pub fn here() -> BTreeMap<String, String> {
    let facts = [
        ("the program", program()),
        ("the instruction set", format!("{} {}", std::env::consts::ARCH, Isa::detect())),
        ("the C library", c_library()),
    ];
    facts.map(|(name, value)| (name.to_owned(), value)).into()
}

/// Version, and the hash of the file that runs: builds of the same version differ.
fn program() -> String {
    let version = env!("CARGO_PKG_VERSION");
    // Linux keeps the file of a running program, even if another has taken its name.
    let Ok(bytes) = std::fs::read("/proc/self/exe") else { return format!("octet {version}") };
    format!("octet {version} ({})", &blake3::hash(&bytes).to_hex()[..16])
}

#[cfg(target_env = "gnu")]
fn c_library() -> String {
    // SAFETY: gives a static C string.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    format!("glibc {}", version.to_string_lossy())
}

#[cfg(not(target_env = "gnu"))]
fn c_library() -> String {
    "part of the program".to_owned()
}

#[cfg(test)]
mod tests;
