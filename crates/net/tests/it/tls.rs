//! TLS of both sides.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use corten_net::{
    Client, ClientConfig, ClientOptions, ErrorKind, FurtherTls, Peer, Secret, ServeOptions, ServerTls, TlsAcceptor,
    TlsConfig, TlsSwitch,
};
use http::Version;

use crate::support::{Authority, Identity, TestServer, client, fetch, get, self_signed, text, write_old};

fn trusting(authority: &Authority) -> ClientConfig {
    with_tls(TlsConfig { ca_pem: authority.pem(), ..TlsConfig::default() })
}

fn with_tls(tls_config: TlsConfig) -> ClientConfig {
    ClientConfig { tls_config, ..ClientConfig::default() }
}

/// What a request with a configuration gives: the body, or the text of the error after the URL.
async fn outcome(server: &TestServer, config: ClientConfig) -> String {
    match fetch(&client(config).await, get(&server.https_url("/"))).await {
        Ok((_, body)) => body,
        Err(error) => error.to_string().split_once("\": ").unwrap().1.to_owned(),
    }
}

#[tokio::test]
async fn http2_is_negotiated_only_when_it_is_enabled() {
    let authority = Authority::new("ca");
    let server = TestServer::start_tls(authority.issue("localhost").server(), |_| text("ok")).await;
    for (enable_http2, version) in [(true, Version::HTTP_2), (false, Version::HTTP_11)] {
        let config = ClientConfig { enable_http2, ..trusting(&authority) };
        assert_eq!(outcome(&server, config).await, "ok");
        assert_eq!(server.last().version, version);
    }
}

