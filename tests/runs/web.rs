//! The web server of a real run: it says where it is, answers, and goes with the run.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::harness::Home;

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
    run.signal(libc::SIGINT);
    let end = run.wait();
    assert!(end.success(), "{end:?}");
    assert!(!announce.exists(), "the address is gone with the server");
    assert!(TcpStream::connect(address).is_err());
}
