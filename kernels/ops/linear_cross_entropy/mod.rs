//! `linear_cross_entropy`: the last linear layer and softmax cross-entropy in one, chunk by chunk
//! of rows, so that the logits of all rows are never held (the idea: Wijmans et al.,
//! arXiv:2411.09009).
//!
//! `hidden f[N, D], w f[V, D], bias f[V]?, labels i32[N], scale f32[] ->
//! loss f32[], loss_sum f32[], targets i32[]`, saved `logsumexp f32[N]`. Logits are
//! `z = hidden wᵀ + bias`, then `cap · tanh(z / cap)` with a soft cap. The term of a row with a
//! label of at least 0 is
//! `(1 - s) (L - z[label]) + s (L - mean z) + c L²`, L the logsumexp of z, s the label smoothing, c
//! the z-loss. `loss` is `scale` times the sum of the terms, `loss_sum` the sum of `L - z[label]`
//! alone; both are added in f64 in row order. `targets` counts the terms; without any, all are 0. A
//! label of V or more gives NaN. With `marks i32[N]` behind the labels a last output `f32[]` is the
//! sum of `L - z[label]` over the terms whose mark is above 0.
//!
//! Gradient: `dhidden` overwrites (0 in ignored rows), `dw` and `dbias` are `f32`, summed chunk by
//! chunk, overwriting or accumulating. If the loss is what backward starts from, the forward pass
//! makes them too, while it has the logits: three products in all. Else the logits are computed
//! again, unless they are one chunk and small: then they are a fifth output, saved
//! `logits f32[N, V]`. All ways give the same bits. `chunk_rows` decides where sums are cut and is
//! part of the results. Nothing flows back to the scale or from `loss_sum`. Dead rows are neither
//! read nor written.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::target::Gpu;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::launch::Launches;
use crate::ops::gradient_op::GradientOp;
use crate::ops::loss::{apply_loss, expect_scalar, loss_specs};
use crate::ops::shapes::{Shapes, expect_float, expect_i32, matrix};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
mod cuda;
#[cfg(test)]
mod gpu_tests;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// Largest logits that are kept for the gradient.
const KEPT_BYTES: usize = 64 << 20;

/// What the loss is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossOptions {
    /// Rows whose logits are held at a time.
    pub chunk_rows: usize,
    /// So many of these chunks are one on a GPU, which needs more rows to be busy. At least 1.
    pub gpu_chunks: usize,
    /// Factor of the squared logsumexp; 0 for none.
    pub z_loss: f32,
    /// Share of the uniform distribution in the target; 0 for none.
    pub label_smoothing: f32,
    /// Bound of the logits.
    pub softcap: Option<f32>,
}

impl Default for LossOptions {
    fn default() -> Self {
        Self { chunk_rows: 512, gpu_chunks: 1, z_loss: 0.0, label_smoothing: 0.0, softcap: None }
    }
}

/// What [`linear_cross_entropy`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearLoss {
    /// `scale` times the sum of the terms, `f32[]`.
    pub loss: Tensor,
    /// Sum of the cross-entropies alone, `f32[]`.
    pub loss_sum: Tensor,
    /// Number of terms, `i32[]`.
    pub targets: Tensor,
}

/// Forward, with what backward needs among its outputs.
#[derive(Debug, Clone, Copy)]
struct LinearCrossEntropy {
    options: LossOptions,
    bias: bool,
    marks: bool,
    /// The gradients that it makes in the same pass, behind its other outputs.
    makes: Option<Wanted>,
}

/// Which gradients are made besides that of `hidden`.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    weight: bool,
    bias: bool,
}

