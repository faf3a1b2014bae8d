//! Proxies.

use std::sync::{Arc, Mutex};

use corten_net::{Client, ClientConfig, ClientOptions, ErrorKind, Headers, ProxyConfig, ProxyUrl, Secret, TlsConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Authority, TestServer, client, fetch, get, text};

/// The heads of the requests that a proxy got.
type Heads = Arc<Mutex<Vec<String>>>;

/// A proxy that connects on when asked with `CONNECT`, or refuses.
async fn connect_proxy(refusal: Option<&'static str>) -> (String, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heads = Heads::default();
    let seen = heads.clone();
    tokio::spawn(async move {
        while let Ok((mut inward, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(inward.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let target = head.split(' ').nth(1).unwrap().to_owned();
                seen.lock().unwrap().push(head);
                if let Some(refusal) = refusal {
                    inward.write_all(refusal.as_bytes()).await.unwrap();
                    return;
                }
                let mut outward = TcpStream::connect(target).await.unwrap();
                inward.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut inward, &mut outward).await;
            });
        }
    });
    (address, heads)
}

fn through(proxy_url: String) -> ClientConfig {
    ClientConfig {
        proxy: ProxyConfig { proxy_url: ProxyUrl::new(&proxy_url).unwrap(), ..ProxyConfig::default() },
        ..ClientConfig::default()
    }
}

#[tokio::test]
async fn plain_http_goes_through_a_proxy_with_the_whole_url() {
    let proxy = TestServer::start(|_| text("from the proxy")).await;
    let mut config = through(format!("http://user:pass@{}", proxy.address));
    config.proxy.proxy_connect_header = Headers::from([("X-Connect".to_owned(), vec![Secret::new("1")])]);
    config.bearer_token = Secret::new("t");
    let client = client(config).await;
    let (_, body) = fetch(&client, get("http://target.example:8080/x?a=b")).await.unwrap();
    assert_eq!(body, "from the proxy");
    let seen = proxy.last();
    assert_eq!(seen.target, "http://target.example:8080/x?a=b");
    assert_eq!(seen.header("host"), "target.example:8080");
    assert_eq!(seen.header("proxy-authorization"), "Basic dXNlcjpwYXNz");
    assert_eq!(seen.header("authorization"), "Bearer t");
    assert_eq!(seen.header("x-connect"), "", "these headers are for CONNECT only");
}

#[tokio::test]
async fn excepted_hosts_are_reached_directly() {
    let proxy = TestServer::start(|_| text("from the proxy")).await;
    let server = TestServer::start(|_| text("direct")).await;
    let mut config = through(format!("http://{}", proxy.address));
    assert_eq!(fetch(&client(config.clone()).await, get(&server.url("/"))).await.unwrap().1, "from the proxy");
    config.proxy.no_proxy = "127.0.0.0/8".into();
    assert_eq!(fetch(&client(config).await, get(&server.url("/"))).await.unwrap().1, "direct");
    assert_eq!(server.last().header("proxy-authorization"), "");
}

#[tokio::test]
async fn http2_in_clear_text_goes_through_a_tunnel_too() {
    let server = TestServer::start(|_| text("ok")).await;
    let (proxy, heads) = connect_proxy(None).await;
    let options = ClientOptions { http2_prior_knowledge: true, ..ClientOptions::default() };
    let client = Client::new(through(format!("http://user:pass@{proxy}")), options).await.unwrap();
    assert_eq!(fetch(&client, get(&server.url("/x"))).await.unwrap().1, "ok");
    let seen = server.last();
    assert_eq!((seen.version, seen.header("proxy-authorization")), (http::Version::HTTP_2, ""));
    assert!(heads.lock().unwrap()[0].starts_with(&format!("CONNECT {} HTTP/1.1\r\n", server.address)));
}

#[tokio::test]
async fn https_goes_through_a_tunnel_that_carries_the_credentials_and_headers_for_the_proxy() {
    let authority = Authority::new("ca");
    let server = TestServer::start_tls(authority.issue("localhost").server(), |_| text("secret")).await;
    let (proxy, heads) = connect_proxy(None).await;
    let mut config = through(format!("http://user:pass@{proxy}"));
    config.proxy.proxy_connect_header =
        Headers::from([("X-Connect".to_owned(), vec![Secret::new("1"), Secret::new("2")])]);
    config.tls_config.ca_pem = authority.pem();
    let client = client(config).await;
    for _ in 0..2 {
        assert_eq!(fetch(&client, get(&server.https_url("/x"))).await.unwrap().1, "secret");
    }
    let heads = heads.lock().unwrap().clone();
    assert_eq!(heads.len(), 1, "the tunnel is used again");
    let head = heads[0].to_ascii_lowercase();
    let target = format!("localhost:{}", server.address.port());
    assert!(head.starts_with(&format!("connect {target} http/1.1\r\n")), "{head}");
    for line in [&format!("host: {target}"), "x-connect: 1", "x-connect: 2", "proxy-authorization: basic dxnlcjpwyxnz"]
    {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
    }
    assert_eq!(server.last().header("proxy-authorization"), "");
}

