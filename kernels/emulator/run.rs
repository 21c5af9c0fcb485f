//! The launches of a program's nodes, and the kernels that no op asks for, one after the other, on
//! memory that is watched.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ops::Range;

use crate::cuda::step::{StepKernel, THREADS};
use crate::emulator::card;
use crate::emulator::compile::{Edit, module, runtime};
use crate::emulator::{Copies, Order};
use crate::error::{Error, Result};
use crate::graph::{Bindings, Program, RunContext};
use crate::launch::{Argument, Kernel, Launch, Memory};
use crate::memory::DeviceSlice;
use crate::operands::{Operands, Value};
use crate::ops::{Io, linear};
use crate::shape::Spec;

/// How a program is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Schedule {
    /// Of threads and blocks.
    pub order: Order,
    /// When they happen.
    pub copies: Copies,
    /// Of all choices.
    pub seed: u64,
    /// A change of the module's source.
    pub edit: Option<Edit>,
}

/// `Schedule` of machine.h.
#[repr(C)]
struct ByOrder {
    order: Order,
    copies: Copies,
    seed: u64,
}

/// `Kernel` of device.h.
#[repr(C)]
struct Entry {
    parameters: *const c_char,
    call: *const c_void,
    block_max: u32,
    table_words: u32,
}

type Start = unsafe extern "C" fn(
    *const Entry,
    *const c_char,
    *const u32,
    u32,
    u32,
    *const *const c_void,
    *const ByOrder,
    *mut c_char,
    usize,
) -> u64;
type Watch = unsafe extern "C" fn(*const u8, usize, *const c_char, bool, bool);
type Forget = unsafe extern "C" fn();

/// The runtime's functions.
struct Runtime {
    launch: Start,
    watch: Watch,
    forget: Forget,
}

impl Runtime {
    fn new() -> Result<Self> {
        let library = runtime().map_err(Error::Device)?;
        let symbol = |name: &str| library.symbol(name).expect("a function of the runtime");
        // SAFETY: runtime.cpp and checker.cpp define them with these types.
        unsafe {
            Ok(Self {
                launch: std::mem::transmute::<*mut c_void, Start>(symbol("emulator_launch")),
                watch: std::mem::transmute::<*mut c_void, Watch>(symbol("emulator_range")),
                forget: std::mem::transmute::<*mut c_void, Forget>(symbol("emulator_forget")),
            })
        }
    }

    fn watch(&self, slice: DeviceSlice, name: &str, writable: bool, known: bool) {
        let name = CString::new(name).expect("a name without NUL");
        // SAFETY: it keeps the address and copies the name.
        unsafe { (self.watch)(slice.pointer(), slice.bytes(), name.as_ptr(), writable, known) };
    }
}

/// Memory that a kernel may touch, for the checker.
pub(crate) struct Watched {
    pub(crate) slice: DeviceSlice,
    pub(crate) name: &'static str,
    pub(crate) writable: bool,
    /// Whether it has content.
    pub(crate) known: bool,
}

/// Runs nodes of a program; returns how many asynchronous copies kernels made.
///
/// # Safety
/// As of [`crate::device::Device::run`], in host memory.
///
/// # Errors
/// [`Error::Plan`] for an op that asks nothing of a GPU yet; [`Error::Device`] with what the
/// checker found, or why nothing can be emulated here.
pub unsafe fn run(
    program: &Program,
    bindings: &Bindings<'_>,
    context: &RunContext<'_>,
    nodes: Range<usize>,
    schedule: &Schedule,
) -> Result<u64> {
    if let Some(device) = card::device() {
        // SAFETY: the caller vouches for the memory.
        return unsafe { card::run(device, program, bindings, context, nodes) }.map(|()| 0);
    }
    let runtime = Runtime::new()?;
    let mut copies = 0;
    for node in program.planned(nodes) {
        let operands = Operands { program, node, bindings, context };
        let Some(launches) = &node.launches else {
            return Err(Error::Plan(format!("{} has no kernels for a GPU", node.op.name())));
        };
        let io = io(&operands);
        watch_operands(&runtime, &operands, &launches.list);
        for launch in &launches.list {
            match launch {
                Launch::Kernel(kernel) => {
                    copies += run_kernel(&runtime, &operands, kernel, &io, schedule)?;
                }
                Launch::Matmul(product) => {
                    let Some(kernel) = linear::cuda::kernel(product) else {
                        return Err(Error::Plan(format!("no kernel of our own for {product}")));
                    };
                    copies += run_kernel(&runtime, &operands, &kernel, &io, schedule)?;
                }
                // SAFETY: the caller vouches for the memory.
                Launch::Zero(memory) => unsafe {
                    let slice = operands.memory(*memory);
                    slice.as_mut_slice::<u8>().fill(0);
                    runtime.watch(slice, &memory.to_string(), true, true);
                },
                // SAFETY: as above; operands of a copy do not overlap.
                Launch::Copy { from, to } => unsafe {
                    let (from, slice) = (operands.memory(*from), operands.memory(*to));
                    slice.as_mut_slice::<u8>().copy_from_slice(from.as_slice());
                    runtime.watch(slice, &to.to_string(), true, true);
                },
            }
        }
    }
    Ok(copies)
}

