//! `pii`: masks what names a person or opens a door: e-mail addresses, public IP addresses,
//! telephone numbers, keys.
//!
//! Duty: e-mail and IP addresses by the expressions that FineWeb uses; telephone numbers with a
//! country code or in the American form; keys by their published beginnings, and private keys in
//! PEM. Prohibition: drops nothing; private and reserved IP addresses stay.

use std::net::Ipv4Addr;

use regex::{Captures, Regex};
use serde::{Deserialize, Serialize};

use super::{Cleaner, Document, Step, Verdict};
use crate::data::error::DataError;

#[cfg(test)]
mod tests;

/// What is masked, and with what. An empty text switches a kind off.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pii {
    /// In place of an e-mail address.
    pub email: String,
    /// In place of a public IPv4 address.
    pub ip: String,
    /// In place of a telephone number.
    pub phone: String,
    /// In place of a key.
    pub key: String,
}

impl Default for Pii {
    fn default() -> Self {
        Self {
            email: "email@example.com".to_owned(),
            ip: "22.214.171.124".to_owned(),
            phone: String::new(),
            key: "<KEY>".to_owned(),
        }
    }
}

const EMAIL: &str = concat!(
    r"\b[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*",
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?",
);
const IP: &str = concat!(
    r"(?:(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)\.){3}",
    r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)",
);
const PHONE: &str = concat!(
    r"\+[1-9]\d{0,2}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){1,4}\b",
    r"|(?:\(\d{3}\) ?|\b\d{3}[.-])\d{3}[.-]\d{4}\b",
);
const KEY: &str = concat!(
    r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.{0,10000}?-----END [A-Z ]*PRIVATE KEY-----",
    r"|\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{82}",
    r"|sk-[A-Za-z0-9_-]{32,}|xox[abprs]-[A-Za-z0-9-]{10,}|AIza[A-Za-z0-9_-]{35}",
    r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})",
);

impl Step for Pii {
    fn open(&self) -> Result<Box<dyn Cleaner>, DataError> {
        let masks = [
            Mask::new(EMAIL, "@", &self.email, |_| true),
            Mask::new(IP, ".", &self.ip, is_public),
            Mask::new(PHONE, "", &self.phone, |text| digits(text) >= 7),
            Mask::new(KEY, "", &self.key, |_| true),
        ];
        let masks = masks.into_iter().filter(|mask| !mask.with.is_empty()).collect();
        Ok(Box::new(Masks(masks)))
    }
}

struct Masks(Vec<Mask>);

/// One kind.
struct Mask {
    pattern: Regex,
    /// What every one of them has in it.
    sign: &'static str,
    with: String,
    is_one: fn(&str) -> bool,
}

impl Mask {
    fn new(pattern: &str, sign: &'static str, with: &str, is_one: fn(&str) -> bool) -> Self {
        let pattern = Regex::new(pattern).expect("a test reads every expression");
        Self { pattern, sign, with: with.to_owned(), is_one }
    }
}

fn digits(text: &str) -> usize {
    text.bytes().filter(u8::is_ascii_digit).count()
}

/// Whether the address is one of the open network, as Python's `is_global` says.
fn is_public(text: &str) -> bool {
    // Leading zeros make it none.
    let Ok(address) = text.parse::<Ipv4Addr>() else { return false };
    let [a, b, c, d] = address.octets();
    let shared = a == 100 && b & 0xc0 == 64;
    let protocols = (a, b, c) == (192, 0, 0) && !matches!(d, 9 | 10);
    let benchmark = a == 198 && b & 0xfe == 18;
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_broadcast()
        || a == 0
        || a >= 240
        || shared
        || protocols
        || benchmark)
}

impl Cleaner for Masks {
    fn apply(&self, document: &mut Document) -> Verdict {
        for mask in &self.0 {
            if !document.text().contains(mask.sign) {
                continue;
            }
            document.rewrite(|text, out| {
                let masked = mask.pattern.replace_all(text, |found: &Captures<'_>| {
                    let found = &found[0];
                    if (mask.is_one)(found) { mask.with.clone() } else { found.to_owned() }
                });
                out.push_str(&masked);
                out != text
            });
        }
        Verdict::Keep
    }
}
