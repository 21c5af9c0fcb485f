//! Tests with real connections to a server for which nobody writes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Serving, TEMPLATE, serving};
use crate::data::Tokenizer;
use crate::sampling::{End, Ended, Heard};
use crate::serve::chat::Template;
use crate::serve::desk::Desk;
use crate::serve::http::Server;

/// What does not come in this time does not come.
const PATIENCE: Duration = Duration::from_secs(60);

fn served(template: Template) -> (Arc<Desk>, Server, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = Serving { token: None, ..serving() };
    let model = (Arc::new(Tokenizer::bytes()), Some(template));
    let desk = Arc::new(Desk::new(serving, model, 40, Arc::new(AtomicBool::new(false))));
    desk.begin();
    let server = Server::start(listener, desk.clone()).unwrap();
    (desk, server, address)
}

fn template(text: &str) -> Template {
    Template::new(text.to_owned(), String::new(), String::new()).unwrap()
}

fn send(address: SocketAddr, request: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).unwrap();
    stream
}

fn status(mut stream: TcpStream) -> u16 {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer[9..12].parse().unwrap()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn prompts_that_take_long_to_read_keep_nobody_else_waiting() {
    let ((begins, begun), (go, gate)) = (channel(), channel::<()>());
    let gate = Mutex::new(gate);
    let template = template("{{ wait() }}").calling("wait", move || {
        begins.send(()).unwrap();
        gate.lock().unwrap().recv().unwrap();
        "said".to_owned()
    });
    let (desk, server, address) = served(template);
    let body = json!({ "messages": [{ "role": "user", "content": "" }] }).to_string();
    let waiting = [0, 1].map(|_| send(address, "POST /v1/chat/completions", &body));
    begun.recv_timeout(PATIENCE).unwrap();
    // Both are in the middle of it, or one is and the other has not begun.
    for path in ["/v1/models", "/healthz"] {
        assert_eq!(status(send(address, &format!("GET {path}"), "")), 200, "{path}");
    }
    assert_eq!(desk.held(), 0);
    for _ in &waiting {
        go.send(()).unwrap();
    }
    for _ in &waiting {
        let mut text = desk.take(PATIENCE).unwrap();
        assert_eq!(desk.tokenizer.decode(&text.request.prompt), "said");
        let _over = (text.listener)(Heard::End(Ended { at: End::Length, tokens: 0 }));
    }
    assert_eq!(waiting.map(status), [200, 200]);
    server.stop();
}

#[test]
fn a_client_that_goes_away_frees_its_place() {
    let (desk, server, address) = served(template(TEMPLATE));
    let ask = |prompt: &str| {
        let body = json!({ "prompt": prompt, "stream": true }).to_string();
        send(address, "POST /v1/completions", &body)
    };
    let arrived = |texts| until("it is not accepted", || desk.held() == texts);
    let mut clients = Vec::new();
    for (number, prompt) in ["a", "b", "c", "d"].into_iter().enumerate() {
        clients.push(ask(prompt));
        arrived(number + 1);
    }
    assert_eq!(status(ask("e")), 429);
    clients.drain(..2);
    until("their places stay taken", || desk.is_full_for(2).is_none());
    // However many come and go, nothing is kept of them.
    for _ in 0..20 {
        let client = ask("gone");
        arrived(3);
        drop(client);
        until("its place stays taken", || desk.is_full_for(2).is_none());
    }
    clients.push(ask("f"));
    arrived(3);
    for expected in ["c", "d", "f"] {
        let text = desk.take(PATIENCE).unwrap();
        assert_eq!(desk.tokenizer.decode(&text.request.prompt), expected);
    }
    assert!(desk.take(Duration::ZERO).is_none());
    server.stop();
}
