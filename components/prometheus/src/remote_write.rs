//! `prometheus.remote_write`.

mod lane;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corten_queue::{Outcome, Reader, Run};
use corten_wire::snappy;
use http_body_util::{BodyExt as _, Full};

pub use lane::Lane;

type HttpClient = hyper_util::client::legacy::Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>;

/// Sends what a queue holds to an endpoint, until the queue is closed.
pub async fn send_all(reader: Arc<Reader>, client: HttpClient, uri: http::Uri) {
    while let Some(run) = reader.next().await {
        let reader = Arc::clone(&reader);
        let client = client.clone();
        let uri = uri.clone();
        tokio::spawn(async move { send(&reader, &client, &uri, run).await });
    }
}

async fn send(reader: &Reader, client: &HttpClient, uri: &http::Uri, run: Run) {
    let raw_len = run.records.iter().map(|r| u64::from(r.raw_len)).sum();
    let body = Bytes::from(snappy::join(raw_len, run.records.iter().map(|r| r.body.as_ref())));
    let mut wait = Duration::from_millis(30);
    loop {
        let request = http::Request::post(uri)
            .header("content-encoding", "snappy")
            .header("content-type", "application/x-protobuf")
            .header("x-prometheus-remote-write-version", "0.1.0")
            .body(Full::new(body.clone()));
        let Ok(request) = request else { return };
        if let Ok(response) = client.request(request).await {
            let status = response.status();
            let _ = response.into_body().collect().await;
            if status.is_success() {
                reader.settle(run, Outcome::Delivered);
                return;
            }
            if status.is_client_error() && status != http::StatusCode::TOO_MANY_REQUESTS {
                reader.settle(run, Outcome::Dropped("refused"));
                return;
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}
