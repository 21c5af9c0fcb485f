//! `copy` on the CPU.

use crate::cpu::CpuRun;
use crate::dtype::DType;

pub(super) fn forward(run: &CpuRun<'_>) {
    let spec = run.input_spec(0);
    let live = run.live_input(0) * spec.elements_per_row();
    match spec.dtype {
        DType::I32 if run.accumulate(0) => {
            let (out, x) = (run.output::<i32>(0), run.input::<i32>(0));
            out[..live].iter_mut().zip(x).for_each(|(o, x)| *o += x);
        }
        DType::I32 => {
            run.output::<i32>(0)[..live].copy_from_slice(&run.input::<i32>(0)[..live]);
        }
        _ if run.accumulate(0) => {
            let (out, x) = (run.output::<f32>(0), run.input::<f32>(0));
            out[..live].iter_mut().zip(x).for_each(|(o, x)| *o += x);
        }
        _ => run.output::<f32>(0)[..live].copy_from_slice(&run.input::<f32>(0)[..live]),
    }
}
