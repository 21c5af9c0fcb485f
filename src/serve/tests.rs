//! Tests of what clients may ask and how they are answered, without a model.

mod clients;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::answer::Answer;
use super::api::{Job, Refusal, chat, completion};
use super::chat::Template;
use super::desk::{Desk, Event, Events, Full};
use super::{Serving, listen};
use crate::data::Tokenizer;
use crate::sampling::{End, Ended, Heard, Scored};

fn serving() -> Serving {
    Serving {
        address: "127.0.0.1:0".to_owned(),
        token: Some("secret".to_owned()),
        name: "toy".to_owned(),
        sequences: 2,
        texts: 4,
    }
}

const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}
    {%- if message.role not in ['user', 'assistant'] %}{{ raise_exception('no ' + message.role) }}
    {%- endif %}
    {{- message.role }}: {{ message.content.strip() }}{{ eos_token }}
{% endfor %}
{% if add_generation_prompt %}assistant:{% endif %}";

fn desk() -> (Desk, Arc<AtomicBool>) {
    let stop = Arc::new(AtomicBool::new(false));
    let template = Template::new(TEMPLATE.to_owned(), "<".to_owned(), ">".to_owned()).unwrap();
    let model = (Arc::new(Tokenizer::bytes()), Some(template));
    (Desk::new(serving(), model, 40, stop.clone()), stop)
}

fn asks(body: &Value) -> Result<Job, Refusal> {
    completion(&desk().0, body.to_string().as_bytes())
}

#[test]
fn what_cannot_be_asked_is_named() {
    let (desk, ..) = desk();
    for (body, parameter, says) in [
        (json!({}), "prompt", "expected a text"),
        (json!({ "prompt": [] }), "n", "expected from 1 to 4 texts"),
        (json!({ "prompt": [[]] }), "prompt", "at least one token"),
        (json!({ "prompt": [300] }), "prompt", "token 300, and the tokenizer has 257"),
        (
            json!({ "prompt": "x".repeat(41) }),
            "prompt",
            "41 tokens, and the model reads at most 40",
        ),
        (
            json!({ "prompt": "x".repeat(39), "max_tokens": 2 }),
            "max_tokens",
            "2 behind a prompt of",
        ),
        (json!({ "prompt": "a", "n": 5 }), "n", "got 5"),
        (json!({ "prompt": "a", "n": 0 }), "n", "got 0"),
        (json!({ "prompt": "a", "temperature": -1 }), "temperature", "expected at least 0"),
        (json!({ "prompt": "a", "top_p": 2 }), "top_p", "at most 1"),
        (json!({ "prompt": "a", "logprobs": 101 }), "logprobs", "at most 100"),
        (json!({ "prompt": "a", "stop": ["", "b"] }), "stop", "none of them empty"),
        (json!({ "prompt": "a", "model": "gpt" }), "model", "and this is \"toy\""),
        (json!({ "prompt": "a", "suffix": "b" }), "suffix", "left to right"),
        (json!({ "prompt": "a", "best_of": 3 }), "best_of", "as many as n"),
        (json!({ "prompt": "a", "logit_bias": { "1": 2 } }), "logit_bias", "not supported"),
    ] {
        let refused = asks(&body).err().unwrap_or_else(|| panic!("{body} is accepted"));
        assert_eq!(refused.parameter, Some(parameter), "{body}: {}", refused.what);
        assert!(refused.what.contains(says), "{body}: {}", refused.what);
    }
    for body in ["", "[]", "{\"prompt\": 3}", "{\"prompt\": \"a\", \"n\": -1}"] {
        let refused = completion(&desk, body.as_bytes()).err().unwrap();
        assert!(refused.what.starts_with("the body: "), "{body}: {}", refused.what);
    }
    let wrong = |body: Value| chat(&desk, body.to_string().as_bytes()).err().unwrap();
    assert_eq!(wrong(json!({ "messages": [] })).parameter, Some("messages"));
    let system = json!({ "messages": [{ "role": "system", "content": "x" }] });
    assert!(wrong(system).what.contains("no system"));
    let tools = json!({ "messages": [{ "role": "user", "content": "x" }], "tools": [1] });
    assert_eq!(wrong(tools).parameter, Some("tools"));
}

