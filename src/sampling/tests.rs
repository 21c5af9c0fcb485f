//! Tests of drawing tokens and of the conversation, against a model that is a table.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use octet_actors::contract::{Drive, ProgramId, Record, Results, Turn};
use octet_actors::fault::Fault;
use octet_kernels::graph::{Layout, Policy, Program, Variables};

use super::conversation::{spelled, unfinished};
use super::{
    Crowd, Decoder, End, Ended, Heard, Inputs, Listener, Next, Place, Request, Sampler, Scored,
    Scores, Waiting, read_prompt,
};
use crate::composition::Writer;
use crate::data::{Tokenizer, TokenizerOptions};
use crate::models::{DenseConfig, Family, ModelSize, Part, Scope};
use crate::objectives::Writes;

fn sampler(temperature: f64) -> Sampler {
    Sampler { temperature, seed: 3, ..Sampler::default() }
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
    // 0.2 is half as likely as the most likely one, 0.1 less than 0.4 of it.
    let min_p = Sampler { min_p: 0.4, ..sampler(1.0) };
    near(counts(&min_p, &logits), [0.0, 2.0 / 9.0, 3.0 / 9.0, 4.0 / 9.0]);
    assert_eq!(counts(&Sampler { min_p: 1.0, ..sampler(1.0) }, &logits), [0, 0, 0, 4000]);
}

#[test]
fn penalties_lower_what_was_said() {
    // The prompt is 0 and 1; 1, 2 and 2 were drawn.
    let penalised = |sampler: Sampler| {
        let mut logits = [2.0f32, -2.0, 1.0, 3.0];
        sampler.penalise(&mut logits, &[0, 1, 1, 2, 2, 9], 2);
        logits
    };
    assert_eq!(penalised(sampler(1.0)), [2.0, -2.0, 1.0, 3.0]);
    let repetition = Sampler { repetition_penalty: 2.0, ..sampler(1.0) };
    assert_eq!(penalised(repetition), [1.0, -4.0, 0.5, 3.0]);
    let presence = Sampler { presence_penalty: 0.5, ..sampler(1.0) };
    assert_eq!(penalised(presence), [2.0, -2.5, 0.5, 3.0]);
    let frequency = Sampler { frequency_penalty: 0.5, ..sampler(1.0) };
    assert_eq!(penalised(frequency), [2.0, -2.5, 0.0, 3.0]);
}

#[test]
fn settings_that_cannot_be_are_named() {
    assert_eq!(sampler(0.0).check(), Ok(()));
    for (wrong, name) in [
        (Sampler { temperature: -1.0, ..sampler(1.0) }, "temperature"),
        (Sampler { temperature: f64::NAN, ..sampler(1.0) }, "temperature"),
        (Sampler { temperature: f64::INFINITY, ..sampler(1.0) }, "temperature"),
        (Sampler { top_p: 0.0, ..sampler(1.0) }, "top_p"),
        (Sampler { min_p: 1.5, ..sampler(1.0) }, "min_p"),
        (Sampler { repetition_penalty: 0.0, ..sampler(1.0) }, "repetition_penalty"),
        (Sampler { presence_penalty: 3.0, ..sampler(1.0) }, "presence_penalty"),
        (Sampler { frequency_penalty: f64::NAN, ..sampler(1.0) }, "frequency_penalty"),
    ] {
        assert_eq!(wrong.check().unwrap_err().0, name);
    }
}

