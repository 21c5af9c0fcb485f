//! The web server of a real run: it says where it is, answers, and goes with the run.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::harness::{Home, Running, log_lines, send};

/// Status and body of `GET path`.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn metrics_and_health_are_there_while_the_run_is() {
    let home = Home::new();
    let sets = ["run.steps=100000", "web.address=127.0.0.1:0", "evaluate.every=5"];
    let mut run = home.start("runs/web", &sets);
    assert!(run.until_step(11), "it ended too early");
    let announce = home.path("runs/web/web.json");
    let web: Value = serde_json::from_slice(&fs::read(&announce).unwrap()).unwrap();
    let address = web["address"].as_str().unwrap();
    let (status, metrics) = get(address, "/metrics");
    assert_eq!(status, 200);
    let step = metrics.lines().find_map(|line| line.strip_prefix("octet_step "));
    assert!(step.unwrap().parse::<f64>().unwrap() >= 11.0, "{metrics}");
    for name in ["octet_loss ", "octet_evaluation_loss{task=\"validation\"}"] {
        assert!(metrics.contains(name), "no {name} in {metrics}");
    }
    let (status, health) = get(address, "/healthz");
    assert_eq!(status, 200, "{health}");
    let health: Value = serde_json::from_str(&health).unwrap();
    assert_eq!(health["ok"], true, "{health}");
    assert_eq!(get(address, "/elsewhere").0, 404);
    assert_eq!(get(address, "/readyz").0, 200);
    let said = format!("web server at http://{address}");
    assert!(run.said().0.contains(&said), "{said}: {:?}", run.said());
    run.signal(libc::SIGINT);
    let end = run.wait();
    assert!(end.success(), "{end:?}");
    assert!(!announce.exists(), "the address is gone with the server");
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn an_engine_that_is_started_again_is_counted_and_counters_go_on() {
    let home = Home::new();
    let sets = ["run.steps=100000", "web.address=127.0.0.1:0"];
    let mut run = home.start("runs/web", &sets);
    let announce = home.path("runs/web/web.json");
    let metric = |name: &str| {
        let web: Value = serde_json::from_slice(&fs::read(&announce).unwrap()).unwrap();
        let (_, metrics) = get(web["address"].as_str().unwrap(), "/metrics");
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        value.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse::<f64>().unwrap()
    };
    // Its steps from 11 on are done again.
    assert!(run.until_step(13), "it ended too early");
    assert_eq!(metric("octet_engine_restarts_total "), 0.0);
    let saved_at = || metric("octet_checkpoint_timestamp_seconds ");
    assert!(run.until(|_| saved_at() > 1.7e9), "it ended before its first checkpoint was whole");
    let saved = saved_at();
    let seen = metric("octet_tokens_total ");
    let engine = run.engine().unwrap();
    send(engine, libc::SIGKILL);
    let again = |run: &Running| run.engine().is_some_and(|now| now != engine);
    assert!(run.until(|run| again(run) && announce.exists()), "it ended with its engine");
    let restarted = |line: &Value| line["kind"] == "time" && line["counts"]["engine_restarts"] == 1;
    assert!(run.until(|run| log_lines(run.folder()).iter().any(restarted)));
    assert_eq!(metric("octet_engine_restarts_total "), 1.0);
    assert!(metric("octet_tokens_total ") >= seen, "a counter went back");
    assert!(saved_at() >= saved);
    run.signal(libc::SIGINT);
    assert!(run.wait().success());
}

#[test]
fn a_run_does_not_begin_with_a_taken_address_and_says_so_once() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("web.address={}", taken.local_addr().unwrap());
    let end = home.start("runs/seen", &[&address]).wait();
    assert_eq!(end.code(), Some(2), "{end:?}");
    assert!(end.stderr.contains("cannot listen on"), "{end:?}");
    assert_eq!(end.stderr.lines().count(), 1, "{end:?}");
    assert!(!home.path("runs").exists() && !home.path("cache").exists(), "something was made");
}

#[test]
fn an_engine_that_is_started_again_does_without_an_address_that_was_taken() {
    let home = Home::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut run = home.start("runs/seen", &[&format!("web.address={free}"), "run.steps=60"]);
    assert!(run.until_step(3), "it ended too early");
    send(run.engine().unwrap(), libc::SIGKILL);
    // Whoever is quicker has it; if it is the engine, the run goes on as well.
    let taken = (0..2000).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(1));
        std::net::TcpListener::bind(free).ok()
    });
    let end = run.wait();
    assert!(end.success(), "{end:?}");
    let says = end.stdout.contains("no web server: web.address: cannot listen on");
    assert_eq!(says, taken.is_some(), "{end:?}");
}
