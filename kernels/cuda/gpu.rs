//! One GPU with our kernels: what a device and a communicator launch.

use std::sync::Arc;

use crate::cpu::CpuDevice;
use crate::cuda::blas::{Blas, Places};
use crate::cuda::cache::Cache;
use crate::cuda::context::{Context, address};
use crate::cuda::driver::Driver;
use crate::cuda::find::{Kind, Search};
use crate::cuda::host::Host;
use crate::cuda::images::Images;
use crate::cuda::modules::{Launch, Modules};
use crate::cuda::step::{StepKernel, THREADS};
use crate::device::Products;
use crate::error::{Error, Result};
use crate::launch::{self, Accumulate, Epilogue, Grid, Kernel, Matmul, Memory};
use crate::memory::DeviceSlice;
use crate::operands::{Operands, Value};
use crate::ops::{Stream, linear};
use crate::shape::Spec;

/// A context with our kernels loaded.
pub(crate) struct Gpu {
    /// What multiplies; without it, kernels of our own do. Dropped before its context.
    blas: Option<Blas>,
    pub(crate) context: Arc<Context>,
    modules: Modules,
    /// What computes if the driver is a stand-in.
    pub(super) host: Option<Host>,
}

impl Gpu {
    /// Opens the GPU of that number and loads everything; cuBLASLt too, if it is to multiply.
    pub(super) fn open(
        driver: Driver,
        search: Search,
        ordinal: usize,
        products: Products,
    ) -> Result<Self> {
        let host = driver.is_stand_in.then(Host::new);
        let context = Context::open(driver, ordinal)?;
        let version = context.driver.version;
        let blas = match products {
            Products::Own => None,
            Products::Library => {
                let found = search.newest(Kind::CublasLt, Some(version)).map_err(Error::Device)?;
                Some(Blas::open(&found)?)
            }
        };
        let images = Images::new(search, context.card.architecture, version, Cache::of_user());
        let modules = Modules::load(context.clone(), &images)?;
        Ok(Self { context, modules, blas, host })
    }

    /// Zeros when compute comes to it.
    ///
    /// # Safety
    /// Of [`crate::device::Device::clear`].
    pub(super) unsafe fn clear(&self, slice: DeviceSlice) -> Result<()> {
        let stream = self.context.stream(Stream::Compute);
        let clear = self.context.driver.functions.clear;
        if slice.bytes() == 0 {
            return Ok(());
        }
        // SAFETY: the caller vouches for it.
        let status = unsafe { clear(address(slice), 0, slice.bytes(), stream) };
        self.context.driver.check("cuMemsetD8Async", status)
    }

    /// What one node asks for.
    ///
    /// # Safety
    /// Of [`crate::device::Device::run`].
    pub(super) unsafe fn node(&self, operands: &Operands<'_>) -> Result<()> {
        let op = operands.node.op.name();
        let Some(launches) = &operands.node.launches else {
            // A stand-in's host computes it, whatever a GPU has for it.
            if self.host.is_some() {
                return Ok(());
            }
            let path = &operands.node.path;
            return Err(Error::Plan(format!("{op} at {path} has no GPU form yet")));
        };
        for one in &launches.list {
            match one {
                // SAFETY: the launch is of this node, whose operands the caller vouches for.
                launch::Launch::Kernel(kernel) => unsafe { self.kernel(kernel, operands) }?,
                launch::Launch::Zero(memory) => {
                    // SAFETY: as above.
                    unsafe { self.clear(operands.memory(*memory)) }?;
                }
                launch::Launch::Copy { from, to } => {
                    let (from, to) = (operands.memory(*from), operands.memory(*to));
                    // SAFETY: as above.
                    unsafe { self.context.copy(Stream::Compute, from, to) }?;
                }
                launch::Launch::Matmul(product) => {
                    // SAFETY: as above.
                    unsafe { self.product(product, operands) }?;
                }
            }
        }
        Ok(())
    }

    /// By the library if it offers it, else by a kernel of our own.
    ///
    /// # Safety
    /// Of [`crate::device::Device::run`].
    unsafe fn product(&self, product: &Matmul, operands: &Operands<'_>) -> Result<()> {
        if let Some(blas) = &self.blas {
            let at = |memory: Memory| operands.memory(memory);
            let (bias, keeps) = match product.epilogue {
                Epilogue::None => (None, None),
                Epilogue::Bias(bias) => (Some(bias), None),
                Epilogue::Activation { bias, keeps, .. } => (bias, keeps),
            };
            let places = Places {
                a: at(product.a.memory),
                b: at(product.b.memory),
                c: at(product.c),
                bias: bias.map(at),
                keeps: keeps.map(at),
                workspace: operands.libraries(),
                adds: match product.accumulate {
                    Accumulate::Never => false,
                    Accumulate::Always => true,
                    Accumulate::As(output) => operands.accumulate(output),
                },
            };
            let stream = self.context.stream(Stream::Compute);
            // SAFETY: the caller vouches for the memory.
            if unsafe { blas.multiply(stream, product, &places) }? {
                return Ok(());
            }
        }
        let Some(kernel) = linear::cuda::kernel(product) else {
            let (op, key) = (operands.node.op.name(), product.key());
            return Err(Error::Plan(format!("{op}: no kernel for a product of {key}")));
        };
        // SAFETY: as above.
        unsafe { self.kernel(&kernel, operands) }
    }

    /// # Safety
    /// Of [`crate::device::Device::run`].
    unsafe fn kernel(&self, kernel: &Kernel, operands: &Operands<'_>) -> Result<()> {
        let rows = |of: Memory| match of {
            Memory::Rows { count, .. } => count as usize,
            _ => operands.spec_of(of).map_or(0, Spec::leading),
        };
        let blocks = match kernel.grid {
            Grid::Fixed(blocks) => blocks,
            Grid::Rows { of, each } => [rows(of).div_ceil(each.max(1) as usize) as u32, 1, 1],
        };
        let values: Vec<Value> = kernel.arguments.iter().map(|a| operands.value(a)).collect();
        let launch = Launch {
            module: kernel.module,
            function: &kernel.function,
            blocks,
            threads: kernel.block,
            shared_bytes: kernel.shared_bytes,
        };
        // SAFETY: the op says that these are the function's parameters.
        unsafe {
            self.modules.launch(
                self.context.stream(Stream::Compute),
                &launch,
                (&values, &kernel.table),
            )
        }
    }

    /// Kernels that no op asks for, and what computes them on a stand-in.
    ///
    /// # Safety
    /// The values are what the functions' parameters want, in memory that they may use.
    pub(crate) unsafe fn step(
        &self,
        stream: Stream,
        kernels: &[StepKernel],
        on_a_cpu: impl FnOnce(&CpuDevice) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        for kernel in kernels {
            let launch = Launch {
                module: kernel.module,
                function: &kernel.function,
                blocks: [kernel.blocks as u32, 1, 1],
                threads: THREADS,
                shared_bytes: 0,
            };
            let parameters = (&kernel.values[..], &kernel.table[..]);
            // SAFETY: the caller vouches for it.
            unsafe { self.modules.launch(self.context.stream(stream), &launch, parameters) }?;
        }
        match &self.host {
            Some(host) => host.push(&self.context, stream, on_a_cpu),
            None => Ok(()),
        }
    }
}
