//! Lines and paragraphs that stand in several places.
//!
//! Duty: cuts a text into units, and says what of each is compared. Prohibition: compares nothing.

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnitKind {
    /// What stands between line breaks.
    Line,
    /// What stands between empty lines.
    Paragraph,
}

impl UnitKind {
    /// The units of a text, in order and without gaps: each with what separates it from the next
    /// one, and what is compared of it, if it has so many bytes.
    pub(super) fn units(
        self,
        text: &str,
        min_bytes: usize,
    ) -> impl Iterator<Item = (&str, Option<&str>)> {
        let mut rest = text;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let end = match self {
                Self::Line => rest.find('\n').map(|at| at + 1),
                Self::Paragraph => paragraph_end(rest),
            };
            let (whole, after) = rest.split_at(end.unwrap_or(rest.len()));
            rest = after;
            let compared = whole.trim();
            Some((whole, (compared.len() >= min_bytes.max(1)).then_some(compared)))
        })
    }
}

/// Where the white space behind the first empty line ends.
fn paragraph_end(text: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let line_end = from + text[from..].find('\n')? + 1;
        let blank = text[line_end..].len() - text[line_end..].trim_start().len();
        let between = &text[line_end..line_end + blank];
        match between.rfind('\n') {
            Some(last) => return Some(line_end + last + 1),
            None => from = line_end,
        }
    }
}

#[cfg(test)]
mod tests;
