//! What an op sees while it runs on the CPU: its operands as slices, its scratch, its random
//! stream.
//!
//! Narrow floats (bf16, f16) are widened to `F32` scratch before the op and rounded when it is
//! done, so every op computes in `F32` and stores what the tensor's dtype says, where the GPU would
//! store.

use std::cell::{Cell, RefMut};
use std::ops::Deref;

use bytemuck::Pod;

use crate::collectives::Communicator;
use crate::cpu::CpuDevice;
use crate::cpu::gemm::Floats;
use crate::cpu::widen::{round, widen};
use crate::device::RunArguments;
use crate::dtype::{DType, Precision};
use crate::error::{Error, Result};
use crate::memory::DeviceSlice;
use crate::operands::Operands;
use crate::shape::Spec;

/// One node being run on the CPU: its operands, with memory.
pub struct CpuRun<'a> {
    operands: Operands<'a>,
    device: &'a CpuDevice,
    /// Bit `i`: output `i` was handed out. Each may be taken once, so no two `&mut` alias.
    taken: Cell<u32>,
}

impl<'a> Deref for CpuRun<'a> {
    type Target = Operands<'a>;

    fn deref(&self) -> &Operands<'a> {
        &self.operands
    }
}

impl<'a> CpuRun<'a> {
    pub(crate) fn execute(operands: Operands<'a>, device: &'a CpuDevice) -> Result<()> {
        let run = Self { operands, device, taken: Cell::new(0) };
        for i in 0..run.inputs() {
            run.widen(run.stored_input(i), run.wide(run.input_spec(i), i), run.input_spec(i));
        }
        for i in 0..run.outputs() {
            // An old content that is dead as a whole need not be brought.
            if run.reads_output(i) {
                let wide = run.wide_output(i);
                run.widen(run.stored_output(i), wide, run.output_spec(i));
            }
        }
        run.node.op.run_cpu(&run)?;
        for i in 0..run.outputs() {
            let (wide, spec) = (run.wide_output(i), run.output_spec(i));
            if let Some(wide) = wide {
                // SAFETY: scratch and stored output are ranges of this node, apart from each
                // other; the op is done with its slices.
                unsafe { round(device, spec.dtype, wide.as_slice(), run.stored_output(i)) };
            }
        }
        Ok(())
    }

    /// The device: its threads and packing scratch.
    pub fn device(&self) -> &'a CpuDevice {
        self.device
    }

    /// To what an op rounds the operands of a linear layer's products.
    pub fn matmul(&self) -> Precision {
        self.node.matmul
    }

    /// Input `i`, its whole capacity. `T` is `f32` for every narrow float that is not read as it is
    /// stored.
    pub fn input<T: Pod>(&self, i: usize) -> &'a [T] {
        let slice = self.wide(self.input_spec(i), i).unwrap_or_else(|| self.stored_input(i));
        // SAFETY: the plan keeps a node's inputs alive, and apart from its outputs; nobody else
        // runs on this arena while the node does.
        unsafe { slice.as_slice() }
    }

    /// Input `i`, its whole capacity, as it is stored if the op reads it so.
    pub fn floats(&self, i: usize) -> Floats<'a> {
        if self.input_spec(i).dtype != DType::Bf16 || self.wide(self.input_spec(i), i).is_some() {
            return Floats::F32(self.input(i));
        }
        // SAFETY: as for `input`.
        Floats::Bf16(unsafe { self.stored_input(i).as_slice() })
    }

    /// Output `i`, its whole capacity, with its old content if that is not dead. Each output can be
    /// taken once.
    pub fn output<T: Pod>(&self, i: usize) -> &'a mut [T] {
        let bit = 1 << i;
        assert_eq!(self.taken.get() & bit, 0, "output {i} taken twice");
        self.taken.set(self.taken.get() | bit);
        let slice = self.wide_output(i).unwrap_or_else(|| self.stored_output(i));
        // SAFETY: as for inputs, and `taken` rules out a second `&mut`.
        unsafe { slice.as_mut_slice() }
    }

    /// Live steps of the leading dimension of input `i`: the extent, at most the capacity.
    pub fn live_input(&self, i: usize) -> usize {
        self.live(self.input_spec(i))
    }

    /// Live steps of the leading dimension of output `i`.
    pub fn live_output(&self, i: usize) -> usize {
        self.live(self.output_spec(i))
    }

    /// The op's scratch, with whatever an earlier node left there.
    pub fn workspace<T: Pod>(&self) -> &'a mut [T] {
        assert_eq!(self.taken.get() >> 31, 0, "workspace taken twice");
        self.taken.set(self.taken.get() | 1 << 31);
        // SAFETY: the plan gives the scratch to this node alone, and it is taken once.
        unsafe { self.scratch().as_mut_slice() }
    }

    /// Step, from 0.
    pub fn step(&self) -> u64 {
        self.arguments().step
    }

    /// Number of this micro-batch's first sample within the run.
    pub fn first_sample(&self) -> u64 {
        self.arguments().first_sample
    }

    fn arguments(&self) -> RunArguments {
        // SAFETY: written before the run, and not during it.
        unsafe { self.bindings.arguments.as_slice::<RunArguments>()[0] }
    }

    /// The rank's communicator.
    ///
    /// # Errors
    /// [`Error::Plan`] when the program is run without one.
    pub fn communicator(&self) -> Result<RefMut<'a, Box<dyn Communicator>>> {
        let path = &self.node.path;
        match self.context.communicator {
            Some(cell) => Ok(cell.borrow_mut()),
            None => Err(Error::Plan(format!("{path} meets other devices; none were given"))),
        }
    }

    /// Says that a live extent would exceed its capacity: the step's update is to be skipped.
    pub fn raise_overflow(&self) {
        // SAFETY: one word of the arena that only this thread touches.
        let flag = unsafe { self.bindings.overflow.as_mut_slice::<i32>() };
        flag[0] = 1;
    }

    fn live(&self, spec: &Spec) -> usize {
        let capacity = spec.leading();
        let Some(extent) = self.extent(spec) else { return capacity };
        // SAFETY: the plan keeps a live extent alive as long as its tensor.
        let live = unsafe { extent.as_slice::<i32>() }[0];
        usize::try_from(live).unwrap_or(0).min(capacity)
    }

    /// Where operand `at` (inputs, then outputs) stands widened, if it does.
    fn wide(&self, spec: &Spec, at: usize) -> Option<DeviceSlice> {
        let bytes = spec.elements() * size_of::<f32>();
        self.node.widened[at].map(|offset| self.scratch_part(offset, bytes))
    }

    fn wide_output(&self, i: usize) -> Option<DeviceSlice> {
        self.wide(self.output_spec(i), self.inputs() + i)
    }

    fn widen(&self, stored: DeviceSlice, wide: Option<DeviceSlice>, spec: &Spec) {
        let Some(wide) = wide else { return };
        // SAFETY: stored operand and scratch are disjoint ranges that this node owns.
        unsafe { widen(self.device, spec.dtype, stored, wide.as_mut_slice()) };
    }
}