fn io(operands: &Operands<'_>) -> Io {
    Io {
        inputs: (0..operands.inputs()).map(|i| operands.input_spec(i).clone()).collect(),
        outputs: (0..operands.outputs()).map(|i| operands.output_spec(i).clone()).collect(),
    }
}

/// What of a tensor may be touched: its live rows.
fn live(operands: &Operands<'_>, stored: DeviceSlice, spec: &Spec) -> DeviceSlice {
    let Some(extent) = operands.extent(spec) else { return stored };
    // SAFETY: the plan keeps a live extent alive as long as its tensor.
    let rows = unsafe { extent.as_slice::<i32>() }[0];
    let rows = usize::try_from(rows).unwrap_or(0).min(spec.leading());
    stored.part(0, rows * spec.elements_per_row() * spec.dtype.bytes())
}

fn watch_operands(runtime: &Runtime, operands: &Operands<'_>, list: &[Launch]) {
    // SAFETY: it touches the watch's own lists only.
    unsafe { (runtime.forget)() };
    let watch = |slice: DeviceSlice, name: String, writable, known| {
        if slice.bytes() > 0 {
            runtime.watch(slice, &name, writable, known);
        }
    };
    let bindings = operands.bindings;
    watch(bindings.overflow, "overflow".to_string(), true, true);
    watch(bindings.arguments, "run arguments".to_string(), false, true);
    for i in 0..operands.inputs() {
        let spec = operands.input_spec(i);
        watch(live(operands, operands.stored_input(i), spec), format!("in{i}"), false, true);
        if let Some(extent) = operands.extent(spec) {
            watch(extent, format!("live(in{i})"), false, true);
        }
    }
    for i in 0..operands.outputs() {
        let (spec, adds) = (operands.output_spec(i), operands.accumulate(i));
        watch(live(operands, operands.stored_output(i), spec), format!("out{i}"), true, adds);
    }
    // Of parts of the scratch that begin together, the longest.
    let mut scratch: BTreeMap<usize, usize> = BTreeMap::new();
    for memory in list.iter().flat_map(Launch::touches) {
        if let Memory::Workspace { offset, bytes } = memory {
            let longest = scratch.entry(offset).or_default();
            *longest = bytes.max(*longest);
        }
    }
    for (offset, bytes) in scratch {
        let memory = Memory::Workspace { offset, bytes };
        watch(operands.memory(memory), memory.to_string(), true, false);
    }
}

/// Runs a kernel that no op asks for, which may touch what is watched and nothing else.
///
/// # Errors
/// [`Error::Device`] with what the checker found, or why nothing can be emulated here.
pub(crate) fn run_step(
    kernel: &StepKernel,
    watched: &[Watched],
    schedule: &Schedule,
) -> Result<()> {
    if let Some(device) = card::device() {
        return card::run_step(device, kernel, watched);
    }
    let runtime = Runtime::new()?;
    // SAFETY: it touches the watch's own lists only.
    unsafe { (runtime.forget)() };
    for Watched { slice, name, writable, known } in watched {
        if slice.bytes() > 0 {
            runtime.watch(*slice, name, *writable, *known);
        }
    }
    let grid = Launched {
        module: kernel.module,
        function: &kernel.function,
        blocks: [kernel.blocks as u32, 1, 1],
        threads: THREADS,
        shared_bytes: 0,
    };
    let kind = |value: &Value| match value {
        Value::Address(_) => 'p',
        Value::Word(_) => 'w',
        Value::Long(_) => 'l',
        Value::TensorMap(..) => 't',
    };
    let table = (!kernel.table.is_empty()).then_some('s');
    let kinds: String = kernel.values.iter().map(kind).chain(table).collect();
    grid.run(&runtime, &kinds, &kernel.values, &kernel.table, schedule).map(|_| ())
}

