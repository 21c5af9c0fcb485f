//! `gopher_quality`: the quality rules of Gopher (arXiv 2112.11446, table A1), as datatrove keeps
//! them: numbers and lengths of words, shares of signs, bullets, ellipses and letters, and words
//! that English text has.

use serde::{Deserialize, Serialize};

use super::lines::lines_of;
use super::settings::{ordered, share};
use super::{Cleaner, Document, Step, Verdict};
use crate::data::error::DataError;

/// Words of signs alone do not count for the first four settings.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct GopherQuality {
    /// Fewest words.
    pub min_words: u64,
    /// Most words.
    pub max_words: u64,
    /// Shortest mean length of a word, in characters.
    pub min_mean_word_length: f64,
    /// Longest mean length of a word.
    pub max_mean_word_length: f64,
    /// Most `#`, and most ellipses, for each word.
    pub max_symbol_ratio: f64,
    /// Largest share of lines that begin with a bullet.
    pub max_bullet_lines: f64,
    /// Largest share of lines that end with an ellipsis.
    pub max_ellipsis_lines: f64,
    /// Smallest share of words with a letter.
    pub min_alphabetic_words: f64,
    /// Fewest of `stop_words` that must occur.
    pub min_stop_words: u64,
    /// Whether one that occurs twice counts once.
    pub stop_words_distinct: bool,
    /// What most texts contain; case counts.
    pub stop_words: Vec<String>,
}

impl Default for GopherQuality {
    fn default() -> Self {
        let stop_words = ["the", "be", "to", "of", "and", "that", "have", "with"];
        Self {
            min_words: 50,
            max_words: 100_000,
            min_mean_word_length: 3.0,
            max_mean_word_length: 10.0,
            max_symbol_ratio: 0.1,
            max_bullet_lines: 0.9,
            max_ellipsis_lines: 0.3,
            min_alphabetic_words: 0.8,
            min_stop_words: 2,
            stop_words_distinct: true,
            stop_words: stop_words.map(str::to_owned).into(),
        }
    }
}

impl Step for GopherQuality {
    fn validate(&self) -> Result<(), String> {
        ordered("max_words", self.min_words, self.max_words)?;
        ordered("max_mean_word_length", self.min_mean_word_length, self.max_mean_word_length)?;
        share("max_bullet_lines", self.max_bullet_lines)?;
        share("max_ellipsis_lines", self.max_ellipsis_lines)?;
        share("min_alphabetic_words", self.min_alphabetic_words)
    }

    fn open(&self) -> Result<Box<dyn Cleaner>, DataError> {
        Ok(Box::new(self.clone()))
    }
}

impl Cleaner for GopherQuality {
    fn apply(&self, document: &mut Document) -> Verdict {
        let view = document.view();
        let (text, words) = (view.text, view.words);
        let plain = || words.iter().filter(|word| !word.signs);
        let count = plain().count() as u64;
        if count < self.min_words {
            return Verdict::Drop("too_few_words");
        }
        if count > self.max_words {
            return Verdict::Drop("too_many_words");
        }
        let mean =
            plain().map(|word| u64::from(word.characters)).sum::<u64>() as f64 / count as f64;
        if mean < self.min_mean_word_length {
            return Verdict::Drop("short_words");
        }
        if mean > self.max_mean_word_length {
            return Verdict::Drop("long_words");
        }
        let all = words.len() as f64;
        let hashes = text.bytes().filter(|&byte| byte == b'#').count();
        if hashes as f64 / all > self.max_symbol_ratio {
            return Verdict::Drop("hashes");
        }
        let ellipses = text.matches("...").count() + text.matches('…').count();
        if ellipses as f64 / all > self.max_symbol_ratio {
            return Verdict::Drop("ellipses");
        }
        if let Some(reason) = self.judge_lines(text) {
            return Verdict::Drop(reason);
        }
        let letters = words.iter().filter(|word| word.letters).count();
        if (letters as f64 / all) < self.min_alphabetic_words {
            return Verdict::Drop("few_letters");
        }
        let stop = |word| self.stop_words.iter().position(|stop| stop == view.word(word));
        let mut seen = vec![0u64; self.stop_words.len()];
        words.iter().filter_map(stop).for_each(|at| seen[at] += 1);
        let most = if self.stop_words_distinct { 1 } else { u64::MAX };
        match seen.iter().map(|&times| times.min(most)).sum::<u64>() < self.min_stop_words {
            true => Verdict::Drop("few_stop_words"),
            false => Verdict::Keep,
        }
    }
}

