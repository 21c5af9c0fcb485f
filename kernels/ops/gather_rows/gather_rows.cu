// gather_rows: x [n, columns], index [m] -> y [m, columns], row `index[i]` of x; zeros for a number
// outside the live rows of x. Bits, so that integers go the way of f32. `per` numbers in a row may
// name one row: `dispatch` numbers pairs. Gradient: index, dy -> dx, each live row the sum of the
// rows of dy that name it, in order; overwrites or adds. The CPU's bits.
//
// expects gather_rows_bf16: LDG.E.128 STG.E.128
// expects gather_rows_f32: LDG.E.128 STG.E.128
#include "common.cuh"

template <class T>
__device__ void forward(const T* x, const i32* index, T* y, Rows rows, u32 rows_of_x, u32 columns,
                        u32 per) {
    bool whole = aligned(view(x, columns)) && aligned(view(y, columns));
    each_pack(block_team(), rows, columns, [&](u64 row, u32 column, u32 some) {
        u32 from = (u32)index[row] / per;
        f32 pack[PACK] = {};
        if (from < rows_of_x) load(x + (u64)from * columns + column, some, whole, pack);
        store(y + row * columns + column, some, whole, pack);
    });
}

/// Rows of x that a block has, of as many columns as it has threads.
constexpr u32 OWN = 16;

/// The block reads all numbers, as many as it has threads at a time, and adds the rows of dy that
/// name its own: each column is one thread's.
template <class T>
__device__ void gradient(const i32* index, const T* dy, T* dx, u32 rows, u32 rows_of_x, u32 columns,
                         bool adds) {
    SHARED(found, u32[256]);
    SHARED(sums, f32[OWN][256]);
    u32 first = blockIdx.x * OWN, column = blockIdx.y * blockDim.x + threadIdx.x;
    if (first >= rows_of_x) return;
    u32 own = rows_of_x - first < OWN ? rows_of_x - first : OWN;
    bool mine = column < columns;
    T* to = dx + (u64)first * columns + column;
    for (u32 i = 0; i < own; i++) {
        sums[i][threadIdx.x] = mine && adds ? widened(to[(u64)i * columns]) : 0.0f;
    }
    for (u32 begin = 0; begin < rows; begin += blockDim.x) {
        u32 row = begin + threadIdx.x, number = row < rows ? (u32)index[row] - first : own;
        found[threadIdx.x] = number;
        if (__syncthreads_or(number < own)) {
            for (u32 i = 0; mine && i < blockDim.x; i++) {
                if (found[i] >= own) continue;
                sums[found[i]][threadIdx.x] += widened(dy[(u64)(begin + i) * columns + column]);
            }
        }
        __syncthreads();
    }
    for (u32 i = 0; mine && i < own; i++) to[(u64)i * columns] = narrowed<T>(sums[i][threadIdx.x]);
}

#define KERNELS(T)                                                                                 \
    KERNEL(gather_rows_##T, 256, const T* x, const i32* index, T* y, const i32* live,              \
           u32 capacity, u32 each, u32 columns, const i32* x_live, u32 x_capacity, u32 per) {      \
        u32 rows_of_x = live_rows(x_live, x_capacity);                                             \
        forward(x, index, y, block_rows(live, capacity, each), rows_of_x, columns, per);           \
    }                                                                                              \
    KERNEL(gather_rows_gradient_##T, 256, const i32* index, const T* dy, T* dx, const i32* live,        \
           u32 capacity, u32 columns, const i32* x_live, u32 x_capacity, u32 adds) {               \
        u32 rows = live_rows(live, capacity), rows_of_x = live_rows(x_live, x_capacity);           \
        gradient(index, dy, dx, rows, rows_of_x, columns, adds);                                   \
    }
FOR_ELEMENTS(KERNELS)