fn run_kernel(
    runtime: &Runtime,
    operands: &Operands<'_>,
    kernel: &Kernel,
    io: &Io,
    schedule: &Schedule,
) -> Result<u64> {
    let grid = Launched {
        module: kernel.module,
        function: &kernel.function,
        blocks: kernel.blocks(io),
        threads: kernel.block,
        shared_bytes: kernel.shared_bytes,
    };
    let table = (!kernel.table.is_empty()).then_some('s');
    let kinds: String = kernel.arguments.iter().map(kind).chain(table).collect();
    let values: Vec<Value> = kernel.arguments.iter().map(|a| operands.value(a)).collect();
    grid.run(runtime, &kinds, &values, &kernel.table, schedule)
}

/// A function with its grid.
struct Launched<'a> {
    module: &'static str,
    function: &'a str,
    blocks: [u32; 3],
    threads: u32,
    shared_bytes: u32,
}

impl Launched<'_> {
    /// Runs it with these parameters of these kinds, a `table` last; returns the copies it made.
    fn run(
        &self,
        runtime: &Runtime,
        kinds: &str,
        values: &[Value],
        table: &[u64],
        schedule: &Schedule,
    ) -> Result<u64> {
        let &Self { module: name, function, blocks, threads, shared_bytes } = self;
        let edit = schedule.edit.filter(|edit| edit.module == name);
        let library = module(name, edit).map_err(Error::Device)?;
        let entry = library
            .symbol(&format!("kernel_{function}"))
            .ok_or_else(|| Error::Device(format!("{name}.cu has no kernel {function}")))?;
        // SAFETY: every symbol of that kind of name is one.
        let entry = unsafe { &*entry.cast::<Entry>() };
        // SAFETY: a constant of the module, which is never unloaded.
        let declared = unsafe { CStr::from_ptr(entry.parameters) }.to_str().expect("letters");
        if declared != kinds || threads > entry.block_max {
            return Err(Error::Device(format!(
                "{function} takes {declared} from at most {} threads and is given {kinds} from \
                 {threads}",
                entry.block_max
            )));
        }
        if entry.table_words as usize != table.len() {
            let (given, declared) = (table.len(), entry.table_words);
            let what = format!("{function} takes a table of {declared} words and is given {given}");
            return Err(Error::Device(what));
        }
        let values = values.iter().map(word).collect::<Result<Vec<u64>>>()?;
        let mut addresses: Vec<*const c_void> =
            values.iter().map(|value| std::ptr::from_ref(value).cast()).collect();
        addresses.extend((!table.is_empty()).then_some(table.as_ptr().cast()));
        let called = CString::new(function).expect("a name without NUL");
        let Schedule { order, copies, seed, .. } = *schedule;
        let mut said = [0u8; 1024];
        // SAFETY: the values have the kinds that the kernel's parameters have; what it touches is
        // watched.
        let copies = unsafe {
            (runtime.launch)(
                entry,
                called.as_ptr(),
                blocks.as_ptr(),
                threads,
                shared_bytes,
                addresses.as_ptr(),
                &ByOrder { order, copies, seed },
                said.as_mut_ptr().cast(),
                said.len(),
            )
        };
        let said = CStr::from_bytes_until_nul(&said).expect("text that ends").to_string_lossy();
        if said.is_empty() { Ok(copies) } else { Err(Error::Device(said.into_owned())) }
    }
}

/// What a parameter is given.
fn word(value: &Value) -> Result<u64> {
    match *value {
        Value::Address(slice) => Ok(slice.map_or(0, |slice| slice.pointer() as u64)),
        Value::Word(word) => Ok(u64::from(word)),
        Value::Long(long) => Ok(long),
        Value::TensorMap(map, _) => Err(Error::Plan(format!("{map} is not emulated"))),
    }
}

/// As device.h's `kind`.
fn kind(argument: &Argument) -> char {
    match argument {
        Argument::Pointer(_) | Argument::Live(_) | Argument::Null => 'p',
        Argument::Overflow | Argument::RunArguments => 'p',
        Argument::U32(_) | Argument::Accumulate(_) => 'w',
        Argument::F32(_) => 'f',
        Argument::U64(_) | Argument::Key => 'l',
        Argument::TensorMap(_) => 't',
    }
}