#[tokio::test]
async fn a_proxy_may_itself_be_reached_by_tls() {
    let authority = Authority::new("ca");
    let server = TestServer::start_tls(authority.issue("localhost").server(), |_| text("secret")).await;
    // A TLS listener that hands what it decrypts to an ordinary proxy.
    let (plain, heads) = connect_proxy(None).await;
    let identity = authority.issue("localhost");
    let chain = rustls_chain(&identity);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (chain, plain) = (chain.clone(), plain.clone());
            tokio::spawn(async move {
                let mut inward = tokio_rustls::TlsAcceptor::from(chain).accept(stream).await.unwrap();
                let mut outward = TcpStream::connect(plain).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut inward, &mut outward).await;
            });
        }
    });
    let mut config = through(format!("https://localhost:{port}"));
    config.tls_config = TlsConfig { ca_pem: authority.pem(), ..TlsConfig::default() };
    assert_eq!(fetch(&client(config).await, get(&server.https_url("/"))).await.unwrap().1, "secret");
    assert_eq!(heads.lock().unwrap().len(), 1);
}

fn rustls_chain(identity: &crate::support::Identity) -> Arc<rustls::ServerConfig> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let certs = CertificateDer::pem_slice_iter(identity.cert.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(certs, key).unwrap())
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_with_its_status() {
    let (proxy, _) = connect_proxy(Some("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")).await;
    let client = client(through(format!("http://user:hunter2@{proxy}"))).await;
    let error = fetch(&client, get("https://target.example/x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Proxy);
    assert_eq!(
        error.to_string(),
        format!(
            "Get \"https://target.example/x\": proxy {proxy} refused to connect to target.example:443: 403 Forbidden"
        )
    );
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    drop(listener);
    let error =
        fetch(&client(through(format!("http://{proxy}"))).await, get("http://target.example/")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert_eq!(
        error.to_string(),
        format!("Get \"http://target.example/\": proxy {proxy}: dial tcp {proxy}: connection refused")
    );
}

/// A SOCKS 5 proxy (RFC 1928, RFC 1929) that wants `user` and `pass` and connects to `target` whatever it is asked.
async fn socks_proxy(target: std::net::SocketAddr) -> (String, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Heads::default();
    let seen = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut inward, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut greeting = [0; 2];
                inward.read_exact(&mut greeting).await.unwrap();
                let mut methods = vec![0; usize::from(greeting[1])];
                inward.read_exact(&mut methods).await.unwrap();
                assert!(methods.contains(&2));
                inward.write_all(&[5, 2]).await.unwrap();
                let mut login = [0; 11];
                inward.read_exact(&mut login).await.unwrap();
                assert_eq!(&login, b"\x01\x04user\x04pass");
                inward.write_all(&[1, 0]).await.unwrap();
                let mut request = [0; 5];
                inward.read_exact(&mut request).await.unwrap();
                assert_eq!(request[..4], [5, 1, 0, 3], "connect to a name");
                let mut name = vec![0; usize::from(request[4]) + 2];
                inward.read_exact(&mut name).await.unwrap();
                let port = u16::from_be_bytes([name[name.len() - 2], name[name.len() - 1]]);
                let host = String::from_utf8(name[..name.len() - 2].to_vec()).unwrap();
                seen.lock().unwrap().push(format!("{host}:{port}"));
                inward.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 80]).await.unwrap();
                let mut outward = TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut inward, &mut outward).await;
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_socks_proxy_connects_on_and_resolves_the_name_itself() {
    let server = TestServer::start(|_| text("through socks")).await;
    let (proxy, asked) = socks_proxy(server.address).await;
    let client = client(through(format!("socks5://user:pass@{proxy}"))).await;
    assert_eq!(fetch(&client, get("http://nowhere.example:8080/x")).await.unwrap().1, "through socks");
    assert_eq!(*asked.lock().unwrap(), ["nowhere.example:8080"]);
    assert_eq!(server.last().target, "/x", "behind a tunnel the path alone is sent");
    assert_eq!(server.last().header("proxy-authorization"), "");
}

#[tokio::test]
async fn the_token_server_has_a_proxy_of_its_own() {
    let tokens = TestServer::start(|_| text("access_token=t")).await;
    let server = TestServer::start(|_| text("")).await;
    let config = ClientConfig {
        oauth2: Some(corten_net::OAuth2 {
            client_id: "id".into(),
            client_secret: Secret::new("secret"),
            token_url: "http://tokens.example/token".into(),
            proxy: ProxyConfig { proxy_url: ProxyUrl::new(&tokens.url("")).unwrap(), ..ProxyConfig::default() },
            ..corten_net::OAuth2::default()
        }),
        ..ClientConfig::default()
    };
    // The answer has no content type and is JSON then; as a form it is named so.
    let error = fetch(&client(config).await, get(&server.url("/"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
    assert_eq!(tokens.last().target, "http://tokens.example/token");
}