/// The cross-entropy of `hidden wᵀ + bias` against `labels`.
///
/// # Errors
/// [`crate::error::Error::Shape`] when shapes or dtypes differ from the above or an option is out
/// of range.
pub fn linear_cross_entropy(
    g: &mut Graph<'_>,
    hidden: Tensor,
    w: Tensor,
    bias: Option<Tensor>,
    labels: Tensor,
    scale: Tensor,
    options: LossOptions,
) -> Result<LinearLoss> {
    let op = LinearCrossEntropy { options, bias: bias.is_some(), marks: false, makes: None };
    let inputs: Vec<Tensor> = [hidden, w].into_iter().chain(bias).chain([labels, scale]).collect();
    let outputs = apply_loss(g, op, &inputs)?;
    Ok(LinearLoss { loss: outputs[0], loss_sum: outputs[1], targets: outputs[2] })
}

/// As [`linear_cross_entropy`] without bias; and the sum of the cross-entropies, `f32[]`, of the
/// terms whose `marks i32[N]` is above 0, for reports: nothing flows back from it.
///
/// # Errors
/// As [`linear_cross_entropy`].
pub fn marked_linear_cross_entropy(
    g: &mut Graph<'_>,
    [hidden, w]: [Tensor; 2],
    labels: Tensor,
    marks: Tensor,
    scale: Tensor,
    options: LossOptions,
) -> Result<(LinearLoss, Tensor)> {
    let op = LinearCrossEntropy { options, bias: false, marks: true, makes: None };
    let outputs = apply_loss(g, op, &[hidden, w, labels, marks, scale])?;
    let marked = g.stop_gradient(*outputs.last().expect("the marked sum"));
    Ok((LinearLoss { loss: outputs[0], loss_sum: outputs[1], targets: outputs[2] }, marked))
}

impl LinearCrossEntropy {
    /// Number of operands.
    fn operands(&self) -> usize {
        4 + usize::from(self.bias) + usize::from(self.marks)
    }

    /// Which operand the labels are; the marks stand behind them.
    fn labels(&self) -> usize {
        2 + usize::from(self.bias)
    }

    /// Rows, columns and classes.
    fn check(&self, inputs: &[&Spec]) -> std::result::Result<[usize; 3], String> {
        if inputs.len() != self.operands() {
            return Err(format!("{} operands, not {}", inputs.len(), self.operands()));
        }
        let ([rows, columns], [classes, inner]) =
            (matrix(inputs[0], "hidden")?, matrix(inputs[1], "the weight")?);
        if columns != inner {
            return Err(format!("hidden is {}, the weight {}", inputs[0], inputs[1]));
        }
        if self.bias {
            expect_float(inputs[2], &[classes], "the bias")?;
        }
        expect_i32(inputs[self.labels()], &[rows], "labels")?;
        if self.marks {
            expect_i32(inputs[self.labels() + 1], &[rows], "marks")?;
        }
        expect_scalar(inputs[self.operands() - 1], "the scale")?;
        let LossOptions { chunk_rows, gpu_chunks, z_loss, label_smoothing, softcap } = self.options;
        let fair = z_loss >= 0.0 && (0.0..1.0).contains(&label_smoothing);
        if chunk_rows == 0 || gpu_chunks == 0 || !fair || softcap.is_some_and(|cap| cap <= 0.0) {
            return Err(format!("{:?} is out of range", self.options));
        }
        Ok([rows, columns, classes])
    }

    /// Bytes of the logits of one chunk.
    fn chunk_bytes(&self, io: &Io) -> usize {
        let rows = self.options.chunk_rows.min(io.inputs[0].leading());
        rows * io.inputs[1].leading() * size_of::<f32>()
    }

    /// Whether the logits are kept for the gradient.
    fn keeps_logits(&self, hidden: &Spec, w: &Spec) -> bool {
        let (rows, classes) = (hidden.leading(), w.leading());
        self.makes.is_none()
            && rows <= self.options.chunk_rows
            && rows * classes * size_of::<f32>() <= KEPT_BYTES
    }

    /// FLOPs of the logits.
    fn product_flops(io: &Io) -> f64 {
        2.0 * io.inputs[0].elements() as f64 * io.inputs[1].leading() as f64
    }
}