#[test]
fn what_is_asked_becomes_texts() {
    let job = asks(&json!({
        "prompt": ["ab", "c"], "n": 2, "max_tokens": 3, "temperature": 0, "seed": 5, "top_k": -1,
        "stop": "x", "logprobs": 0, "echo": true, "user": "somebody", "model": "toy",
    }))
    .unwrap();
    let prompts: Vec<&[u32]> = job.requests.iter().map(|r| &r.prompt[..]).collect();
    assert_eq!(prompts, [&[97, 98][..], &[97, 98], &[99], &[99]]);
    assert!(job.requests.iter().map(|request| request.number).eq(0..4));
    let request = &job.requests[0];
    assert_eq!((request.tokens, request.sampler.seed, request.sampler.top_k), (3, 5, 0));
    assert_eq!((request.sampler.temperature, &request.stop[..]), (0.0, &["x".to_owned()][..]));
    assert!(request.scores.is_some_and(|scores| scores.prompt && scores.top == 0));
    assert!(job.echo && job.scored && !job.stream);
    let tokens = asks(&json!({ "prompt": [[1, 2], [3]] })).unwrap();
    assert_eq!((tokens.requests[0].tokens, &tokens.requests[1].prompt[..]), (16, &[3][..]));
    // Without a seed, no two requests are drawn alike.
    let (desk, ..) = desk();
    let seed = || completion(&desk, b"{\"prompt\": \"a\"}").unwrap().requests[0].sampler.seed;
    assert_ne!(seed(), seed());
}

#[test]
fn messages_become_a_prompt_by_the_template() {
    let (desk, ..) = desk();
    let messages = json!([{ "role": "user", "content": " hi " }]);
    let job = chat(&desk, json!({ "messages": messages }).to_string().as_bytes()).unwrap();
    let prompt = desk.tokenizer.decode(&job.requests[0].prompt);
    assert_eq!(prompt, "<user: hi>\nassistant:");
    // Nothing said: as long as there is room.
    assert_eq!(job.requests[0].tokens, 40 - prompt.len());
    assert!(Template::new("{% if %}".to_owned(), String::new(), String::new()).is_err());
    let forever =
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}";
    let forever = Template::new(forever.to_owned(), String::new(), String::new()).unwrap();
    assert!(forever.render(&messages).is_err());
}

#[test]
fn tokens_that_are_no_text_are_read_as_they_are_spelled() {
    let special = [("<s>", 1), ("<s>>", 2), (">", 3)].map(|(text, id)| (text.to_owned(), id));
    let template = Template::new(TEMPLATE.to_owned(), "<".to_owned(), ">".to_owned()).unwrap();
    let template = template.knowing(special.into());
    let read = |text: &str| template.read(&Tokenizer::bytes(), text).unwrap();
    assert_eq!(read("a<s>b"), [97, 1, 98]);
    assert_eq!(read("<s>><"), [2, 60]);
    assert!(read("").is_empty());
    // An answer ends where a turn does.
    assert!(template.ends().eq([3]));
    let plain = Template::new(TEMPLATE.to_owned(), "<".to_owned(), ">".to_owned()).unwrap();
    assert_eq!(plain.ends().count(), 0);
    assert_eq!(plain.read(&Tokenizer::bytes(), "<s>").unwrap(), [60, 115, 62]);
}

fn scored(token: u8, logprob: Option<f32>) -> Event {
    let top = if logprob.is_some() { vec![(u32::from(b'z'), -0.5)] } else { Vec::new() };
    Event::Token(Scored { token: u32::from(token), logprob, top })
}

fn piece(text: &str) -> Event {
    Event::Piece(text.to_owned())
}

fn end(at: End, tokens: usize) -> Event {
    Event::End(Ended { at, tokens })
}

/// What is answered when these events were heard of the first text.
fn answer(body: &Value, events: Vec<Event>) -> Value {
    let job = asks(body).unwrap();
    let mut answer = Answer::new(&job, "id".to_owned(), 7, "toy".to_owned());
    for event in events {
        answer.hear(0, event).unwrap();
    }
    assert!(answer.is_whole());
    answer.whole()
}

#[test]
fn answers_have_the_form_that_clients_read() {
    let body = json!({ "prompt": "ab", "echo": true, "logprobs": 1, "max_tokens": 1 });
    let events = vec![
        scored(b'a', None),
        scored(b'b', Some(-1.0)),
        scored(b'c', Some(f32::NEG_INFINITY)),
        piece("c"),
        end(End::Length, 1),
    ];
    let logprobs = json!({
        "tokens": ["a", "b", "c"],
        "token_logprobs": [null, -1.0, -9999.0],
        "top_logprobs": [null, { "z": -0.5, "b": -1.0 }, { "z": -0.5, "c": -9999.0 }],
        "text_offset": [0, 1, 2],
    });
    let choice = json!({
        "index": 0, "text": "abc", "finish_reason": "length", "logprobs": logprobs,
    });
    let expected = json!({
        "id": "id", "object": "text_completion", "created": 7, "model": "toy",
        "choices": [choice],
        "usage": { "prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3 },
    });
    assert_eq!(answer(&body, events), expected);
    // Of what a string cut off, no scores are told.
    let body = json!({ "prompt": "ab", "logprobs": 1, "stop": "de" });
    let tokens = b"cde".iter().map(|&token| scored(token, Some(-1.0)));
    let events = tokens.chain([piece("c"), end(End::Stop, 3)]).collect();
    let choice = &answer(&body, events)["choices"][0];
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!("c"), &json!("stop")));
    assert_eq!(choice["logprobs"]["tokens"], json!(["c"]));
    // Bytes that are no character stay apart.
    let body = json!({ "prompt": "ab", "logprobs": 1, "max_tokens": 2 });
    let tokens = "\u{e9}".bytes().map(|token| scored(token, Some(-1.0)));
    let events = tokens.chain([piece("\u{e9}"), end(End::Length, 2)]).collect();
    let logprobs = &answer(&body, events)["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["bytes:\\xc3", "bytes:\\xa9"]));
    assert_eq!(logprobs["text_offset"], json!([0, 1]));
}

