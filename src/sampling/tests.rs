//! Tests of drawing tokens and of the conversation, against a model that is a table.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use octet_actors::contract::{Drive, ProgramId, Record, Results};
use octet_actors::fault::Fault;
use octet_kernels::graph::{Layout, Policy, Program, Variables};

use super::{Conversation, Decoder, Heard, Place, Request, Sampler, read_prompt, unfinished};
use crate::composition::Writer;
use crate::data::{Tokenizer, TokenizerOptions};
use crate::models::{DenseConfig, Family, ModelSize, Part, Scope};
use crate::objectives::Writes;

fn sampler(temperature: f64) -> Sampler {
    Sampler { temperature, top_k: 0, top_p: 1.0, seed: 3 }
}

fn at(step: u64, sequence: u64, number: u64) -> Place {
    Place { step, sequence, number }
}

/// How often each of four tokens is drawn in 4000 draws.
fn counts(sampler: &Sampler, logits: &[f32; 4]) -> [usize; 4] {
    let mut counts = [0; 4];
    for number in 0..4000 {
        counts[sampler.draw(logits, at(0, 0, number)).unwrap() as usize] += 1;
    }
    counts
}

#[test]
fn tokens_are_drawn_as_often_as_they_are_likely() {
    // Probabilities 0.1, 0.2, 0.3 and 0.4.
    let logits = [0.1f32, 0.2, 0.3, 0.4].map(f32::ln);
    let near = |got: [usize; 4], expected: [f64; 4]| {
        for (got, expected) in got.iter().zip(expected) {
            assert!((*got as f64 / 4000.0 - expected).abs() < 0.03, "{got} {expected}");
        }
    };
    near(counts(&sampler(1.0), &logits), [0.1, 0.2, 0.3, 0.4]);
    // Half the temperature squares them.
    near(counts(&sampler(0.5), &logits), [1.0, 4.0, 9.0, 16.0].map(|x| x / 30.0));
    assert_eq!(counts(&sampler(0.0), &logits), [0, 0, 0, 4000]);
    let top_k = Sampler { top_k: 2, ..sampler(1.0) };
    near(counts(&top_k, &logits), [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
    // 0.4 and 0.3 are less than 0.75, with 0.2 they are more.
    let top_p = Sampler { top_p: 0.75, ..sampler(1.0) };
    near(counts(&top_p, &logits), [0.0, 2.0 / 9.0, 3.0 / 9.0, 4.0 / 9.0]);
    let one = Sampler { top_p: 1e-9, ..sampler(1.0) };
    assert_eq!(counts(&one, &logits), [0, 0, 0, 4000]);
}

#[test]
fn draws_depend_on_seed_step_and_number() {
    let logits = [0.0; 64];
    let text = |seed, step, sequence| -> Vec<u32> {
        let sampler = Sampler { seed, ..sampler(1.0) };
        (0..32).map(|number| sampler.draw(&logits, at(step, sequence, number)).unwrap()).collect()
    };
    assert_eq!(text(1, 5, 0), text(1, 5, 0));
    assert_ne!(text(1, 5, 0), text(2, 5, 0));
    assert_ne!(text(1, 5, 0), text(1, 6, 0));
    assert_ne!(text(1, 5, 0), text(1, 5, 1));
}

#[test]
fn what_is_not_finite_is_never_drawn() {
    let (nan, low) = (f32::NAN, f32::NEG_INFINITY);
    for temperature in [0.0, 1.0] {
        assert_eq!(sampler(temperature).draw(&[nan, low, -3.0, nan], at(0, 0, 0)), Some(2));
        assert_eq!(sampler(temperature).draw(&[nan, low], at(0, 0, 0)), None);
    }
    // Among equals the lowest token.
    assert_eq!(sampler(0.0).draw(&[1.0, 2.0, 2.0], at(0, 0, 0)), Some(1));
}

#[test]
fn a_character_waits_for_its_last_byte() {
    assert_eq!(unfinished("né".as_bytes()), 0);
    assert_eq!(unfinished(&"né".as_bytes()[..2]), 1);
    assert_eq!(unfinished(&"a€".as_bytes()[..3]), 2);
    // It can never become a character.
    assert_eq!(unfinished(&[b'a', 0xFF]), 0);
}

#[test]
fn prompts_are_refused_in_one_sentence() {
    let tokenizer = Tokenizer::bytes();
    assert_eq!(read_prompt(&tokenizer, "ab", 2).unwrap(), [97, 98]);
    let wrong = read_prompt(&tokenizer, "abc", 2).unwrap_err();
    assert_eq!(wrong, "3 tokens, and the model reads at most 2");
    // Without text a new document begins, where documents have ends.
    assert_eq!(read_prompt(&tokenizer, "", 2).unwrap(), [tokenizer.end_of_document().unwrap()]);
    let wrong = read_prompt(&Tokenizer::characters("ab".chars(), false), "", 2).unwrap_err();
    assert!(wrong.starts_with("expected some text, got \"\": this tokenizer has no"), "{wrong}");
    assert!(read_prompt(&Tokenizer::characters("ab".chars(), false), "c", 2).is_err());
}

/// Logits that make one token certain, in the row of each that was read.
struct Certain(Vec<f32>);

impl Results for Certain {
    fn read(&self, name: &str, into: &mut Vec<f32>) -> Result<(), Fault> {
        assert_eq!(name, "logits");
        into.clone_from(&self.0);
        Ok(())
    }
}

const POSITIONS: usize = 40;

fn decoder() -> (Decoder, Vec<Program>) {
    let mut variables = Variables::new();
    let config = DenseConfig { layers: 1, heads: 1, width: 8, ..DenseConfig::default() };
    let size = ModelSize { vocabulary: 260, max_positions: POSITIONS };
    let model = config.build(size, &mut Scope::new(&mut variables)).unwrap();
    let caches = model.writer().unwrap().caches(&mut Scope::new(&mut variables), 1, POSITIONS);
    let part = Arc::new(Part::new("", model));
    let writer = Writer { part, writes: Writes::default(), caches: None };
    let layout = Layout::new(&variables, octet_kernels::graph::Granularity::default());
    let made = Decoder::compile(&writer, &caches, &variables, &layout, Policy::default(), 0);
    let (decoder, programs) = made.unwrap();
    (decoder, programs.into())
}

/// Converses with a model that says `answer` whatever it reads. Gives the text, and what was read
/// in each run as (program, tokens with their positions).
#[expect(clippy::type_complexity, reason = "read once, right below")]
fn converse(
    prompt: &str,
    tokens: usize,
    answer: &[u32],
) -> (String, Vec<(ProgramId, Vec<(i32, i32)>)>) {
    let (decoder, programs) = decoder();
    let tokenizer = Arc::new(Tokenizer::bytes());
    let prompt = read_prompt(&tokenizer, prompt, POSITIONS).unwrap();
    let (prompted, text) = (prompt.len(), Arc::new(Mutex::new(String::new())));
    let heard = text.clone();
    let listener = Box::new(move |piece: Heard<'_>| {
        heard.lock().unwrap().push_str(match piece {
            Heard::Piece(text) => text,
            Heard::Diverged => "<diverged>",
            Heard::End => "<end>",
        });
        ControlFlow::Continue(())
    });
    let request = Request { tokenizer, prompt, tokens, sampler: sampler(0.0) };
    let mut conversation = Conversation::new(decoder, request, 9, listener);
    let mut memory = vec![0u64; 64];
    let (mut runs, mut last) = (Vec::new(), None::<Certain>);
    // Tokens that were drawn, and the one at position 0.
    let (mut drawn, mut first) = (0, 0);
    loop {
        let mut record = Record::new(bytemuck::cast_slice_mut(&mut memory));
        let results = last.as_ref().map(|last| last as &dyn Results);
        let Some(id) = conversation.next(&programs, results, &mut record).unwrap() else { break };
        let program = &programs[id.0];
        let [tokens, positions] = record.fields::<i32, 2>(program, ["tokens", "positions"]);
        let rows: Vec<(i32, i32)> =
            tokens.iter().copied().zip(positions.iter().copied()).filter(|r| r.1 >= 0).collect();
        let mut logits = vec![0.0; tokens.len() * 260];
        if rows[0].1 == 0 && !runs.is_empty() {
            first = prompted + drawn - POSITIONS / 2;
        }
        // The padding of the vocabulary is the most likely of all, and no token.
        logits[(rows.len() - 1) * 260 + 259] = 2.0;
        if first + rows[rows.len() - 1].1 as usize + 1 == prompted + drawn {
            logits[(rows.len() - 1) * 260 + answer[drawn] as usize] = 1.0;
            drawn += 1;
        }
        last = Some(Certain(logits));
        runs.push((id, rows));
    }
    let text = text.lock().unwrap().clone();
    (text, runs)
}

#[test]
fn a_prompt_is_read_in_pieces_and_the_answer_token_by_token() {
    let prompt = "0123456789012345678901234567890123";
    let answer: Vec<u32> = "héllo".bytes().map(u32::from).chain([256, 0]).collect();
    let (text, runs) = converse(prompt, 100, &answer);
    // It ends at the end of the document, which is no text.
    assert_eq!(text, "héllo<end>");
    let whole: Vec<(i32, i32)> =
        (0..32).map(|i| (i32::from(prompt.as_bytes()[i as usize]), i)).collect();
    assert_eq!(runs[0], (ProgramId(0), whole));
    assert_eq!(runs[1].1, [(i32::from(b'2'), 32), (i32::from(b'3'), 33)]);
    assert_eq!(runs[2], (ProgramId(1), vec![(i32::from(b'h'), 34)]));
}

#[test]
fn it_ends_after_so_many_tokens() {
    let answer: Vec<u32> = (b'a'..=b'z').map(u32::from).collect();
    assert_eq!(converse("x", 3, &answer).0, "abc<end>");
    // A character that stays unfinished is told at the end.
    assert_eq!(converse("x", 2, &[97, 0xC3]).0, "a\u{FFFD}<end>");
}

#[test]
fn full_caches_begin_again_with_half_of_what_they_held() {
    let answer: Vec<u32> = (b'a'..=b'z').map(u32::from).collect();
    // 30 positions and 10 more; the token behind the last position begins the second half.
    let prompt = "x".repeat(30);
    let (text, runs) = converse(&prompt, 14, &answer);
    assert_eq!(text, "abcdefghijklmn<end>");
    let read: Vec<i32> = (prompt + "abcdefghijklm").bytes().map(i32::from).collect();
    let rows: Vec<(i32, i32)> = runs.iter().flat_map(|(_, rows)| rows.clone()).collect();
    let at = |range: std::ops::Range<usize>| read[range].iter().copied().zip(0..);
    assert_eq!(rows[..40], at(0..40).collect::<Vec<_>>());
    // The 41st token is the last of the 20 that stay.
    assert_eq!(rows[40..], at(21..43).collect::<Vec<_>>());
    assert_eq!(runs[runs.len() - 3].1.len(), 20);
}

#[test]
fn whoever_stops_listening_ends_it() {
    let (decoder, programs) = decoder();
    let tokenizer = Arc::new(Tokenizer::bytes());
    let request = Request { tokenizer, prompt: vec![97], tokens: 9, sampler: sampler(0.0) };
    let listener = Box::new(|_: Heard<'_>| ControlFlow::Break(()));
    let mut conversation = Conversation::new(decoder, request, 0, listener);
    let mut memory = vec![0u64; 64];
    let mut record = Record::new(bytemuck::cast_slice_mut(&mut memory));
    assert!(conversation.next(&programs, None, &mut record).unwrap().is_some());
    let mut logits = vec![0.0; 260];
    logits[98] = 1.0;
    let end = conversation.next(&programs, Some(&Certain(logits)), &mut record).unwrap();
    assert_eq!(end, None);
}

#[test]
fn a_model_without_a_finite_logit_says_so_once() {
    let (decoder, programs) = decoder();
    let tokenizer = Arc::new(Tokenizer::bytes());
    let request = Request { tokenizer, prompt: vec![97], tokens: 9, sampler: sampler(0.0) };
    let diverged = Arc::new(AtomicUsize::new(0));
    let count = diverged.clone();
    let listener = Box::new(move |heard: Heard<'_>| {
        if matches!(heard, Heard::Diverged) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        ControlFlow::Continue(())
    });
    let mut conversation = Conversation::new(decoder, request, 0, listener);
    let mut memory = vec![0u64; 64];
    let mut record = Record::new(bytemuck::cast_slice_mut(&mut memory));
    assert!(conversation.next(&programs, None, &mut record).unwrap().is_some());
    let broken = Certain(vec![f32::NAN; 260]);
    assert_eq!(conversation.next(&programs, Some(&broken), &mut record).unwrap(), None);
    assert_eq!(diverged.load(Ordering::Relaxed), 1);
}

/// A tokenizer file with a token for each byte of what it does not know.
const BYTE_FALLBACK: &str = r#"{
    "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
    "normalizer": { "type": "Replace", "pattern": { "String": " " }, "content": "\u2581" },
    "pre_tokenizer": null, "post_processor": null,
    "decoder": { "type": "Sequence", "decoders": [
        { "type": "Replace", "pattern": { "String": "\u2581" }, "content": " " },
        { "type": "ByteFallback" }, { "type": "Fuse" }
    ] },
    "model": {
        "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
        "vocab": { "<unk>": 0, "a": 1, "\u2581": 2 BYTES }, "merges": []
    }
}"#;

