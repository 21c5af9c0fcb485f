//! The driver: its functions, and the GPUs that it shows.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::fmt;

use cudarc::driver::sys::{CUdevice, CUdevice_attribute as Attribute};

use crate::cuda::find::{Found, Kind, Search, Version};
use crate::cuda::library::functions;
use crate::error::{Error, Result};

/// `CUresult`: 0, or the number of an error.
type Status = c_uint;

functions! {
    /// What is used of `libcuda`.
    pub(crate) struct Functions {
        initialise: c"cuInit" (c_uint) -> Status;
        error_name: c"cuGetErrorName" (Status, *mut *const c_char) -> Status;
        error_text: c"cuGetErrorString" (Status, *mut *const c_char) -> Status;
        device_count: c"cuDeviceGetCount" (*mut c_int) -> Status;
        device: c"cuDeviceGet" (*mut CUdevice, c_int) -> Status;
        device_name: c"cuDeviceGetName" (*mut c_char, c_int, CUdevice) -> Status;
        device_memory: c"cuDeviceTotalMem_v2" (*mut usize, CUdevice) -> Status;
        device_attribute: c"cuDeviceGetAttribute" (*mut c_int, Attribute, CUdevice) -> Status;
    }
}

/// A GPU as its driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// As NVIDIA sells it.
    pub name: String,
    /// Compute capability, major and minor.
    pub architecture: [u32; 2],
    /// How many blocks of threads compute at once, at least.
    pub multiprocessors: u32,
    /// Shared memory that one block can have.
    pub shared_bytes: u32,
    /// All of it, whoever uses it.
    pub memory_bytes: usize,
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor] = self.architecture;
        let gib = self.memory_bytes as f64 / f64::from(1 << 30);
        write!(f, "{}, {gib:.1} GiB, sm_{major}{minor}", self.name)
    }
}

/// The driver, ready for use.
#[derive(Debug, Clone)]
pub struct Driver {
    pub(crate) functions: Functions,
    /// Of CUDA.
    pub version: Version,
}

impl Driver {
    /// Finds and initialises it.
    ///
    /// # Errors
    /// [`Error::Device`] if there is none that will do, or no GPU that it can use.
    pub fn open(search: &Search) -> Result<Self> {
        let found = search.newest(Kind::Driver, None).map_err(Error::Device)?;
        let Found { library, path, version } = found;
        let at = |why: String| Error::Device(format!("{why}: {version} at {}", path.display()));
        let driver = Self { functions: Functions::of(library).map_err(at)?, version };
        // SAFETY: the flags must be 0.
        let status = unsafe { (driver.functions.initialise)(0) };
        driver.check("cuInit", status).map_err(|error| at(error.to_string()))?;
        Ok(driver)
    }

    /// All GPUs, in the driver's order.
    ///
    /// # Errors
    /// [`Error::Device`] if the driver does not say.
    pub fn cards(&self) -> Result<Vec<Card>> {
        let mut count = 0;
        // SAFETY: writes one integer that lives longer than the call.
        self.check("cuDeviceGetCount", unsafe { (self.functions.device_count)(&raw mut count) })?;
        (0..count).map(|ordinal| self.card(ordinal)).collect()
    }

    fn card(&self, ordinal: c_int) -> Result<Card> {
        let mut device = 0;
        // SAFETY: writes one integer that lives longer than the call.
        let status = unsafe { (self.functions.device)(&raw mut device, ordinal) };
        self.check("cuDeviceGet", status)?;
        let mut name = [0; 256];
        // SAFETY: writes at most so many bytes, the last of them zero.
        let status =
            unsafe { (self.functions.device_name)(name.as_mut_ptr(), name.len() as c_int, device) };
        self.check("cuDeviceGetName", status)?;
        let mut memory_bytes = 0;
        // SAFETY: writes one integer that lives longer than the call.
        let status = unsafe { (self.functions.device_memory)(&raw mut memory_bytes, device) };
        self.check("cuDeviceTotalMem", status)?;
        let attribute = |which| -> Result<u32> {
            let mut value = 0;
            // SAFETY: as above.
            let status =
                unsafe { (self.functions.device_attribute)(&raw mut value, which, device) };
            self.check("cuDeviceGetAttribute", status)?;
            Ok(value.unsigned_abs())
        };
        Ok(Card {
            // SAFETY: the driver ended it in a zero byte.
            name: unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned(),
            architecture: [
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ],
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared_bytes: attribute(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )?,
            memory_bytes,
        })
    }

    /// An error's name and what the driver says of it, unless there is none.
    pub(crate) fn check(&self, call: &str, status: Status) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        let text = |ask: unsafe extern "C" fn(Status, *mut *const c_char) -> Status| {
            let mut text = std::ptr::null();
            // SAFETY: writes one address: null, or of a constant of the driver.
            unsafe { ask(status, &raw mut text) };
            let known = !text.is_null();
            // SAFETY: as above.
            known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        };
        let name = text(self.functions.error_name).unwrap_or_else(|| format!("error {status}"));
        let what =
            text(self.functions.error_text).map_or(String::new(), |text| format!(" ({text})"));
        Err(Error::Device(format!("{call}: {name}{what}")))
    }
}
