//! Matrix products by cuBLASLt, where it is found and offers one; which algorithm is asked once for
//! each kind of product, and kept.
//!
//! It names columns where we name rows: our row-major `c[m, n] = a[m, k] · b[k, n]` is its
//! `cᵀ = bᵀ aᵀ`, so that our right factor is its `A`. Its algorithms repeat their bits; another
//! version of the library may choose others, which is why a run's manifest has the version.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{from_ref, null_mut};
use std::sync::{Mutex, PoisonError};

use cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtEpilogue_t as Form, cublasLtMatmulDescAttributes_t as Attribute,
    cublasLtMatmulPreferenceAttributes_t as Preference, cudaDataType_t as Element,
};
use cudarc::driver::sys::CUstream;

use crate::cuda::find::Found;
use crate::cuda::library::functions;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::target::BLAS_BYTES;
use crate::launch::{Epilogue, Factor, Matmul, MatmulKey};
use crate::memory::DeviceSlice;
use crate::ops::activation::Activation;

#[cfg(test)]
mod tests;

type Status = c_int;
type Handle = *mut c_void;

functions! {
    /// What is used of `libcublasLt`.
    struct Functions {
        status_name: c"cublasLtGetStatusName" (Status) -> *const c_char;
        create: c"cublasLtCreate" (*mut Handle) -> Status;
        destroy: c"cublasLtDestroy" (Handle) -> Status;
        product_create: c"cublasLtMatmulDescCreate" (*mut Handle, c_int, c_int) -> Status;
        product_destroy: c"cublasLtMatmulDescDestroy" (Handle) -> Status;
        product_set: c"cublasLtMatmulDescSetAttribute" (
            Handle, c_int, *const c_void, usize,
        ) -> Status;
        layout_create: c"cublasLtMatrixLayoutCreate" (*mut Handle, c_int, u64, u64, i64) -> Status;
        layout_destroy: c"cublasLtMatrixLayoutDestroy" (Handle) -> Status;
        preference_create: c"cublasLtMatmulPreferenceCreate" (*mut Handle) -> Status;
        preference_destroy: c"cublasLtMatmulPreferenceDestroy" (Handle) -> Status;
        preference_set: c"cublasLtMatmulPreferenceSetAttribute" (
            Handle, c_int, *const c_void, usize,
        ) -> Status;
        choose: c"cublasLtMatmulAlgoGetHeuristic" (
            Handle, Handle, Handle, Handle, Handle, Handle, Handle, c_int, *mut Choice, *mut c_int,
        ) -> Status;
        multiply: c"cublasLtMatmul" (
            Handle, Handle, *const c_void, *const c_void, Handle, *const c_void, Handle,
            *const c_void, *const c_void, Handle, *mut c_void, Handle, *const [u64; 8],
            *mut c_void, usize, CUstream,
        ) -> Status;
    }
}

/// `cublasLtMatmulHeuristicResult_t`, with a plain number as its status.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Choice {
    algorithm: [u64; 8],
    workspace_bytes: usize,
    status: Status,
    waves: f32,
    reserved: [c_int; 4],
}

/// `CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE`.
const SUMS_IN_F32: u32 = 2;

/// What operands must at least begin at a multiple of.
const ALIGNMENT: u32 = 16;

/// The library in one context.
pub(super) struct Blas {
    functions: Functions,
    handle: Handle,
    /// `None`: it offers nothing.
    planned: Mutex<HashMap<Kind, Option<Planned>>>,
}

/// What the choice depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    key: MatmulKey,
    bias: bool,
}

/// A product as the library knows it.
#[derive(Clone, Copy)]
struct Planned {
    product: Handle,
    /// Of its `A`, `B` and `C`.
    layouts: [Handle; 3],
    choice: Choice,
}

/// Where the operands of a product lie in this run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    pub(super) a: DeviceSlice,
    pub(super) b: DeviceSlice,
    pub(super) c: DeviceSlice,
    pub(super) bias: Option<DeviceSlice>,
    pub(super) keeps: Option<DeviceSlice>,
    /// [`BLAS_BYTES`] that nobody else uses on this stream.
    pub(super) workspace: DeviceSlice,
    /// Whether it adds to `c`.
    pub(super) adds: bool,
}

// SAFETY: handles of the library, which any thread may use; what changes has a lock.
unsafe impl Send for Blas {}
// SAFETY: as above.
unsafe impl Sync for Blas {}

fn element(dtype: DType) -> Option<c_int> {
    match dtype {
        DType::F32 => Some(Element::CUDA_R_32F as c_int),
        DType::Bf16 => Some(Element::CUDA_R_16BF as c_int),
        _ => None,
    }
}

