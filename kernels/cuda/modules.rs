//! Our kernels, loaded into one context, and how they are launched.
//!
//! All modules are loaded when a device is opened: loading one later would wait for the device,
//! which may wait for a rank that waits for this one.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{
    CUfunction, CUfunction_attribute_enum as FunctionAttribute, CUmodule, CUstream,
};

use crate::cuda::context::{Context, address};
use crate::cuda::images::{Images, Module};
use crate::error::{Error, Result};
use crate::operands::Value;

/// What a launch is, once it is known where operands lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Launch<'a> {
    pub(super) module: &'static str,
    pub(super) function: &'a str,
    pub(super) blocks: [u32; 3],
    /// Of a block.
    pub(super) threads: u32,
    pub(super) shared_bytes: u32,
}

/// More shared memory than this must be asked for.
const SHARED_BYTES: u32 = 48 << 10;

/// The modules of a context.
pub(super) struct Modules {
    context: Arc<Context>,
    loaded: HashMap<&'static str, CUmodule>,
    /// By module and name.
    functions: Mutex<HashMap<(&'static str, String), CUfunction>>,
}

// SAFETY: handles of the driver, which may be used by any thread.
unsafe impl Send for Modules {}
// SAFETY: as above; what changes has a lock.
unsafe impl Sync for Modules {}

impl Modules {
    /// Loads all of them.
    pub(super) fn load(context: Arc<Context>, images: &Images) -> Result<Self> {
        let mut loaded = HashMap::new();
        for module in Module::all() {
            // A stand-in has no use for code; that there is some is what other tests see to.
            let image = match context.driver.is_stand_in {
                true => format!("{}\0", module.source).into_bytes().into(),
                false => images.of(module)?,
            };
            let mut handle = null_mut();
            let load = context.driver.functions.module_load;
            // SAFETY: an image for this device; PTX ends in a zero byte, a cubin knows its length.
            let status = unsafe { load(&raw mut handle, image.as_ptr().cast()) };
            let done = context.driver.check("cuModuleLoadData", status);
            done.map_err(|error| error.within(&format!("kernels of {}", module.name)))?;
            loaded.insert(module.name, handle);
        }
        Ok(Self { context, loaded, functions: Mutex::default() })
    }

    /// Launches a function on a stream. A `table` is its last parameter, by value, if there is one.
    ///
    /// # Safety
    /// The values are what the function's parameters want, in memory that it may use.
    pub(super) unsafe fn launch(
        &self,
        stream: CUstream,
        launch: &Launch<'_>,
        (values, table): (&[Value], &[u64]),
    ) -> Result<()> {
        // A grid without blocks is no launch, and the driver would refuse it.
        if launch.blocks.contains(&0) {
            return Ok(());
        }
        let Some(function) = self.function(launch)? else { return Ok(()) };
        let mut words = Vec::with_capacity(values.len());
        for value in values {
            words.push(match value {
                Value::Address(memory) => memory.map_or(0, address),
                Value::Word(word) => u64::from(*word),
                Value::Long(long) => *long,
                Value::TensorMap(..) => {
                    let what = format!("{}: tensor maps are not built yet", launch.function);
                    return Err(Error::Device(what));
                }
            });
        }
        // On a machine whose low bytes come first, a word's address is that of its low half.
        let mut parameters: Vec<*mut c_void> =
            words.iter_mut().map(|word| (word as *mut u64).cast()).collect();
        if !table.is_empty() {
            parameters.push(table.as_ptr().cast_mut().cast());
        }
        let [x, y, z] = launch.blocks;
        let (threads, shared) = (launch.threads, launch.shared_bytes);
        let start = self.context.driver.functions.launch;
        let parameters = parameters.as_mut_ptr();
        // SAFETY: the caller vouches for the parameters, which are copied in the call.
        let status = unsafe {
            start(function, x, y, z, threads, 1, 1, shared, stream, parameters, null_mut())
        };
        let done = self.context.driver.check("cuLaunchKernel", status);
        done.map_err(|error| error.within(launch.function))
    }

    /// `None`: a stand-in needs no kernels, and not all of them are written yet.
    fn function(&self, launch: &Launch<'_>) -> Result<Option<CUfunction>> {
        let mut known = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (launch.module, launch.function.to_string());
        if let Some(function) = known.get(&key) {
            return Ok(Some(*function));
        }
        let Some(module) = self.loaded.get(launch.module) else {
            let absent = format!("this build has no kernels of {}", launch.module);
            let pretends = self.context.driver.is_stand_in;
            return if pretends { Ok(None) } else { Err(Error::Device(absent)) };
        };
        let (mut function, functions) = (null_mut(), &self.context.driver.functions);
        let name = CString::new(launch.function).expect("a name has no zero byte");
        // SAFETY: the module is loaded; writes one handle that lives longer than the call.
        let status =
            unsafe { (functions.module_function)(&raw mut function, *module, name.as_ptr()) };
        let done = self.context.driver.check("cuModuleGetFunction", status);
        done.map_err(|error| error.within(launch.function))?;
        if launch.shared_bytes > SHARED_BYTES {
            let most = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: a function of a loaded module.
            let status =
                unsafe { (functions.function_set)(function, most, launch.shared_bytes as i32) };
            let done = self.context.driver.check("cuFuncSetAttribute", status);
            done.map_err(|error| error.within(launch.function))?;
        }
        known.insert(key, function);
        Ok(Some(function))
    }
}
