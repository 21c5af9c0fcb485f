//! Tests of `html` on worked examples.

use super::Html;
use crate::data::clean::testing::{dropped, kept};

const LONG: &str = "A paragraph that is long enough to be text.";

#[test]
fn a_page_becomes_its_text() {
    let page = format!(
        "<!DOCTYPE html><html><head><title>t</title><style>p{{}}</style></head><body>\n\
         <nav><ul><li><a href=x>Home</a><li><a href=y>About us and all of it</a></ul></nav>\n\
         <h1>The  head</h1><p>{LONG}<br>And <b>bo</b>ld &amp; more.</p>\n\
         <script>var x = '<p>no</p>';</script>\
         <ul><li><p>{LONG}</p></li><li>short one</li></ul>\
         <p><a href=z>Read all of the other stories here</a></p>\
         <pre>a\n  b of formatted text here\n</pre>\
         <table><tr><td>cells of a row</td><td>that belong together</td></tr></table>\
         <h2>Nothing below</h2>\
         <footer><p>{LONG}</p></footer></body></html>"
    );
    let text = format!(
        "The head\n{LONG}\nAnd bold & more.\n- {LONG}\n- short one\n\
         a\n  b of formatted text here\ncells of a row that belong together"
    );
    assert_eq!(kept(&Html::default(), &page), text);
}

#[test]
fn links_and_short_blocks_have_two_sides() {
    let step = Html::default();
    let page = |plain: usize, linked: usize| {
        format!("<p>{}<a>{}</a></p>", "x".repeat(plain), "y".repeat(linked))
    };
    kept(&step, &page(20, 20));
    dropped(&step, &page(20, 21), "no_text");
    kept(&step, &page(25, 0));
    dropped(&step, &page(24, 0), "no_text");
}

#[test]
fn odd_pages_give_what_they_have() {
    let step = Html::default();
    assert_eq!(kept(&step, &format!("<header><p>{LONG}</header>")), LONG);
    assert_eq!(kept(&step, &format!("<p>{LONG}</b></p></div><nav>")), LONG);
    assert_eq!(kept(&step, "plain text < that is none"), "plain text < that is none");
    assert_eq!(kept(&step, "<3 it"), "<3 it");
}
