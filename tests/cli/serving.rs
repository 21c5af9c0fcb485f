//! `serve`: a real server over a small run, asked by real connections.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::Place;

/// A server that is ended with its test.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_octet"));
        command.current_dir(place.path(".")).arg("serve").args(arguments);
        command.args(["--address", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().split("http://").nth(1).and_then(|rest| rest.split('/').next());
        let address = address.unwrap_or_else(|| panic!("{line:?} names no address")).to_owned();
        Self { child, address }
    }

    /// Sends a request; the connection.
    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\
             content-length: {length}\r\n\r\n"
        );
        stream.write_all((head + body).as_bytes()).unwrap();
        stream
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        received(self.send(method, path, headers, body))
    }

    /// The answer to a request that is granted.
    fn complete(&self, body: &Value) -> Value {
        let (status, text) = self.ask("POST", "/v1/completions", "", &body.to_string());
        assert_eq!(status, 200, "{body}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// How many of these it has: `fd` or `task`.
    fn count(&self, what: &str) -> usize {
        fs::read_dir(format!("/proc/{}/{what}", self.child.id())).unwrap().count()
    }

    /// Asks it to end; how it did.
    fn stop(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = (self.child.kill(), self.child.wait());
    }
}

/// Status and body of an answer.
fn received(mut stream: TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

fn trained() -> Place {
    let place = Place::new();
    place.train("run", &[]);
    place
}

#[test]
fn answers_are_what_generate_prints() {
    let place = trained();
    let server = Server::start(&place, &["run"]);
    let generate = |prompt: &str| {
        let fixed = ["generate", "run", "--tokens", "9", "--temperature", "0", "--prompt", prompt];
        place.prints(&fixed)
    };
    let body = json!({ "prompt": ["The 1", "a"], "max_tokens": 9, "temperature": 0, "echo": true });
    let answer = server.complete(&body);
    assert_eq!(answer["model"], "run");
    for (number, prompt) in ["The 1", "a"].into_iter().enumerate() {
        let text = answer["choices"][number]["text"].as_str().unwrap().to_owned() + "\n";
        assert_eq!(text, generate(prompt), "{prompt}");
    }
    // The same draws again, each choice with its own; and in pieces.
    let body = json!({ "prompt": "The", "max_tokens": 12, "n": 2, "seed": 3, "temperature": 2 });
    let once = server.complete(&body);
    let text = |answer: &Value, choice: usize| answer["choices"][choice]["text"].clone();
    assert_eq!(server.complete(&body)["choices"], once["choices"]);
    assert_ne!(text(&once, 0), text(&once, 1));
    assert_eq!(once["usage"]["prompt_tokens"], 3);
    let mut streamed = body.clone();
    streamed["stream"] = true.into();
    let (status, lines) = server.ask("POST", "/v1/completions", "", &streamed.to_string());
    assert_eq!(status, 200);
    let events = lines.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<&str> = events.collect();
    assert_eq!(events.last(), Some(&"[DONE]"));
    let mut pieces = [String::new(), String::new()];
    for event in &events[..events.len() - 1] {
        let choice = &serde_json::from_str::<Value>(event).unwrap()["choices"][0];
        let number = choice["index"].as_u64().unwrap() as usize;
        pieces[number].push_str(choice["text"].as_str().unwrap());
    }
    assert_eq!([text(&once, 0), text(&once, 1)], pieces.map(Value::from));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn scores_of_a_text_add_up_to_its_loss() {
    let place = Place::new();
    place.train("run", &["model.vocabulary=300"]);
    let server = Server::start(&place, &["run"]);
    let text = "The 7th line of a text says 49";
    let body = json!({ "prompt": text, "max_tokens": 0, "echo": true, "logprobs": 1 });
    let whole = &server.complete(&body)["choices"][0]["logprobs"];
    let logprobs = whole["token_logprobs"].as_array().unwrap();
    assert_eq!((logprobs.len(), &logprobs[0]), (text.len(), &Value::Null));
    assert!(logprobs[1..].iter().all(|p| p.as_f64().is_some_and(|p| p < 0.0)), "{logprobs:?}");
    // Together they are what evaluate says of the text: rows of padding, too, are what the model
    // was trained with.
    let end = 256;
    let tokens: Vec<u32> = [end].into_iter().chain(text.bytes().map(u32::from)).collect();
    let body = json!({ "prompt": tokens, "max_tokens": 0, "echo": true, "logprobs": 0 });
    let scored = server.complete(&body)["choices"][0]["logprobs"]["token_logprobs"].clone();
    let sum: f64 = scored.as_array().unwrap()[1..].iter().map(|p| p.as_f64().unwrap()).sum();
    let tokens = [&tokens[1..], &[end]].concat();
    let body = json!({ "prompt": tokens, "max_tokens": 0, "echo": true, "logprobs": 0 });
    let last = server.complete(&body)["choices"][0]["logprobs"]["token_logprobs"].clone();
    let sum = sum + last.as_array().unwrap().last().unwrap().as_f64().unwrap();
    fs::write(place.path("one.txt"), text).unwrap();
    let report = place.json(&["evaluate", "run", "--set", "data.text=one.txt", "--json"]);
    let [loss, targets] = ["loss", "targets"].map(|key| report[0][key].as_f64().unwrap());
    assert_eq!(targets, text.len() as f64 + 1.0);
    assert!((sum + loss * targets).abs() < 1e-4 * -sum, "{sum} {loss} {targets}");
    // In the order of the text, and each is what it is behind a shorter prompt.
    let tokens = whole["tokens"].as_array().unwrap();
    assert_eq!(tokens.iter().map(|t| t.as_str().unwrap()).collect::<String>(), text);
    let body = json!({ "prompt": &text[..9], "max_tokens": 0, "echo": true, "logprobs": 1 });
    let part = &server.complete(&body)["choices"][0]["logprobs"];
    assert_eq!(part["token_logprobs"].as_array().unwrap()[..], logprobs[..9]);
    // The likeliest token is the one that is drawn at temperature 0.
    let body = json!({ "prompt": text, "max_tokens": 1, "temperature": 0, "logprobs": 2 });
    let next = &server.complete(&body)["choices"][0]["logprobs"];
    let top = next["top_logprobs"][0].as_object().unwrap();
    let best = top.iter().max_by(|a, b| a.1.as_f64().unwrap().total_cmp(&b.1.as_f64().unwrap()));
    assert_eq!(best.unwrap().0, next["tokens"][0].as_str().unwrap());
}

#[test]
fn requests_that_cannot_be_granted_are_refused() {
    let place = trained();
    fs::write(place.path("token"), "secret\n").unwrap();
    let server = Server::start(&place, &["run", "--token-file", "token", "--texts", "1"]);
    let token = "authorization: Bearer secret\r\n";
    let post = |path: &str, headers: &str, body: &str| server.ask("POST", path, headers, body);
    assert_eq!(post("/v1/completions", "", "{}").0, 401);
    assert_eq!(server.ask("GET", "/v1/models", "authorization: Bearer x\r\n", "").0, 401);
    let (status, models) = server.ask("GET", "/v1/models", token, "");
    assert!(status == 200 && models.contains("\"id\":\"run\""), "{models}");
    assert_eq!(server.ask("GET", "/healthz", "", "").0, 200);
    assert_eq!(server.ask("GET", "/v1/completions", token, "").0, 405);
    assert_eq!(server.ask("GET", "/v1/embeddings", token, "").0, 404);
    for body in ["", "{", "{\"prompt\": 5}", "{\"prompt\": \"a\", \"top_p\": 7}"] {
        let (status, text) = post("/v1/completions", token, body);
        let error: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, &error["error"]["type"]), (400, &json!("invalid_request_error")));
    }
    let (status, text) = post("/v1/chat/completions", token, "{\"messages\": [{}]}");
    assert!(status == 400 && text.contains("no chat template"), "{text}");
    let two = json!({ "prompt": "a", "n": 2 }).to_string();
    assert_eq!(post("/v1/completions", token, &two).0, 400);
    assert_eq!(server.stop(), Some(0));
    let refused = place.refusal(&["serve", "run", "--address", "0.0.0.0:0"]);
    assert!(refused.contains("--token-file"), "{refused}");
    assert!(place.refusal(&["serve", "nothing"]).contains("no run is there"));
}

#[test]
fn many_clients_are_served_and_those_who_leave_are_not_waited_for() {
    let place = trained();
    let server = Server::start(&place, &["run", "--texts", "64", "--sequences", "3"]);
    let body = |seed: usize| {
        json!({ "prompt": "The", "max_tokens": 29, "seed": seed, "temperature": 1 }).to_string()
    };
    let alone: Vec<String> = (0..4).map(|seed| text(&post(&server, &body(seed)).1)).collect();
    let (open, threads) = (server.count("fd"), server.count("task"));
    // 200: some leave before they are answered, some say nothing, some send half a request, some
    // do not read.
    let mut slow: Vec<TcpStream> = Vec::new();
    for seed in 0..10 {
        slow.push(TcpStream::connect(&server.address).unwrap());
        let mut half = TcpStream::connect(&server.address).unwrap();
        half.write_all(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-le").unwrap();
        slow.push(half);
        let streamed = body(seed).replacen('{', "{\"stream\": true, ", 1);
        slow.push(server.send("POST", "/v1/completions", "", &streamed));
        drop(server.send("POST", "/v1/completions", "", &body(seed)));
    }
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..160)
            .map(|client| {
                let (server, body) = (&server, body(client % 4));
                scope.spawn(move || {
                    loop {
                        let (status, answer) = post(server, &body);
                        match status {
                            429 => std::thread::sleep(Duration::from_millis(20)),
                            _ => return (status, answer),
                        }
                    }
                })
            })
            .collect();
        for (client, handle) in clients.into_iter().enumerate() {
            let (status, answer) = handle.join().unwrap();
            assert_eq!(status, 200, "{answer}");
            assert_eq!(text(&answer), alone[client % 4], "beside others");
        }
    });
    drop(slow);
    // Nobody's place stays taken.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (_, health) = server.ask("GET", "/healthz", "", "");
        let health: Value = serde_json::from_str(&health).unwrap();
        // Nor their connections; the threads that read prompts come with the first of them.
        let (open_now, threads_now) = (server.count("fd"), server.count("task"));
        if health["texts"] == 0 && open_now <= open && threads_now <= threads + 2 {
            break;
        }
        let growth = format!("files {open} to {open_now}, threads {threads} to {threads_now}");
        assert!(Instant::now() < deadline, "{health}, {growth}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(server.stop(), Some(0));
}

