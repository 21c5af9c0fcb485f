// ldmatrix and mma.sync: which lane holds which element, by the PTX manual's figures.
#include "machine.h"

namespace emulator {

static float widened(u32 half) {
    u32 bits = half << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

struct Rows { const char* row; u32 matrices; bool transposed; };

// Lane 8m + r gives the address of row r of matrix m; each lane gets two elements of each matrix.
void load_matrices(u32* registers, u32 matrices, bool transposed, const void* row) {
    Rows in{static_cast<const char*>(row), matrices, transposed};
    if (size_t(row) % 16) fail("a row of a matrix at an address that is no multiple of 16");
    if (place().lane < 8 * matrices) {
        if (!is_shared(row)) fail("a matrix that is not in shared memory");
        check(row, 16, READ);
    }
    auto load = [](u32, void* const* in, void* const* out) {
        auto first = static_cast<Rows*>(in[0]);
        for (u32 m = 0; m < first->matrices; m++) {
            for (u32 lane = 0; lane < 32; lane++) {
                u32 packed = 0;
                for (u32 k = 0; k < 2; k++) {
                    u32 pair = lane % 4 * 2 + k, single = lane / 4;
                    u32 row = first->transposed ? pair : single, column = first->transposed ? single : pair;
                    u16 value;
                    memcpy(&value, static_cast<Rows*>(in[m * 8 + row])->row + column * 2, 2);
                    packed |= u32(value) << 16 * k;
                }
                static_cast<u32*>(out[lane])[m] = packed;
            }
        }
    };
    collective(~0u, load, &in, registers);
}

struct Factors { const u32 *a, *b; };

// d[16, 8] += a[16, 16] b[16, 8]; sums in order of k, which hardware does not promise.
void multiply_16x8x16(float* d, const u32* a, const u32* b) {
    Factors in{a, b};
    auto multiply = [](u32, void* const* in, void* const* out) {
        float a[16][16], b[16][8];
        for (u32 lane = 0; lane < 32; lane++) {
            auto f = static_cast<Factors*>(in[lane]);
            u32 group = lane / 4, pair = lane % 4 * 2;
            for (u32 i = 0; i < 4; i++) {
                for (u32 k = 0; k < 2; k++) a[group + i % 2 * 8][pair + i / 2 * 8 + k] = widened(f->a[i] >> 16 * k & 0xffff);
            }
            for (u32 i = 0; i < 2; i++) {
                for (u32 k = 0; k < 2; k++) b[pair + i * 8 + k][group] = widened(f->b[i] >> 16 * k & 0xffff);
            }
        }
        float c[16][8] = {};
        for (u32 i = 0; i < 16; i++) {
            for (u32 k = 0; k < 16; k++) {
                for (u32 j = 0; j < 8; j++) c[i][j] += a[i][k] * b[k][j];
            }
        }
        for (u32 lane = 0; lane < 32; lane++) {
            auto d = static_cast<float*>(out[lane]);
            for (u32 i = 0; i < 4; i++) d[i] += c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
        }
    };
    collective(~0u, multiply, &in, d);
}

}  // namespace emulator
