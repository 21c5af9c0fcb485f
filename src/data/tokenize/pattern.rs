//! The patterns that cut text into words, by name.
//!
//! Duty: the well-known names, their regular expressions, and recognising those expressions in
//! tokenizer files. Sources: openai/gpt-2 `src/encoder.py`, openai/tiktoken
//! `tiktoken_ext/openai_public.py`, meta-llama/llama-models `models/llama3/tokenizer.py`,
//! QwenLM/Qwen2 `tokenizer.json`. Prohibition: cuts nothing; that is the splitter's.

/// How text is cut into the words that byte pairs are merged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// GPT-2, r50k and p50k.
    Gpt2,
    /// GPT-3.5 and GPT-4.
    Cl100k,
    /// Llama 3: as `Cl100k` but for white space at the end of a text.
    Llama3,
    /// Qwen2: as `Llama3`, every digit alone.
    Qwen2,
    /// GPT-4o.
    O200k,
    /// Any other.
    Regex(String),
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const CL100K: &str = concat!(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s+\z|\s*[\r\n]|\s+(?!\S)|\s"
);
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const O200K: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Other spellings of the same expressions, as they stand in files.
pub(super) const SPELLINGS: &[(&str, Pattern)] = &[
    (
        r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
        Pattern::Gpt2,
    ),
    (r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", Pattern::Gpt2),
    (
        concat!(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+|",
            r" ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
        ),
        Pattern::Cl100k,
    ),
];

impl Pattern {
    /// The names of [`Self::parse`].
    pub const NAMES: [(&'static str, Self); 5] = [
        ("gpt2", Self::Gpt2),
        ("cl100k", Self::Cl100k),
        ("llama3", Self::Llama3),
        ("qwen2", Self::Qwen2),
        ("o200k", Self::O200k),
    ];

    /// Reads the value of `data.split`: a name or a regular expression. What is only letters and
    /// digits is meant as a name.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(value: &str) -> Result<Self, String> {
        if let Some((_, known)) = Self::NAMES.into_iter().find(|(name, _)| *name == value) {
            return Ok(known);
        }
        let names: Vec<&str> = Self::NAMES.iter().map(|(name, _)| *name).collect();
        let expected = || format!("expected {} or a regular expression", names.join(", "));
        if value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
            return Err(format!("{}, got \"{value}\"", expected()));
        }
        fancy_regex::Regex::new(value)
            .map_err(|error| format!("{}, got \"{value}\": {error}", expected()))?;
        Ok(Self::of_regex(value))
    }

    /// The pattern that an expression is.
    pub(super) fn of_regex(expression: &str) -> Self {
        let named = Self::NAMES.into_iter().map(|(_, pattern)| pattern);
        let spelled = SPELLINGS.iter().find(|(spelling, _)| *spelling == expression);
        named
            .into_iter()
            .find(|pattern| pattern.regex() == expression)
            .or_else(|| spelled.map(|(_, pattern)| pattern.clone()))
            .unwrap_or_else(|| Self::Regex(expression.to_owned()))
    }

    /// The regular expression.
    pub fn regex(&self) -> &str {
        match self {
            Self::Gpt2 => GPT2,
            Self::Cl100k => CL100K,
            Self::Llama3 => LLAMA3,
            Self::Qwen2 => QWEN2,
            Self::O200k => O200K,
            Self::Regex(expression) => expression,
        }
    }
}