fn post(server: &Server, body: &str) -> (u16, String) {
    server.ask("POST", "/v1/completions", "", body)
}

fn text(answer: &str) -> String {
    let answer: Value = serde_json::from_str(answer).unwrap();
    answer["choices"][0]["text"].as_str().unwrap().to_owned()
}

#[test]
fn what_was_accepted_is_answered_when_the_server_ends() {
    let place = trained();
    let server = Server::start(&place, &["run", "--sequences", "1"]);
    let body = json!({ "prompt": "The", "max_tokens": 29, "temperature": 0 }).to_string();
    let waiting: Vec<_> =
        (0..5).map(|_| server.send("POST", "/v1/completions", "", &body)).collect();
    // They are accepted when the server counts them; some may be answered already.
    let (status, first) = received(waiting.into_iter().next().unwrap());
    assert_eq!(status, 200, "{first}");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_stored_model_is_served_with_its_chat_template() {
    let place = trained();
    place.prints(&["export", "run", "stored"]);
    let config = place.read("stored/tokenizer_config.json");
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["chat_template"] = "{% for m in messages %}{{ m.content }}{% endfor %}".into();
    fs::write(place.path("stored/tokenizer_config.json"), config.to_string()).unwrap();
    let server = Server::start(&place, &["stored", "--name", "toy"]);
    let messages = json!([{ "role": "user", "content": "The 1" }]);
    let body = json!({
        "messages": messages, "max_tokens": 9, "temperature": 0, "model": "toy",
        "logprobs": true, "top_logprobs": 2,
    });
    let (status, answer) = server.ask("POST", "/v1/chat/completions", "", &body.to_string());
    assert_eq!(status, 200, "{answer}");
    let choice = serde_json::from_str::<Value>(&answer).unwrap()["choices"][0].clone();
    let said = "The 1".to_owned() + choice["message"]["content"].as_str().unwrap() + "\n";
    let fixed = ["--tokens", "9", "--temperature", "0", "--prompt", "The 1"];
    assert_eq!(said, place.prints(&[&["generate", "run"], &fixed[..]].concat()));
    assert_eq!(said, place.prints(&[&["generate", "stored"], &fixed[..]].concat()));
    let scores = choice["logprobs"]["content"].as_array().unwrap();
    assert!(scores.iter().all(|score| score["top_logprobs"].as_array().unwrap().len() == 2));
}