impl Wanted {
    /// Of `dhidden`, `dw` and `dbias`, from `hidden, w`.
    fn specs<'s>(self, of: &'s [&Spec], live: Option<Tensor>) -> impl Iterator<Item = Spec> + 's {
        let (hidden, w) = (of[0], of[1]);
        let dw = self.weight.then(|| Spec::new(&w.shape, DType::F32));
        let dbias = self.bias.then(|| Spec::new(&w.shape[..1], DType::F32));
        [hidden.clone().with_live(live)].into_iter().chain(dw).chain(dbias)
    }
}

impl Op for LinearCrossEntropy {
    fn name(&self) -> &'static str {
        match self.makes {
            None => "linear_cross_entropy",
            Some(_) => "linear_cross_entropy+gradient",
        }
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let [rows, _, classes] = self.check(inputs)?;
        let [loss, sum] = loss_specs();
        let live = inputs[0].live.or(inputs[self.labels()].live);
        let logsumexp = Spec::new(&[rows], DType::F32).with_live(live);
        let mut outputs = vec![loss, sum, Spec::scalar(DType::I32), logsumexp];
        if self.keeps_logits(inputs[0], inputs[1]) {
            outputs.push(Spec::new(&[rows, classes], DType::F32).with_live(live));
        }
        if self.marks {
            outputs.push(Spec::scalar(DType::F32));
        }
        outputs.extend(self.makes.map(|wanted| wanted.specs(inputs, live)).into_iter().flatten());
        Ok(outputs)
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let Some(dloss) = backward.gradient(0) else { return Ok(()) };
        let wanted = Wanted { weight: backward.wants(1), bias: self.bias && backward.wants(2) };
        let of = [(0, true), (1, wanted.weight), (2, wanted.bias)];
        let targets: Vec<usize> = of.into_iter().filter(|w| w.1).map(|w| w.0).collect();
        let merged = Self { makes: Some(wanted), ..*self };
        if !self.marks && backward.is_root(0) && backward.merge(&targets, merged)? {
            return Ok(());
        }
        let mut inputs = Vec::with_capacity(self.operands() + 3);
        // The gradient knows no marks.
        let marks = self.marks.then_some(self.labels() + 1);
        for i in (0..self.operands()).filter(|&i| Some(i) != marks) {
            inputs.push(backward.input(i)?);
        }
        inputs.extend([backward.output(3)?, dloss]);
        if self.keeps_logits(backward.input_spec(0), backward.input_spec(1)) {
            inputs.push(backward.output(4)?);
        }
        let op = Self { marks: false, ..*self };
        // From the forward operands, `logsumexp`, `dloss f32[]` and the logits if they were kept.
        let rule = GradientOp {
            outputs: |(op, wanted): &(Self, Wanted), of| {
                wanted.specs(of, of[op.operands()].live).collect()
            },
            flops: |(op, wanted), io| {
                let recomputed = io.inputs.len() == op.operands() + 2;
                let products = 1 + usize::from(wanted.weight) + usize::from(recomputed);
                products as f64 * Self::product_flops(io)
            },
            workspace: |(op, _), io| op.chunk_bytes(io),
            stored: &[0, 1],
            cuda: cuda::gradient,
            ..GradientOp::new("linear_cross_entropy_gradient", (op, wanted), cpu::gradient)
        };
        backward.give_all(&targets, rule, &inputs)
    }

    fn accumulates(&self) -> bool {
        self.makes.is_some()
    }

    fn cost(&self, io: &Io) -> Cost {
        let gradients = self.makes.map_or(0, |wanted| 1 + usize::from(wanted.weight));
        let flops = (1 + gradients) as f64 * Self::product_flops(io);
        Cost { flops, bytes: io.bytes() as f64 }
    }

    fn workspace(&self, io: &Io) -> usize {
        let kept = self.keeps_logits(&io.inputs[0], &io.inputs[1]);
        let logits = if kept { 0 } else { self.chunk_bytes(io) };
        cpu::record_bytes(io.inputs[0].leading()) + logits
    }

    fn reads_stored(&self, i: usize) -> bool {
        i < 2
    }

    fn cuda(&self, io: &Io, _: &Gpu) -> Option<Launches> {
        cuda::forward(io, self)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run, self);
        Ok(())
    }
}
