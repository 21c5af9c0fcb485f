//! What `dispatch` asks of a GPU: the rows that `gather_rows` picks by numbers of pairs.

use crate::launch::Launches;
use crate::ops::{Io, gather_rows};

pub(super) fn forward(io: &Io) -> Option<Launches> {
    gather_rows::cuda::forward(io, io.inputs[2].columns())
}
