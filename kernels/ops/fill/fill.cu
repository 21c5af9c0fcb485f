// fill: every element of y is `value`.
//
// expects fill: STG.E.128
#include "common.cuh"

KERNEL(fill, 256, f32* y, const i32* live, u32 capacity, u32 each, u32 columns, f32 value) {
    Rows rows = block_rows(live, capacity, each);
    u32 count = (rows.end - rows.begin) * columns;
    fill_rows(block_team(), Rows{0, 1}, count, view(y + (u64)rows.begin * columns, 0), value);
}
