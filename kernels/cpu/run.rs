//! What an op sees while it runs on the CPU: its operands as slices, its scratch, its random
//! stream.
//!
//! Narrow floats (bf16, f16) are widened to `F32` scratch before the op and rounded when it is
//! done, so every op computes in `F32` and stores what the tensor's dtype says, where the GPU would
//! store.

use std::cell::{Cell, RefMut};

use bytemuck::Pod;
use half::{bf16, f16};

use crate::collectives::Communicator;
use crate::cpu::CpuDevice;
use crate::device::RunArguments;
use crate::dtype::{DType, Precision};
use crate::error::{Error, Result};
use crate::graph::program::Planned;
use crate::graph::{Bindings, Program, RunContext, Tensor, Write};
use crate::memory::DeviceSlice;
use crate::random::Stream;
use crate::shape::Spec;

/// One node being run on the CPU.
pub struct CpuRun<'a> {
    program: &'a Program,
    node: &'a Planned,
    device: &'a CpuDevice,
    bindings: &'a Bindings<'a>,
    context: &'a RunContext<'a>,
    /// Bit `i`: output `i` was handed out. Each may be taken once, so no two `&mut` alias.
    taken: Cell<u32>,
}

impl<'a> CpuRun<'a> {
    pub(crate) fn execute(
        program: &'a Program,
        node: &'a Planned,
        device: &'a CpuDevice,
        bindings: &'a Bindings<'a>,
        context: &'a RunContext<'a>,
    ) -> Result<()> {
        let taken = Cell::new(0);
        let run = Self { program, node, device, bindings, context, taken };
        let inputs = node.inputs.len();
        for (i, &tensor) in node.inputs.iter().enumerate() {
            run.widen(tensor, node.widened[i]);
        }
        for (i, &(tensor, _)) in node.outputs.iter().enumerate() {
            run.widen(tensor, node.widened[inputs + i]);
        }
        node.op.run_cpu(&run)?;
        for (i, &(tensor, _)) in node.outputs.iter().enumerate() {
            run.round(tensor, node.widened[inputs + i]);
        }
        Ok(())
    }

    /// The device: its threads and packing scratch.
    pub fn device(&self) -> &'a CpuDevice {
        self.device
    }

    /// To what an op rounds the operands of a linear layer's products.
    pub fn matmul(&self) -> Precision {
        self.program.matmul
    }

    /// Input `i`, its whole capacity. `T` is `f32` for every narrow float.
    pub fn input<T: Pod>(&self, i: usize) -> &'a [T] {
        let slice = self.operand(self.node.inputs[i], self.node.widened[i]);
        // SAFETY: the plan keeps a node's inputs alive, and apart from its outputs; nobody else
        // runs on this arena while the node does.
        unsafe { slice.as_slice() }
    }

    /// Output `i`, its whole capacity, with its old content. Each output can be taken once.
    pub fn output<T: Pod>(&self, i: usize) -> &'a mut [T] {
        let bit = 1 << i;
        assert_eq!(self.taken.get() & bit, 0, "output {i} taken twice");
        self.taken.set(self.taken.get() | bit);
        let at = self.node.inputs.len() + i;
        let slice = self.operand(self.node.outputs[i].0, self.node.widened[at]);
        // SAFETY: as for inputs, and `taken` rules out a second `&mut`.
        unsafe { slice.as_mut_slice() }
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.node.inputs.len()
    }

    /// Shape and dtype of input `i`.
    pub fn input_spec(&self, i: usize) -> &'a Spec {
        self.program.spec(self.node.inputs[i])
    }

    /// Shape and dtype of output `i`.
    pub fn output_spec(&self, i: usize) -> &'a Spec {
        self.program.spec(self.node.outputs[i].0)
    }

    /// Live steps of the leading dimension of input `i`: the extent, at most the capacity.
    pub fn live_input(&self, i: usize) -> usize {
        self.live(self.input_spec(i))
    }

    /// Live steps of the leading dimension of output `i`.
    pub fn live_output(&self, i: usize) -> usize {
        self.live(self.output_spec(i))
    }

    /// Whether output `i` is to be added to.
    pub fn accumulate(&self, i: usize) -> bool {
        match self.node.outputs[i].1 {
            Write::Overwrite => false,
            Write::Accumulate => true,
            Write::FirstInLane => {
                let owner =
                    self.node.owners[i].expect("only gradients are written first in a lane");
                !self.context.first_in_lane[owner.0]
            }
        }
    }

    /// The op's scratch, with whatever an earlier node left there.
    pub fn workspace<T: Pod>(&self) -> &'a mut [T] {
        assert_eq!(self.taken.get() >> 31, 0, "workspace taken twice");
        self.taken.set(self.taken.get() | 1 << 31);
        let (offset, bytes) = self.node.workspace;
        // SAFETY: the plan gives the scratch to this node alone, and it is taken once.
        unsafe { self.bindings.activations.part(offset, bytes).as_mut_slice() }
    }

    /// The node's random stream: its numbers are keyed by step, global sample and element.
    pub fn random(&self) -> Stream {
        Stream { seed: self.context.seed, site: self.node.site }
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
        let Some(extent) = spec.live else { return capacity };
        let slice = self.program.resolve(extent, self.bindings, self.context.slice);
        // SAFETY: the plan keeps a live extent alive as long as its tensor.
        let live = unsafe { slice.as_slice::<i32>() }[0];
        usize::try_from(live).unwrap_or(0).min(capacity)
    }

    fn operand(&self, tensor: Tensor, widened: Option<usize>) -> DeviceSlice {
        match widened {
            Some(offset) => {
                let bytes = self.program.spec(tensor).elements() * size_of::<f32>();
                self.bindings.activations.part(offset, bytes)
            }
            None => self.program.resolve(tensor, self.bindings, self.context.slice),
        }
    }

    fn widen(&self, tensor: Tensor, widened: Option<usize>) {
        if widened.is_none() {
            return;
        }
        let narrow = self.program.resolve(tensor, self.bindings, self.context.slice);
        // SAFETY: stored operand and scratch are disjoint ranges that this node owns.
        let wide: &mut [f32] = unsafe { self.operand(tensor, widened).as_mut_slice() };
        if self.program.spec(tensor).dtype == DType::Bf16 {
            // SAFETY: as above.
            let stored: &[bf16] = unsafe { narrow.as_slice() };
            wide.iter_mut().zip(stored).for_each(|(w, s)| *w = s.to_f32());
        } else {
            // SAFETY: as above.
            let stored: &[f16] = unsafe { narrow.as_slice() };
            wide.iter_mut().zip(stored).for_each(|(w, s)| *w = s.to_f32());
        }
    }

    fn round(&self, tensor: Tensor, widened: Option<usize>) {
        if widened.is_none() {
            return;
        }
        let narrow = self.program.resolve(tensor, self.bindings, self.context.slice);
        // SAFETY: as in `widen`; the op is done with its slices.
        let wide: &[f32] = unsafe { self.operand(tensor, widened).as_slice() };
        if self.program.spec(tensor).dtype == DType::Bf16 {
            // SAFETY: as above.
            let stored: &mut [bf16] = unsafe { narrow.as_mut_slice() };
            stored.iter_mut().zip(wide).for_each(|(s, &w)| *s = bf16::from_f32(w));
        } else {
            // SAFETY: as above.
            let stored: &mut [f16] = unsafe { narrow.as_mut_slice() };
            stored.iter_mut().zip(wide).for_each(|(s, &w)| *s = f16::from_f32(w));
        }
    }
}