#[test]
fn scores_are_logarithms_of_probabilities() {
    let logits = [0.1f32, 0.2, 0.3, 0.4].map(|p| p.ln() + 5.0);
    let scored = Scored::new(&logits, 4, 1, 2);
    let near = |got: Option<f32>, p: f32| assert!((got.unwrap().exp() - p).abs() < 1e-6);
    near(scored.logprob, 0.2);
    assert_eq!(scored.top.iter().map(|top| top.0).collect::<Vec<_>>(), [3, 2]);
    near(scored.top.first().map(|top| top.1), 0.4);
    // Rows of padding have their share, and are never named.
    let padded = Scored::new(&logits, 3, 3, 9);
    assert_eq!((padded.logprob, padded.top.len()), (Some(scored.top[0].1), 3));
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

/// A model that is a table: what it says after a text, whatever is beside it.
struct Table<'a> {
    answer: &'a dyn Fn(&[u32]) -> u32,
    /// Per cached sequence, what was read.
    read: Vec<Vec<u32>>,
    logits: Vec<f32>,
}

/// Rows of padding: the embedding has more than the tokenizer.
const COLUMNS: usize = 260;

impl Table<'_> {
    /// Reads a record as the program would; gives its rows as (sequence, position, token).
    fn run(&mut self, program: &Program, record: &mut Record<'_>) -> Vec<(i32, i32, i32)> {
        let inputs = record.fields::<i32, 6>(program, Inputs::NAMES);
        let [tokens, positions, sequences, picked, rows, answers] = inputs;
        let (rows, answers) = (rows[0] as usize, answers[0] as usize);
        let mut after = Vec::new();
        for row in 0..rows {
            let read = &mut self.read[sequences[row] as usize];
            read.truncate(positions[row] as usize);
            assert_eq!(read.len(), positions[row] as usize, "nothing is passed over");
            read.push(tokens[row] as u32);
            after.push((self.answer)(read));
        }
        self.logits = vec![0.0; answers * COLUMNS];
        for (answer, logits) in self.logits.chunks_mut(COLUMNS).enumerate() {
            // The padding of the vocabulary is the most likely of all, and no token.
            logits[COLUMNS - 1] = 2.0;
            logits[after[picked[answer] as usize] as usize] = 1.0;
        }
        (0..rows).map(|row| (sequences[row], positions[row], tokens[row])).collect()
    }
}

impl Results for Table<'_> {
    fn read_rows(&self, name: &str, rows: usize, into: &mut Vec<f32>) -> Result<(), Fault> {
        assert_eq!((name, rows * COLUMNS), ("logits", self.logits.len()));
        into.clone_from(&self.logits);
        Ok(())
    }

    fn read(&self, name: &str, into: &mut Vec<f32>) -> Result<(), Fault> {
        self.read_rows(name, self.logits.len() / COLUMNS, into)
    }
}

const POSITIONS: usize = 40;

fn decoder(sequences: usize) -> (Decoder, Program) {
    let mut variables = Variables::new();
    let config = DenseConfig { layers: 1, heads: 1, width: 8, ..DenseConfig::default() };
    let size = ModelSize { vocabulary: COLUMNS, max_positions: POSITIONS };
    let model = config.build(size, &mut Scope::new(&mut variables)).unwrap();
    let mut scope = Scope::new(&mut variables);
    let caches = model.writer().unwrap().caches(&mut scope, sequences, POSITIONS);
    let part = Arc::new(Part::new("", model));
    let writer = Writer { part, writes: Writes::default(), caches: None };
    let layout = Layout::new(&variables, octet_kernels::graph::Granularity::default());
    let (policy, number) = (Policy::default(), ProgramId(0));
    Decoder::compile(&writer, &caches, &variables, &layout, policy, number).unwrap()
}

fn request(prompt: &str, tokens: usize) -> Request {
    let tokenizer = Arc::new(Tokenizer::bytes());
    let prompt = read_prompt(&tokenizer, prompt, POSITIONS).unwrap();
    Request::new(tokenizer, prompt, tokens, sampler(0.0))
}

/// What a listener has heard, as text with marks.
type Said = Arc<Mutex<String>>;

