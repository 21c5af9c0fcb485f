//! `linear_cross_entropy` on the CPU: per chunk of rows a matrix product, then the rows in
//! parallel.

use std::ops::Range;

use crate::cpu::gemm::{Floats, Matrix, Output, Size, gemm_with};
use crate::cpu::isa::dispatch;
use crate::cpu::rows::map_rows;
use crate::cpu::softmax::softmax_parts;
use crate::cpu::softmax::{exp_or_zero, ln};
use crate::cpu::{CpuDevice, CpuRun, vector};
use crate::dtype::Precision;
use crate::ops::column_sum::cpu::add_column_sums;
use crate::ops::linear_cross_entropy::{LinearCrossEntropy, LossOptions, Wanted};

/// What forward notes about a row: logsumexp, cross-entropy, term of the loss.
const RECORD: usize = 3;

/// Bytes of the records of `rows` rows, in whole cache lines.
pub(super) fn record_bytes(rows: usize) -> usize {
    (rows * RECORD * size_of::<f64>()).next_multiple_of(64)
}

/// The operands that make logits.
struct Layer<'a> {
    device: &'a CpuDevice,
    matmul: Precision,
    hidden: Floats<'a>,
    w: Floats<'a>,
    bias: Option<&'a [f32]>,
    labels: &'a [i32],
    scale: f32,
    columns: usize,
    classes: usize,
    live: usize,
    options: LossOptions,
}

impl<'a> Layer<'a> {
    fn new(run: &CpuRun<'a>, op: &LinearCrossEntropy) -> Self {
        let labels = op.labels();
        Self {
            device: run.device(),
            matmul: run.matmul(),
            hidden: run.floats(0),
            w: run.floats(1),
            bias: op.bias.then(|| run.input(2)),
            labels: run.input(labels),
            scale: run.input::<f32>(op.operands() - 1)[0],
            columns: run.input_spec(1).columns(),
            classes: run.input_spec(1).leading(),
            live: run.live_input(0).min(run.live_input(labels)),
            options: op.options,
        }
    }

    /// The live rows, cut into chunks.
    fn chunks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (size, live) = (self.options.chunk_rows, self.live);
        (0..live).step_by(size).map(move |start| start..live.min(start + size))
    }

    /// `hidden` from a row on.
    fn hidden_from(&self, row: usize) -> Matrix<'a> {
        self.hidden.from(row * self.columns).rows(self.columns).rounded(self.matmul)
    }

    /// Writes the logits of a chunk.
    fn logits(&self, rows: &Range<usize>, logits: &mut [f32]) {
        let size = Size { m: rows.len(), n: self.classes, k: self.columns };
        let a = self.hidden_from(rows.start);
        let b = self.w.transposed(self.columns).rounded(self.matmul);
        let c = Output::new(logits, self.classes, false);
        let CpuDevice { pool, scratch, isa, .. } = self.device;
        gemm_with(pool, scratch, size, a, b, c, &|mut block| {
            for row in 0..block.rows() {
                let first = block.first_column;
                let z = block.row(row);
                if let Some(bias) = self.bias {
                    vector::add_scaled(*isa, z, 1.0, &bias[first..first + z.len()]);
                }
                if let Some(cap) = self.options.softcap {
                    soft_cap(*isa, z, cap);
                }
            }
        });
    }

    /// The row's label, if it has one.
    fn label(&self, row: usize) -> Option<usize> {
        usize::try_from(self.labels[row]).ok()
    }
}

