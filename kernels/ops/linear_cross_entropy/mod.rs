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
//! Gradient: recomputes the logits, unless they are one chunk and small: then they are a fifth
//! output, saved `logits f32[N, V]`, and the bits are the same. `dhidden` overwrites (0 in ignored
//! rows), `dw` and `dbias` are `f32`, summed chunk by chunk, overwriting or accumulating.
//! `chunk_rows` decides where those sums are cut and is part of the results. Nothing flows back to
//! the scale or from `loss_sum`. Dead rows are neither read nor written.

use crate::cpu::CpuRun;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Backward, Cost, Graph, Tensor};
use crate::ops::loss::{apply_loss, expect_scalar, loss_specs};
use crate::ops::shapes::{Shapes, expect_float, expect_i32, matrix};
use crate::ops::{Io, Op};
use crate::shape::Spec;

mod cpu;
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
    /// Factor of the squared logsumexp; 0 for none.
    pub z_loss: f32,
    /// Share of the uniform distribution in the target; 0 for none.
    pub label_smoothing: f32,
    /// Bound of the logits.
    pub softcap: Option<f32>,
}

impl Default for LossOptions {
    fn default() -> Self {
        Self { chunk_rows: 512, z_loss: 0.0, label_smoothing: 0.0, softcap: None }
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
}

/// `dhidden`, and `dw` and `dbias` where they are wanted, from the forward operands, `logsumexp`,
/// `dloss f32[]` and the logits if they were kept.
#[derive(Debug)]
struct Gradient {
    forward: LinearCrossEntropy,
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
    let op = LinearCrossEntropy { options, bias: bias.is_some(), marks: false };
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
    let op = LinearCrossEntropy { options, bias: false, marks: true };
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
        let LossOptions { chunk_rows, z_loss, label_smoothing, softcap } = self.options;
        let fair = z_loss >= 0.0 && (0.0..1.0).contains(&label_smoothing);
        if chunk_rows == 0 || !fair || softcap.is_some_and(|cap| cap <= 0.0) {
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
        rows <= self.options.chunk_rows && rows * classes * size_of::<f32>() <= KEPT_BYTES
    }

    /// FLOPs of the logits.
    fn product_flops(io: &Io) -> f64 {
        2.0 * io.inputs[0].elements() as f64 * io.inputs[1].leading() as f64
    }
}

impl Op for LinearCrossEntropy {
    fn name(&self) -> &'static str {
        "linear_cross_entropy"
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
        Ok(outputs)
    }

    fn gradient(&self, backward: &mut Backward<'_, '_, '_>) -> Result<()> {
        let Some(dloss) = backward.gradient(0) else { return Ok(()) };
        let mut inputs = Vec::with_capacity(self.operands() + 2);
        // The gradient knows no marks.
        let marks = self.marks.then_some(self.labels() + 1);
        for i in (0..self.operands()).filter(|&i| Some(i) != marks) {
            inputs.push(backward.input(i)?);
        }
        inputs.extend([backward.output(3)?, dloss]);
        if self.keeps_logits(backward.input_spec(0), backward.input_spec(1)) {
            inputs.push(backward.output(4)?);
        }
        let (weight, bias) = (backward.wants(1), self.bias && backward.wants(2));
        let wanted = [(0, true), (1, weight), (2, bias)];
        let targets: Vec<usize> = wanted.into_iter().filter(|w| w.1).map(|w| w.0).collect();
        let forward = Self { marks: false, ..*self };
        backward.give_all(&targets, Gradient { forward, weight, bias }, &inputs)
    }

    fn cost(&self, io: &Io) -> Cost {
        Cost { flops: Self::product_flops(io), bytes: io.bytes() as f64 }
    }

    fn workspace(&self, io: &Io) -> usize {
        let kept = self.keeps_logits(&io.inputs[0], &io.inputs[1]);
        let logits = if kept { 0 } else { self.chunk_bytes(io) };
        cpu::record_bytes(io.inputs[0].leading()) + logits
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::forward(run, self);
        Ok(())
    }
}

impl Op for Gradient {
    fn name(&self) -> &'static str {
        "linear_cross_entropy_gradient"
    }

    fn outputs(&self, inputs: &[&Spec]) -> Shapes {
        let count = self.forward.operands();
        if !(count + 2..=count + 3).contains(&inputs.len()) {
            return Err(format!("{} operands, not {}", inputs.len(), count + 2));
        }
        let [rows, columns, classes] = self.forward.check(&inputs[..count])?;
        if let Some(logits) = inputs.get(count + 2) {
            expect_float(logits, &[rows, classes], "the logits")?;
        }
        expect_float(inputs[count], &[rows], "logsumexp")?;
        expect_scalar(inputs[count + 1], "the gradient")?;
        let mut outputs = vec![inputs[0].clone().with_live(inputs[count].live)];
        if self.weight {
            outputs.push(Spec::new(&[classes, columns], DType::F32));
        }
        if self.bias {
            outputs.push(Spec::new(&[classes], DType::F32));
        }
        Ok(outputs)
    }

    fn differentiable(&self) -> bool {
        false
    }

    fn accumulates(&self) -> bool {
        true
    }

    fn cost(&self, io: &Io) -> Cost {
        let recomputed = io.inputs.len() == self.forward.operands() + 2;
        let products = 1 + usize::from(self.weight) + usize::from(recomputed);
        let flops = products as f64 * LinearCrossEntropy::product_flops(io);
        Cost { flops, bytes: io.bytes() as f64 }
    }

    fn workspace(&self, io: &Io) -> usize {
        self.forward.chunk_bytes(io)
    }

    fn run_cpu(&self, run: &CpuRun<'_>) -> Result<()> {
        cpu::gradient(run, self);
        Ok(())
    }
}
