// linear_cross_entropy: what stands between the products of the loss head (mod.rs has the formulas),
// for a chunk of rows, a block for each. loss_rows: logits f32 [rows, classes] -> records, logsumexp
// and, if there is where to, the gradients of the logits; gradient_rows: those alone. totals: the
// loss and what else is summed over all rows, in order of rows, by one block.
//
// Gradients of logits are stored as the other factor of their products is; in f32 over the logits,
// else beside them, and in f32 too where a bias wants them. Rows of the chunk that are dead become 0
// there, and in nothing else.
#include "loss.cuh"

// expects loss_rows_*: LDG.E.128 STG.E.128
// expects gradient_rows_*: LDG.E.128 STG.E.128

/// The loss's settings; a cap of 0 is none.
struct Options { f32 z_loss, smoothing, cap; };

/// Where a row's gradients go: either may be null.
template <class T> struct Made { T* narrow; f32* wide; };

template <class T>
__device__ __forceinline__ void put(Made<T> to, u32 column, u32 some, bool whole, const f32 (&x)[PACK]) {
    if (to.narrow) store(to.narrow + column, some, whole, x);
    if (to.wide) store(to.wide + column, some, whole, x);
}

/// A row of zeros.
template <class T> __device__ __forceinline__ void clear(Made<T> to, u32 classes, bool whole) {
    f32 zeros[PACK] = {};
    each_pack(block_team(), Rows{0, 1}, classes,
              [&](u64, u32 column, u32 some) { put(to, column, some, whole, zeros); });
}

/// Slope of the soft cap by its result.
__device__ __forceinline__ f32 cap_slope(f32 z, f32 cap) {
    f32 share = z / cap;
    return cap > 0.0f ? fmaf(-share, share, 1.0f) : 1.0f;
}

/// A row's logits become, or leave, their gradients.
template <class T>
__device__ __forceinline__ void row_gradient(const f32* z, Made<T> to, u32 classes, bool whole, i32 label,
                                             f32 lse, f32 factor, Options options) {
    if (label < 0) return clear(to, classes, whole);
    f32 weight = factor * fmaf(2.0f * options.z_loss, lse, 1.0f);
    f32 uniform = factor * options.smoothing / (f32)classes;
    each_pack(block_team(), Rows{0, 1}, classes, [&](u64, u32 column, u32 some) {
        f32 x[PACK];
        load(z + column, some, whole, x);
#pragma unroll
        for (u32 k = 0; k < PACK; k++) {
            f32 slope = cap_slope(x[k], options.cap);
            f32 d = fmaf(exp_or_zero(x[k] - lse), weight, -uniform) * slope;
            bool target = column + k == (u32)label;
            x[k] = target ? d - factor * (1.0f - options.smoothing) * slope : d;
        }
        put(to, column, some, whole, x);
    });
}

/// What forward notes about a row.
struct Record { f64 lse, cross_entropy, term; };

/// The soft cap on a row's logits, where they lie. Each thread comes back to its own.
__device__ __forceinline__ void cap_row(f32* z, u32 classes, bool whole, f32 cap) {
    each_pack(block_team(), Rows{0, 1}, classes, [&](u64, u32 column, u32 some) {
        f32 x[PACK];
        load(z + column, some, whole, x);
#pragma unroll
        for (u32 k = 0; k < PACK; k++) x[k] = cap * tanh_exact(x[k] / cap);
        store(z + column, some, whole, x);
    });
}

/// By all threads; the result is every thread's.
__device__ __forceinline__ Record terms(const f32* z, u32 classes, bool whole, i32 label, Options options) {
    f32 largest = lowest_f32(), sum = 0.0f;
    f64 plain = 0.0;
    each_pack(block_team(), Rows{0, 1}, classes, [&](u64, u32 column, u32 some) {
        f32 x[PACK];
        load(z + column, some, whole, x);
#pragma unroll
        for (u32 k = 0; k < PACK; k++) {
            if (k < some) largest = x[k] > largest ? x[k] : largest;
            plain += x[k];
        }
    });
    largest = block_max(largest);
    each_pack(block_team(), Rows{0, 1}, classes, [&](u64, u32 column, u32 some) {
        f32 x[PACK];
        load(z + column, some, whole, x);
#pragma unroll
        for (u32 k = 0; k < PACK; k++) {
            if (k < some) sum += exp_exact(x[k] - largest);
        }
    });
    sum = block_sum(sum);
    Record record = {(f64)largest + ln(sum), 0.0, 0.0};
    if (options.smoothing > 0.0f) plain = block_sum(plain);
    if (label < 0) return record;
    // The logit of a class that is not there is no number.
    f32 target = (u32)label < classes ? z[label] : nan_f32();
    record.cross_entropy = record.lse - (f64)target;
    record.term = record.cross_entropy;
    if (options.smoothing > 0.0f) {
        f64 smooth = record.lse - plain / (f64)classes;
        record.term += (f64)options.smoothing * (smooth - record.cross_entropy);
    }
    if (options.z_loss > 0.0f) record.term += (f64)options.z_loss * record.lse * record.lse;
    return record;
}

