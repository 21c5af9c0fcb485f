//! The web server through real connections.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{REQUEST_PATIENCE, Web, WebError, WebSetup, listen};
use crate::outside::{Clock, ManualClock};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::{RunState, Status};
use crate::telemetry::totals::LastCheckpoint;

struct Bench {
    folder: TempDir,
    clock: Arc<ManualClock>,
    metrics: Metrics,
    status: Arc<Status>,
}

impl Bench {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new());
        let status = Arc::new(Status::new(clock.monotonic(), Duration::from_secs(60)));
        Self { folder: TempDir::new().unwrap(), clock, metrics: Metrics::new(), status }
    }

    fn setup(&self) -> WebSetup {
        WebSetup {
            listener: listen("127.0.0.1:0").unwrap(),
            announce: self.folder.path().join("web.json"),
            metrics: self.metrics.clone(),
            status: self.status.clone(),
            clock: self.clock.clone(),
        }
    }

    fn start(&self) -> Web {
        Web::start(self.setup()).unwrap()
    }
}

fn get(address: SocketAddr, path: &str) -> (String, String) {
    ask("GET", address, path)
}

/// Status line with headers, and the body, of one request.
fn ask(method: &str, address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let headers = "Host: x\r\nContent-Length: 0\r\nConnection: close";
    write!(stream, "{method} {path} HTTP/1.1\r\n{headers}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn last(step: u64, ms: f64) -> LastCheckpoint {
    LastCheckpoint { step, ms, unix_ms: None }
}

#[test]
fn metrics_are_served_as_prometheus_reads_them() {
    let bench = Bench::new();
    let web = bench.start();
    bench.metrics.checkpoint(last(40, 1500.0));
    let (head, body) = get(web.address(), "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    // The order of metrics is free.
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(&body), sorted(&bench.metrics.render()));
    assert!(body.contains("octet_checkpoint_step 40\n"), "{body}");
    assert!(body.contains("# TYPE octet_checkpoint_seconds gauge\n"), "{body}");
    web.stop();
}

#[test]
fn health_is_200_while_steps_come_and_503_when_they_do_not() {
    let bench = Bench::new();
    let web = bench.start();
    let health = || {
        let (head, body) = get(web.address(), "/healthz");
        let code = head.split(' ').nth(1).unwrap().to_owned();
        (code, serde_json::from_str::<serde_json::Value>(&body).unwrap())
    };
    bench.status.enter(RunState::Training, bench.clock.monotonic());
    bench.clock.advance(Duration::from_secs(1));
    bench.status.step_done(7, bench.clock.monotonic());
    bench.clock.advance(Duration::from_millis(2500));
    let (code, body) = health();
    assert_eq!(code, "200");
    let expected =
        serde_json::json!({"ok": true, "state": "training", "step": 7, "last_step_age_s": 2.5});
    assert_eq!(body, expected);
    bench.clock.advance(Duration::from_secs(60));
    let (code, body) = health();
    assert_eq!((code.as_str(), &body["ok"]), ("503", &serde_json::json!(false)));
    web.stop();
}

#[test]
fn health_is_503_from_a_stall_on() {
    let bench = Bench::new();
    let web = bench.start();
    bench.status.enter(RunState::Training, bench.clock.monotonic());
    let code = || get(web.address(), "/healthz").0.split(' ').nth(1).unwrap().to_owned();
    assert_eq!(code(), "200");
    bench.status.stalled();
    assert_eq!(code(), "503");
    web.stop();
}

#[test]
fn other_paths_and_methods_are_refused() {
    let bench = Bench::new();
    let web = bench.start();
    let (head, body) = get(web.address(), "/secrets");
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    assert!(body.contains("/metrics"), "{body}");
    let (head, _) = ask("POST", web.address(), "/metrics");
    assert!(head.starts_with("HTTP/1.1 405"), "{head}");
    web.stop();
}

#[test]
fn the_address_stands_in_the_run_folder_while_the_server_runs() {
    let bench = Bench::new();
    let web = bench.start();
    let file = bench.folder.path().join("web.json");
    let content: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(content, serde_json::json!({"address": web.address().to_string()}));
    assert_ne!(web.address().port(), 0);
    let address = web.address();
    web.stop();
    assert!(!file.exists());
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn a_connection_that_says_nothing_does_not_hold_up_the_end() {
    let bench = Bench::new();
    let web = bench.start();
    let _silent = TcpStream::connect(web.address()).unwrap();
    let mut half = TcpStream::connect(web.address()).unwrap();
    half.write_all(b"GET /metr").unwrap();
    let mut kept = TcpStream::connect(web.address()).unwrap();
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(kept.read(&mut [0; 64]).unwrap() > 0);
    let begun = Instant::now();
    web.stop();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn an_address_that_is_taken_or_wrong_is_one_sentence() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for address in [address.as_str(), "nowhere", "127.0.0.1:99999"] {
        let error = listen(address).unwrap_err();
        assert!(matches!(error, WebError::Address { .. }), "{error:?}");
        let sentence = error.to_string();
        let begin = format!("web.address: cannot listen on \"{address}\" (");
        assert!(sentence.starts_with(&begin) && !sentence.contains('\n'), "{sentence}");
    }
}

#[test]
fn a_head_is_that_of_the_answer_without_its_body() {
    let bench = Bench::new();
    let web = bench.start();
    for path in ["/metrics", "/healthz", "/readyz"] {
        let (asked, body) = ask("HEAD", web.address(), path);
        let (whole, _) = get(web.address(), path);
        let first = |head: &str| head.lines().next().unwrap().to_owned();
        let kind =
            |head: &str| head.lines().find(|l| l.starts_with("content-type")).map(str::to_owned);
        assert_eq!((first(&asked), kind(&asked)), (first(&whole), kind(&whole)), "{path}");
        assert!(body.is_empty(), "{path}: {body}");
    }
    web.stop();
}

#[test]
fn a_run_is_ready_while_it_is_at_work() {
    let bench = Bench::new();
    let web = bench.start();
    for (state, wanted) in [
        (RunState::Starting, "503"),
        (RunState::Training, "200"),
        (RunState::Evaluating, "200"),
        (RunState::Draining, "503"),
        (RunState::Failed, "503"),
    ] {
        bench.status.enter(state, bench.clock.monotonic());
        let (head, body) = get(web.address(), "/readyz");
        assert_eq!(head.split(' ').nth(1), Some(wanted), "{state:?}: {head}");
        assert!(body.contains(&format!("\"ready\":{}", wanted == "200")), "{body}");
    }
    web.stop();
}

#[test]
fn hundreds_who_do_not_read_hold_nobody_up() {
    let bench = Bench::new();
    let web = bench.start();
    let silent = |i: usize| {
        let mut stream = TcpStream::connect(web.address()).unwrap();
        let half: &[u8] = if i.is_multiple_of(2) {
            b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
        } else {
            b"GET /me"
        };
        stream.write_all(half).unwrap();
        stream
    };
    let _silent: Vec<TcpStream> = (0..300).map(silent).collect();
    // Sooner than the first of them is given up.
    let begun = Instant::now();
    assert!(get(web.address(), "/healthz").0.starts_with("HTTP/1.1 200"));
    assert!(begun.elapsed() < REQUEST_PATIENCE, "{:?}", begun.elapsed());
    web.stop();
}

#[test]
fn two_servers_in_one_process_show_their_own_runs() {
    let (one, other) = (Bench::new(), Bench::new());
    let (first, second) = (one.start(), other.start());
    one.metrics.checkpoint(last(1, 1.0));
    other.metrics.checkpoint(last(2, 1.0));
    assert!(get(first.address(), "/metrics").1.contains("octet_checkpoint_step 1\n"));
    assert!(get(second.address(), "/metrics").1.contains("octet_checkpoint_step 2\n"));
    first.stop();
    assert!(get(second.address(), "/healthz").0.starts_with("HTTP/1.1 200"));
    second.stop();
}