pub(super) fn forward(run: &CpuRun<'_>, op: &LinearCrossEntropy) {
    let layer = Layer::new(run, op);
    let capacity = run.input_spec(0).leading();
    let (records, scratch) = run.workspace::<u8>().split_at_mut(record_bytes(capacity));
    let records: &mut [f64] = bytemuck::cast_slice_mut(records);
    let kept = op.keeps_logits(run.input_spec(0), run.input_spec(1));
    let logits: &mut [f32] = match kept {
        true => run.output(4),
        false => bytemuck::cast_slice_mut(scratch),
    };
    let mut gradients = op.makes.map(|wanted| Gradients::new(run, wanted, 4, layer.live));
    let logsumexp = run.output::<f32>(3);
    for rows in layer.chunks() {
        layer.logits(&rows, logits);
        let part = &mut records[rows.start * RECORD..rows.end * RECORD];
        let output = [(&mut *part, RECORD)];
        map_rows(&layer.device.pool, rows.len(), layer.classes, output, |range, [records]| {
            for (i, record) in range.zip(records.chunks_exact_mut(RECORD)) {
                let z = &logits[i * layer.classes..][..layer.classes];
                record.copy_from_slice(&terms(&layer, z, rows.start + i));
            }
        });
        let saved = &mut logsumexp[rows.clone()];
        for (saved, record) in saved.iter_mut().zip(part.chunks_exact(RECORD)) {
            *saved = record[0] as f32;
        }
        if let Some(gradients) = &mut gradients {
            gradients.add(&layer, &rows, logits, None, saved, layer.scale);
        }
    }
    let records = &records[..layer.live * RECORD];
    let total = |i: usize| records.iter().skip(i).step_by(RECORD).sum::<f64>();
    let targets = layer.labels[..layer.live].iter().filter(|label| **label >= 0).count();
    let scale = if targets == 0 { 0.0 } else { f64::from(layer.scale) };
    run.output::<f32>(0)[0] = (scale * total(2)) as f32;
    run.output::<f32>(1)[0] = total(1) as f32;
    run.output::<i32>(2)[0] = targets as i32;
    if op.marks {
        let marks = run.input::<i32>(op.labels() + 1).iter();
        let marked = records.chunks_exact(RECORD).zip(marks).filter(|(_, mark)| **mark > 0);
        let sum: f64 = marked.map(|(record, _)| record[1]).sum();
        run.output::<f32>(4 + usize::from(kept))[0] = sum as f32;
    }
}

/// A row's logsumexp, cross-entropy and term. An ignored row adds nothing.
fn terms(layer: &Layer<'_>, z: &[f32], row: usize) -> [f64; RECORD] {
    let isa = layer.device.isa;
    let (largest, sum) = softmax_parts(isa, z, 1.0);
    let logsumexp = f64::from(largest) + ln(sum);
    let Some(label) = layer.label(row) else { return [logsumexp, 0.0, 0.0] };
    let Some(&target) = z.get(label) else { return [logsumexp, f64::NAN, f64::NAN] };
    let cross_entropy = logsumexp - f64::from(target);
    let LossOptions { z_loss, label_smoothing, .. } = layer.options;
    let mut term = cross_entropy;
    if label_smoothing > 0.0 {
        let smooth = logsumexp - vector::sum_f64(isa, z) / z.len() as f64;
        term += f64::from(label_smoothing) * (smooth - cross_entropy);
    }
    if z_loss > 0.0 {
        term += f64::from(z_loss) * logsumexp * logsumexp;
    }
    [logsumexp, cross_entropy, term]
}

pub(super) fn gradient(run: &CpuRun<'_>, (op, wanted): &(LinearCrossEntropy, Wanted)) {
    let layer = Layer::new(run, op);
    let saved = op.operands();
    let logsumexp = run.input::<f32>(saved);
    let factor = layer.scale * run.input::<f32>(saved + 1)[0];
    let logits = run.workspace::<f32>();
    let kept = (run.inputs() > saved + 2).then(|| run.input::<f32>(saved + 2));
    let mut gradients = Gradients::new(run, *wanted, 0, layer.live);
    for rows in layer.chunks() {
        if kept.is_none() {
            layer.logits(&rows, logits);
        }
        let kept = kept.map(|kept| &kept[rows.start * layer.classes..]);
        gradients.add(&layer, &rows, logits, kept, &logsumexp[rows.clone()], factor);
    }
}

/// A sum over chunks, and whether it has a first term already.
type Sum<'a> = (bool, &'a mut [f32]);

/// The outputs that gradients are written to, chunk by chunk.
struct Gradients<'a> {
    hidden: Sum<'a>,
    weight: Option<Sum<'a>>,
    bias: Option<Sum<'a>>,
}

