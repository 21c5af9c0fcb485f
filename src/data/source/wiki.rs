//! Dumps of a wiki: MediaWiki's export in XML.
//!
//! Duty: a document for each article (namespace 0) that is no redirect: its source text, with its
//! title as address. The pages of a dump stand between lines of their own, which this relies on.
//! Behind a bad page the next one is looked for. Prohibition: takes no markup away; that is a step
//! of cleaning.

use quick_xml::escape::unescape;

use super::read::Input;
use super::records::{RECORD_BYTES_MAX, Records};
use crate::data::error::DataError;

/// Reads every page.
pub(super) fn read(input: &mut Input, records: &mut Records<'_>) -> Result<(), DataError> {
    let (mut line, mut page) = (Vec::new(), Vec::new());
    // Where the open page begins.
    let mut open: Option<u64> = None;
    loop {
        let offset = input.position();
        let read = input.line(&mut line, RECORD_BYTES_MAX)?;
        if read == 0 {
            if let Some(begin) = open {
                records.bad(begin, "expected </page>, but the file ends");
            }
            return Ok(());
        }
        match line.trim_ascii() {
            b"<page>" => {
                if let Some(begin) = open.replace(offset) {
                    records.bad(begin, "expected </page> before the next <page>");
                }
                page.clear();
            }
            b"</page>" => {
                let Some(begin) = open.take() else { continue };
                match article(&page) {
                    Ok(None) => {}
                    Ok(Some((title, text))) => {
                        if !records.document(begin, &title, &text)? {
                            return Ok(());
                        }
                    }
                    Err(reason) => records.bad(begin, reason),
                }
            }
            _ if open.is_none() => {}
            _ if page.len() + read > RECORD_BYTES_MAX => {
                let begin = open.take().unwrap_or(offset);
                records.bad(begin, format!("expected a page of at most {RECORD_BYTES_MAX} bytes"));
            }
            _ => page.extend_from_slice(&line),
        }
    }
}

/// Title and source of an article; nothing of other pages.
fn article(page: &[u8]) -> Result<Option<(String, String)>, String> {
    let page = std::str::from_utf8(page).map_err(|error| format!("it is not UTF-8: {error}"))?;
    let namespace = element(page, "ns").map_or(Ok("0"), |ns| ns.ok_or("expected </ns>"))?;
    if namespace.trim() != "0" || page.contains("<redirect ") {
        return Ok(None);
    }
    let missing = |name: &str| format!("expected <{name}> and its end");
    let field = |name: &str| -> Result<String, String> {
        let inner = element(page, name).flatten().ok_or_else(|| missing(name))?;
        let inner = unescape(inner).map_err(|error| format!("<{name}>: {error}"))?;
        Ok(inner.into_owned())
    };
    Ok(Some((field("title")?, field("text")?)))
}

/// The content of the first element of this name: none if there is none, and none in that if it
/// does not end.
fn element<'a>(page: &'a str, name: &str) -> Option<Option<&'a str>> {
    let mut rest = page;
    loop {
        let at = rest.find(&format!("<{name}"))?;
        rest = &rest[at + 1 + name.len()..];
        if rest.starts_with(['>', ' ', '/']) {
            break;
        }
    }
    let Some(open) = rest.find('>') else { return Some(None) };
    if rest[..open].ends_with('/') {
        return Some(Some(""));
    }
    let inner = &rest[open + 1..];
    Some(inner.find(&format!("</{name}>")).map(|end| &inner[..end]))
}
