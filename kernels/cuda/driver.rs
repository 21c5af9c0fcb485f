//! The driver: its functions, and the GPUs that it shows.

use std::ffi::{CStr, c_char, c_int, c_uchar, c_uint, c_void};
use std::fmt;

use cudarc::driver::sys::{
    CUcontext, CUdevice, CUdevice_attribute as Attribute, CUdeviceptr, CUevent, CUfunction,
    CUfunction_attribute, CUmodule, CUstream,
};

use crate::cuda::find::{Found, Kind, Search, Version};
use crate::cuda::library::functions;
use crate::error::{Error, Result};
use crate::graph::target::{self, Gpu};

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
        retain: c"cuDevicePrimaryCtxRetain" (*mut CUcontext, CUdevice) -> Status;
        release: c"cuDevicePrimaryCtxRelease_v2" (CUdevice) -> Status;
        set_current: c"cuCtxSetCurrent" (CUcontext) -> Status;
        push: c"cuCtxPushCurrent_v2" (CUcontext) -> Status;
        pop: c"cuCtxPopCurrent_v2" (*mut CUcontext) -> Status;
        synchronize: c"cuCtxSynchronize" () -> Status;
        memory: c"cuMemGetInfo_v2" (*mut usize, *mut usize) -> Status;
        allocate: c"cuMemAlloc_v2" (*mut CUdeviceptr, usize) -> Status;
        free: c"cuMemFree_v2" (CUdeviceptr) -> Status;
        host_allocate: c"cuMemHostAlloc" (*mut *mut c_void, usize, c_uint) -> Status;
        host_free: c"cuMemFreeHost" (*mut c_void) -> Status;
        host_register: c"cuMemHostRegister_v2" (*mut c_void, usize, c_uint) -> Status;
        host_unregister: c"cuMemHostUnregister" (*mut c_void) -> Status;
        copy_in: c"cuMemcpyHtoDAsync_v2" (CUdeviceptr, *const c_void, usize, CUstream) -> Status;
        copy_out: c"cuMemcpyDtoHAsync_v2" (*mut c_void, CUdeviceptr, usize, CUstream) -> Status;
        copy: c"cuMemcpyDtoDAsync_v2" (CUdeviceptr, CUdeviceptr, usize, CUstream) -> Status;
        copy_between: c"cuMemcpyPeerAsync" (
            CUdeviceptr, CUcontext, CUdeviceptr, CUcontext, usize, CUstream,
        ) -> Status;
        enable_peer: c"cuCtxEnablePeerAccess" (CUcontext, c_uint) -> Status;
        clear: c"cuMemsetD8Async" (CUdeviceptr, c_uchar, usize, CUstream) -> Status;
        write: c"cuStreamWriteValue64_v2" (CUstream, CUdeviceptr, u64, c_uint) -> Status;
        stream_create: c"cuStreamCreateWithPriority" (*mut CUstream, c_uint, c_int) -> Status;
        stream_destroy: c"cuStreamDestroy_v2" (CUstream) -> Status;
        stream_wait: c"cuStreamWaitEvent" (CUstream, CUevent, c_uint) -> Status;
        event_create: c"cuEventCreate" (*mut CUevent, c_uint) -> Status;
        event_destroy: c"cuEventDestroy_v2" (CUevent) -> Status;
        event_record: c"cuEventRecord" (CUevent, CUstream) -> Status;
        event_query: c"cuEventQuery" (CUevent) -> Status;
        event_synchronize: c"cuEventSynchronize" (CUevent) -> Status;
        event_elapsed: c"cuEventElapsedTime" (*mut f32, CUevent, CUevent) -> Status;
        module_load: c"cuModuleLoadData" (*mut CUmodule, *const c_void) -> Status;
        module_function: c"cuModuleGetFunction" (
            *mut CUfunction, CUmodule, *const c_char,
        ) -> Status;
        function_set: c"cuFuncSetAttribute" (CUfunction, CUfunction_attribute, c_int) -> Status;
        launch: c"cuLaunchKernel" (
            CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream,
            *mut *mut c_void, *mut *mut c_void,
        ) -> Status;
        host_function: c"cuLaunchHostFunc" (
            CUstream, Option<unsafe extern "C" fn(*mut c_void)>, *mut c_void,
        ) -> Status;
    }
}

