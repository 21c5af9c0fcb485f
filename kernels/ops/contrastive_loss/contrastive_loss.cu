// contrastive_loss: of products [rows, group], some rows of a b^T or of b a^T: the largest of a
// row, the sum of its exponentials and its half of a pair's term in f64, by a warp for each row; the
// total in order. Gradient: products become the gradients of the same, stored as the operands are,
// and the term of each row of the gradient of log_scale, whose total is in order too.
//
// expects contrastive_rows: LDG.E.128
// expects contrastive_gradient_bf16: LDG.E.128 STG.E.128
#include "loss.cuh"

LOSS_TOTAL(contrastive_loss)

/// Rows of products, from row `first` of the group on: this warp's, or none.
struct Own { u32 row, all; bool any; };
__device__ __forceinline__ Own own_row(u32 first, u32 rows) {
    u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    return {row, first + row, row < rows};
}

KERNEL(contrastive_rows, 256, const f32* products, const f32* log_scale, f32* largest, f32* sums,
       f64* terms, u32 first, u32 rows, u32 group) {
    Own own = own_row(first, rows);
    if (!own.any) return;
    const f32* x = products + (u64)own.row * group;
    f32 rate = exp_exact(*log_scale);
    Parts parts = softmax_parts(x, group, rate);
    if (warp_team().rank > 0) return;
    largest[own.all] = parts.largest, sums[own.all] = parts.sum;
    f64 shifted = ((f64)parts.largest - (f64)x[own.all]) * (f64)rate;
    terms[own.all] = 0.5 * (shifted + ln(parts.sum));
}

/// `parts`: the largest products of rows, the sums of their exponentials, and both for columns.
template <class T>
__device__ void gradient(const f32* products, const f32* parts, T* made, f64* terms, f32 rate,
                         f32 factor, Own own, u32 group) {
    const f32 *x = products + (u64)own.row * group, *sums = parts + group;
    const f32 *largest = sums + group, *column_sums = largest + group;
    f32 shift = parts[own.all], share = 0.5f * factor / sums[own.all];
    f32 label = x[own.all], sum = 0.0f;
    T* to = made + (u64)own.row * group;
    // Products may be overwritten: all lanes have the label's by then.
    __syncwarp();
    bool whole = aligned(view(x, group)) && aligned(view(to, group));
    whole = whole && aligned(view(largest, group)) && aligned(view(column_sums, group));
    each_pack(warp_team(), Rows{0, 1}, group, [&](u64, u32 column, u32 some) {
        f32 product[PACK], most[PACK], total[PACK], out[PACK];
        load(x + column, some, whole, product);
        load(largest + column, some, whole, most);
        load(column_sums + column, some, whole, total);
#pragma unroll
        for (u32 i = 0; i < PACK; i++) {
            f32 by_row = share * exp_exact((product[i] - shift) * rate);
            f32 by_column = exp_exact((product[i] - most[i]) * rate);
            f32 gradient = fmaf(0.5f * factor / total[i], by_column, by_row);
            if (i < some) sum = fmaf(gradient, product[i], sum);
            out[i] = gradient * rate;
            if (column + i == own.all) out[i] -= rate * factor;
        }
        store(to + column, some, whole, out);
    });
    sum = warp_sum(sum);
    if (warp_team().rank == 0) terms[own.all] = (f64)(sum - factor * label);
}

KERNEL(contrastive_log_scale, 256, const f64* terms, const f32* log_scale, f32* out, u32 group) {
    f64 sum = sum_in_order(group, [&](u64 i) { return terms[i]; });
    if (threadIdx.x == 0) *out = (f32)((f64)exp_exact(*log_scale) * sum);
}

#define KERNELS(T)                                                                                 \
    KERNEL(contrastive_gradient_##T, 256, const f32* products, const f32* parts, T* made,          \
           f64* terms, const f32* log_scale, const f32* scale, const f32* dloss, u32 first,        \
           u32 rows, u32 group) {                                                                  \
        Own own = own_row(first, rows);                                                            \
        f32 factor = *scale * *dloss, rate = exp_exact(*log_scale);                                \
        if (own.any) gradient(products, parts, made, terms, rate, factor, own, group);             \
    }
FOR_ELEMENTS(KERNELS)