#[test]
fn characters_of_several_tokens_are_told_whole() {
    let bytes: String = (0..256).map(|b| format!(", \"<0x{b:02X}>\": {}", 3 + b)).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, BYTE_FALLBACK.replace(" BYTES", &bytes)).unwrap();
    let fallback = Tokenizer::from_file(&path, TokenizerOptions::default()).unwrap();
    let text = "a \u{e9}\u{4e2d}\u{6587}a \u{1f600}";
    for tokenizer in [fallback, Tokenizer::bytes()] {
        let mut tokens = Vec::new();
        tokenizer.encode(text, &mut tokens).unwrap();
        assert!(tokens.len() > text.chars().count());
        let (mut told, mut pieces) = (0, Vec::new());
        for end in 1..=tokens.len() {
            let bytes = tokenizer.decode_bytes(&tokens[..end]);
            let whole = bytes.len() - unfinished(&bytes);
            pieces.push(String::from_utf8(bytes[told..whole].to_vec()).unwrap());
            told = whole;
        }
        assert_eq!(pieces.concat(), text);
        assert!(pieces.iter().all(|piece| piece.chars().count() < 2), "{pieces:?}");
        assert_eq!(
            tokenizer.decode(&tokens[..tokens.len() - 1]),
            text.replace('\u{1f600}', "\u{FFFD}")
        );
    }
}
