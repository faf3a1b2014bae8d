//! Authentication.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use corten_net::{Authorization, BasicAuth, Client, ClientConfig, ClientOptions, ErrorKind, OAuth2, Secret, full_body};
use http::{HeaderMap, HeaderValue, Response};

use crate::support::{Seen, TestServer, client, fetch, get, status, text};

/// The `Authorization` header that a configuration gives.
async fn sent(config: ClientConfig) -> String {
    let server = TestServer::start(|_| text("")).await;
    fetch(&client(config).await, get(&server.url("/"))).await.unwrap();
    server.last().header("authorization").to_owned()
}

#[tokio::test]
async fn each_kind_of_authentication_gives_its_header() {
    let basic_auth = Some(BasicAuth { username: "user".into(), password: Secret::new("pass"), ..BasicAuth::default() });
    assert_eq!(sent(ClientConfig { basic_auth, ..ClientConfig::default() }).await, "Basic dXNlcjpwYXNz");
    assert_eq!(sent(ClientConfig { bearer_token: Secret::new("t"), ..ClientConfig::default() }).await, "Bearer t");
    let with = |kind: &str, credentials: &str| {
        let (kind, credentials) = (kind.into(), Secret::new(credentials));
        Some(Authorization { kind, credentials, ..Authorization::default() })
    };
    assert_eq!(sent(ClientConfig { authorization: with("", "t"), ..ClientConfig::default() }).await, "Bearer t");
    assert_eq!(sent(ClientConfig { authorization: with(" Token ", "t"), ..ClientConfig::default() }).await, "Token t");
    assert_eq!(sent(ClientConfig { authorization: with("", ""), ..ClientConfig::default() }).await, "Bearer");
}

#[tokio::test]
async fn a_header_of_the_request_or_the_program_wins_over_the_configuration() {
    let server = TestServer::start(|_| text("")).await;
    let config = ClientConfig { bearer_token: Secret::new("configured"), ..ClientConfig::default() };
    let mut request = get(&server.url("/"));
    request.headers_mut().insert("authorization", HeaderValue::from_static("Own 1"));
    fetch(&client(config.clone()).await, request).await.unwrap();
    assert_eq!(server.last().header("authorization"), "Own 1");

    let headers = HeaderMap::from_iter([("authorization".parse().unwrap(), HeaderValue::from_static("Own 2"))]);
    let client = Client::new(config, ClientOptions { headers, ..ClientOptions::default() }).await.unwrap();
    fetch(&client, get(&server.url("/"))).await.unwrap();
    assert_eq!(server.last().header("authorization"), "Own 2");
}

#[tokio::test]
async fn secret_files_are_read_again_for_every_request() {
    let server = TestServer::start(|_| text("")).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    let path = file.to_str().unwrap().to_owned();
    let clients = [
        (ClientConfig { bearer_token_file: path.clone(), ..ClientConfig::default() }, ["Bearer one", "Bearer two"]),
        (
            ClientConfig {
                authorization: Some(Authorization {
                    kind: "Token".into(),
                    credentials_file: path.clone(),
                    ..Authorization::default()
                }),
                ..ClientConfig::default()
            },
            ["Token one", "Token two"],
        ),
        (
            ClientConfig {
                basic_auth: Some(BasicAuth {
                    username: "u".into(),
                    password_file: path.clone(),
                    ..BasicAuth::default()
                }),
                ..ClientConfig::default()
            },
            ["Basic dTpvbmU=", "Basic dTp0d28="],
        ),
    ];
    for (config, expected) in clients {
        // The client is made before there is a file.
        let _ = std::fs::remove_file(&file);
        let client = client(config).await;
        let error = fetch(&client, get(&server.url("/"))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth);
        assert!(
            error.to_string().ends_with(&format!("unable to read file {path}: no such file or directory")),
            "{error}"
        );
        for (content, header) in [" one\n", "two"].into_iter().zip(expected) {
            std::fs::write(&file, content).unwrap();
            fetch(&client, get(&server.url("/"))).await.unwrap();
            assert_eq!(server.last().header("authorization"), header);
        }
        std::fs::write(&file, "two\nlines of hunter2").unwrap();
        if !expected[0].starts_with("Basic") {
            let error = fetch(&client, get(&server.url("/"))).await.unwrap_err();
            assert!(error.to_string().ends_with("authorization credentials are not valid in a header"), "{error}");
        }
    }
}

fn oauth2(server: &TestServer) -> OAuth2 {
    OAuth2 {
        client_id: "the client".into(),
        client_secret: Secret::new("hunter2&"),
        token_url: server.url("/token"),
        ..OAuth2::default()
    }
}

fn json(body: String) -> Response<corten_net::ServerBody> {
    let mut response = Response::new(full_body(body));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}

/// Grants numbered tokens that live for `seconds`.
fn grants(seconds: u64) -> impl Fn(&Seen) -> Response<corten_net::ServerBody> + Send + Sync + 'static {
    let count = AtomicUsize::new(0);
    move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        json(format!(r#"{{"access_token":"token{number}","token_type":"bearer","expires_in":{seconds}}}"#))
    }
}

