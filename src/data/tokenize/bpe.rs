//! Byte-level byte pair encoding, learned from a sample of the text.
//!
//! Duty: `bpe:N` as a Hugging Face `tokenizer.json`: GPT-2's splitting pattern, all 256 bytes,
//! one special token (id 0) for the end of a document, merges by frequency: the tokenizer that
//! the crate's own trainer makes. The same sample gives the same file.
//! Prohibition: keeps nothing; the result is the JSON text.

use std::collections::{BTreeSet, BinaryHeap, HashMap};

use serde_json::{Map, Value, json};

use super::pattern::Pattern;
use super::split::Splitter;
use crate::data::error::DataError;

/// How the end of a document is spelled in `tokenizer.json`.
pub const END_OF_DOCUMENT: &str = "<|endoftext|>";
/// A pair must occur this often to be merged.
const MIN_FREQUENCY: u64 = 2;
/// Pairs between two questions whether to go on.
const PAIRS_PER_POLL: usize = 64;

/// Learns at most `size` tokens (at least 257) from `sample`; a small sample gives fewer. `end`
/// spells the end of a document. `poll` may end it.
///
/// # Errors
/// Those of `poll`.
pub fn train(
    size: usize,
    sample: &[String],
    end: &str,
    poll: &mut dyn FnMut() -> Result<(), DataError>,
) -> Result<Vec<u8>, DataError> {
    let mut words = count_words(sample, poll)?;
    // Ids as the crate gives them: the special token, then bytes by their character.
    let mut alphabet: Vec<(char, u8)> = byte_characters().into_iter().zip(0..=255).collect();
    alphabet.sort_unstable();
    let mut tokens: Vec<Vec<u8>> = vec![Vec::new()];
    let mut byte_tokens = [0u32; 256];
    for (_, byte) in alphabet {
        byte_tokens[byte as usize] = tokens.len() as u32;
        tokens.push(vec![byte]);
    }
    for word in &mut words {
        word.tokens.iter_mut().for_each(|byte| *byte = byte_tokens[*byte as usize]);
    }
    let mut known: HashMap<Vec<u8>, u32> =
        (0u32..).zip(&tokens).map(|(i, t)| (t.clone(), i)).collect();
    let mut pairs = Pairs::count(&words);
    let mut merges = Vec::new();
    while tokens.len() < size {
        if merges.len() % PAIRS_PER_POLL == 0 {
            poll()?;
        }
        let Some((pair, places)) = pairs.most_frequent() else { break };
        let bytes = [tokens[pair.0 as usize].as_slice(), &tokens[pair.1 as usize]].concat();
        merges.push(pair);
        let next = tokens.len() as u32;
        let result = *known.entry(bytes.clone()).or_insert(next);
        if result == next {
            tokens.push(bytes);
        }
        for place in places {
            let word = &mut words[place as usize];
            word.merge(pair, result, &mut |pair, more| pairs.change(pair, more, place));
        }
        pairs.counts.insert(pair, 0);
        pairs.requeue();
    }
    Ok(to_json(&tokens, &merges, end))
}

/// A distinct word: its tokens, which are its bytes at first, and how often it occurs.
struct Word {
    tokens: Vec<u32>,
    count: i64,
}

impl Word {
    /// Joins every `pair` from left to right; `change` hears which pairs come and go, and how
    /// often.
    fn merge(&mut self, pair: (u32, u32), result: u32, change: &mut dyn FnMut((u32, u32), i64)) {
        let Self { tokens, count } = self;
        // What is done stands at the front; a word may be as long as a sample.
        let (mut done, mut at) = (0, 0);
        while at < tokens.len() {
            let joins = at + 1 < tokens.len() && (tokens[at], tokens[at + 1]) == pair;
            tokens[done] = if joins { result } else { tokens[at] };
            if joins {
                if done > 0 {
                    change((tokens[done - 1], pair.0), -*count);
                    change((tokens[done - 1], result), *count);
                }
                if let Some(&after) = tokens.get(at + 2) {
                    change((pair.1, after), -*count);
                    change((result, after), *count);
                }
            }
            at += 1 + usize::from(joins);
            done += 1;
        }
        tokens.truncate(done);
    }
}

/// The distinct words of a sample, in order.
fn count_words(
    sample: &[String],
    poll: &mut dyn FnMut() -> Result<(), DataError>,
) -> Result<Vec<Word>, DataError> {
    let splitter = Splitter::new(&Pattern::Gpt2).expect("it is cut by hand");
    let mut counts: HashMap<&[u8], i64> = HashMap::new();
    for text in sample {
        poll()?;
        splitter
            .words(text, |word| *counts.entry(word).or_default() += 1)
            .expect("no expression is asked");
    }
    let mut counts: Vec<(&[u8], i64)> = counts.into_iter().collect();
    counts.sort_unstable();
    let word = |(bytes, count): (&[u8], i64)| Word {
        tokens: bytes.iter().map(|&byte| byte.into()).collect(),
        count,
    };
    Ok(counts.into_iter().map(word).collect())
}

