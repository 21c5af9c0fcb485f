//! `block_urls`: drops documents by their address: lists of domains, addresses, words and parts of
//! words, as RefinedWeb and FineWeb use them.
//!
//! Duty: a domain blocks what lies below it; words stand between signs; soft words only count
//! together; parts are looked for in an address without signs. A document without an address
//! passes. Limits: the lists lie in memory.

use std::collections::HashSet;
use std::path::PathBuf;

use aho_corasick::AhoCorasick;
use serde::{Deserialize, Serialize};

use super::settings::read_list;
use super::{Cleaner, Document, Step, Verdict};
use crate::data::error::DataError;

#[cfg(test)]
mod tests;

/// Files with one entry a line.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlockUrls {
    /// Domains that are refused, a file of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domains: Option<PathBuf>,
    /// Whole addresses, a file of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urls: Option<PathBuf>,
    /// Words, one of which is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<PathBuf>,
    /// Words of which `soft_words_min` different ones are enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_words: Option<PathBuf>,
    /// See `soft_words`.
    pub soft_words_min: u64,
    /// Parts of words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parts: Option<PathBuf>,
}

impl Default for BlockUrls {
    fn default() -> Self {
        let (domains, urls, words, soft_words, parts) = (None, None, None, None, None);
        Self { domains, urls, words, soft_words, soft_words_min: 2, parts }
    }
}

impl Step for BlockUrls {
    fn validate(&self) -> Result<(), String> {
        if self.files().is_empty() {
            return Err("domains: expected at least one list, got none".to_owned());
        }
        match self.soft_words_min {
            0 => Err("soft_words_min: expected at least 1, got 0".to_owned()),
            _ => Ok(()),
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let Self { domains, urls, words, soft_words, parts, soft_words_min: _ } = self;
        [domains, urls, words, soft_words, parts].into_iter().flatten().cloned().collect()
    }

    fn open(&self) -> Result<Box<dyn Cleaner>, DataError> {
        let list = |file: &Option<PathBuf>| -> Result<Vec<String>, DataError> {
            let lines = file.as_ref().map_or(Ok(Vec::new()), |file| read_list(file))?;
            Ok(lines.into_iter().map(|line| line.to_lowercase()).collect())
        };
        let set = |file| Ok::<_, DataError>(list(file)?.into_iter().collect::<HashSet<String>>());
        let parts = list(&self.parts)?;
        let parts =
            parts.iter().map(|part| part.replace(is_sign, "")).filter(|part| !part.is_empty());
        let parts = AhoCorasick::new(parts).map_err(|error| DataError::Config {
            key: "data.clean",
            problem: format!("block_urls: expected a list that fits into memory ({error})"),
        })?;
        Ok(Box::new(Lists {
            domains: set(&self.domains)?,
            urls: set(&self.urls)?,
            words: set(&self.words)?,
            soft_words: set(&self.soft_words)?,
            soft_words_min: self.soft_words_min,
            parts,
        }))
    }
}

struct Lists {
    domains: HashSet<String>,
    urls: HashSet<String>,
    words: HashSet<String>,
    soft_words: HashSet<String>,
    soft_words_min: u64,
    parts: AhoCorasick,
}

fn is_sign(character: char) -> bool {
    !character.is_alphanumeric()
}

/// The host of an address, without user, port and scheme.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    host.split(':').next().unwrap_or(host)
}

impl Cleaner for Lists {
    fn apply(&self, document: &mut Document) -> Verdict {
        let url = document.url().to_lowercase();
        if url.is_empty() {
            return Verdict::Keep;
        }
        let host = host(&url);
        let dots = host.match_indices('.').map(|(at, _)| &host[at + 1..]);
        if [host].into_iter().chain(dots).any(|domain| self.domains.contains(domain)) {
            return Verdict::Drop("blocked_domain");
        }
        if self.urls.contains(&url) {
            return Verdict::Drop("blocked_url");
        }
        let words: HashSet<&str> = url.split(is_sign).filter(|word| !word.is_empty()).collect();
        if words.iter().any(|word| self.words.contains(*word)) {
            return Verdict::Drop("blocked_url_word");
        }
        let soft = words.iter().filter(|word| self.soft_words.contains(**word)).count() as u64;
        if soft >= self.soft_words_min {
            return Verdict::Drop("blocked_url_soft_words");
        }
        match self.parts.is_match(&url.replace(is_sign, "")) {
            true => Verdict::Drop("blocked_url_part"),
            false => Verdict::Keep,
        }
    }
}