fn listener() -> (Listener, Said) {
    let said = Said::default();
    let told = said.clone();
    let listener = Box::new(move |heard: Heard<'_>| {
        let mut said = told.lock().unwrap();
        match heard {
            Heard::Piece(text) => said.push_str(text),
            Heard::Diverged => said.push_str("<diverged>"),
            Heard::Token(Scored { token, logprob, top }) => {
                let token = char::from_u32(token).unwrap();
                let known = if logprob.is_some() { '=' } else { '?' };
                said.push_str(&format!("[{token}{known}{}]", top.len()));
            }
            Heard::End(Ended { at: End::Length, tokens }) => said.push_str(&format!("<{tokens}>")),
            Heard::End(Ended { at: End::Document, .. }) => said.push_str("<end>"),
            Heard::End(Ended { at: End::Stop, .. }) => said.push_str("<stop>"),
            Heard::End(Ended { at: End::GivenUp, .. }) => said.push_str("<given up>"),
        }
        ControlFlow::Continue(())
    });
    (listener, said)
}

/// Rows of runs as (sequence, position, token).
type Runs = Vec<Vec<(i32, i32, i32)>>;

/// Lets a crowd talk with a table until its end.
fn hear_out(crowd: &mut Crowd, program: &Program, answer: &dyn Fn(&[u32]) -> u32) -> Runs {
    let read = vec![Vec::new(); 8];
    let mut table = Table { answer, read, logits: Vec::new() };
    let mut memory = vec![0u64; 256];
    let (mut runs, mut first) = (Vec::new(), true);
    loop {
        let mut record = Record::new(bytemuck::cast_slice_mut(&mut memory));
        let last = (!first).then_some(&table as &dyn Results);
        match crowd.next(std::slice::from_ref(program), last, &mut record).unwrap() {
            Turn::End => return runs,
            Turn::Wait => first = true,
            Turn::Run(_) => {
                runs.push(table.run(program, &mut record));
                first = false;
            }
        }
    }
}

/// Says `answer` behind a prompt of so many tokens.
fn says(prompt: usize, answer: &str) -> impl Fn(&[u32]) -> u32 {
    let answer: Vec<u32> = answer.bytes().map(u32::from).chain([256]).collect();
    move |read: &[u32]| match read.len().checked_sub(prompt) {
        Some(at) => answer[at],
        None => u32::from(b'!'),
    }
}

/// One text alone.
fn alone(request: Request, answer: &dyn Fn(&[u32]) -> u32) -> (String, Runs) {
    let (decoder, program) = decoder(1);
    let (listener, said) = listener();
    let runs = hear_out(&mut Crowd::of_one(decoder, 9, request, listener), &program, answer);
    let said = said.lock().unwrap().clone();
    (said, runs)
}

#[test]
fn a_prompt_is_read_in_pieces_and_the_answer_token_by_token() {
    let prompt = "0123456789012345678901234567890123";
    let (text, runs) = alone(request(prompt, 100), &says(34, "h\u{e9}llo"));
    // It ends at the end of the document, which is no text.
    assert_eq!(text, "h\u{e9}llo<end>");
    let whole = prompt.bytes().zip(0..).map(|(byte, at)| (0, at, i32::from(byte)));
    let (whole, rows): (Vec<_>, _) = (whole.collect(), runs[0].len());
    assert_eq!(runs[..2].concat(), whole);
    assert_eq!((rows, runs[1].len()), (32, 2));
    assert_eq!(runs[2], [(0, 34, i32::from(b'h'))]);
}

#[test]
fn it_ends_after_so_many_tokens() {
    assert_eq!(alone(request("x", 3), &says(1, "abcdef")).0, "abc<3>");
    assert_eq!(alone(request("x", 0), &says(1, "abcdef")).0, "<0>");
    // A character that stays unfinished is told at the end.
    assert_eq!(alone(request("x", 2), &says(1, "a\u{e9}")).0, "a\u{FFFD}<2>");
}

