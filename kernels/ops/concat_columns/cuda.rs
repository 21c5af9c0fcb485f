//! What `concat_columns` asks of a GPU: the columns of each operand, moved.

use crate::launch::{Launches, Memory};
use crate::ops::Io;
use crate::ops::slice_columns::cuda::{Columns, moved};

pub(super) fn forward(io: &Io) -> Option<Launches> {
    let mut start = 0;
    let mut piece = |i: usize| {
        let count = io.inputs[i].columns();
        start += count;
        let to = Columns { memory: Memory::Output(0), start: start - count };
        moved(io, Columns { memory: Memory::Input(i), start: 0 }, to, count)
    };
    let list: Option<Vec<_>> = (0..io.inputs.len()).map(&mut piece).collect();
    Some(Launches::new(list?))
}
