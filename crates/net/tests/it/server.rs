//! The server against slow, idle, numerous and oversized clients, and its end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use corten_net::{
    BasicAuthFilter, BodyFailure, Client, ClientConfig, ClientOptions, ErrorKind, Secret, ServeOptions, ServerLimits,
    TlsAcceptor, TlsSwitch, empty_body, full_body, http_error, read_body_within, serve,
};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};

use crate::support::{Authority, TestServer, client, fetch, get, text, until};

fn limits(change: impl FnOnce(&mut ServerLimits)) -> ServeOptions {
    let mut limits = ServerLimits::default();
    change(&mut limits);
    ServeOptions { limits, ..ServeOptions::default() }
}

/// Reads until the server closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = stream.read_to_end(&mut all);
    // A reset is as good as an end.
    let _ = tokio::time::timeout(Duration::from_secs(60), read).await.expect("the server closes the connection");
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn a_client_that_sends_its_head_slowly_is_cut_off() {
    let server = TestServer::with(limits(|l| l.header_ms_max = Some(40)), |_| text("ok")).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let (mut read, mut write) = stream.split();
    // A byte at a time for as long as the server takes them.
    let drip = async {
        for byte in b"GET / HTTP/1.1\r\nX-Slow: ".iter().chain(std::iter::repeat(&b's')) {
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let mut all = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(60), async {
        tokio::select! {
            () = drip => {}
            _ = read.read_to_end(&mut all) => {}
        }
    });
    closed.await.expect("the connection is closed");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let server = TestServer::with(limits(|l| l.idle_ms_max = Some(40)), |_| text("ok")).await;
    let mut never = TcpStream::connect(server.address).await.unwrap();
    let mut once = TcpStream::connect(server.address).await.unwrap();
    once.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(rest(&mut never).await, "");
    assert!(rest(&mut once).await.ends_with("ok"));

    let release = Arc::new(Notify::new());
    let (listener, handler) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), release.clone());
    let address = listener.local_addr().unwrap();
    let slow = move |_: Request<Incoming>| {
        let release = handler.clone();
        async move {
            release.notified().await;
            Response::new(full_body("late"))
        }
    };
    tokio::spawn(serve(listener, Arc::new(slow), limits(|l| l.idle_ms_max = Some(40)), std::future::pending()));
    let mut busy = TcpStream::connect(address).await.unwrap();
    busy.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    // Longer than an idle connection lives, which the first server shows.
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    rest(&mut idle).await;
    rest(&mut TcpStream::connect(server.address).await.unwrap()).await;
    release.notify_one();
    assert!(rest(&mut busy).await.ends_with("late"));
}

