//! `load_balance_loss` in f64.

/// E · Σ_n Σ_e f_e p_ne.
pub(super) fn sum(logits: &[f64], counts: &[i32]) -> f64 {
    let total: i32 = counts.iter().sum();
    let experts = counts.len();
    let row = |x: &[f64]| {
        let sum: f64 = x.iter().map(|x| x.exp()).sum();
        let share = |c: i32| f64::from(c) / f64::from(total.max(1));
        x.iter().zip(counts).map(|(x, &c)| x.exp() / sum * share(c)).sum::<f64>()
    };
    experts as f64 * logits.chunks(experts).map(row).sum::<f64>()
}