#[tokio::test]
async fn a_token_is_fetched_once_and_used_until_it_expires() {
    let (tokens, server) = (TestServer::start(grants(3_600)).await, TestServer::start(|_| text("")).await);
    let config = OAuth2 {
        scopes: vec!["a".into(), "b".into()],
        endpoint_params: BTreeMap::from([("audience".to_owned(), "x y".to_owned())]),
        ..oauth2(&tokens)
    };
    let client = client(ClientConfig { oauth2: Some(config), ..ClientConfig::default() }).await;
    let url = server.url("/");
    let (first, second) = tokio::join!(fetch(&client, get(&url)), fetch(&client, get(&url)));
    first.unwrap();
    second.unwrap();
    fetch(&client, get(&url)).await.unwrap();
    assert!(server.seen().iter().all(|seen| seen.header("authorization") == "Bearer token1"));
    assert_eq!(tokens.seen().len(), 1, "requests at the same time share one token request");
    let asked = tokens.last();
    assert_eq!(asked.body, "grant_type=client_credentials&scope=a+b&audience=x+y");
    assert_eq!(asked.header("content-type"), "application/x-www-form-urlencoded");
    // `the+client:hunter2%26`: both parts are encoded before they are joined.
    assert_eq!(asked.header("authorization"), "Basic dGhlK2NsaWVudDpodW50ZXIyJTI2");
}

#[tokio::test]
async fn a_token_about_to_expire_or_refused_is_replaced() {
    let (tokens, server) = (TestServer::start(grants(5)).await, TestServer::start(|_| text("")).await);
    let short = client(ClientConfig { oauth2: Some(oauth2(&tokens)), ..ClientConfig::default() }).await;
    for number in 1..=2 {
        fetch(&short, get(&server.url("/"))).await.unwrap();
        assert_eq!(server.last().header("authorization"), format!("Bearer token{number}"));
    }

    let tokens = TestServer::start(grants(3_600)).await;
    let server =
        TestServer::start(|seen| status(if seen.header("authorization").ends_with('1') { 401 } else { 200 })).await;
    let revoked = client(ClientConfig { oauth2: Some(oauth2(&tokens)), ..ClientConfig::default() }).await;
    assert_eq!(fetch(&revoked, get(&server.url("/"))).await.unwrap().0, 401);
    assert_eq!(fetch(&revoked, get(&server.url("/"))).await.unwrap().0, 200);
}

#[tokio::test]
async fn a_new_secret_in_the_file_gets_a_new_token() {
    let (tokens, server) = (TestServer::start(grants(3_600)).await, TestServer::start(|_| text("")).await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "one").unwrap();
    let config =
        OAuth2 { client_secret: Secret::new(""), client_secret_file: file.to_str().unwrap().into(), ..oauth2(&tokens) };
    let client = client(ClientConfig { oauth2: Some(config), ..ClientConfig::default() }).await;
    for (content, token) in [("one", "Bearer token1"), ("two", "Bearer token2"), ("two\n", "Bearer token2")] {
        std::fs::write(&file, content).unwrap();
        fetch(&client, get(&server.url("/"))).await.unwrap();
        assert_eq!(server.last().header("authorization"), token);
    }
}

#[tokio::test]
async fn a_server_that_wants_credentials_in_the_body_is_asked_that_way_from_then_on() {
    let grant = grants(1);
    let tokens =
        TestServer::start(move |seen| if seen.header("authorization").is_empty() { grant(seen) } else { status(401) })
            .await;
    let server = TestServer::start(|_| text("")).await;
    let client = client(ClientConfig { oauth2: Some(oauth2(&tokens)), ..ClientConfig::default() }).await;
    for _ in 0..2 {
        fetch(&client, get(&server.url("/"))).await.unwrap();
    }
    let bodies: Vec<String> = tokens.seen().iter().map(|seen| String::from_utf8(seen.body.to_vec()).unwrap()).collect();
    let plain = "grant_type=client_credentials";
    let full = "grant_type=client_credentials&client_id=the+client&client_secret=hunter2%26";
    assert_eq!(bodies, [plain, full, full]);
}

#[tokio::test]
async fn a_refused_token_request_is_told_without_the_secret() {
    let tokens = TestServer::start(|_| {
        let mut response = json(r#"{"error":"invalid_client","error_description":"hunter2& is wrong"}"#.to_owned());
        *response.status_mut() = http::StatusCode::UNAUTHORIZED;
        response
    })
    .await;
    let server = TestServer::start(|_| text("")).await;
    let client = client(ClientConfig { oauth2: Some(oauth2(&tokens)), ..ClientConfig::default() }).await;
    let error = fetch(&client, get(&server.url("/"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    assert_eq!(
        error.to_string(),
        format!("Get \"{}\": oauth2: cannot fetch token: 401 Unauthorized: invalid_client", server.url("/"))
    );
    assert!(server.seen().is_empty());
}