impl<'a> Gradients<'a> {
    /// Outputs from number `first` on.
    fn new(run: &CpuRun<'a>, wanted: Wanted, first: usize, live: usize) -> Self {
        let output = |i: usize| (run.accumulate(i), run.output::<f32>(i));
        let mut weight = wanted.weight.then(|| output(first + 1));
        let bias_at = first + 1 + usize::from(wanted.weight);
        let mut bias = wanted.bias.then(|| output(bias_at));
        for (accumulates, sum) in weight.iter_mut().chain(&mut bias) {
            if live == 0 && !*accumulates {
                sum.fill(0.0);
            }
        }
        Self { hidden: output(first), weight, bias }
    }

    /// Adds what a chunk contributes. Its logits are in `kept`, or in `logits`, where they become
    /// their gradients.
    fn add(
        &mut self,
        layer: &Layer<'_>,
        rows: &Range<usize>,
        logits: &mut [f32],
        kept: Option<&[f32]>,
        logsumexp: &[f32],
        factor: f32,
    ) {
        let Layer { device, classes, columns, .. } = *layer;
        let dlogits = &mut logits[..rows.len() * classes];
        map_rows(&device.pool, rows.len(), classes, [(&mut *dlogits, classes)], |range, [z]| {
            for (i, z) in range.zip(z.chunks_exact_mut(classes)) {
                if let Some(kept) = kept {
                    z.copy_from_slice(&kept[i * classes..][..classes]);
                }
                row_gradient(layer, layer.label(rows.start + i), logsumexp[i], factor, z);
            }
        });
        let dz = Matrix::rows(dlogits, classes).rounded(layer.matmul);
        let size = Size { m: rows.len(), n: columns, k: classes };
        let (accumulates, dhidden) = &mut self.hidden;
        let out = Output::new(&mut dhidden[rows.start * columns..], columns, *accumulates);
        device.gemm(size, dz, layer.w.rows(columns).rounded(layer.matmul), out);
        if let Some((accumulates, dw)) = &mut self.weight {
            let dz = Matrix::transposed(dlogits, classes).rounded(layer.matmul);
            let size = Size { m: classes, n: columns, k: rows.len() };
            let out = Output::new(dw, columns, *accumulates);
            device.gemm(size, dz, layer.hidden_from(rows.start), out);
            *accumulates = true;
        }
        if let Some((accumulates, dbias)) = &mut self.bias {
            add_column_sums(device, dlogits, rows.len(), dbias, *accumulates);
            *accumulates = true;
        }
    }
}

/// Turns a row's logits into their gradient.
fn row_gradient(layer: &Layer<'_>, label: Option<usize>, lse: f32, factor: f32, z: &mut [f32]) {
    let Some(label) = label else { return z.fill(0.0) };
    let LossOptions { z_loss, label_smoothing, softcap, .. } = layer.options;
    let target = z.get(label).copied().unwrap_or(f32::NAN);
    let weight = factor * (2.0 * z_loss).mul_add(lse, 1.0);
    let uniform = factor * label_smoothing / z.len() as f32;
    let cap = softcap.unwrap_or(0.0);
    logit_gradients(layer.device.isa, z, lse, weight, uniform, cap);
    if let Some(z) = z.get_mut(label) {
        *z -= factor * (1.0 - label_smoothing) * cap_slope(target, cap);
    }
}

/// Derivative of the soft cap by its result; 1 without a cap.
#[inline(always)]
fn cap_slope(z: f32, cap: f32) -> f32 {
    let share = z / cap;
    if cap > 0.0 { (-share).mul_add(share, 1.0) } else { 1.0 }
}

dispatch! {
    fn soft_cap(z: &mut [f32], cap: f32) {
        z.iter_mut().for_each(|z| *z = cap * vector::tanh(*z / cap));
    }

    /// `weight · softmax - uniform`, through the soft cap.
    fn logit_gradients(z: &mut [f32], lse: f32, weight: f32, uniform: f32, cap: f32) {
        if cap > 0.0 {
            for z in z {
                let softmax = exp_or_zero(*z - lse);
                *z = softmax.mul_add(weight, -uniform) * cap_slope(*z, cap);
            }
        } else {
            for z in z {
                *z = exp_or_zero(*z - lse).mul_add(weight, -uniform);
            }
        }
    }
}