/// What the library calls an epilogue; `None` for what it has not.
fn form(epilogue: &Epilogue) -> Option<Form> {
    Some(match epilogue {
        Epilogue::None => Form::CUBLASLT_EPILOGUE_DEFAULT,
        Epilogue::Bias(_) => Form::CUBLASLT_EPILOGUE_BIAS,
        Epilogue::Activation { function: Activation::Gelu, bias, keeps } => {
            match (bias.is_some(), keeps.is_some()) {
                (false, false) => Form::CUBLASLT_EPILOGUE_GELU,
                (false, true) => Form::CUBLASLT_EPILOGUE_GELU_AUX,
                (true, false) => Form::CUBLASLT_EPILOGUE_GELU_BIAS,
                (true, true) => Form::CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
            }
        }
        Epilogue::Activation { .. } => return None,
    })
}

impl Blas {
    /// Takes the library for the context of this thread.
    ///
    /// # Errors
    /// [`Error::Device`] if it does not start.
    pub(super) fn open(found: &Found) -> Result<Self> {
        let at = |why: String| {
            Error::Device(format!("cuBLASLt {} at {}: {why}", found.version, found.path.display()))
        };
        let functions = Functions::of(found.library).map_err(at)?;
        let mut this = Self { functions, handle: null_mut(), planned: Mutex::default() };
        // SAFETY: writes one handle that lives longer than the call.
        let status = unsafe { (this.functions.create)(&raw mut this.handle) };
        this.check("cublasLtCreate", status).map_err(|error| at(error.to_string()))?;
        Ok(this)
    }

    /// Multiplies when the stream comes to it. Whether it does: `false` for what the library does
    /// not offer, which is the same for every run of a product.
    ///
    /// # Safety
    /// Of [`crate::device::Device::run`].
    pub(super) unsafe fn multiply(
        &self,
        stream: CUstream,
        product: &Matmul,
        places: &Places,
    ) -> Result<bool> {
        let Places { a, b, c, bias, keeps, workspace, adds } = *places;
        let all = [Some(a), Some(b), Some(c), bias, keeps];
        let aligned =
            |slice: DeviceSlice| (slice.pointer() as usize).is_multiple_of(ALIGNMENT as usize);
        if !product.for_library() || !all.into_iter().flatten().all(aligned) {
            return Ok(false);
        }
        let kind = Kind { key: product.key(), bias: bias.is_some() };
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        let known = planned.get(&kind).copied();
        let it = known.map_or_else(|| self.plan(product), Ok)?;
        if known.is_none() {
            planned.insert(kind, it);
        }
        let Some(it) = it else { return Ok(false) };
        let pointer = |slice: DeviceSlice| slice.pointer() as u64;
        if let Some(bias) = bias {
            self.set(it.product, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &pointer(bias))?;
        }
        if let Some(keeps) = keeps {
            let attribute = Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER;
            self.set(it.product, attribute, &pointer(keeps))?;
        }
        let (alpha, beta) = (1.0f32, f32::from(u8::from(adds)));
        let workspace = workspace.part(0, it.choice.workspace_bytes);
        // SAFETY: the caller vouches for the memory; numbers and descriptions are read in the call,
        // and the lock is held.
        let status = unsafe {
            (self.functions.multiply)(
                self.handle,
                it.product,
                from_ref(&alpha).cast(),
                b.pointer().cast(),
                it.layouts[0],
                a.pointer().cast(),
                it.layouts[1],
                from_ref(&beta).cast(),
                c.pointer().cast(),
                it.layouts[2],
                c.pointer().cast(),
                it.layouts[2],
                &raw const it.choice.algorithm,
                workspace.pointer().cast(),
                workspace.bytes(),
                stream,
            )
        };
        let said = self.check("cublasLtMatmul", status);
        said.map_err(|error| error.within(&product.key().to_string())).map(|()| true)
    }