#[test]
fn strings_end_a_text_wherever_tokens_part_them() {
    let stopped = |stop: &[&str]| {
        let stop = stop.iter().map(|&stop| stop.to_owned()).collect();
        alone(Request { stop, ..request("x", 9) }, &says(1, "abcabdef")).0
    };
    assert_eq!(stopped(&["abd"]), "abc<stop>");
    assert_eq!(stopped(&["zz", "bd", "cab"]), "ab<stop>");
    assert_eq!(stopped(&["a"]), "<stop>");
    // What only begins like one is told after all.
    assert_eq!(stopped(&["efg", "fgh"]), "abcabdef<end>");
    // The prompt is not searched.
    let request = Request { stop: vec!["xa".to_owned()], ..request("x", 2) };
    assert_eq!(alone(request, &says(1, "ab")).0, "ab<2>");
}

#[test]
fn tokens_are_told_with_their_scores() {
    let scored = |prompt| {
        let scores = Some(Scores { top: 2, prompt });
        alone(Request { scores, ..request("xy", 2) }, &says(2, "ab")).0
    };
    assert_eq!(scored(false), "[a=2]a[b=2]b<2>");
    assert_eq!(scored(true), "[x?0][y=2][a=2]a[b=2]b<2>");
    let scores = Some(Scores { top: 1, prompt: false });
    let ended = alone(Request { scores, ..request("xy", 9) }, &says(2, "a")).0;
    assert_eq!(ended, "[a=1]a[\u{100}=1]<end>", "so has the end of the document");
}

#[test]
fn full_caches_begin_again_with_half_of_what_they_held() {
    // 30 positions and 10 more; the token behind the last position begins the second half.
    let prompt = "x".repeat(30);
    let answer = |read: &[u32]| match read.last().copied() {
        Some(last) if last == u32::from(b'x') => u32::from(b'a'),
        last => last.unwrap_or_default() + 1,
    };
    let (text, runs) = alone(request(&prompt, 14), &answer);
    assert_eq!(text, "abcdefghijklmn<14>");
    let read: Vec<i32> = (prompt + "abcdefghijklm").bytes().map(i32::from).collect();
    let rows: Vec<(i32, i32, i32)> = runs.concat();
    let at = |range: std::ops::Range<usize>| read[range].iter().zip(0..).map(|(&t, at)| (0, at, t));
    assert_eq!(rows[..40], at(0..40).collect::<Vec<_>>());
    // The 41st token is the last of the 20 that stay.
    assert_eq!(rows[40..], at(21..43).collect::<Vec<_>>());
    assert_eq!(runs[runs.len() - 3].len(), 20);
}

