//! What the steps of cleaning decide about documents: one JSON line for each JSON line with
//! `text` on the standard input. `scripts/compare_filters` holds it beside datatrove.
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::io::{self, BufRead};

use octet::data::clean::{CleanChain, Document, Verdict, sentences_in};
use serde_json::{Value, json};

const STEPS: [&str; 4] = ["gopher_quality", "gopher_repetition", "c4", "fineweb_quality"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut steps = Vec::new();
    for name in STEPS {
        let chain: CleanChain = serde_json::from_value(json!([name]))?;
        steps.push((name, chain.0[0].get().open()?));
    }
    for line in io::stdin().lock().lines() {
        let given: Value = serde_json::from_str(&line?)?;
        let text = given["text"].as_str().ok_or("expected a string \"text\"")?;
        let mut document = Document::new(text);
        let words = document.words().to_vec();
        let words: Vec<&str> =
            words.iter().map(|word| &text[word.start as usize..word.end as usize]).collect();
        let decisions: serde_json::Map<String, Value> = steps
            .iter()
            .map(|(name, step)| {
                let verdict = match step.apply(&mut Document::new(text)) {
                    Verdict::Keep => Value::Null,
                    Verdict::Drop(reason) => json!(reason),
                };
                ((*name).to_owned(), verdict)
            })
            .collect();
        let sentences: Vec<Value> =
            sentences_in(text).map(|(line, count)| json!([line, count])).collect();
        println!("{}", json!({ "words": words, "sentences": sentences, "decisions": decisions }));
    }
    Ok(())
}
