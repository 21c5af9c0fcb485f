//! The HTTP side of `octet serve`: routes, and the forms of errors.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, RETRY_AFTER};
use actix_web::rt::System;
use actix_web::rt::time::timeout;
use actix_web::web::{Bytes, Data, Payload, ServiceConfig, block, get, post, resource};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, Responder};
use futures_util::StreamExt;
use futures_util::stream::unfold;
use octet_actors::outside::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::serve::answer::Answer;
use crate::serve::api::{self, Job, Refusal};
use crate::serve::desk::{Desk, Events, Full};

/// Connections at once: clients that wait for a text, and some that do nothing.
const CONNECTIONS: usize = 1024;
/// How long a connection may take to send a request, and to end.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);
/// Longest body of a request, in bytes.
const BODY_MAX: usize = 4 << 20;
/// Threads for what takes long, so that other clients are answered meanwhile: the tokens of long
/// prompts, and answers with many scores.
const READERS: usize = 2;

/// A server that answers.
pub(super) struct Server {
    handle: ServerHandle,
    thread: JoinHandle<()>,
}

impl Server {
    /// Answers on a thread of its own.
    pub(super) fn start(listener: TcpListener, desk: Arc<Desk>) -> Result<Self, Failure> {
        let desk = Data::from(desk);
        let (stands, standing) = sync_channel(1);
        let run = move || {
            System::new().block_on(async move {
                match server(listener, desk) {
                    Err(why) => drop(stands.send(Err(why))),
                    Ok(server) => {
                        drop(stands.send(Ok(server.handle())));
                        // It ends when it is stopped; then there is nobody left to tell.
                        let _ended = server.await;
                    }
                }
            });
        };
        let spawned = std::thread::Builder::new().name("serve".to_owned()).spawn(run);
        let thread = spawned.map_err(Failure::world)?;
        let stood = standing.recv().map_err(io::Error::other).and_then(|stood| stood);
        Ok(Self { handle: stood.map_err(Failure::world)?, thread })
    }

    /// Lets answers in progress end, for some seconds at most.
    pub(super) fn stop(self) {
        // The command is sent by the call; the end of the thread says that it was followed.
        drop(self.handle.stop(true));
        let _panicked = self.thread.join();
    }
}

fn server(listener: TcpListener, desk: Data<Desk>) -> io::Result<actix_web::dev::Server> {
    let app = move || App::new().app_data(desk.clone()).configure(routes);
    let server = HttpServer::new(app)
        .workers(1)
        .worker_max_blocking_threads(READERS)
        .max_connections(CONNECTIONS)
        .client_request_timeout(REQUEST_PATIENCE)
        .client_disconnect_timeout(REQUEST_PATIENCE)
        // Whoever has closed a connection is not written for.
        .h1_allow_half_closed(false)
        .keep_alive(Duration::from_secs(30))
        .shutdown_timeout(5)
        // Signals belong to the command line.
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
}

fn routes(service: &mut ServiceConfig) {
    service
        .service(resource("/v1/models").route(get().to(models)))
        .service(resource("/v1/completions").route(post().to(completions)))
        .service(resource("/v1/chat/completions").route(post().to(chat)))
        .service(resource("/healthz").route(get().to(healthz)))
        .default_service(actix_web::web::to(nothing_here));
}

async fn models(desk: Data<Desk>, request: HttpRequest) -> HttpResponse {
    if let Some(refused) = stranger(&desk, &request) {
        return refused;
    }
    let model = json!({
        "id": desk.serving.name,
        "object": "model",
        "created": 0,
        "owned_by": "octet",
        "max_model_len": desk.positions,
    });
    HttpResponse::Ok().json(json!({ "object": "list", "data": [model] }))
}

async fn completions(desk: Data<Desk>, request: HttpRequest, body: Payload) -> HttpResponse {
    answer(&desk, &request, body, api::completion).await
}

async fn chat(desk: Data<Desk>, request: HttpRequest, body: Payload) -> HttpResponse {
    answer(&desk, &request, body, api::chat).await
}

async fn healthz(desk: Data<Desk>) -> impl Responder {
    let ready = desk.is_ready();
    let mut response = if ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.json(json!({ "ready": ready, "texts": desk.held() }))
}

async fn nothing_here() -> HttpResponse {
    let what = "here are /v1/models, /v1/completions, /v1/chat/completions and /healthz";
    error(StatusCode::NOT_FOUND, "invalid_request_error", None, what)
}

/// An error as clients of OpenAI read it.
fn error(status: StatusCode, kind: &str, parameter: Option<&str>, what: &str) -> HttpResponse {
    let error = error_value(kind, parameter, what);
    HttpResponse::build(status).json(error)
}

fn error_value(kind: &str, parameter: Option<&str>, what: &str) -> Value {
    json!({ "error": { "message": what, "type": kind, "param": parameter, "code": null } })
}

