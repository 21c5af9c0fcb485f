//! The width test: nine kinds of training that have little in common, each a toy graph over the
//! same walls (`Graph`, `Goal`, `Phase`, states, step buffers, live extents), each with one digest
//! on 1, 2 and 4 ranks. Where a new kind needs a special case, a wall stands in the wrong place.

mod buckets;
mod contrastive;
mod decode;
mod frozen;
mod harness;
mod images;
mod mixture;
mod moe;
mod replaced_token;
mod teacher;