/// A body without end that tells when it is given up.
struct Endless(Arc<AtomicBool>);

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = BodyFailure;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, BodyFailure>>> {
        Poll::Ready(Some(Ok(hyper::body::Frame::data(Bytes::from_static(&[b'x'; 65_536])))))
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_client_that_does_not_take_its_response_is_cut_off() {
    let given_up = Arc::new(AtomicBool::new(false));
    let flag = given_up.clone();
    let options = limits(|l| l.write_stall_ms_max = Some(40));
    let server = TestServer::with(options, move |_| Response::new(Endless(flag.clone()).boxed_unsync())).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    until(|| async { given_up.load(Ordering::SeqCst) }).await;
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_refused_with_431() {
    let server = TestServer::start(|_| text("ok")).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Huge: {}\r\n", "h".repeat(100_000));
    let _ = stream.write_all(head.as_bytes()).await;
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 431");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_client_that_closes_its_side_after_its_request_gets_the_answer() {
    let server = TestServer::start(|_| text("ok")).await;
    for _ in 0..50 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer:?}");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_others_to_end() {
    let server = TestServer::with(limits(|l| l.connections_max = Some(1)), |_| text("ok")).await;
    let first = client(ClientConfig::default()).await;
    fetch(&first, get(&server.url("/first"))).await.unwrap();
    let second = client(ClientConfig::default()).await;
    let waiting = tokio::spawn({
        let url = server.url("/second");
        async move { fetch(&second, get(&url)).await }
    });
    fetch(&first, get(&server.url("/first-again"))).await.unwrap();
    assert!(!waiting.is_finished());
    // The only connection ends with its client.
    drop(first);
    assert_eq!(waiting.await.unwrap().unwrap().0, 200);
    let targets: Vec<String> = server.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/first", "/first-again", "/second"]);
}

#[tokio::test]
async fn both_protocols_are_served_in_clear_text_on_one_port() {
    let server = TestServer::start(|_| text("ok")).await;
    for http2_prior_knowledge in [false, true] {
        let options = ClientOptions { http2_prior_knowledge, ..ClientOptions::default() };
        let client = Client::new(ClientConfig::default(), options).await.unwrap();
        assert_eq!(fetch(&client, get(&server.url("/"))).await.unwrap().1, "ok");
        assert_eq!(server.last().version == http::Version::HTTP_2, http2_prior_knowledge);
    }
}

#[tokio::test]
async fn a_request_under_way_is_finished_when_the_server_stops_and_nobody_new_comes_in() {
    let (started, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (start, finish) = (started.clone(), release.clone());
    let slow = move |_: Request<Incoming>| {
        let (start, finish) = (start.clone(), finish.clone());
        async move {
            start.notify_one();
            finish.notified().await;
            Response::new(full_body("finished"))
        }
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, Arc::new(slow), ServeOptions::default(), async {
        let _ = stopped.await;
    }));
    let client = client(ClientConfig::default()).await;
    let url = format!("http://{address}/");
    let request = tokio::spawn({
        let (client, url) = (client.clone(), url.clone());
        async move { fetch(&client, get(&url)).await }
    });
    started.notified().await;
    // A connection that only waits does not keep the server.
    let _idle = TcpStream::connect(address).await.unwrap();
    drop(stop);
    until(|| async { TcpStream::connect(address).await.is_err() }).await;
    assert!(!server.is_finished() && !request.is_finished());
    release.notify_one();
    assert_eq!(request.await.unwrap().unwrap().1, "finished");
    server.await.unwrap();
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_off_after_the_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut stop = Some(stop);
    let started = Arc::new(Notify::new());
    let start = started.clone();
    let never = move |_: Request<Incoming>| {
        start.notify_one();
        std::future::pending::<Response<_>>()
    };
    let options = limits(|l| l.drain_ms_max = 20);
    let server = tokio::spawn(serve(listener, Arc::new(never), options, async {
        let _ = stopped.await;
    }));
    let client = client(ClientConfig::default()).await;
    let request = tokio::spawn(async move { fetch(&client, get(&format!("http://{address}/"))).await });
    started.notified().await;
    drop(stop.take());
    server.await.unwrap();
    assert_eq!(request.await.unwrap().unwrap_err().kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn a_handler_that_panics_takes_down_its_connection_only() {
    let server =
        TestServer::start(|seen| if seen.target == "/panic" { panic!("on purpose") } else { text("ok") }).await;
    let client = client(ClientConfig::default()).await;
    assert!(fetch(&client, get(&server.url("/panic"))).await.is_err());
    assert_eq!(fetch(&client, get(&server.url("/"))).await.unwrap().1, "ok");
}

#[tokio::test]
async fn a_body_that_is_too_large_or_too_slow_is_refused_while_it_arrives() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handler = |request: Request<Incoming>| async {
        match read_body_within(request.into_body(), 1_000, Duration::from_millis(50)).await {
            Ok(body) => Response::new(full_body(format!("{}\n", body.len()))),
            Err(error) if error.kind() == ErrorKind::TooLarge => http_error(StatusCode::PAYLOAD_TOO_LARGE, "too large"),
            Err(error) if error.kind() == ErrorKind::Timeout => http_error(StatusCode::REQUEST_TIMEOUT, "too slow"),
            Err(error) => http_error(StatusCode::BAD_REQUEST, &error.to_string()),
        }
    };
    tokio::spawn(serve(listener, Arc::new(handler), ServeOptions::default(), std::future::pending()));
    let client = client(ClientConfig::default()).await;
    let push = |len: usize| {
        let body = Bytes::from(vec![b'x'; len]);
        fetch(&client, Request::post(format!("http://{address}/")).body(body.into()).unwrap())
    };
    assert_eq!(push(1_000).await.unwrap(), (200, "1000\n".to_owned()));
    assert_eq!(push(1_001).await.unwrap(), (413, "too large\n".to_owned()));

    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nslow").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.ends_with("too slow\n"), "{answer}");
    assert!(
        answer.contains("content-type: text/plain; charset=utf-8")
            && answer.contains("x-content-type-options: nosniff")
    );
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_come_is_cut_off() {
    let tls = TlsSwitch::new(TlsAcceptor::new(Authority::new("ca").issue("localhost").server()).await.unwrap());
    let options = ServeOptions { tls, ..limits(|l| l.tls_handshake_ms_max = 30) };
    let server = TestServer::with(options, |_| text("ok")).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn basic_authentication_guards_a_handler() {
    let filter = BasicAuthFilter::new("user", &Secret::new("pass")).with_paths(vec!["/-/ready".into()], false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handler = move |request: Request<Incoming>| {
        let outcome = filter.check(request.uri().path(), request.headers());
        async move {
            match outcome {
                Ok(()) => Response::new(empty_body()),
                Err(refusal) => *refusal,
            }
        }
    };
    tokio::spawn(serve(listener, Arc::new(handler), ServeOptions::default(), std::future::pending()));
    let client = client(ClientConfig::default()).await;
    for (url, code) in [
        (format!("http://{address}/metrics"), 401),
        (format!("http://user:wrong@{address}/metrics"), 401),
        (format!("http://user:pass@{address}/metrics"), 200),
        (format!("http://{address}/-/ready"), 200),
    ] {
        assert_eq!(fetch(&client, get(&url)).await.unwrap(), (code, String::new()), "{url}");
    }
}

#[tokio::test]
async fn stopping_ends_idle_connections_at_once() {
    let server = TestServer::start(|_| text("ok")).await;
    let client = client(ClientConfig::default()).await;
    fetch(&client, get(&server.url("/"))).await.unwrap();
    let stop = server.stop();
    tokio::time::timeout(Duration::from_secs(5), stop).await.expect("well before the limit for draining");
}
