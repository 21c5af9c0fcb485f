//! NVRTC: CUDA C++ to an image that a driver loads. The build script compiles with it too.
//!
//! Its `nvrtcResult` is an integer here, as every library's.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::null_mut;

use super::find::{Found, Version};
use super::library::functions;

#[cfg(test)]
mod tests;

/// What every kernel is compiled with: products and sums are fused where the source says so and
/// nowhere else, so that a GPU gives the CPU's bits.
pub(crate) const OPTIONS: [&str; 2] = ["--std=c++17", "--fmad=false"];

/// What images are made for before a GPU is known: code for the architectures of data centres, and
/// the intermediate form, which the driver translates on every other one since 8.0.
pub const TARGETS: [&str; 4] = ["sm_80", "sm_90a", "sm_100a", INTERMEDIATE];

/// PTX.
pub const INTERMEDIATE: &str = "compute_80";

type Program = *mut c_void;
type Status = c_int;

functions! {
    /// What is used of `libnvrtc`.
    struct Functions {
        error_text: c"nvrtcGetErrorString" (Status) -> *const c_char;
        architectures: c"nvrtcGetNumSupportedArchs" (*mut c_int) -> Status;
        list_architectures: c"nvrtcGetSupportedArchs" (*mut c_int) -> Status;
        create: c"nvrtcCreateProgram" (
            *mut Program, *const c_char, *const c_char, c_int, *const *const c_char,
            *const *const c_char,
        ) -> Status;
        destroy: c"nvrtcDestroyProgram" (*mut Program) -> Status;
        compile: c"nvrtcCompileProgram" (Program, c_int, *const *const c_char) -> Status;
        log_size: c"nvrtcGetProgramLogSize" (Program, *mut usize) -> Status;
        log: c"nvrtcGetProgramLog" (Program, *mut c_char) -> Status;
        cubin_size: c"nvrtcGetCUBINSize" (Program, *mut usize) -> Status;
        cubin: c"nvrtcGetCUBIN" (Program, *mut c_char) -> Status;
        ptx_size: c"nvrtcGetPTXSize" (Program, *mut usize) -> Status;
        ptx: c"nvrtcGetPTX" (Program, *mut c_char) -> Status;
    }
}

/// One file of kernels with the headers that it may include, all by name and text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source<'a> {
    /// Of the file, for errors.
    pub name: &'a str,
    /// CUDA C++.
    pub text: &'a str,
    /// By the name that it includes them by.
    pub headers: &'a [(&'a str, &'a str)],
}

/// An image and what the compiler had to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// A cubin, or PTX that ends in a zero byte.
    pub image: Vec<u8>,
    /// Warnings and what was asked for.
    pub log: String,
}

/// A compiler that was found.
#[derive(Debug, Clone, Copy)]
pub struct Compiler {
    functions: Functions,
    /// Part of what an image depends on.
    pub version: Version,
}

impl Compiler {
    /// Looks its functions up.
    ///
    /// # Errors
    /// The first that it lacks.
    pub fn new(found: &Found) -> Result<Self, String> {
        let functions = Functions::of(found.library)
            .map_err(|why| format!("{why}: {} at {}", found.version, found.path.display()))?;
        Ok(Self { functions, version: found.version })
    }

    /// Whether it compiles for GPUs of that architecture: an older one does not know the newest.
    pub fn knows(&self, [major, minor]: [u32; 2]) -> bool {
        let mut count = 0;
        // SAFETY: writes one integer that lives longer than the call.
        let status = unsafe { (self.functions.architectures)(&raw mut count) };
        let mut known = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: writes as many integers as it has just said.
        let listed = unsafe { (self.functions.list_architectures)(known.as_mut_ptr()) };
        status == 0 && listed == 0 && known.contains(&((10 * major + minor) as c_int))
    }

    /// Compiles for one of [`TARGETS`] or another `sm_`; `more` adds to [`OPTIONS`].
    ///
    /// # Errors
    /// The compiler's log.
    pub fn compile(
        &self,
        source: &Source<'_>,
        target: &str,
        more: &[&str],
    ) -> Result<Compiled, String> {
        let program = self.program(source)?;
        let architecture = format!("--gpu-architecture={target}");
        let options = [architecture.as_str()].into_iter().chain(OPTIONS);
        let options = options.chain(more.iter().copied()).map(terminated);
        let options = options.collect::<Result<Vec<_>, _>>()?;
        let addresses: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
        let count = addresses.len() as c_int;
        // SAFETY: the program is one of this library's, the options outlive the call.
        let status = unsafe { (self.functions.compile)(program.0, count, addresses.as_ptr()) };
        let functions = &self.functions;
        let log = program.bytes(functions.log_size, functions.log)?;
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_string();
        self.check(status).map_err(|why| format!("{} for {target}: {why}\n{log}", source.name))?;
        let image = match target.starts_with("compute_") {
            true => program.bytes(functions.ptx_size, functions.ptx)?,
            false => program.bytes(functions.cubin_size, functions.cubin)?,
        };
        Ok(Compiled { image, log })
    }

    fn program(&self, source: &Source<'_>) -> Result<Owned<'_>, String> {
        let (text, name) = (terminated(source.text)?, terminated(source.name)?);
        let pair = |(name, text): &(&str, &str)| Ok((terminated(name)?, terminated(text)?));
        let headers = source.headers.iter().map(pair).collect::<Result<Vec<_>, String>>()?;
        let names: Vec<_> = headers.iter().map(|(name, _)| name.as_ptr()).collect();
        let texts: Vec<_> = headers.iter().map(|(_, text)| text.as_ptr()).collect();
        let mut program = null_mut();
        // SAFETY: all strings end in zero bytes and outlive the call, which copies them; there are
        // as many names and texts of headers as it says.
        let status = unsafe {
            let (texts, names) = (texts.as_ptr(), names.as_ptr());
            let count = headers.len() as c_int;
            let create = self.functions.create;
            create(&raw mut program, text.as_ptr(), name.as_ptr(), count, texts, names)
        };
        self.check(status).map(|()| Owned(program, self))
    }

    fn check(&self, status: Status) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: answers any number with a constant string.
        let text = unsafe { (self.functions.error_text)(status) };
        if text.is_null() {
            return Err(format!("NVRTC: error {status}"));
        }
        // SAFETY: as above.
        Err(format!("NVRTC: {}", unsafe { CStr::from_ptr(text) }.to_string_lossy()))
    }
}

fn terminated(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| "a zero byte within a source".to_string())
}

/// A program of the compiler's, destroyed with this.
struct Owned<'a>(Program, &'a Compiler);

impl Owned<'_> {
    /// Something of the program that the compiler measures and then writes.
    fn bytes(
        &self,
        measure: unsafe extern "C" fn(Program, *mut usize) -> Status,
        write: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ) -> Result<Vec<u8>, String> {
        let mut size = 0;
        // SAFETY: the program is alive; writes one integer that lives longer than the call.
        self.1.check(unsafe { measure(self.0, &raw mut size) })?;
        let mut bytes = vec![0; size];
        // SAFETY: writes as many bytes as it has just said.
        self.1.check(unsafe { write(self.0, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        // SAFETY: made by this library and destroyed once. There is nobody to tell if that fails.
        unsafe { (self.1.functions.destroy)(&raw mut self.0) };
    }
}
