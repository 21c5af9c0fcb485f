//! Pretended GPUs: a driver that tests make with the machine's C++ compiler. And tests that cannot
//! run.
//!
//! Not part of a run. Public so that the other packages' tests can use it.

use std::ffi::{CString, c_char};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cuda::device;
use crate::cuda::find::{SETTING, Search};
use crate::cuda::library::Library;
use crate::device::{Open, Products};
use crate::error::Result;

/// How long a rank waits for its peers in a test.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The source of the stand-in for the driver.
const DRIVER: &str = include_str!("stand_in/driver.cpp");

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

/// A machine with pretended GPUs: a driver of its own, that knows nothing of others.
pub struct Pretended {
    /// Where the driver lies, for [`SETTING`].
    pub folder: PathBuf,
    control: unsafe extern "C" fn(*const c_char, *const c_char) -> u64,
}

impl Pretended {
    /// A machine with these settings (`stand_in/driver.cpp` has them). `None`, said aloud, where
    /// there is no compiler. Panics if it cannot be made.
    pub fn new(test: &str, settings: &str) -> Option<Self> {
        static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
        static MADE: AtomicU64 = AtomicU64::new(0);
        let root = std::env::temp_dir().join(format!("octet-stand-in-{}", std::process::id()));
        let build = || {
            std::fs::create_dir_all(&root).expect("a folder for temporary files");
            let source = root.join("driver.cpp");
            std::fs::write(&source, DRIVER).expect("the stand-in's source");
            // Not by the name of NVIDIA's, which NVRTC would take it for.
            shared_library(test, &[&source], &root.join("stand-in.so"))
        };
        let built = BUILT.get_or_init(build).clone()?;
        // Another file is another library, with a state of its own.
        let folder = root.join(MADE.fetch_add(1, Ordering::Relaxed).to_string());
        let path = folder.join("libcuda.so.1");
        std::fs::create_dir_all(&folder).expect("a folder for temporary files");
        std::fs::copy(built, &path).expect("a copy of the stand-in");
        let library = Library::open(&path).expect("the stand-in");
        let control = library.function(c"octetStandIn").expect("the stand-in's own");
        // SAFETY: the function's signature in `stand_in/driver.cpp`.
        let control = unsafe {
            std::mem::transmute::<
                std::ptr::NonNull<std::ffi::c_void>,
                unsafe extern "C" fn(*const c_char, *const c_char) -> u64,
            >(control)
        };
        let this = Self { folder, control };
        this.set(settings);
        Some(this)
    }

    /// Settings for what comes.
    pub fn set(&self, settings: &str) {
        let settings = CString::new(settings).expect("settings without zero bytes");
        // SAFETY: the string ends in a zero byte and outlives the call; null asks for nothing.
        unsafe { (self.control)(settings.as_ptr(), std::ptr::null()) };
    }

    /// How often a function of the driver was called; `work`: pieces of work that have run.
    pub fn calls(&self, function: &str) -> u64 {
        let function = CString::new(function).expect("a name without zero bytes");
        // SAFETY: as above; null sets nothing.
        unsafe { (self.control)(std::ptr::null(), function.as_ptr()) }
    }

    /// The search that finds its driver and nothing else.
    pub fn search(&self) -> Search {
        let folder = self.folder.clone().into_os_string();
        Search::of_environment(&|name| (name == SETTING).then(|| folder.clone()))
    }

    /// Devices of so many ranks, a pretended GPU each.
    ///
    /// # Errors
    /// As of any machine.
    pub fn devices(&self, ranks: usize) -> Result<Vec<Open>> {
        device::open(self.search(), ranks, TIMEOUT, Products::Own)
    }
}

impl Drop for Pretended {
    fn drop(&mut self) {
        // The library stays loaded without its file.
        drop(std::fs::remove_dir_all(&self.folder));
    }
}