/// What a client is answered that shows no token, or another.
fn stranger(desk: &Desk, request: &HttpRequest) -> Option<HttpResponse> {
    let header = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    let shown = header.and_then(|value| value.strip_prefix("Bearer "));
    let what = "expected the server's token: Authorization: Bearer TOKEN";
    let refused = || error(StatusCode::UNAUTHORIZED, "authentication_error", None, what);
    (!desk.admits(shown)).then(refused)
}

async fn answer(
    desk: &Data<Desk>,
    request: &HttpRequest,
    body: Payload,
    read: fn(&Desk, &[u8]) -> Result<Job, Refusal>,
) -> HttpResponse {
    // Nothing is kept of what a stranger sends.
    if let Some(refused) = stranger(desk, request) {
        return refused;
    }
    let body = match timeout(REQUEST_PATIENCE, body.to_bytes_limited(BODY_MAX)).await {
        Ok(Ok(Ok(body))) => body,
        Ok(Ok(Err(_broken))) => Bytes::new(),
        Ok(Err(_longer)) => {
            let what = format!("the body: expected at most {BODY_MAX} bytes");
            return error(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", None, &what);
        }
        Err(_late) => {
            let what = "the body does not come";
            return error(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", None, what);
        }
    };
    // Before time is spent on it.
    if let Some(full) = desk.is_full_for(1) {
        return refused(full);
    }
    let asked = desk.clone();
    let mut job = match block(move || read(&asked, &body)).await {
        Ok(Ok(job)) => job,
        Ok(Err(Refusal { parameter, what })) => {
            return error(StatusCode::BAD_REQUEST, "invalid_request_error", parameter, &what);
        }
        Err(_ending) => return refused(Full::Ending),
    };
    let clock = SystemClock::new();
    let id = format!("octet-{:x}-{:x}", clock.unix_ms(), desk.number());
    let answer = Answer::new(&job, id, clock.unix_ms() / 1000, desk.serving.name.clone());
    let events = match desk.accept(std::mem::take(&mut job.requests)) {
        Ok(events) => events,
        Err(full) => return refused(full),
    };
    match job.stream {
        true => streamed(answer, events, job.counts_last),
        false => whole(answer, events).await,
    }
}

fn refused(full: Full) -> HttpResponse {
    match full {
        Full::Ending => {
            let what = "this server is about to end";
            error(StatusCode::SERVICE_UNAVAILABLE, "server_error", None, what)
        }
        Full::Busy => {
            let what = "as many texts wait as may; try again later";
            let mut response = error(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", None, what);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
    }
}

async fn whole(mut answer: Answer, mut events: Events) -> HttpResponse {
    while let Some((number, event)) = events.next().await {
        if let Err(what) = answer.hear(number, event) {
            return error(StatusCode::INTERNAL_SERVER_ERROR, "server_error", None, &what);
        }
    }
    let told = match answer.is_whole() {
        true => block(move || answer.whole()).await.ok(),
        false => None,
    };
    match told {
        Some(whole) => HttpResponse::Ok().json(whole),
        None => {
            let what = "the server ended before the text did";
            error(StatusCode::SERVICE_UNAVAILABLE, "server_error", None, what)
        }
    }
}

/// Server-sent events: what is new of the texts as it comes, then `[DONE]`.
fn streamed(answer: Answer, events: Events, counts_last: bool) -> HttpResponse {
    enum Now {
        Hearing,
        Ending,
        Over,
    }
    let line = |value: &Value| Bytes::from(format!("data: {value}\n\n"));
    let start = (answer, events, Now::Hearing);
    let pieces = unfold(start, move |(mut answer, mut events, now)| async move {
        match now {
            Now::Over => None,
            Now::Ending => {
                let mut last = Vec::new();
                if counts_last {
                    last.extend_from_slice(&line(&answer.counts()));
                }
                last.extend_from_slice(b"data: [DONE]\n\n");
                Some((Ok::<_, io::Error>(Bytes::from(last)), (answer, events, Now::Over)))
            }
            Now::Hearing => loop {
                let Some((number, event)) = events.next().await else {
                    let end = match answer.is_whole() {
                        true => return Some((Ok(Bytes::new()), (answer, events, Now::Ending))),
                        false => "the server ended before the text did",
                    };
                    let end = line(&error_value("server_error", None, end));
                    return Some((Ok(end), (answer, events, Now::Over)));
                };
                if let Err(what) = answer.hear(number, event) {
                    let end = line(&error_value("server_error", None, &what));
                    return Some((Ok(end), (answer, events, Now::Over)));
                }
                if let Some(piece) = answer.piece(number) {
                    return Some((Ok(line(&piece)), (answer, events, Now::Hearing)));
                }
            },
        }
    });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(("cache-control", "no-store"))
        .streaming(pieces)
}
