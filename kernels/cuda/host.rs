//! How a device computes whose driver is a stand-in: behind the launches of a node comes its CPU
//! run, as work of the host in the order of the stream. For tests; a real driver never gets here.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use crate::cpu::{CpuDevice, CpuRun};
use crate::cuda::context::Context;
use crate::error::{Error, Result};
use crate::graph::{Bindings, Program, RunContext};
use crate::memory::{DeviceSlice, HostMemory};
use crate::operands::Operands;
use crate::ops::Stream;

type Work = Box<dyn FnOnce() + Send>;

/// A CPU that computes when a stream comes to it.
pub(super) struct Host {
    cpu: Arc<Mutex<CpuDevice>>,
    /// Of earlier work, as for every call.
    failed: Arc<Mutex<Option<Error>>>,
}

impl Host {
    pub(super) fn new() -> Self {
        Self { cpu: Arc::new(Mutex::new(CpuDevice::new(1))), failed: Arc::default() }
    }

    /// What became of the work so far.
    pub(super) fn failure(&self) -> Result<()> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.clone().map_or(Ok(()), Err)
    }

    /// Gives work to a stream.
    ///
    /// # Errors
    /// Of earlier work.
    pub(super) fn push(
        &self,
        context: &Context,
        stream: Stream,
        work: impl FnOnce(&CpuDevice) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        self.failure()?;
        let (cpu, failed) = (self.cpu.clone(), self.failed.clone());
        let work: Work = Box::new(move || {
            let cpu = cpu.lock().unwrap_or_else(PoisonError::into_inner);
            let done = catch_unwind(AssertUnwindSafe(|| work(&cpu)));
            let done = done.unwrap_or_else(|_| Err(Error::Broken("a kernel panicked".to_string())));
            if let Err(error) = done {
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        });
        let data = Box::into_raw(Box::new(work)).cast::<c_void>();
        let start = context.driver.functions.host_function;
        // SAFETY: `run` gets `data` once, or never if the stream breaks first.
        let status = unsafe { start(context.stream(stream), Some(run), data) };
        context.driver.check("cuLaunchHostFunc", status)
    }

    /// The CPU's run of one node.
    ///
    /// # Safety
    /// Of [`crate::device::Device::run`]; the program lives until the stream has passed.
    pub(super) unsafe fn push_node(
        &self,
        context: &Context,
        program: &Program,
        bindings: &Bindings<'_>,
        run: &RunContext<'_>,
        node: usize,
    ) -> Result<()> {
        // SAFETY: the caller vouches for it.
        let program: &'static Program = unsafe { &*std::ptr::from_ref(program) };
        let (parameters, gradients) = (bindings.parameters.to_vec(), bindings.gradients.to_vec());
        let rest: Bindings<'static> = Bindings { parameters: &[], gradients: &[], ..*bindings };
        let (seed, slice, first) = (run.seed, run.slice, run.first_in_lane.to_vec());
        let (mut node, bytes) = program.on_a_cpu(node)?;
        self.push(context, Stream::Compute, move |cpu| {
            let scratch = HostMemory::zeroed(bytes)?;
            // SAFETY: so many bytes, which nobody else has.
            let whole = unsafe { std::slice::from_raw_parts_mut(scratch.base(), bytes) };
            node.elsewhere = Some(DeviceSlice::from_host(whole));
            let bindings = Bindings { parameters: &parameters, gradients: &gradients, ..rest };
            let context = RunContext { seed, slice, first_in_lane: &first, communicator: None };
            let operands =
                Operands { program, node: &node, bindings: &bindings, context: &context };
            CpuRun::execute(operands, cpu)
        })
    }
}

/// What the stand-in calls.
///
/// # Safety
/// `data` is what [`Host::push`] gave away, once.
unsafe extern "C" fn run(data: *mut c_void) {
    // SAFETY: see above.
    let work = unsafe { Box::from_raw(data.cast::<Work>()) };
    work();
}
