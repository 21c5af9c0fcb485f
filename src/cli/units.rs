//! Numbers as a person reads them.

use std::time::Duration;

use octet::data::Counts;

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A time as `23h45m`, `90s` or `1d12h`: whole numbers, each with its unit.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let wanted = || format!("expected a time like 23h45m, 90s or 2d, got \"{text}\"");
    let (mut seconds, mut number) = (0u64, String::new());
    for letter in text.chars() {
        let unit: u64 = match letter {
            '0'..='9' => {
                number.push(letter);
                continue;
            }
            'd' => 86_400,
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return Err(wanted()),
        };
        let count: u64 = std::mem::take(&mut number).parse().map_err(|_| wanted())?;
        let part = count.checked_mul(unit).ok_or_else(wanted)?;
        seconds = seconds.checked_add(part).ok_or_else(wanted)?;
    }
    match number.is_empty() && seconds > 0 {
        true => Ok(Duration::from_secs(seconds)),
        false => Err(wanted()),
    }
}

/// Bytes with a unit.
pub(crate) fn size(bytes: usize) -> String {
    octet_actors::units::size(bytes as u64)
}

/// Seconds with a unit that suits them.
pub(crate) fn duration(seconds: f64) -> String {
    for (unit, length) in [("days", 86_400.0), ("h", 3600.0), ("min", 60.0)] {
        if seconds >= 2.0 * length {
            return format!("{:.1} {unit}", seconds / length);
        }
    }
    format!("{seconds:.1} s")
}

/// How much text there is, and what was passed over, in one line.
pub(crate) fn text(counts: &Counts) -> String {
    let number = |count: u64| grouped(count as usize);
    let skipped = match counts.skipped == Default::default() {
        true => String::new(),
        false => format!("; {}", counts.skipped),
    };
    format!(
        "{} documents in {} files, {} tokens to learn from, {} held out{skipped}",
        number(counts.documents),
        number(counts.files),
        number(counts.train_tokens),
        number(counts.validation_tokens),
    )
}

/// The beginning of a digest, enough to tell two apart.
pub(crate) fn short(digest: &str) -> &str {
    digest.get(..16).unwrap_or(digest)
}
