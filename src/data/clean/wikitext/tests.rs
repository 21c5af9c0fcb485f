//! Tests of `wikitext` on worked examples.

use super::Wikitext;
use crate::data::clean::testing::{dropped, kept};

#[test]
fn markup_goes_and_text_stays() {
    let page = "{{Infobox|a={{b|c}}}}\n'''Moby''' is a [[whale|white whale]] of [[sea]]s.\
        <ref name=x>A book</ref><ref name=x /><!-- no -->\n\n\n\n== Ship ==\n* \
        [[File:a.png|thumb|a [[b]]]]\
        one\n# [https://x.org the site] and [y] &amp; z\n{| class=t\n| cell\n|}\n\
        __NOTOC__\n[[Category:Whales]] a<br/>b < c\n";
    let text = "Moby is a white whale of seas.\n\nShip\none\nthe site and [y] & z\n\nab < c";
    assert_eq!(kept(&Wikitext::default(), page), text);
    assert_eq!(kept(&Wikitext::default(), "plain, it's"), "plain, it's");
    dropped(&Wikitext::default(), "{{delete}}", "no_text");
}

#[test]
fn what_is_not_closed_is_text() {
    for text in ["{{open", "[[open", "a ''", "[http://x", "<", "__A", "&amp"] {
        kept(&Wikitext::default(), &format!("{text} x"));
    }
    // Deep and open brackets are read once.
    let deep = "{{".repeat(100_000) + "x" + &"}}".repeat(100_000);
    dropped(&Wikitext::default(), &deep, "no_text");
    let links = "[[".repeat(100_000) + "x" + &"]]".repeat(100_000);
    dropped(&Wikitext::default(), &links, "no_text");
    kept(&Wikitext::default(), &"{{[[<ref>[http://".repeat(20_000));
}
