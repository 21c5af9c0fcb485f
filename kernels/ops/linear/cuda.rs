//! What `linear` asks of a GPU: one product each; a bias and GELU in its epilogue.

use crate::launch::{Epilogue, Extent, Factor, Launch, Launches, Matmul, Memory, element};
use crate::ops::Io;
use crate::ops::activation::Activation;

/// `y = x wᵀ + b`, and then a function if there is one, whose argument output 1 keeps if `keeps`.
pub(super) fn forward(io: &Io, function: Option<Activation>, keeps: bool) -> Option<Launches> {
    element(io.inputs.iter())?;
    let [n, k] = [io.inputs[1].leading(), io.inputs[1].columns()];
    let bias = (io.inputs.len() > 2).then_some(Memory::Input(2));
    let keeps = keeps.then_some(Memory::Output(1));
    let epilogue = match (function, bias) {
        // The only function that libraries apply as it is defined here.
        (Some(function @ Activation::Gelu), bias) => Epilogue::Activation { function, bias, keeps },
        (Some(_), _) => return None,
        (None, Some(bias)) => Epilogue::Bias(bias),
        (None, None) => Epilogue::None,
    };
    let product = product(io, Extent::rows(io, Memory::Input(0)), n, k.into());
    Some(one(Matmul { b: Factor { transposed: true, ..product.b }, epilogue, ..product }))
}

/// `dx = dy w`.
pub(super) fn input_gradient(io: &Io) -> Option<Launches> {
    element(io.inputs.iter())?;
    let [k, n] = [io.inputs[1].leading(), io.inputs[1].columns()];
    let product = product(io, Extent::rows(io, Memory::Input(0)), n, k.into());
    Some(one(Matmul { accumulate: Some(0), ..product }))
}

/// `dw = dyᵀ x`: a contraction over rows, which may be live.
pub(super) fn weight_gradient(io: &Io) -> Option<Launches> {
    element(io.inputs.iter())?;
    let [m, n] = [io.inputs[0].columns(), io.inputs[1].columns()];
    let product = product(io, m.into(), n, Extent::rows(io, Memory::Input(0)));
    let a = Factor { transposed: true, ..product.a };
    Some(one(Matmul { a, accumulate: Some(0), ..product }))
}

/// Of the first two inputs into the first output.
fn product(io: &Io, m: Extent, n: usize, k: Extent) -> Matmul {
    let factor = |i: usize| Factor {
        memory: Memory::Input(i),
        dtype: io.inputs[i].dtype,
        transposed: false,
        scale: None,
    };
    Matmul {
        m,
        n,
        k,
        a: factor(0),
        b: factor(1),
        c: Memory::Output(0),
        c_dtype: io.outputs[0].dtype,
        accumulate: None,
        epilogue: Epilogue::None,
    }
}

fn one(product: Matmul) -> Launches {
    Launches::new([Launch::Matmul(product)])
}
