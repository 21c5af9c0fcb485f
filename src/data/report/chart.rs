//! Charts as SVG inside the page.
//!
//! Duty: bars. Prohibition: no script, no fonts of its own.

use std::fmt::Write;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 130.0;
/// For the labels below.
const FOOT: f64 = 18.0;

/// A histogram: bars side by side, each with what it counts. `label` names a bar.
pub(super) fn histogram(counts: &[u64], label: impl Fn(usize) -> String, title: &str) -> String {
    let Some(first) = counts.iter().position(|&count| count > 0) else { return String::new() };
    let last = counts.iter().rposition(|&count| count > 0).unwrap_or(first);
    let shown = &counts[first..=last];
    let most = shown.iter().copied().max().unwrap_or(1).max(1) as f64;
    let step = WIDTH / shown.len() as f64;
    let mut svg = format!(
        "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" \
         aria-label=\"{title}\">",
        HEIGHT + FOOT
    );
    // Labels that do not touch one another.
    let every = (48.0 / step).ceil().max(1.0) as usize;
    for (at, &count) in shown.iter().enumerate() {
        let height = count as f64 / most * HEIGHT;
        let x = at as f64 * step;
        let name = label(first + at);
        let _infallible = write!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>{name}: \
             {count}</title></rect>",
            x + step * 0.06,
            HEIGHT - height,
            step * 0.88,
        );
        if at % every == 0 {
            let _infallible = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
                x + step * 0.06,
                HEIGHT + FOOT - 4.0
            );
        }
    }
    svg + "</svg></figure>"
}

/// A bar of a funnel: what is left and what was lost, of so many in all.
pub(super) fn share(left: u64, lost: u64, all: u64) -> String {
    let of = |count: u64| count as f64 / all.max(1) as f64 * 100.0;
    format!(
        "<svg class=\"share\" viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\">\
         <rect width=\"{:.2}\" height=\"8\"></rect>\
         <rect class=\"lost\" x=\"{:.2}\" width=\"{:.2}\" height=\"8\"></rect></svg>",
        of(left),
        of(left),
        of(lost),
    )
}
