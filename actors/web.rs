//! The web server: `/metrics`, `/healthz`, `/readyz`. The only file that knows actix-web.
//!
//! Reads shared registers; asks no actor and holds nobody up. Listens where it is told to, which
//! is this machine alone unless the user says otherwise. Runs on threads of its own.

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::rt::System;
use actix_web::web::{Data, ServiceConfig, get, head, resource};
use actix_web::{App, HttpResponse, HttpServer};
use serde_json::json;
use thiserror::Error;

use crate::outside::{Clock, DiskError, LocalDisk};
use crate::run_folder::replace_json;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::{RunState, Status};

/// Connections at once: some scrapers, some people, some dashboards, and hundreds that somebody
/// opens and does not use; each of these goes after [`REQUEST_PATIENCE`].
const CONNECTIONS: usize = 8 + 8 + 48 + 448;

/// How long a connection may take to send a request, and to end.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no web server.
#[derive(Debug, Error)]
pub enum WebError {
    /// The address cannot be listened on.
    #[error(
        "web.address: cannot listen on \"{address}\" ({why}); expected HOST:PORT with a free \
         port, and 127.0.0.1:0 picks one"
    )]
    Address {
        /// As configured.
        address: String,
        /// What the operating system said.
        why: io::Error,
    },
    /// The address cannot be written to the run folder.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// There is no thread for it.
    #[error("cannot start the web server: {0}")]
    Thread(io::Error),
}

/// What the web server shows, and where.
pub struct WebSetup {
    /// Made by [`listen`].
    pub listener: TcpListener,
    /// `web.json` of the run folder: says the address while the server runs.
    pub announce: PathBuf,
    /// Shown at `/metrics`.
    pub metrics: Metrics,
    /// Shown at `/healthz`.
    pub status: Arc<Status>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for WebSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSetup").field("listener", &self.listener).finish_non_exhaustive()
    }
}

/// A server that answers.
#[derive(Debug)]
pub struct Web {
    address: SocketAddr,
    announce: PathBuf,
    handle: ServerHandle,
    thread: JoinHandle<()>,
}

struct Shown {
    metrics: Metrics,
    status: Arc<Status>,
    clock: Arc<dyn Clock>,
}

/// Takes an address, `HOST:PORT`; port 0 picks a free one. Whoever comes waits for an answer.
///
/// # Errors
/// [`WebError::Address`].
pub fn listen(address: &str) -> Result<TcpListener, WebError> {
    let refused = |why| WebError::Address { address: address.to_owned(), why };
    TcpListener::bind(address).map_err(refused)
}

impl Web {
    /// Starts to answer, and writes the address to the run folder.
    ///
    /// # Errors
    /// [`WebError`].
    pub fn start(setup: WebSetup) -> Result<Self, WebError> {
        let WebSetup { listener, announce, metrics, status, clock } = setup;
        let bound = listener.local_addr().map_err(WebError::Thread)?;
        let shown = Data::new(Shown { metrics, status, clock });
        let (stands, standing) = sync_channel(1);
        let run = move || {
            System::new().block_on(async move {
                match server(listener, shown) {
                    Err(why) => drop(stands.send(Err(why))),
                    Ok(server) => {
                        drop(stands.send(Ok(server.handle())));
                        // It ends when it is stopped; then there is nobody left to tell.
                        let _ended = server.await;
                    }
                }
            });
        };
        let spawned = std::thread::Builder::new().name("web".to_owned()).spawn(run);
        let thread = spawned.map_err(WebError::Thread)?;
        let stood = standing.recv().map_err(io::Error::other).and_then(|stood| stood);
        let handle = stood.map_err(WebError::Thread)?;
        let web = Self { address: bound, announce, handle, thread };
        let content = json!({ "address": bound.to_string() });
        match replace_json(&LocalDisk, &web.announce, &content) {
            Ok(()) => Ok(web),
            Err(error) => {
                web.stop();
                Err(error.into())
            }
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes the address back, lets answers in progress end (for a second at most) and ends.
    pub fn stop(self) {
        // Another process may have moved or cleaned the folder; then there is nothing to remove.
        let _gone = fs::remove_file(&self.announce);
        // The command is sent by the call; the end of the thread says that it was followed.
        drop(self.handle.stop(true));
        let _panicked = self.thread.join();
    }
}

fn server(listener: TcpListener, shown: Data<Shown>) -> io::Result<Server> {
    let app = move || App::new().app_data(shown.clone()).configure(routes);
    let server = HttpServer::new(app)
        .workers(1)
        .max_connections(CONNECTIONS)
        .client_request_timeout(REQUEST_PATIENCE)
        .client_disconnect_timeout(REQUEST_PATIENCE)
        .keep_alive(Duration::from_secs(30))
        .shutdown_timeout(1)
        // Signals belong to the command line, which saves before it ends.
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
}

fn routes(service: &mut ServiceConfig) {
    // Whoever only asks whether there is something gets the same head, without the body.
    service
        .service(resource("/metrics").route(get().to(metrics)).route(head().to(metrics)))
        .service(resource("/healthz").route(get().to(healthz)).route(head().to(healthz)))
        .service(resource("/readyz").route(get().to(readyz)).route(head().to(readyz)))
        .default_service(actix_web::web::to(nothing_here));
}

async fn metrics(shown: Data<Shown>) -> HttpResponse {
    let text = shown.metrics.render();
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text)
}

async fn healthz(shown: Data<Shown>) -> HttpResponse {
    let health = shown.status.health(shown.clock.monotonic());
    let mut response =
        if health.ok { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.insert_header(("cache-control", "no-store")).json(health)
}

/// Whether the run is at work: all its actors stand, and it has neither ended nor been told to.
async fn readyz(shown: Data<Shown>) -> HttpResponse {
    let health = shown.status.health(shown.clock.monotonic());
    let ready = matches!(health.state, RunState::Training | RunState::Evaluating);
    let mut response = if ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    let shown = json!({ "ready": ready, "state": health.state });
    response.insert_header(("cache-control", "no-store")).json(shown)
}

async fn nothing_here() -> HttpResponse {
    HttpResponse::NotFound().body("here are /metrics, /healthz and /readyz\n")
}
