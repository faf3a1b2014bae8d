//! Requests and responses.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use corten_net::{
    Body, Client, ClientConfig, ClientOptions, ErrorKind, Headers, ProxyUrl, Secret, ServeOptions, Sign, full_body,
    memory, serve,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Seen, TestServer, client, fetch, get, post, recording, text};

/// Counts the connections that are accepted, and answers each with what `script` writes.
async fn raw_server<F>(
    script: impl Fn(usize, tokio::net::TcpStream) -> F + Send + 'static,
) -> (String, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let number = count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(script(number, stream));
        }
    });
    (url, accepted)
}

/// Reads the head of a request.
async fn read_head(stream: &mut tokio::net::TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}

#[tokio::test]
async fn a_request_carries_its_headers_its_body_and_the_user_agent() {
    let server = TestServer::start(|_| text("answer")).await;
    let options =
        ClientOptions { user_agent: HeaderValue::from_static("Alloy/v1 (linux)"), ..ClientOptions::default() };
    let client = Client::new(ClientConfig::default(), options).await.unwrap();
    let chunks: Vec<bytes::Bytes> = vec!["glued ".into(), "from ".into(), "records".into()];
    let request = Request::post(server.url("/push?a=b"))
        .header("content-type", "application/x-protobuf")
        .header("user-agent", "ignored")
        .body(Body::from(chunks))
        .unwrap();
    assert_eq!(fetch(&client, request).await.unwrap(), (200, "answer".to_owned()));
    let seen = server.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/push?a=b"));
    assert_eq!(seen.body, "glued from records");
    assert_eq!(seen.header("content-length"), "18");
    assert_eq!(seen.header("user-agent"), "Alloy/v1 (linux)");
    assert_eq!(seen.header("content-type"), "application/x-protobuf");
    assert_eq!(seen.header("host"), server.address.to_string());
    assert_eq!(seen.header("accept-encoding"), "", "nothing is decompressed, so nothing is asked for");
}

#[tokio::test]
async fn configured_headers_may_have_several_values_beside_those_of_the_request() {
    let server = TestServer::start(|_| text("")).await;
    let http_headers = Headers::from([("X-Many".to_owned(), vec![Secret::new("one"), Secret::new("two")])]);
    let client = client(ClientConfig { http_headers, ..ClientConfig::default() }).await;
    let request = Request::get(server.url("/")).header("x-many", "own").body(Body::empty()).unwrap();
    fetch(&client, request).await.unwrap();
    let seen = server.last();
    let values: Vec<_> = seen.headers.get_all("x-many").iter().collect();
    assert_eq!(values, ["own", "one", "two"]);
}

#[tokio::test]
async fn connections_are_used_again_also_after_a_long_body_that_was_read() {
    let server = TestServer::start(|_| Response::new(full_body(vec![b'x'; 1 << 20]))).await;
    let client = client(ClientConfig::default()).await;
    for _ in 0..3 {
        assert_eq!(fetch(&client, get(&server.url("/"))).await.unwrap().1.len(), 1 << 20);
    }
    let peers: Vec<String> = server.seen().into_iter().map(|seen| seen.peer).collect();
    assert!(peers.iter().all(|peer| *peer == peers[0]), "{peers:?}");
}

#[tokio::test]
async fn a_body_larger_than_its_limit_is_refused() {
    let server = TestServer::start(|_| text("0123456789")).await;
    let client = client(ClientConfig::default()).await;
    for (limit, fits) in [(10, true), (9, false)] {
        let response = client.request(get(&server.url("/"))).await.unwrap();
        let body = response.into_body().read(limit).await;
        assert_eq!(
            body.as_ref().map(|body| body.len()).map_err(|e| e.kind()),
            if fits { Ok(10) } else { Err(ErrorKind::TooLarge) }
        );
    }
}

