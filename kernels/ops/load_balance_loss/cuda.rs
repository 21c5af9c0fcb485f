//! What `load_balance_loss` asks of a GPU: a warp for each row.

use crate::launch::Launches;
use crate::ops::Io;
use crate::ops::loss::{gradient_of_rows, of_rows};

pub(super) fn forward(io: &Io) -> Option<Launches> {
    of_rows(io, "load_balance_loss", &[])
}

/// `logits, counts, scale, dloss -> dlogits`.
pub(super) fn gradient(io: &Io) -> Option<Launches> {
    gradient_of_rows(io, "load_balance_loss", &[])
}
