//! What `exponential_average` asks of a GPU: a block for some rows of the leading dimension.

use crate::launch::{Argument, Kernel, Launches, Memory, element, pointers};
use crate::ops::Io;

pub(super) fn launches(io: &Io, rate: f32) -> Option<Launches> {
    let (from, to) = (element(&io.inputs)?, element(&io.outputs)?);
    let each = io.inputs[0].elements_per_row();
    let function = format!("exponential_average_{from}_{to}");
    let kernel = Kernel::over_elements("exponential_average", function, Memory::Input(0), each);
    let rest = [Argument::U32(each as u32), Argument::F32(rate), Argument::Accumulate(0)];
    let rest = kernel.rows(io).into_iter().chain(rest);
    Some(Launches::new([kernel.with(pointers(1, 1).chain(rest))]))
}