#[test]
fn a_text_that_was_given_up_is_not_whole() {
    let job = asks(&json!({ "prompt": "ab" })).unwrap();
    let mut answer = Answer::new(&job, "id".to_owned(), 7, "toy".to_owned());
    assert!(!answer.is_whole());
    answer.hear(0, end(End::GivenUp, 0)).unwrap();
    assert!(!answer.is_whole());
    assert!(answer.hear(0, Event::Diverged).unwrap_err().contains("finite"));
}

#[test]
fn only_so_many_texts_are_accepted() {
    let (desk, stop) = desk();
    let texts = |n: usize| asks(&json!({ "prompt": "a", "n": n })).unwrap().requests;
    let first = desk.accept(texts(3)).unwrap();
    assert_eq!(desk.accept(texts(2)).unwrap_err(), Full::Busy);
    let second = desk.accept(texts(1)).unwrap();
    assert_eq!(desk.held(), 4);
    // A text that is over makes room.
    let taken = std::iter::from_fn(|| desk.take(Duration::ZERO));
    let mut listeners: Vec<_> = taken.map(|text| text.listener).collect();
    assert_eq!(listeners.len(), 4);
    drop(listeners.pop());
    assert_eq!(desk.held(), 3);
    // A client that has gone is not written for.
    assert_eq!(listeners[0](Heard::Piece("x")), ControlFlow::Continue(()));
    drop(first);
    assert_eq!(listeners[0](Heard::Piece("x")), ControlFlow::Break(()));
    assert_eq!(desk.held(), 3);
    drop((second, listeners));
    assert_eq!(desk.held(), 0);
    stop.store(true, Ordering::Relaxed);
    assert_eq!(desk.accept(texts(1)).unwrap_err(), Full::Ending);
}

/// Texts of a request, each with this prompt.
fn brought(desk: &Desk, prompt: &str, texts: usize) -> Events {
    let requests = asks(&json!({ "prompt": prompt, "n": texts })).unwrap().requests;
    desk.accept(requests).unwrap()
}

/// The prompt of the next text.
fn next(desk: &Desk) -> Option<String> {
    let text = desk.take(Duration::ZERO)?;
    Some(desk.tokenizer.decode(&text.request.prompt))
}

#[test]
fn requests_take_turns_and_whoever_has_gone_has_none() {
    let (desk, _stop) = desk();
    let (many, one) = (brought(&desk, "many", 3), brought(&desk, "one", 1));
    let order: Vec<String> = std::iter::from_fn(|| next(&desk)).collect();
    assert_eq!(order, ["many", "one", "many", "many"]);
    drop((many, one));
    let (gone, stays) = (brought(&desk, "gone", 3), brought(&desk, "stays", 1));
    assert_eq!(desk.is_full_for(1), Some(Full::Busy));
    drop(gone);
    assert_eq!(desk.is_full_for(3), None);
    assert_eq!((desk.held(), next(&desk).as_deref()), (1, Some("stays")));
    drop(stays);
    // Even if nobody looks for those who have gone, their texts are not written.
    drop(brought(&desk, "gone", 2));
    assert_eq!((next(&desk), desk.held()), (None, 0));
    // Where nobody writes any more, nobody waits.
    let waits = brought(&desk, "waits", 2);
    desk.close();
    let late = brought(&desk, "late", 2);
    assert_eq!((next(&desk), desk.held()), (None, 0));
    drop((waits, late));
}

#[test]
fn whoever_shows_no_token_is_not_served() {
    let (desk, ..) = desk();
    assert!(desk.admits(Some("secret")));
    assert!(!desk.admits(Some("Secret")) && !desk.admits(Some("")) && !desk.admits(None));
    // Without one, only this machine is.
    let open = |address: &str| Serving { address: address.to_owned(), token: None, ..serving() };
    assert!(listen(&open("127.0.0.1:0")).is_ok());
    let refused = listen(&open("0.0.0.0:0")).unwrap_err();
    assert!(refused.what.contains("--token-file"), "{refused}");
    assert!(listen(&Serving { token: Some("x".to_owned()), ..open("0.0.0.0:0") }).is_ok());
    assert!(listen(&open("nowhere")).unwrap_err().what.contains("HOST:PORT"));
}