#[tokio::test]
async fn a_server_is_trusted_by_its_authority_its_name_or_not_looked_at() {
    let (authority, other) = (Authority::new("ca"), Authority::new("other"));
    let server = TestServer::start_tls(authority.issue("localhost").server(), |_| text("ok")).await;
    let unknown = "tls handshake: invalid peer certificate: UnknownIssuer";
    let tls = |ca: &Authority| TlsConfig { ca_pem: ca.pem(), ..TlsConfig::default() };
    assert_eq!(outcome(&server, with_tls(tls(&authority))).await, "ok");
    assert_eq!(outcome(&server, with_tls(tls(&other))).await, unknown);
    assert_eq!(outcome(&server, with_tls(TlsConfig { insecure_skip_verify: true, ..tls(&other) })).await, "ok");
    let elsewhere = outcome(&server, with_tls(TlsConfig { server_name: "elsewhere".into(), ..tls(&authority) })).await;
    assert!(elsewhere.starts_with("tls handshake: invalid peer certificate: "), "{elsewhere}");
    // The name of the configuration stands in for the host of the URL.
    let named = TestServer::start_tls(authority.issue("elsewhere").server(), |_| text("named")).await;
    assert_eq!(
        outcome(&named, with_tls(TlsConfig { server_name: "elsewhere".into(), ..tls(&authority) })).await,
        "named"
    );
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_when_it_is_configured_named_right_and_not_expired() {
    let identity = self_signed("localhost", false);
    let server = TestServer::start_tls(identity.server(), |_| text("ok")).await;
    let trust = |identity: &Identity| with_tls(TlsConfig { ca_pem: identity.cert.clone(), ..TlsConfig::default() });
    assert_eq!(outcome(&server, trust(&identity)).await, "ok");
    assert!(outcome(&server, trust(&self_signed("localhost", false))).await.starts_with("tls handshake: "));
    for bad in [self_signed("elsewhere", false), self_signed("localhost", true)] {
        let server = TestServer::start_tls(bad.server(), |_| text("ok")).await;
        assert!(outcome(&server, trust(&bad)).await.starts_with("tls handshake: invalid peer certificate: "));
    }
}

#[tokio::test]
async fn versions_are_negotiated_within_the_bounds_of_both_sides() {
    let authority = Authority::new("ca");
    let old = ServerTls { max_version: "TLS12".into(), ..authority.issue("localhost").server() };
    let server = TestServer::start_tls(old, |_| text("ok")).await;
    let at_least = |version: &str| {
        with_tls(TlsConfig { ca_pem: authority.pem(), min_version: version.into(), ..TlsConfig::default() })
    };
    assert_eq!(outcome(&server, at_least("TLS10")).await, "ok");
    assert_eq!(outcome(&server, at_least("TLS12")).await, "ok");
    assert!(outcome(&server, at_least("TLS13")).await.starts_with("tls handshake: "));
}

#[tokio::test]
async fn a_server_that_speaks_plain_http_is_recognised() {
    let server = TestServer::start(|_| text("")).await;
    let config = with_tls(TlsConfig { insecure_skip_verify: true, ..TlsConfig::default() });
    assert_eq!(outcome(&server, config).await, "tls handshake: first record does not look like a tls handshake");
}

#[tokio::test]
async fn each_kind_of_client_authentication_lets_in_whom_it_should() {
    let (authority, clients, strangers) =
        (Authority::new("ca"), Authority::new("clients"), Authority::new("strangers"));
    let identities = [None, Some(clients.issue("client")), Some(strangers.issue("stranger"))];
    // Who gets in: nobody known, a known client, a stranger.
    for (client_auth_type, let_in) in [
        ("NoClientCert", [true, true, true]),
        ("RequestClientCert", [true, true, true]),
        ("RequireAnyClientCert", [false, true, true]),
        ("VerifyClientCertIfGiven", [true, true, false]),
        ("RequireAndVerifyClientCert", [false, true, false]),
    ] {
        for version in ["TLS12", "TLS13"] {
            let mut tls = authority.issue("localhost").server();
            tls.client_auth_type = client_auth_type.into();
            tls.max_version = version.into();
            if client_auth_type != "NoClientCert" {
                tls.client_ca_pem = clients.pem();
            }
            let server = TestServer::start_tls(tls, |_| text("ok")).await;
            for (identity, let_in) in identities.iter().zip(let_in) {
                let mut config = trusting(&authority);
                if let Some(identity) = identity {
                    config.tls_config.cert_pem = identity.cert.clone();
                    config.tls_config.key_pem = Secret::new(identity.key.as_str());
                }
                let got = outcome(&server, config).await;
                assert_eq!(got == "ok", let_in, "{client_auth_type} {version} {}: {got}", identity.is_some());
            }
        }
    }
}

#[tokio::test]
async fn a_handshake_with_restricted_ciphers_and_curves_works() {
    let authority = Authority::new("ca");
    let tls = ServerTls {
        cipher_suites: vec!["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256".into()],
        curve_preferences: vec!["CurveP256".into()],
        max_version: "TLS12".into(),
        ..authority.issue("localhost").server()
    };
    let server = TestServer::start_tls(tls, |_| text("ok")).await;
    assert_eq!(outcome(&server, trusting(&authority)).await, "ok");
}

/// Writes a certificate and its key; the age makes one version differ from the next.
fn write(folder: &Path, identity: &Identity, age_seconds: u64) {
    write_old(&folder.join("cert"), &identity.cert, age_seconds);
    write_old(&folder.join("key"), &identity.key, age_seconds);
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_client_follows_its_files_and_keeps_its_connections_while_they_say_the_same() {
    let (authority, clients) = (Authority::new("ca"), Authority::new("clients"));
    let mut tls = authority.issue("localhost").server();
    tls.client_auth_type = "RequireAndVerifyClientCert".into();
    tls.client_ca_pem = clients.pem();
    let server = TestServer::start_tls(tls, |_| text("ok")).await;

    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_old(&folder.join("ca"), &authority.pem(), 100);
    let first = clients.issue("first");
    write(folder, &first, 100);
    let client = client(with_tls(TlsConfig {
        ca_file: path(folder, "ca"),
        cert_file: path(folder, "cert"),
        key_file: path(folder, "key"),
        ..TlsConfig::default()
    }))
    .await;
    let request = || async { fetch(&client, get(&server.https_url("/"))).await.map(|(_, body)| body) };
    assert_eq!(request().await.unwrap(), "ok");
    assert_eq!(request().await.unwrap(), "ok");
    write(folder, &first, 90);
    assert_eq!(request().await.unwrap(), "ok");
    let peers: Vec<String> = server.seen().into_iter().map(|seen| seen.peer).collect();
    assert!(peers.iter().all(|peer| *peer == peers[0]), "{peers:?}");

    write(folder, &Authority::new("strangers").issue("stranger"), 80);
    assert!(request().await.is_err(), "the new certificate counts at once");
    write(folder, &clients.issue("second"), 0);
    assert_eq!(request().await.unwrap(), "ok", "also when it is written this very moment");
    assert_ne!(server.last().peer, peers[0]);

    write_old(&folder.join("ca"), &Authority::new("other").pem(), 70);
    assert_eq!(request().await.unwrap_err().kind(), ErrorKind::Tls);
    std::fs::remove_file(folder.join("ca")).unwrap();
    let error = request().await.unwrap_err().to_string();
    assert!(error.contains("unable to read CA cert: unable to read file "), "{error}");
}

#[tokio::test]
async fn a_server_follows_its_files_and_keeps_the_old_ones_while_the_new_do_not_fit() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, &old.issue("localhost"), 100);
    let tls = ServerTls { cert_file: path(folder, "cert"), key_file: path(folder, "key"), ..ServerTls::default() };
    let errors: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = errors.clone();
    let options = ServeOptions {
        tls: TlsSwitch::new(TlsAcceptor::new(tls).await.unwrap()),
        on_error: Some(Arc::new(move |_: Option<Peer>, error: &corten_net::Error| {
            log.lock().unwrap().push(error.to_string());
        })),
        ..ServeOptions::default()
    };
    let server = TestServer::with(options, |_| text("ok")).await;
    assert_eq!(outcome(&server, trusting(&old)).await, "ok");
    assert!(errors.lock().unwrap().is_empty());

    let next = new.issue("localhost");
    write_old(&folder.join("cert"), &next.cert, 90);
    assert_eq!(outcome(&server, trusting(&old)).await, "ok");
    assert_eq!(
        *errors.lock().unwrap(),
        ["certificate was not renewed, the previous one is still used: private key does not match public key"]
    );
    write_old(&folder.join("key"), &next.key, 90);
    assert_eq!(outcome(&server, trusting(&new)).await, "ok");
    assert!(outcome(&server, trusting(&old)).await.starts_with("tls handshake: "));
}