/// A listener who leaves at once.
fn leaves() -> Listener {
    Box::new(|_: Heard<'_>| ControlFlow::Break(()))
}

#[test]
fn whoever_stops_listening_ends_it() {
    let (decoder, program) = decoder(1);
    let mut crowd = Crowd::of_one(decoder, 0, request("a", 9), leaves());
    assert_eq!(hear_out(&mut crowd, &program, &says(1, "bcd")).len(), 1);
}

#[test]
fn a_model_without_a_finite_logit_says_so_once() {
    let (decoder, program) = decoder(1);
    let (listener, said) = listener();
    let mut crowd = Crowd::of_one(decoder, 0, request("a", 9), listener);
    let mut memory = vec![0u64; 256];
    let mut record = Record::new(bytemuck::cast_slice_mut(&mut memory));
    let programs = [program];
    assert!(matches!(crowd.next(&programs, None, &mut record), Ok(Turn::Run(_))));
    let (read, logits) = (Vec::new(), vec![f32::NAN; COLUMNS]);
    let broken = Table { answer: &|_| 0, read, logits };
    assert_eq!(crowd.next(&programs, Some(&broken), &mut record).unwrap(), Turn::End);
    assert_eq!(*said.lock().unwrap(), "<diverged><given up>");
}

/// Says a word of its own to everybody: the first token of a text, three times, and the end.
fn echo(read: &[u32]) -> u32 {
    let said = read.iter().filter(|&&token| token == read[0]).count();
    if said > 3 { 256 } else { read[0] }
}

#[test]
fn texts_are_written_beside_each_other_as_they_are_alone() {
    let (decoder, program) = decoder(3);
    let long = format!("e{}", "-".repeat(35));
    let prompts = ["a", "b", "c", "d", &long, "f"];
    let (mut texts, mut said) = (VecDeque::new(), Vec::new());
    for prompt in prompts {
        let (listener, heard) = listener();
        said.push(heard);
        texts.push_back(Box::new((request(prompt, 9), listener)));
    }
    let source = Box::new(move |_| texts.pop_front().map_or(Next::End, Next::Text));
    let runs = hear_out(&mut Crowd::new(decoder, 0, source), &program, &echo);
    for (prompt, said) in prompts.iter().zip(said) {
        let expected = alone(request(prompt, 9), &echo).0;
        assert_eq!(*said.lock().unwrap(), expected, "{prompt}");
    }
    // Three at once, and each in every run, a long prompt beside them or not.
    assert!(runs[0].iter().map(|row| row.0).eq(0..3));
    for run in runs.iter().filter(|run| run.len() > 3) {
        assert!(run.len() <= decoder.rows, "{run:?}");
        let sequences: std::collections::BTreeSet<i32> = run.iter().map(|row| row.0).collect();
        assert!(sequences.len() >= 2, "{run:?}");
    }
}

#[test]
fn prompts_take_turns() {
    // Two long prompts that fill the program: the second one begins before the first has ended.
    let (decoder, program) = decoder(2);
    let mut texts: VecDeque<_> = ["x", "y"].map(|c| request(&c.repeat(40), 1)).into();
    let source = Box::new(move |_| match texts.pop_front() {
        Some(request) => Next::Text(Box::new((request, listener().0))),
        None => Next::End,
    });
    let runs = hear_out(&mut Crowd::new(decoder, 0, source), &program, &says(40, "a"));
    let of = |run: &[(i32, i32, i32)], sequence| run.iter().filter(|r| r.0 == sequence).count();
    let shares: Vec<[usize; 2]> = runs.iter().map(|run| [of(run, 0), of(run, 1)]).collect();
    assert_eq!(shares, [[33, 0], [0, 33], [7, 7]]);
}

#[test]
fn a_crowd_without_texts_waits_until_one_comes() {
    let (decoder, program) = decoder(2);
    let (heard, said) = listener();
    let (mut asked, mut text) = (Vec::new(), Some(Box::new((request("a", 9), heard))));
    let (told, asks) = std::sync::mpsc::channel();
    let source = Box::new(move |waiting| {
        asked.push(waiting);
        told.send(waiting).unwrap();
        match asked.len() {
            1 | 4 => Next::Nothing,
            2 => text.take().map_or(Next::End, Next::Text),
            3 => Next::Nothing,
            _ => Next::End,
        }
    });
    let runs = hear_out(&mut Crowd::new(decoder, 0, source), &program, &echo);
    assert_eq!(*said.lock().unwrap(), "aaa<end>");
    assert_eq!(runs.len(), 4);
    let asks: Vec<Waiting> = asks.try_iter().collect();
    assert_eq!(asks[..3], [Waiting::Nobody, Waiting::Nobody, Waiting::Texts]);
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
        let (mut held, mut pieces) = (Vec::new(), Vec::new());
        for (at, &token) in tokens.iter().enumerate() {
            held.extend(spelled(&tokenizer, &tokens[..at], token));
            let rest = held.split_off(held.len() - unfinished(&held));
            pieces.push(String::from_utf8(std::mem::replace(&mut held, rest)).unwrap());
        }
        assert_eq!(pieces.concat(), text);
        assert!(pieces.iter().all(|piece| piece.chars().count() < 2), "{pieces:?}");
        assert_eq!(
            tokenizer.decode(&tokens[..tokens.len() - 1]),
            text.replace('\u{1f600}', "\u{FFFD}")
        );
    }
}