#[tokio::test]
async fn the_start_of_a_body_is_enough_for_an_error_message() {
    let server = TestServer::start(|_| Response::new(full_body(vec![b'e'; 100_000]))).await;
    let client = client(ClientConfig::default()).await;
    let response = client.request(get(&server.url("/"))).await.unwrap();
    assert_eq!(response.into_body().read_start(1_024).await, "e".repeat(1_024));
}

#[tokio::test]
async fn a_response_with_a_huge_head_is_refused() {
    let (url, _) = raw_server(|_, mut stream| async move {
        read_head(&mut stream).await;
        let head = format!("HTTP/1.1 200 OK\r\nX-Huge: {}\r\n\r\n", "h".repeat(1_000_000));
        let _ = stream.write_all(head.as_bytes()).await;
    })
    .await;
    let error = fetch(&client(ClientConfig::default()).await, get(&url)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
}

#[tokio::test]
async fn a_request_that_finds_its_kept_connection_closed_is_sent_again() {
    // The first connection answers once and closes when the second request has come.
    let (url, accepted) = raw_server(|number, mut stream| async move {
        let answers = if number == 0 { 1 } else { usize::MAX };
        for _ in 0..answers {
            if !read_head(&mut stream).await {
                return;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
        read_head(&mut stream).await;
    })
    .await;
    let client = client(ClientConfig::default()).await;
    assert_eq!(fetch(&client, get(&url)).await.unwrap().0, 200);
    assert_eq!(fetch(&client, get(&url)).await.unwrap().0, 200);
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_post_is_not_repeated_because_it_may_have_had_its_effect() {
    let (url, accepted) = raw_server(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        // The whole of the second request, so that the connection ends in good order.
        let mut second = Vec::new();
        while !second.ends_with(b"\r\n\r\nx") {
            second.push(stream.read_u8().await.unwrap());
        }
    })
    .await;
    let client = client(ClientConfig::default()).await;
    fetch(&client, get(&url)).await.unwrap();
    let outcome = fetch(&client, post(&url, "x")).await;
    assert!(outcome.is_err() && accepted.load(Ordering::SeqCst) == 1, "{outcome:?}");
}

#[tokio::test]
async fn a_fresh_connection_that_breaks_is_an_error_at_once() {
    let (url, accepted) = raw_server(|_, mut stream| async move {
        read_head(&mut stream).await;
    })
    .await;
    let error = fetch(&client(ClientConfig::default()).await, get(&url)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.to_string().starts_with(&format!("Get \"{url}\": ")), "{error}");
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn errors_name_the_request_but_no_secret() {
    let client = client(ClientConfig::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = fetch(&client, post(&format!("http://user:hunter2@{address}/p?token=hunter2"), "x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert_eq!(
        error.to_string(),
        format!("Post \"http://xxxxx@{address}/p?token=xxxxx\": dial tcp {address}: connection refused")
    );
    for (url, text) in [
        ("ftp://host/x", "Get \"ftp://host/x\": unsupported protocol scheme \"ftp\""),
        ("/x", "Get \"(not a url)\": unsupported protocol scheme \"\""),
    ] {
        assert_eq!(fetch(&client, get(url)).await.unwrap_err().to_string(), text);
    }
}

// Time is paused in the next tests: it jumps to the next limit as soon as nothing else can happen.

#[tokio::test(start_paused = true)]
async fn connecting_has_a_limit() {
    // What does not fit in the backlog of a listener that accepts nothing stays without an answer.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let client = client(ClientConfig::default()).await;
    let requests = (0..8).map(|_| {
        let (client, request) = (client.clone(), get(&format!("http://{address}/")));
        tokio::spawn(async move { tokio::time::timeout(Duration::from_secs(3_600), fetch(&client, request)).await })
    });
    let mut timeouts = 0;
    for request in requests.collect::<Vec<_>>() {
        if let Ok(outcome) = request.await.unwrap() {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
            assert_eq!(error.to_string(), format!("Get \"http://{address}/\": dial tcp {address}: i/o timeout"));
            timeouts += 1;
        }
    }
    assert!(timeouts > 0);
}

#[tokio::test(start_paused = true)]
async fn a_tls_handshake_has_a_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut config = ClientConfig::default();
    config.tls_config.insecure_skip_verify = true;
    let error = fetch(&client(config).await, get(&format!("https://127.0.0.1:{port}/"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.to_string(), format!("Get \"https://127.0.0.1:{port}/\": tls handshake timeout"));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_does_not_answer_has_a_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    let mut config = ClientConfig::default();
    config.proxy.proxy_url = ProxyUrl::new(&format!("http://{proxy}")).unwrap();
    let error = fetch(&client(config).await, get("https://target.example/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.to_string(), format!("Get \"https://target.example/\": proxy {proxy} did not answer in time"));
}

#[tokio::test]
async fn the_user_information_of_a_url_authenticates_and_is_not_sent_otherwise() {
    let server = TestServer::start(|_| text("")).await;
    let client = client(ClientConfig::default()).await;
    fetch(&client, get(&format!("http://us%40er:pass@{}/x", server.address))).await.unwrap();
    let seen = server.last();
    assert_eq!(seen.header("authorization"), "Basic dXNAZXI6cGFzcw==");
    assert_eq!(seen.header("host"), server.address.to_string());
}

struct Signer;

impl Sign for Signer {
    fn sign<'a>(
        &'a self,
        parts: &'a http::request::Parts,
        body: &'a Body,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<HeaderMap, corten_net::Error>> + Send + 'a>> {
        Box::pin(async move {
            let signed: Vec<&str> = parts.headers.keys().map(|name| name.as_str()).collect();
            let length: usize = body.chunks().map(|chunk| chunk.len()).sum();
            let mut added = HeaderMap::new();
            let value = format!("{} {} {length} {}", parts.method, parts.uri.path(), signed.join(","));
            added.insert("x-signature", value.parse().unwrap());
            Ok(added)
        })
    }
}

#[tokio::test]
async fn the_signer_sees_the_request_before_configured_headers_are_added() {
    let server = TestServer::start(|_| text("")).await;
    let headers = HeaderMap::from_iter([("x-later".parse().unwrap(), HeaderValue::from_static("1"))]);
    let options = ClientOptions { sign: Some(Arc::new(Signer)), headers, ..ClientOptions::default() };
    let client =
        Client::new(ClientConfig { bearer_token: Secret::new("t"), ..ClientConfig::default() }, options).await.unwrap();
    let request = Request::post(server.url("/w")).header("content-encoding", "snappy").body("body".into()).unwrap();
    fetch(&client, request).await.unwrap();
    let seen = server.last();
    assert_eq!(seen.header("x-signature"), "POST /w 4 content-encoding");
    assert_eq!(seen.header("x-later"), "1");
    assert_eq!(seen.header("authorization"), "Bearer t");
}

#[tokio::test]
async fn http2_without_negotiation_is_spoken_when_it_is_known() {
    let server = TestServer::start(|_| text("ok")).await;
    let options = ClientOptions { http2_prior_knowledge: true, ..ClientOptions::default() };
    let client = Client::new(ClientConfig::default(), options).await.unwrap();
    let request = Request::builder().method(Method::POST).uri(server.url("/grpc")).body("x".into()).unwrap();
    assert_eq!(fetch(&client, request).await.unwrap().1, "ok");
    assert_eq!(server.last().version, Version::HTTP_2);
}

#[tokio::test]
async fn an_internal_address_is_connected_in_memory_and_never_through_a_proxy() {
    let (listener, dialer) = memory::listen("alloy.internal:12345");
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let handler = recording(Arc::clone(&seen), |_| Response::new(full_body(vec![b'm'; 300_000])));
    tokio::spawn(serve(listener, handler, ServeOptions::default(), std::future::pending()));
    let mut config = ClientConfig::default();
    config.proxy.proxy_url = ProxyUrl::new("http://127.0.0.1:1").unwrap();
    let options = ClientOptions { dialer: Some(Arc::new(dialer)), ..ClientOptions::default() };
    let client = Client::new(config, options).await.unwrap();
    for _ in 0..2 {
        let (_, body) = fetch(&client, get("http://alloy.internal:12345/api/v0/component/x/metrics")).await.unwrap();
        assert_eq!(body.len(), 300_000);
    }
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen[0].target, "/api/v0/component/x/metrics");
    assert_eq!(seen[0].peer, "internal");
    let error = fetch(&client, get("http://other.internal:12345/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect, "every other address goes through the proxy");
}

#[tokio::test]
async fn an_internal_address_that_nobody_serves_fails() {
    let (listener, dialer) = memory::listen("alloy.internal:12345");
    drop(listener);
    let options = ClientOptions { dialer: Some(Arc::new(dialer)), ..ClientOptions::default() };
    let client = Client::new(ClientConfig::default(), options).await.unwrap();
    let error = fetch(&client, get("http://alloy.internal:12345/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
}

#[tokio::test]
async fn connections_go_where_they_are_told_whatever_the_url_says() {
    let server = TestServer::start(|_| text("ok")).await;
    let connect_to = Some((server.address.ip().to_string(), server.address.port()));
    let options = ClientOptions { connect_to, ..ClientOptions::default() };
    let client = Client::new(ClientConfig::default(), options).await.unwrap();
    assert_eq!(fetch(&client, get("http://elsewhere.invalid:1/x")).await.unwrap().1, "ok");
    assert_eq!(server.last().header("host"), "elsewhere.invalid:1");
}

#[tokio::test]
async fn bodies_arrive_whole_however_little_is_read_and_written_at_once() {
    let body: String = (0..100_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    let answer = body.clone();
    let server = TestServer::start(move |_| Response::new(full_body(answer.clone()))).await;
    for http2_prior_knowledge in [false, true] {
        for (read_bytes_max, write_bytes_max) in [(1000, 0), (0, 700), (333, 777)] {
            let options =
                ClientOptions { http2_prior_knowledge, read_bytes_max, write_bytes_max, ..ClientOptions::default() };
            let client = Client::new(ClientConfig::default(), options).await.unwrap();
            let pieces: Vec<bytes::Bytes> = body.as_bytes().chunks(4999).map(bytes::Bytes::copy_from_slice).collect();
            let request = Request::post(server.url("/")).body(Body::from(pieces)).unwrap();
            assert_eq!(fetch(&client, request).await.unwrap().1, body);
            assert_eq!(server.last().body, body);
        }
    }
}

#[tokio::test]
async fn unused_connections_are_kept_as_long_and_as_many_as_is_said() {
    let server = TestServer::start(|_| text("ok")).await;
    let never = ClientOptions { idle_connections_per_host_max: 0, ..ClientOptions::default() };
    for (options, connections) in [(never, 2), (ClientOptions::default(), 1)] {
        let client = Client::new(ClientConfig::default(), options).await.unwrap();
        let mut peers = Vec::new();
        for _ in 0..2 {
            fetch(&client, get(&server.url("/"))).await.unwrap();
            peers.push(server.last().peer);
        }
        peers.dedup();
        assert_eq!(peers.len(), connections);
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_socket_in_the_file_system_takes_all_connections() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let read = stream.read(&mut head).await.unwrap();
        assert!(head[..read].starts_with(b"GET /info HTTP/1.1\r\nhost: localhost\r\n"));
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        drop(listener);
    });
    let mut config = ClientConfig::default();
    config.proxy.proxy_url = ProxyUrl::new("http://127.0.0.1:1").unwrap();
    let options = || ClientOptions { unix_socket: Some(path.clone()), ..ClientOptions::default() };
    let client = Client::new(config, options()).await.unwrap();
    assert_eq!(fetch(&client, get("http://localhost/info")).await.unwrap().1, "ok");
    std::fs::remove_file(&path).unwrap();
    let client = Client::new(ClientConfig::default(), options()).await.unwrap();
    let error = fetch(&client, get("http://localhost/info")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains("dial unix ") && error.to_string().contains("s.sock"), "{error}");
}