#define KERNELS(T)                                                                                 \
    KERNEL(loss_rows_##T, 256, f32* logits, const i32* labels, Record* records, f32* logsumexp,    \
           T* narrow, f32* wide, const f32* scale, const i32* live, u32 first, u32 rows,           \
           u32 classes, f32 z_loss, f32 smoothing, f32 cap) {                                      \
        u64 row = blockIdx.x, at = row * classes;                                                  \
        bool whole = classes % PACK == 0;                                                          \
        Options options = {z_loss, smoothing, cap};                                                \
        Made<T> to = {narrow ? narrow + at : nullptr, wide ? wide + at : nullptr};                 \
        if (row >= live_rows(live, first, rows)) return clear(to, classes, whole);                 \
        i32 label = labels[first + row];                                                           \
        if (cap > 0.0f) {                                                                          \
            cap_row(logits + at, classes, whole, cap);                                             \
            __syncthreads();                                                                       \
        }                                                                                          \
        Record record = terms(logits + at, classes, whole, label, options);                        \
        f32 lse = (f32)record.lse;                                                                 \
        if (threadIdx.x == 0) records[first + row] = record, logsumexp[first + row] = lse;         \
        /* The target's logit is read before gradients lie over it. */                             \
        __syncthreads();                                                                           \
        if (narrow) row_gradient(logits + at, to, classes, whole, label, lse, *scale, options);    \
    }                                                                                              \
    KERNEL(gradient_rows_##T, 256, const f32* logits, const i32* labels, const f32* logsumexp,     \
           T* narrow, f32* wide, const f32* scale, const f32* dloss, const i32* live, u32 first,   \
           u32 rows, u32 classes, f32 z_loss, f32 smoothing, f32 cap) {                            \
        u64 row = blockIdx.x, at = row * classes;                                                  \
        bool whole = classes % PACK == 0;                                                          \
        Options options = {z_loss, smoothing, cap};                                                \
        Made<T> to = {narrow + at, wide ? wide + at : nullptr};                                    \
        if (row >= live_rows(live, first, rows)) return clear(to, classes, whole);                 \
        row_gradient(logits + at, to, classes, whole, labels[first + row], logsumexp[first + row], \
                     *scale * *dloss, options);                                                    \
    }
FOR_ELEMENTS(KERNELS)

KERNEL(cap_logits, 256, f32* logits, const i32* live, u32 first, u32 rows, u32 classes, f32 cap) {
    if (blockIdx.x >= live_rows(live, first, rows)) return;
    cap_row(logits + (u64)blockIdx.x * classes, classes, classes % PACK == 0, cap);
}

KERNEL(totals, 256, const Record* records, const i32* labels, const i32* marks, const f32* scale,
       f32* loss, f32* loss_sum, i32* targets, f32* marked, const i32* live, u32 capacity) {
    u32 rows = live_rows(live, capacity);
    f64 sum = sum_in_order(rows, [&](u64 row) { return records[row].term; });
    f64 plain = sum_in_order(rows, [&](u64 row) { return records[row].cross_entropy; });
    f64 some = 0.0;
    if (marks) {
        some = sum_in_order(rows, [&](u64 row) { return marks[row] > 0 ? records[row].cross_entropy : 0.0; });
    }
    u32 count = count_rows(rows, [&](u64 row) { return labels[row] >= 0; });
    if (threadIdx.x) return;
    *loss = (f32)((count ? (f64)*scale : 0.0) * sum);
    *loss_sum = (f32)plain;
    *targets = (i32)count;
    if (marks) *marked = (f32)some;
}
