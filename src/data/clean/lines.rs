//! Lines of a text, as the published filters cut them.
//!
//! Duty: lines end where Unicode says that they must, so at more than `\n`. Prohibition: no rule.

#[cfg(test)]
mod tests;

/// The lines of a text without their ends; none for nothing behind the last end.
pub(super) fn lines_of(text: &str) -> Lines<'_> {
    Lines { rest: text }
}

/// Iterates over lines.
#[derive(Clone, Debug)]
pub(super) struct Lines<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let bytes = self.rest.as_bytes();
        let mut at = 0;
        let (end, next) = loop {
            match bytes.get(at) {
                None => break (at, at),
                Some(b'\r') if bytes.get(at + 1) == Some(&b'\n') => break (at, at + 2),
                Some(b'\n' | b'\r' | 0x0b | 0x0c | 0x1c..=0x1e) => break (at, at + 1),
                // U+0085.
                Some(0xc2) if bytes.get(at + 1) == Some(&0x85) => break (at, at + 2),
                // U+2028 and U+2029.
                Some(0xe2) if matches!(bytes.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9])) => {
                    break (at, at + 3);
                }
                Some(_) => at += 1,
            }
        };
        let line = &self.rest[..end];
        self.rest = &self.rest[next..];
        Some(line)
    }
}

/// The pieces of a text between runs of at least `least` line feeds, empty ones at both ends too.
pub(super) fn between_line_feeds(text: &str, least: usize) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let mut from = 0;
        while let Some(at) = text[from..].find('\n') {
            let start = from + at;
            let run = text[start..].bytes().take_while(|&byte| byte == b'\n').count();
            if run >= least {
                rest = Some(&text[start + run..]);
                return Some(&text[..start]);
            }
            from = start + run;
        }
        Some(text)
    })
}
