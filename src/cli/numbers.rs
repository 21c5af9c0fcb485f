//! Numbers among the arguments: each says what it expects. An option that takes one also allows
//! negative numbers, so that one is refused here by its range and not as an unknown option.

use std::str::FromStr;

/// A whole number, 0 included.
pub(crate) fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "expected a whole number of at least 0".to_string())
}

/// A whole number that is not 0.
pub(crate) fn at_least_1(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "expected a whole number of at least 1".to_string())
}

/// A number with or without a fraction.
pub(crate) fn number(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| "expected a number".to_string())
}