/// How often each pair occurs, and in which words it may.
struct Pairs {
    counts: HashMap<(u32, u32), i64>,
    places: HashMap<(u32, u32), BTreeSet<u32>>,
    /// Counts as they were, highest first, of equal ones the pair of lower ids.
    queue: BinaryHeap<(i64, std::cmp::Reverse<(u32, u32)>)>,
    /// Pairs that have become more frequent since they were last queued.
    grown: BTreeSet<(u32, u32)>,
}

impl Pairs {
    fn count(words: &[Word]) -> Self {
        let (counts, places) = (HashMap::new(), HashMap::new());
        let mut pairs = Self { counts, places, queue: BinaryHeap::new(), grown: BTreeSet::new() };
        for (place, word) in (0u32..).zip(words) {
            for pair in word.tokens.windows(2) {
                pairs.change((pair[0], pair[1]), word.count, place);
            }
        }
        pairs.requeue();
        pairs
    }

    fn change(&mut self, pair: (u32, u32), more: i64, place: u32) {
        *self.counts.entry(pair).or_default() += more;
        if more > 0 {
            self.places.entry(pair).or_default().insert(place);
            self.grown.insert(pair);
        }
    }

    /// Queues what has grown; what has shrunk is noticed when it comes up.
    fn requeue(&mut self) {
        for pair in std::mem::take(&mut self.grown) {
            self.queue.push((self.counts[&pair], std::cmp::Reverse(pair)));
        }
    }

    /// Takes the most frequent pair, if it is frequent enough, and the words to look for it in.
    fn most_frequent(&mut self) -> Option<((u32, u32), BTreeSet<u32>)> {
        while let Some((count, std::cmp::Reverse(pair))) = self.queue.pop() {
            let now = self.counts[&pair];
            if now != count {
                // Only a count that was too high is queued again: a higher one already is.
                if now < count && now > 0 {
                    self.queue.push((now, std::cmp::Reverse(pair)));
                }
                continue;
            }
            if count < MIN_FREQUENCY as i64 {
                return None;
            }
            return Some((pair, self.places.remove(&pair).unwrap_or_default()));
        }
        None
    }
}

fn to_json(tokens: &[Vec<u8>], merges: &[(u32, u32)], end: &str) -> Vec<u8> {
    let table = byte_characters();
    let spelled = |id: u32| -> String {
        tokens[id as usize].iter().map(|&byte| table[byte as usize]).collect()
    };
    let mut vocabulary: Map<String, Value> = Map::new();
    vocabulary.insert(end.to_owned(), 0.into());
    vocabulary.extend((1..tokens.len() as u32).map(|id| (spelled(id), id.into())));
    let merges: Vec<Value> = merges.iter().map(|&(l, r)| json!([spelled(l), spelled(r)])).collect();
    file(0, end, true, &vocabulary.into(), &merges.into())
}

/// A byte-level byte pair encoding as a `tokenizer.json`.
fn file(end: u32, name: &str, splits: bool, vocabulary: &Value, merges: &Value) -> Vec<u8> {
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": splits
    });
    let whole = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{
            "id": end, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        }],
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocabulary, "merges": merges
        }
    });
    serde_json::to_vec_pretty(&whole).expect("strings and numbers are valid JSON")
}

/// GPT-2's printable character for each byte: printable Latin-1 stands for itself, the rest
/// follows from U+0100 (`bytes_to_unicode` in openai/gpt-2 `src/encoder.py`).
pub(super) fn byte_characters() -> [char; 256] {
    let mut table = ['\0'; 256];
    let mut next = 0x100u32;
    for byte in 0..=255u8 {
        let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        table[byte as usize] = if printable {
            byte as char
        } else {
            next += 1;
            char::from_u32(next - 1).expect("U+0100 to U+0143 are characters")
        };
    }
    table
}

/// The `bytes` tokenizer in Hugging Face's format: byte pairs without merges.
pub(super) fn bytes_json() -> Vec<u8> {
    let vocabulary: Map<String, Value> =
        (0u32..).zip(byte_characters()).map(|(id, one)| (one.to_string(), id.into())).collect();
    file(super::BYTES_END_OF_DOCUMENT, END_OF_DOCUMENT, false, &vocabulary.into(), &json!([]))
}

#[cfg(test)]
mod tests;