#[tokio::test]
async fn switching_tls_counts_for_new_connections_only() {
    let authority = Authority::new("ca");
    let switch = TlsSwitch::default();
    let server =
        TestServer::with(ServeOptions { tls: switch.clone(), ..ServeOptions::default() }, |_| text("ok")).await;
    let plain = client(ClientConfig::default()).await;
    assert_eq!(fetch(&plain, get(&server.url("/"))).await.unwrap().1, "ok");

    switch.set(Some(TlsAcceptor::new(authority.issue("localhost").server()).await.unwrap()));
    assert_eq!(fetch(&plain, get(&server.url("/"))).await.unwrap().1, "ok", "the kept connection stays plain");
    assert_eq!(outcome(&server, trusting(&authority)).await, "ok");
    let fresh = client(ClientConfig::default()).await;
    assert!(fetch(&fresh, get(&server.url("/"))).await.is_err());

    switch.set(None);
    assert_eq!(fetch(&fresh, get(&server.url("/"))).await.unwrap().1, "ok");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_found_when_client_or_server_is_made() {
    let missing = TlsConfig { ca_file: "/nowhere/ca".into(), ..TlsConfig::default() };
    let error = Client::new(with_tls(missing), ClientOptions::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "unable to read CA cert: unable to read file /nowhere/ca: no such file or directory");
    let tls = ServerTls { cert_file: "/nowhere/c".into(), key_pem: Secret::new("k"), ..ServerTls::default() };
    let error = TlsAcceptor::new(tls).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to read cert_file: unable to read file /nowhere/c: no such file or directory"
    );
    let tls = ServerTls { cert_pem: "c".into(), ..ServerTls::default() };
    let error = TlsAcceptor::new(tls).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::Config, "must specify either key_pem or key_file")
    );
}

#[tokio::test]
async fn more_can_be_said_about_tls_than_the_configuration_does() {
    let authority = Authority::new("ca");
    let server = TestServer::start_tls(
        ServerTls { min_version: "TLS13".into(), ..authority.issue("localhost").server() },
        |_| text("ok"),
    )
    .await;
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for (tls, works) in [
        (FurtherTls::default(), true),
        (FurtherTls { max_version: "TLS13".into(), with_system_roots: true, ..FurtherTls::default() }, true),
        (FurtherTls { max_version: "TLS12".into(), ..FurtherTls::default() }, false),
        (FurtherTls { curve_preferences: list(&["CurveP384"]), ..FurtherTls::default() }, true),
        (FurtherTls { cipher_suites: list(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]), ..FurtherTls::default() }, true),
    ] {
        let options = ClientOptions { tls: tls.clone(), ..ClientOptions::default() };
        let client = Client::new(trusting(&authority), options).await.unwrap();
        let outcome = fetch(&client, get(&server.https_url("/"))).await;
        assert_eq!(outcome.is_ok(), works, "{tls:?} {outcome:?}");
    }
    let unknown = FurtherTls { cipher_suites: list(&["ROT13"]), ..FurtherTls::default() };
    let options = ClientOptions { tls: unknown, ..ClientOptions::default() };
    let error = Client::new(trusting(&authority), options).await.unwrap_err();
    assert_eq!(error.to_string(), "unknown cipher \"ROT13\"");
}

#[tokio::test]
async fn a_client_looks_at_its_files_as_often_as_it_is_told() {
    let authority = Authority::new("ca");
    let server = TestServer::start_tls(authority.issue("localhost").server(), |_| text("ok")).await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (look_every, follows) in [(Some(Duration::ZERO), false), (Some(Duration::from_millis(1)), true), (None, true)] {
        write_old(&folder.join("ca"), &authority.pem(), 100);
        let tls = FurtherTls { look_every, ..FurtherTls::default() };
        let options = ClientOptions { tls, ..ClientOptions::default() };
        let config = with_tls(TlsConfig { ca_file: path(folder, "ca"), ..TlsConfig::default() });
        let client = Client::new(config, options).await.unwrap();
        let request = || async { fetch(&client, get(&server.https_url("/"))).await };
        assert_eq!(request().await.unwrap().1, "ok");
        write_old(&folder.join("ca"), &Authority::new("other").pem(), 70);
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(request().await.is_err(), follows, "{look_every:?}");
    }
}