/// How many ranks may share a GPU, by default one: to try several where there is one.
const SHARED: &str = "OCTET_RANKS_PER_GPU";

/// How many ranks a machine with so many GPUs has at most.
pub fn ranks_max(gpus: usize) -> usize {
    let each = std::env::var(SHARED).ok().and_then(|each| each.parse().ok());
    gpus * each.unwrap_or(1usize).max(1)
}

/// What a stand-in for the driver has and the driver has not: it launches nothing itself, and is
/// given each node's work on the host behind its launches.
const STAND_IN: &CStr = c"octetStandIn";

/// `CUDA_SUCCESS` and the errors that are told apart.
mod status {
    pub(super) const OUT_OF_MEMORY: u32 = 2;
    pub(super) const NOT_READY: u32 = 600;
    /// A context that is unusable from then on, while another process may use the device: an
    /// address or an instruction that a kernel must not use, an assertion, a launch that failed or
    /// took too long.
    pub(super) const STICKY: [u32; 9] = [700, 702, 709, 710, 714, 715, 716, 717, 719];
    /// A device that is gone, or whose memory or links fail.
    pub(super) const LOST: [u32; 7] = [46, 100, 101, 214, 220, 226, 999];
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

impl Card {
    /// What programs are planned for on such a card: the data sheet of its name, or else of the
    /// nearest architecture, with what this one has.
    pub fn gpu(&self) -> Gpu {
        let name = self.name.to_lowercase().replace(' ', "");
        let named = Gpu::PRESETS.into_iter().find(|gpu| name.contains(gpu.name));
        let near = match self.architecture {
            [..=7, _] | [8, 0] => &target::A100,
            [8, _] => &target::RTX_4090,
            [9, _] => &target::H100,
            _ => &target::B200,
        };
        let sheet = named.unwrap_or(near);
        Gpu {
            name: named.map_or_else(|| &*Box::leak(name.into_boxed_str()), |gpu| gpu.name),
            architecture: self.architecture,
            multiprocessors: self.multiprocessors,
            shared_bytes: self.shared_bytes,
            memory_bytes: self.memory_bytes,
            ..*sheet
        }
    }
}

/// The driver, ready for use.
#[derive(Debug, Clone)]
pub struct Driver {
    pub(crate) functions: Functions,
    /// Of CUDA.
    pub version: Version,
    /// Whether it is a stand-in, as tests have it: what a GPU is asked for, the host computes.
    pub is_stand_in: bool,
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
        let is_stand_in = library.function(STAND_IN).is_some();
        let driver = Self { functions: Functions::of(library).map_err(at)?, version, is_stand_in };
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

    pub(crate) fn card(&self, ordinal: c_int) -> Result<Card> {
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

    /// What became of a call: nothing, or what the driver says of the error.
    ///
    /// # Errors
    /// The kind of [`Error`] that says what is left to do.
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
        let more = text(self.functions.error_text).map(|text| format!(" ({text})"));
        let what = format!("{call}: {name}{}", more.unwrap_or_default());
        Err(match status {
            status::OUT_OF_MEMORY => Error::OutOfMemory(what),
            status if status::STICKY.contains(&status) => Error::Broken(what),
            status if status::LOST.contains(&status) => Error::Lost(what),
            _ => Error::Device(what),
        })
    }

    /// What became of a question: yes, not yet, or an error.
    pub(crate) fn is_ready(&self, call: &str, status: Status) -> Result<bool> {
        if status == status::NOT_READY {
            return Ok(false);
        }
        self.check(call, status).map(|()| true)
    }
}