impl GopherQuality {
    fn judge_lines(&self, text: &str) -> Option<&'static str> {
        let (mut lines, mut bullets, mut ellipses) = (0u64, 0u64, 0u64);
        for line in lines_of(text) {
            lines += 1;
            bullets += u64::from(line.trim_start().starts_with(['•', '-']));
            let end = line.trim_end();
            ellipses += u64::from(end.ends_with("...") || end.ends_with('…'));
        }
        if bullets as f64 / lines as f64 > self.max_bullet_lines {
            return Some("bullets");
        }
        (ellipses as f64 / lines as f64 > self.max_ellipsis_lines).then_some("ellipsis_lines")
    }
}

#[cfg(test)]
mod tests {
    use super::GopherQuality;
    use crate::data::clean::testing::{dropped, kept};

    /// 60 words of 4 letters and the two stop words that are wanted.
    fn good() -> String {
        "the and ".to_owned() + &"word ".repeat(58)
    }

    #[test]
    fn every_threshold_has_two_sides() {
        let step = GopherQuality::default();
        let words = |n: usize| "the and ".to_owned() + &"word ".repeat(n - 2);
        kept(&step, &words(50));
        dropped(&step, &words(49), "too_few_words");
        // Signs are no words, but they count where shares are taken.
        dropped(&step, &(words(49) + "!"), "too_few_words");
        let most = GopherQuality { max_words: 60, ..GopherQuality::default() };
        kept(&most, &words(60));
        dropped(&most, &words(61), "too_many_words");
        let lengths = |n: usize| format!("the and {}", format!("{} ", "a".repeat(n)).repeat(48));
        kept(&step, &lengths(3));
        dropped(&step, &(lengths(3) + "to"), "short_words");
        kept(&step, &format!("{} {}", lengths(10), "aaaaaaaaaaaaaaaaa"));
        dropped(&step, &format!("{} {}", lengths(10), "a".repeat(25)), "long_words");
        // 6 of 66 words, 7 of 67: at most a tenth.
        kept(&step, &(good() + &"#".repeat(6)));
        dropped(&step, &(good() + &"#".repeat(7)), "hashes");
        kept(&step, &(good() + &"… ".repeat(6) + "word"));
        dropped(&step, &(good() + &"… ".repeat(7) + "word"), "ellipses");
        let lines = |marked: usize, mark: &str, all: usize| {
            let line = |i| if i < marked { format!("{mark}\n") } else { "word\n".to_owned() };
            good() + "\n" + &(1..all).map(|i| line(i - 1)).collect::<String>()
        };
        kept(&step, &lines(9, "- word word word", 10));
        dropped(&step, &lines(10, "\t• word word word", 11), "bullets");
        kept(&step, &lines(3, "word word...", 10));
        dropped(&step, &lines(4, "word word...", 10), "ellipsis_lines");
        kept(&step, &(good() + &"1234 ".repeat(15)));
        dropped(&step, &(good() + &"1234 ".repeat(16)), "few_letters");
        dropped(&step, &("the ".repeat(9) + &"word ".repeat(58)), "few_stop_words");
        dropped(&step, &good().replace("the", "The"), "few_stop_words");
        let twice = GopherQuality { stop_words_distinct: false, ..GopherQuality::default() };
        kept(&twice, &("the the ".to_owned() + &"word ".repeat(58)));
    }
}
