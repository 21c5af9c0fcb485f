//! `kl_divergence` in f64.

/// The sum over rows of `columns` logits.
pub(super) fn sum(student: &[f64], teacher: &[f64], temperature: f64, columns: usize) -> f64 {
    let log_softmax = |x: &[f64]| -> Vec<f64> {
        let sum: f64 = x.iter().map(|x| (x / temperature).exp()).sum();
        x.iter().map(|x| x / temperature - sum.ln()).collect()
    };
    let row = |(s, t): (&[f64], &[f64])| {
        let pairs = log_softmax(t).into_iter().zip(log_softmax(s));
        pairs.filter(|(t, _)| *t > f64::NEG_INFINITY).map(|(t, s)| t.exp() * (t - s)).sum::<f64>()
    };
    let rows = student.chunks(columns).zip(teacher.chunks(columns));
    temperature * temperature * rows.map(row).sum::<f64>()
}
