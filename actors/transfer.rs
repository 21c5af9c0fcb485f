//! Between a rank's arena and a snapshot slot, at logical places: what was saved by any number of
//! ranks under any ZeRO placement is restored by any other.

use octet_kernels::dtype::DType;
use octet_kernels::error::Error;
use octet_kernels::f8::Format;
use octet_kernels::graph::{ParameterId, StateUse};
use octet_kernels::memory::{DeviceSlice, HostSlice};
use octet_kernels::ops::Stream;

use crate::contract::Workload;
use crate::engine::Engine;
use crate::fault::Fault;
use crate::snapshot::{Region, Slot};

#[cfg(test)]
mod tests;

/// Copies this rank's shard of a bucket, parameters and optimizer state, into the slot when the
/// stream of copies out comes to it.
pub(crate) fn save_bucket(engine: &Engine, slot: &Slot, bucket: usize) -> Result<(), Error> {
    let (memory, layout) = (&engine.memory, engine.workload.layout());
    let shard = memory.owners.shard(bucket, memory.rank);
    let weights = match layout.buckets[bucket].dtype.is_narrow() {
        true => engine.masters(bucket, &shard),
        false => engine.stored(bucket, &shard),
    };
    copy_out(engine, weights, slot.elements(Region::Masters, &shard))?;
    (0..memory.planes.len()).try_for_each(|i| {
        let there = slot.elements(Region::Plane(i), &shard);
        copy_out(engine, engine.plane(i, bucket, &shard), there)
    })
}

/// Likewise what all ranks have equally.
pub(crate) fn save_shared(engine: &Engine, slot: &Slot) -> Result<(), Error> {
    common(engine, slot).into_iter().try_for_each(|(here, there)| copy_out(engine, here, there))
}

/// Takes parameters, this rank's part of the optimizer state and saved states from the slot.
///
/// # Errors
/// A fault of the world from the device.
pub fn restore(engine: &Engine, slot: &Slot) -> Result<(), Fault> {
    let (memory, layout) = (&engine.memory, engine.workload.layout());
    let mut rounded = Vec::new();
    for (bucket, about) in layout.buckets.iter().enumerate() {
        let masters = slot.elements(Region::Masters, &about.elements);
        let stored = engine.stored(bucket, &about.elements);
        let kept = &memory.kept[bucket];
        if about.dtype.is_narrow() {
            // SAFETY: a slot is host memory, and nobody fills it while ranks restore from it.
            let values: &[f32] = unsafe { masters.as_slice() };
            rounded.resize(stored.bytes(), 0);
            write_as(about.dtype, values, &mut rounded);
            upload(engine, DeviceSlice::from_host(&mut rounded), stored)?;
            let there = slot.elements(Region::Masters, kept);
            upload(engine, there, engine.masters(bucket, kept))?;
        } else {
            upload(engine, masters, stored)?;
        }
        for i in 0..memory.planes.len() {
            upload(engine, slot.elements(Region::Plane(i), kept), engine.plane(i, bucket, kept))?;
        }
    }
    for (here, there) in common(engine, slot) {
        upload(engine, there, here)?;
    }
    clear_local_states(engine)
}

/// Frozen parameters and replicated states: in the arena, in the slot.
fn common(engine: &Engine, slot: &Slot) -> Vec<(DeviceSlice, DeviceSlice)> {
    let (memory, layout) = (&engine.memory, slot.layout());
    let frozen = layout.frozen();
    let parameters = memory.parameters.part(frozen.start, frozen.len());
    let mut pairs = vec![(engine.slice(parameters), slot.region(Region::Frozen))];
    for saved in layout.saved_states() {
        let here = engine.slice(memory.states.part(saved.device.start, saved.device.len()));
        let there = slot.region(Region::States).part(saved.slot.start, saved.slot.len());
        pairs.push((here, there));
    }
    pairs
}

