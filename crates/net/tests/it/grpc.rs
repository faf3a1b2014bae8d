//! Calls of gRPC against a server of ours.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corten_coding::Coding;
use corten_net::grpc::{Call, Code, Status, answer, answer_coding, is_grpc, pack, unframed};
use corten_net::{Client, ClientConfig, ClientOptions, ServeOptions, http_error, read_body_within, serve};
use http::{HeaderMap, Request, StatusCode, Uri};
use hyper::body::Incoming;
use tokio::net::TcpListener;

const LIMIT: Duration = Duration::from_secs(60);

/// Answers a call of `Echo` with what it was sent, and others as their names say.
async fn echo() -> Uri {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let handler = |request: Request<Incoming>| async move {
        let (parts, body) = request.into_parts();
        if parts.uri.path() == "/http" || !is_grpc(&parts.headers) {
            return http_error(StatusCode::SERVICE_UNAVAILABLE, "not now");
        }
        if parts.uri.path() == "/never" {
            std::future::pending::<()>().await;
        }
        let body = read_body_within(body, 1 << 20, LIMIT).await.unwrap();
        let outcome = unframed(body, &parts.headers, 1 << 20).and_then(|message| match parts.uri.path() {
            "/Echo" => Ok(message.to_vec()),
            path => Err(Status { details: Bytes::from_static(b"why"), ..Status::new(Code::UNIMPLEMENTED, path) }),
        });
        answer(outcome, answer_coding(&parts.headers))
    };
    tokio::spawn(serve(listener, Arc::new(handler), ServeOptions::default(), std::future::pending()));
    uri
}

async fn client() -> Client {
    let options = ClientOptions { http2_prior_knowledge: true, ..ClientOptions::default() };
    Client::new(ClientConfig::default(), options).await.unwrap()
}

fn call<'a>(server: &'a Uri, method: &'a str) -> Call<'a> {
    Call { server, method, encoding: None, headers: HeaderMap::new(), timeout: LIMIT, answer_bytes_max: 1 << 20 }
}

#[tokio::test]
async fn a_message_goes_there_and_back_packed_or_not() {
    let (server, client) = (echo().await, client().await);
    let message = vec![Bytes::from(vec![b'a'; 100_000]), Bytes::from_static(b"b")];
    for coding in
        [None, Some((Coding::Gzip, "gzip")), Some((Coding::Zstd, "zstd")), Some((Coding::SnappyFramed, "snappy"))]
    {
        let call = Call { encoding: coding.map(|(_, name)| name), ..call(&server, "/Echo") };
        let sent = coding.map_or_else(|| message.clone(), |(coding, _)| pack(coding, &message).unwrap());
        assert_eq!(call.send(&client, sent).await.unwrap(), message.concat());
    }
    assert_eq!(call(&server, "/Echo").send(&client, Vec::new()).await.unwrap(), "");
}

#[tokio::test]
async fn a_failure_is_what_the_server_says() {
    let (server, client) = (echo().await, client().await);
    let error = call(&server, "/Other").send(&client, vec![Bytes::from_static(b"x")]).await.unwrap_err();
    let want = Status { details: Bytes::from_static(b"why"), ..Status::new(Code::UNIMPLEMENTED, "/Other") };
    assert_eq!(error, want);
    let error = call(&server, "/http").send(&client, Vec::new()).await.unwrap_err();
    assert_eq!(error, Status::new(Code::UNAVAILABLE, "unexpected HTTP status code received from server: 503"));
}

#[tokio::test]
async fn limits_hold() {
    let (server, client) = (echo().await, client().await);
    let message = vec![Bytes::from(vec![b'a'; 1000])];
    let small = Call { answer_bytes_max: 999, ..call(&server, "/Echo") };
    assert_eq!(small.send(&client, message.clone()).await.unwrap_err().code, Code::RESOURCE_EXHAUSTED);
    let short = Call { timeout: Duration::from_millis(50), ..call(&server, "/never") };
    assert_eq!(short.send(&client, message.clone()).await.unwrap_err().code, Code::DEADLINE_EXCEEDED);
    let nobody = "http://127.0.0.1:1".parse().unwrap();
    let error = call(&nobody, "/Echo").send(&client, message).await.unwrap_err();
    assert!(error.is_not_connected(), "{error}");
}
