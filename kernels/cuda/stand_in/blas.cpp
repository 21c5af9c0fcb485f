// A stand-in for cuBLASLt, for tests on machines without a GPU: it multiplies in host memory, at
// once, whatever the stream, in double precision, and refuses what does not fit together. Column by
// column, as the library does. Sizes that are not whole multiples of 8 bytes are not offered.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>

namespace {

enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum Element { F32 = 0, BF16 = 14 };
enum Form { PLAIN = 1, BIAS = 4, GELU = 32, KEEPS = 128 };

struct Product {
    int32_t transposed[2] = {0, 0};
    int32_t form = PLAIN, bias_element = -1;
    const void* bias = nullptr;
    void* kept = nullptr;
    int64_t kept_stride = 0;
};
struct Layout { int element; uint64_t rows, columns; int64_t stride; };
struct Preference {
    uint64_t workspace = 0;
    uint32_t reductions = 7, alignment[4] = {256, 256, 256, 256};
};
struct Choice {
    uint64_t algorithm[8];
    size_t workspace;
    int status;
    float waves;
    int reserved[4];
};

size_t bytes(int element) { return element == BF16 ? 2 : 4; }

double get(const void* at, int element, uint64_t i) {
    if (element == F32) return static_cast<const float*>(at)[i];
    uint32_t word = uint32_t(static_cast<const uint16_t*>(at)[i]) << 16;
    float value;
    std::memcpy(&value, &word, 4);
    return value;
}

void put(void* at, int element, uint64_t i, double value) {
    float rounded = float(value);
    if (element == F32) {
        static_cast<float*>(at)[i] = rounded;
        return;
    }
    uint32_t word;
    std::memcpy(&word, &rounded, 4);
    word += 0x7fff + (word >> 16 & 1);
    static_cast<uint16_t*>(at)[i] = uint16_t(word >> 16);
}

double gelu(double x) {
    return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

// m, n and the length of sums, if everything fits together.
bool fits(const Product& p, const Layout& a, const Layout& b, const Layout& c, uint64_t size[3]) {
    size[0] = p.transposed[0] ? a.columns : a.rows;
    size[1] = p.transposed[1] ? b.rows : b.columns;
    size[2] = p.transposed[0] ? a.rows : a.columns;
    uint64_t other = p.transposed[1] ? b.columns : b.rows;
    auto tight = [](const Layout& it) { return it.stride == int64_t(it.rows); };
    return tight(a) && tight(b) && tight(c) && a.element == b.element && size[2] == other &&
           c.rows == size[0] && c.columns == size[1];
}

}  // namespace

#define API extern "C" __attribute__((visibility("default")))

API size_t cublasLtGetVersion() { return 130100; }
API const char* cublasLtGetStatusName(int status) {
    return status == NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED" : "CUBLAS_STATUS_INVALID_VALUE";
}
API int cublasLtCreate(void** handle) { *handle = new int(1); return SUCCESS; }
API int cublasLtDestroy(void* handle) { delete static_cast<int*>(handle); return SUCCESS; }
API int cublasLtMatmulDescCreate(void** it, int compute, int scale) {
    if (compute != 68 || scale != F32) return INVALID_VALUE;
    *it = new Product;
    return SUCCESS;
}
API int cublasLtMatmulDescDestroy(void* it) { delete static_cast<Product*>(it); return SUCCESS; }
API int cublasLtMatmulDescSetAttribute(void* it, int which, const void* value, size_t size) {
    auto& p = *static_cast<Product*>(it);
    auto set = [&](auto& to) {
        if (size != sizeof to) return INVALID_VALUE;
        std::memcpy(&to, value, size);
        return SUCCESS;
    };
    switch (which) {
        case 3: return set(p.transposed[0]);
        case 4: return set(p.transposed[1]);
        case 7: return set(p.form);
        case 8: return set(p.bias);
        case 11: return set(p.kept);
        case 12: return set(p.kept_stride);
        case 26: return set(p.bias_element);
        default: return INVALID_VALUE;
    }
}
API int cublasLtMatrixLayoutCreate(
    void** it, int element, uint64_t rows, uint64_t columns, int64_t stride) {
    if (element != F32 && element != BF16) return INVALID_VALUE;
    *it = new Layout{element, rows, columns, stride};
    return SUCCESS;
}
API int cublasLtMatrixLayoutDestroy(void* it) { delete static_cast<Layout*>(it); return SUCCESS; }
API int cublasLtMatmulPreferenceCreate(void** it) { *it = new Preference; return SUCCESS; }
API int cublasLtMatmulPreferenceDestroy(void* it) {
    delete static_cast<Preference*>(it);
    return SUCCESS;
}
API int cublasLtMatmulPreferenceSetAttribute(void* it, int which, const void* value, size_t size) {
    auto& p = *static_cast<Preference*>(it);
    bool workspace = which == 1 && size == 8, alignment = which >= 5 && which <= 8 && size == 4;
    if (which == 3 && size == 4) return std::memcpy(&p.reductions, value, 4), SUCCESS;
    if (workspace) std::memcpy(&p.workspace, value, 8);
    if (alignment) std::memcpy(&p.alignment[which - 5], value, 4);
    return workspace || alignment ? SUCCESS : INVALID_VALUE;
}
API int cublasLtMatmulAlgoGetHeuristic(
    void*, void* product, void* a, void* b, void* c, void* d, void* preference, int wanted,
    Choice* choices, int* count) {
    uint64_t size[3];
    auto layout = [](void* it) -> Layout& { return *static_cast<Layout*>(it); };
    *count = 0;
    bool fit = fits(*static_cast<Product*>(product), layout(a), layout(b), layout(c), size);
    if (c != d || wanted < 1 || !fit) return INVALID_VALUE;
    // As a card's: what belongs to an epilogue that is not asked for is in the way.
    auto& p = *static_cast<Product*>(product);
    if ((p.bias_element >= 0) != bool(p.form & BIAS)) return NOT_SUPPORTED;
    if ((p.kept_stride != 0) != bool(p.form & KEEPS)) return NOT_SUPPORTED;
    // Rounded results are to be rounded once.
    bool twice = static_cast<Preference*>(preference)->reductions != 2;
    if (layout(c).element == BF16 && twice) return NOT_SUPPORTED;
    for (void* it : {a, b, c}) {
        if (layout(it).stride * bytes(layout(it).element) % 8 != 0) return NOT_SUPPORTED;
    }
    size_t workspace = static_cast<Preference*>(preference)->workspace / 2;
    choices[0] = Choice{{7}, workspace, SUCCESS, 1, {}};
    *count = 1;
    return SUCCESS;
}
API int cublasLtMatmul(
    void*, void* product, const float* alpha, const void* a, void* a_layout, const void* b,
    void* b_layout, const float* beta, const void* c, void* c_layout, void* d, void* d_layout,
    const uint64_t* algorithm, void* workspace, size_t workspace_bytes, void*) {
    auto& p = *static_cast<Product*>(product);
    auto &al = *static_cast<Layout*>(a_layout), &bl = *static_cast<Layout*>(b_layout);
    auto& cl = *static_cast<Layout*>(c_layout);
    uint64_t size[3];
    bool keeps = p.form & KEEPS, biased = p.form & BIAS, gated = p.form & GELU;
    bool fit = fits(p, al, bl, cl, size) && c == d && c_layout == d_layout && algorithm[0] == 7;
    if (workspace_bytes > 0) std::memset(workspace, 0xff, workspace_bytes);
    if (!fit || *alpha != 1 || (biased && !p.bias)) return INVALID_VALUE;
    if (keeps && (!p.kept || p.kept_stride != int64_t(size[0]))) return INVALID_VALUE;
    for (uint64_t j = 0; j < size[1]; j++) {
        for (uint64_t i = 0; i < size[0]; i++) {
            double sum = 0;
            for (uint64_t k = 0; k < size[2]; k++) {
                uint64_t at = p.transposed[0] ? k + i * al.stride : i + k * al.stride;
                uint64_t bt = p.transposed[1] ? j + k * bl.stride : k + j * bl.stride;
                sum += get(a, al.element, at) * get(b, bl.element, bt);
            }
            uint64_t to = i + j * cl.stride;
            if (*beta != 0) sum += *beta * get(c, cl.element, to);
            if (biased) sum += get(p.bias, p.bias_element, i);
            if (keeps) put(p.kept, cl.element, to, sum);
            put(d, cl.element, to, gated ? gelu(sum) : sum);
        }
    }
    return SUCCESS;
}