/// States that are not saved start from zero.
fn clear_local_states(engine: &Engine) -> Result<(), Fault> {
    let states = engine.slice(engine.memory.states);
    let offsets = &engine.workload.layout().states;
    for (state, &offset) in engine.workload.variables().states().iter().zip(offsets) {
        if state.usage != StateUse::Replicated {
            // SAFETY: this rank's memory, between steps.
            unsafe { engine.device.clear(states.part(offset, state.bytes())) }
                .map_err(|e| engine.fault(e))?;
        }
    }
    Ok(())
}

fn copy_out(engine: &Engine, here: DeviceSlice, there: DeviceSlice) -> Result<(), Error> {
    // SAFETY: this rank's memory in the order of the plan; its own elements of a slot, which is
    // host memory that the supervisor has given to the ranks until all of them have filled it.
    unsafe { engine.device.copy_out(Stream::CopyOut, here, HostSlice::at(there)) }
}

fn upload(engine: &Engine, there: DeviceSlice, here: DeviceSlice) -> Result<(), Fault> {
    // SAFETY: host memory that nobody changes meanwhile; this rank's memory, between steps.
    unsafe { engine.device.upload(there.as_slice(), here) }.map_err(|e| engine.fault(e))
}

/// Writes the first state of a run into a slot: initial values by name and seed, zeros for the
/// optimizer.
/// A fresh run is a resume from this state.
pub fn initialise(workload: &dyn Workload, slot: &Slot) {
    slot.invalidate();
    for (i, parameter) in workload.variables().parameters().iter().enumerate() {
        write_parameter(slot, &parameter.name, &workload.first_values(ParameterId(i)));
    }
    initialise_rest(workload, slot);
}

/// Writes one parameter to a slot that nobody else has yet.
pub fn write_parameter(slot: &Slot, name: &str, values: &[f32]) {
    let tensor = slot.layout().tensors().iter().find(|tensor| tensor.name == name);
    let tensor = tensor.expect("every parameter is in the slot");
    // SAFETY: nobody else has the slot before the first rank starts.
    write_as(tensor.dtype, values, unsafe { slot.tensor(tensor).as_mut_slice() });
}

/// Writes what a first state has beside parameters: saved states, and zeros for the optimizer.
pub fn initialise_rest(workload: &dyn Workload, slot: &Slot) {
    for saved in slot.layout().saved_states() {
        let state = &workload.variables().states()[saved.state.0];
        let part = slot.region(Region::States).part(saved.slot.start, saved.slot.len());
        // SAFETY: nobody else has the slot before the first rank starts.
        let bytes: &mut [u8] = unsafe { part.as_mut_slice() };
        let values = vec![state.init; state.shape.iter().product()];
        write_as(state.dtype, &values, bytes);
    }
    slot.clear_planes();
}

fn write_as(dtype: DType, values: &[f32], bytes: &mut [u8]) {
    match dtype {
        DType::Bf16 => {
            for (cell, &value) in bytes.chunks_exact_mut(2).zip(values) {
                cell.copy_from_slice(&half::bf16::from_f32(value).to_le_bytes());
            }
        }
        DType::F16 => {
            for (cell, &value) in bytes.chunks_exact_mut(2).zip(values) {
                cell.copy_from_slice(&half::f16::from_f32(value).to_le_bytes());
            }
        }
        DType::F8E4M3 | DType::F8E5M2 => {
            let format = Format::of(dtype).expect("a format of 8 bits");
            bytes.iter_mut().zip(values).for_each(|(cell, &value)| *cell = format.encode(value));
        }
        DType::I32 => {
            for (cell, &value) in bytes.chunks_exact_mut(4).zip(values) {
                cell.copy_from_slice(&(value as i32).to_le_bytes());
            }
        }
        DType::I64 => {
            for (cell, &value) in bytes.chunks_exact_mut(8).zip(values) {
                cell.copy_from_slice(&(value as i64).to_le_bytes());
            }
        }
        DType::F64 => {
            for (cell, &value) in bytes.chunks_exact_mut(8).zip(values) {
                cell.copy_from_slice(&f64::from(value).to_le_bytes());
            }
        }
        DType::U8 => {
            for (cell, &value) in bytes.iter_mut().zip(values) {
                *cell = value as u8;
            }
        }
        DType::F32 => bytes.copy_from_slice(bytemuck::cast_slice(values)),
    }
}