    /// Describes a product and asks for an algorithm.
    fn plan(&self, product: &Matmul) -> Result<Option<Planned>> {
        let Matmul { m, n, k, a, b, c_dtype, epilogue, .. } = product;
        let (m, n, k) = (m.capacity as u64, *n as u64, k.capacity as u64);
        let dtypes = [a.dtype, b.dtype, *c_dtype].map(element);
        let [Some(a_element), Some(b_element), Some(c_element)] = dtypes else { return Ok(None) };
        let Some(form) = form(epilogue) else { return Ok(None) };
        // Products of f32 are ours: the library's were farther from the sums than is promised.
        if [a.dtype, b.dtype] != [DType::Bf16; 2] || a.scale.is_some() || b.scale.is_some() {
            return Ok(None);
        }
        let compute = cublasComputeType_t::CUBLAS_COMPUTE_32F as c_int;
        let mut it = null_mut();
        let create = self.functions.product_create;
        // SAFETY: writes one handle that lives longer than the call.
        let status = unsafe { create(&raw mut it, compute, Element::CUDA_R_32F as c_int) };
        self.check("cublasLtMatmulDescCreate", status)?;
        // `CUBLAS_OP_N`, `CUBLAS_OP_T`.
        let [of_a, of_b] = [b, a].map(|factor| c_int::from(factor.transposed));
        self.set(it, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &of_a)?;
        self.set(it, Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &of_b)?;
        self.set(it, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &(form as c_int))?;
        // Each only with what it is of: a card's library offers no sums in f32 otherwise.
        if matches!(epilogue, Epilogue::Bias(_) | Epilogue::Activation { bias: Some(_), .. }) {
            self.set(it, Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &a_element)?;
        }
        if matches!(epilogue, Epilogue::Activation { keeps: Some(_), .. }) {
            self.set(it, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &(n as i64))?;
        }
        // As they lie: their columns are our rows.
        let lies = |factor: &Factor, rows: u64, columns: u64| match factor.transposed {
            false => [columns, rows],
            true => [rows, columns],
        };
        let layouts = [
            self.layout(b_element, lies(b, k, n))?,
            self.layout(a_element, lies(a, m, k))?,
            self.layout(c_element, [n, m])?,
        ];
        let choice = self.choose(it, layouts, *c_dtype)?;
        if choice.is_none() {
            self.forget(it, layouts);
        }
        Ok(choice.map(|choice| Planned { product: it, layouts, choice }))
    }

    fn layout(&self, element: c_int, [rows, columns]: [u64; 2]) -> Result<Handle> {
        let mut layout = null_mut();
        let create = self.functions.layout_create;
        // SAFETY: writes one handle that lives longer than the call.
        let status = unsafe { create(&raw mut layout, element, rows, columns, rows as i64) };
        self.check("cublasLtMatrixLayoutCreate", status).map(|()| layout)
    }

    /// The library's first choice within the workspace that is planned for it.
    fn choose(
        &self,
        product: Handle,
        [a, b, c]: [Handle; 3],
        c_dtype: DType,
    ) -> Result<Option<Choice>> {
        let mut preference = null_mut();
        // SAFETY: writes one handle that lives longer than the call.
        let status = unsafe { (self.functions.preference_create)(&raw mut preference) };
        self.check("cublasLtMatmulPreferenceCreate", status)?;
        let set = |which: Preference, value: *const c_void, bytes: usize| {
            // SAFETY: so many bytes are read in the call.
            let status = unsafe {
                (self.functions.preference_set)(preference, which as c_int, value, bytes)
            };
            self.check("cublasLtMatmulPreferenceSetAttribute", status)
        };
        let most = BLAS_BYTES as u64;
        set(Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, from_ref(&most).cast(), 8)?;
        if c_dtype == DType::Bf16 {
            // Sums that are split are added up in f32, not rounded first.
            let scheme = from_ref(&SUMS_IN_F32).cast();
            set(Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, scheme, 4)?;
        }
        for which in [
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            set(which, from_ref(&ALIGNMENT).cast(), 4)?;
        }
        let (mut choice, mut count) = (Choice::default(), 0);
        let choose = self.functions.choose;
        // SAFETY: writes one choice and one number that live longer than the call. A status is
        // returned where there is none: that is no error.
        let status = unsafe {
            choose(self.handle, product, a, b, c, c, preference, 1, &raw mut choice, &raw mut count)
        };
        // SAFETY: made above, destroyed once.
        unsafe { (self.functions.preference_destroy)(preference) };
        Ok((status == 0 && count == 1 && choice.status == 0).then_some(choice))
    }

    fn set<T>(&self, product: Handle, which: Attribute, value: &T) -> Result<()> {
        let (value, bytes) = (from_ref(value).cast(), size_of::<T>());
        // SAFETY: so many bytes are read in the call.
        let status = unsafe { (self.functions.product_set)(product, which as c_int, value, bytes) };
        self.check("cublasLtMatmulDescSetAttribute", status)
    }

    fn forget(&self, product: Handle, layouts: [Handle; 3]) {
        // SAFETY: made by this library, destroyed once.
        unsafe {
            (self.functions.product_destroy)(product);
            for layout in layouts {
                (self.functions.layout_destroy)(layout);
            }
        }
    }

    fn check(&self, call: &str, status: Status) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: returns a constant of the library.
        let name = unsafe { CStr::from_ptr((self.functions.status_name)(status)) };
        Err(Error::Device(format!("{call}: {}", name.to_string_lossy())))
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        let planned = self.planned.get_mut().unwrap_or_else(PoisonError::into_inner);
        for planned in std::mem::take(planned).into_values().flatten() {
            self.forget(planned.product, planned.layouts);
        }
        if !self.handle.is_null() {
            // SAFETY: made in `open`, destroyed once.
            unsafe { (self.functions.destroy)(self.handle) };
        }
    }
}
