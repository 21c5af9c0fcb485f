//! Shared libraries that tests make with the machine's C++ compiler, and tests that cannot run.
//!
//! Not part of a run. Public so that the other packages' tests can use it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where this is set, a test that skips fails: continuous integration runs everything.
pub const NO_SKIPS: &str = "OCTET_NO_SKIPS";

/// Says that a test does not run and why, past the capture of what tests print. Panics where
/// [`NO_SKIPS`] is set.
pub fn skip(test: &str, why: &str) {
    assert!(std::env::var_os(NO_SKIPS).is_none(), "{test} must not skip: {why}");
    drop(writeln!(std::io::stderr(), "SKIPPED {test}: {why}"));
}

/// Makes a shared library of C++ sources; `None`, said aloud, where there is no compiler. Panics if
/// the compiler refuses them.
pub fn shared_library(test: &str, sources: &[&Path], output: &Path) -> Option<PathBuf> {
    let mut compiler = Command::new("g++");
    compiler.args(["-std=c++17", "-O1", "-g", "-shared", "-fPIC", "-pthread", "-Wall", "-Werror"]);
    // As NVIDIA's are named: two of one name are two libraries only because paths say so.
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    compiler.arg(format!("-Wl,-soname,{name}")).args(sources).arg("-o").arg(output);
    match compiler.output() {
        Err(error) => {
            skip(test, &format!("g++ does not start: {error}"));
            None
        }
        Ok(done) => {
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "g++ of {}:\n{said}", output.display());
            Some(output.to_owned())
        }
    }
}
