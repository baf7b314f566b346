//! HTTP, read-only: `/metrics` for Prometheus, `/status` as JSON, `/` as a page for people.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, time::timeout};

use super::{Backend, limit::Limited, page};
use crate::telemetry::metrics::{self, Format};

/// Connections at once.
const CONNECTIONS_MAX: usize = 32;
/// How long a connection may last, however busy: a scraper opens a new one.
const LIFE: Duration = Duration::from_secs(60);
/// How long the agent may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// The open HTTP port.
#[derive(Debug)]
pub struct Http {
    listener: TcpListener,
}

impl Http {
    /// Opens the port. Must run in a tokio runtime.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves for as long as it is polled.
    pub async fn serve<B: Backend>(self, backend: Arc<B>) -> io::Result<()> {
        let routes = Router::new()
            .route("/", get(page::<B>))
            .route("/status", get(status::<B>))
            .route("/metrics", get(metrics::<B>))
            .layer(DefaultBodyLimit::max(0))
            .with_state(backend);
        axum::serve(Limited::new(self.listener, CONNECTIONS_MAX, LIFE), routes).await
    }
}

/// The agent is up, but the part that knows is not answering.
fn late() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the agent gave no answer in time\n").into_response()
}

async fn status<B: Backend>(State(backend): State<Arc<B>>) -> Response {
    match timeout(ANSWER_TIME, backend.status()).await {
        Ok(report) => Json(report).into_response(),
        Err(_late) => late(),
    }
}

async fn page<B: Backend>(State(backend): State<Arc<B>>) -> Response {
    match timeout(ANSWER_TIME, backend.status()).await {
        Ok(report) => {
            let records = backend.history().since(0);
            // No script, no picture, nothing from elsewhere: the browser may hold the page to that.
            let policy = [(header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'")];
            (policy, Html(page::render(&report, &records))).into_response()
        }
        Err(_late) => late(),
    }
}

async fn metrics<B: Backend>(State(backend): State<Arc<B>>, headers: HeaderMap) -> Response {
    let format = Format::accepted(headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()));
    let Ok(snapshot) = timeout(ANSWER_TIME, backend.metrics()).await else {
        return late();
    };
    match metrics::render(&snapshot, &backend.history().stats(), format) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(e) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics could not be written: {e}\n")).into_response()
        }
    }
}
