// embedding: tokens [rows], table [size, columns] -> y [rows, columns], y = table[token]; NaN for a
// token outside the table. Gradient: table f32 [size, columns], the rows of dy of each token added
// in order of rows, by the one block that has that row of the table; overwrites or adds. The CPU's
// bits.
#include "common.cuh"

template <class T>
__device__ void forward(const i32* tokens, const T* table, T* y, Rows rows, u32 size, u32 columns) {
    bool whole = aligned(view(table, columns)) && aligned(view(y, columns));
    each_pack(block_team(), rows, columns, [&](u64 row, u32 column, u32 some) {
        u32 token = tokens[row];
        f32 x[PACK];
        if (token < size) {
            load(table + (u64)token * columns + column, some, whole, x);
        } else {
#pragma unroll
            for (u32 k = 0; k < PACK; k++) x[k] = __uint_as_float(0x7fc00000u);
        }
        store(y + row * columns + column, some, whole, x);
    });
}

/// Rows of the table that a block has: few, since a token that is everywhere, or a position, is one
/// block's alone.
constexpr u32 OWN = 8;

/// The block reads all tokens, a few at a time, and adds the rows of dy whose tokens are its own:
/// every element of the table belongs to one thread.
template <class T>
__device__ void gradient(const i32* tokens, const T* dy, f32* table, u32 rows, u32 size, u32 columns,
                         bool adds) {
    SHARED(found, u32[256]);
    u32 first = blockIdx.x * OWN, own = size - first < OWN ? size - first : OWN;
    f32* mine = table + (u64)first * columns;
    for (u64 i = threadIdx.x; !adds && i < (u64)own * columns; i += blockDim.x) mine[i] = 0.0f;
    for (u32 begin = 0; begin < rows; begin += blockDim.x) {
        u32 row = begin + threadIdx.x, token = row < rows ? tokens[row] - first : own;
        found[threadIdx.x] = token;
        if (__syncthreads_or(token < own)) {
            for (u32 i = 0; i < blockDim.x; i++) {
                if (found[i] >= own) continue;
                const T* from = dy + (u64)(begin + i) * columns;
                f32* to = mine + (u64)found[i] * columns;
                for (u32 column = threadIdx.x; column < columns; column += blockDim.x) {
                    to[column] += widened(from[column]);
                }
            }
        }
        __syncthreads();
    }
}

#define KERNELS(T)                                                                                 \
    KERNEL(embedding_##T, 256, const i32* tokens, const T* table, T* y, const i32* live,           \
           u32 capacity, u32 each, u32 size, u32 columns) {                                        \
        forward(tokens, table, y, block_rows(live, capacity, each), size, columns);                \
    }                                                                                              \
    KERNEL(embedding_gradient_##T, 256, const i32* tokens, const T* dy, f32* table,                \
           const i32* live, u32 capacity, u32 size, u32 columns, u32 adds) {                       \
        gradient(tokens, dy, table, live_rows(live, capacity), size, columns, adds);               \
    }
FOR_ELEMENTS(KERNELS)
