//! Requests that are signed or carry a token.

use corten_net::{ServeOptions, full_body, serve};
use http::Request;
use hyper::body::Incoming;
use ring::{digest, hmac};

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hmac_of(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

/// The signature that a request should have, computed from what came.
fn signature(seen: &Seen, secret: &str, scope: &str, names: &str) -> String {
    let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
    let headers: String = names.split(';').map(|name| format!("{name}:{}\n", seen.header(name))).collect();
    let canonical = format!("{}\n{path}\n{query}\n{headers}\n{names}\n{}", seen.method, sha256(&seen.body));
    let time = seen.header("x-amz-date");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let mut key = format!("AWS4{secret}").into_bytes();
    for step in scope.split('/') {
        key = hmac_of(&key, step).as_ref().to_vec();
    }
    hex(hmac_of(&key, &text).as_ref())
}

#[tokio::test]
async fn sigv4_signs_each_attempt_without_the_headers_of_the_endpoint() {
    let (world, calls) = (host(ID), AtomicUsize::new(0));
    let backend = Backend::start(move |_| {
        let status = if calls.fetch_add(1, Ordering::Relaxed) == 0 { 500 } else { 200 };
        answer(status, &[], "")
    })
    .await;
    let attributes = "headers = { \"X-Scope-OrgID\" = \"me\" }\n\
                      sigv4 {\nregion = \"eu-west-1\"\naccess_key = \"AKID\"\nsecret_key = \"hunter2\"\n}";
    let url = backend.server.url("//ws-1//api/./v1/remote_write");
    let mut unit = start(&world, &endpoint(&url, attributes, QUICK)).await;
    push_number(&receiver(&world), "a", 0).await;
    backend.has("a", 1).await;
    let seen = backend.seen();
    assert_eq!(seen.len(), 2);
    for (attempt, seen) in seen.iter().enumerate() {
        assert_eq!(seen.target, "/ws-1/api/v1/remote_write", "the path is cleaned before it is signed");
        let authorization = seen.header("authorization");
        let rest = authorization.strip_prefix("AWS4-HMAC-SHA256 Credential=AKID/").unwrap();
        let [scope, names, signed] = rest.split(", ").collect::<Vec<_>>()[..] else { panic!("{authorization}") };
        assert_eq!(scope, format!("{}/eu-west-1/aps/aws4_request", &seen.header("x-amz-date")[..8]));
        let names = names.strip_prefix("SignedHeaders=").unwrap();
        let signed = signed.strip_prefix("Signature=").unwrap();
        assert_eq!(signed, signature(seen, "hunter2", scope, names));
        for name in ["content-encoding", "content-type", "host", "x-amz-date", "x-prometheus-remote-write-version"] {
            assert!(names.split(';').any(|signed| signed == name), "{name} is signed: {names}");
        }
        assert_eq!(names.contains("retry-attempt"), attempt > 0);
        assert!(!names.contains("x-scope-orgid") && seen.header("x-scope-orgid") == "me", "{names}");
    }
    assert!(!world.logs().contains("hunter2"));
    balanced(&unit.world).await;
    unit.drain().await;
}

/// What is below the address of a machine's metadata service, for the managed identity: that address is in no network
/// of a test.
#[tokio::test]
async fn azuread_sends_the_token_of_the_managed_identity() {
    let (listener, dialer) = corten_net::memory::listen("169.254.169.254:80");
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let record = Arc::clone(&asked);
    let handler = move |request: Request<Incoming>| {
        let record = Arc::clone(&record);
        async move {
            record.lock().push(request.uri().path_and_query().unwrap().to_string());
            Response::new(full_body("{\"access_token\": \"t-1\", \"expires_in\": \"3600\"}"))
        }
    };
    tokio::spawn(serve(listener, Arc::new(handler), ServeOptions::default(), std::future::pending()));
    let world = World::with(ID, |services| services.dialer = Arc::new(dialer));
    let backend = Backend::willing().await;
    let id = "00000000-1111-2222-3333-444444444444";
    let attributes = format!("azuread {{\nmanaged_identity {{\nclient_id = {id:?}\n}}\n}}");
    let mut unit = start(&world, &endpoint(&backend.url(), &attributes, QUICK)).await;
    for round in 0..2 {
        push_number(&receiver(&world), "a", round).await;
        backend.has("a", round + 1).await;
    }
    assert!(backend.seen().iter().all(|seen| seen.header("authorization") == "Bearer t-1"));
    let asked = asked.lock().clone();
    assert_eq!(asked.len(), 1, "a token is used until it expires: {asked:?}");
    for part in
        ["/metadata/identity/oauth2/token?", "client_id=00000000-1111", "resource=https%3A%2F%2Fmonitor.azure.com"]
    {
        assert!(asked[0].contains(part), "{asked:?}");
    }
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn google_iam_sends_the_token_that_its_credentials_give() {
    let tokens = Server::start(|seen| match std::str::from_utf8(&seen.body) {
        Ok(form) if form.contains("refresh_token=r-1") && form.contains("client_secret=hunter2") => {
            answer(200, &[], "{\"access_token\": \"t-1\", \"expires_in\": 3600}")
        }
        _ => answer(400, &[], "{}"),
    })
    .await;
    let (world, backend) = (host(ID), Backend::willing().await);
    let credentials = format!(
        "{{\"type\": \"authorized_user\", \"client_id\": \"c\", \"client_secret\": \"hunter2\", \
         \"refresh_token\": \"r-1\", \"quota_project_id\": \"p-1\", \"token_uri\": {:?}}}",
        tokens.url("/token")
    );
    let file = world.write("credentials.json", credentials);
    let attributes = format!("google_iam {{\ncredentials_file = {:?}\n}}", file.to_str().unwrap());
    let mut unit = start(&world, &endpoint(&backend.url(), &attributes, QUICK)).await;
    for round in 0..2 {
        push_number(&receiver(&world), "a", round).await;
        backend.has("a", round + 1).await;
    }
    for seen in backend.seen() {
        assert_eq!((seen.header("authorization"), seen.header("x-goog-user-project")), ("Bearer t-1", "p-1"));
    }
    assert_eq!(tokens.seen().len(), 1, "a token is used until it expires");
    assert!(!world.logs().contains("hunter2"));
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn a_token_that_cannot_be_had_is_tried_for_again_and_nothing_is_lost() {
    let refuses = Arc::new(Mutex::new(true));
    let state = Arc::clone(&refuses);
    let tokens = Server::start(move |_| match *state.lock() {
        true => answer(503, &[], "later"),
        false => answer(200, &[], "{\"access_token\": \"t-1\", \"expires_in\": 3600}"),
    })
    .await;
    let (world, backend) = (host(ID), Backend::willing().await);
    let credentials = format!(
        "{{\"type\": \"authorized_user\", \"client_id\": \"c\", \"client_secret\": \"s\", \
         \"refresh_token\": \"r\", \"token_uri\": {:?}}}",
        tokens.url("/token")
    );
    let file = world.write("credentials.json", credentials);
    let attributes = format!("google_iam {{\ncredentials_file = {:?}\n}}", file.to_str().unwrap());
    let mut unit = start(&world, &endpoint(&backend.url(), &attributes, QUICK)).await;
    push_number(&receiver(&world), "a", 0).await;
    until("it is unhealthy", || world.health_text().starts_with("unhealthy")).await;
    assert!(backend.seen().is_empty(), "nothing goes without a token");
    *refuses.lock() = false;
    backend.has("a", 1).await;
    until("it is healthy", || world.health_text().starts_with("healthy")).await;
    balanced(&unit.world).await;
    unit.drain().await;
}

#[tokio::test]
async fn two_methods_at_a_time_are_refused() {
    let google = "google_iam {\ncredentials_file = \"f\"\n}";
    let sigv4 = "sigv4 {\nregion = \"r\"\n}";
    for attributes in [format!("{google}\n{sigv4}"), format!("bearer_token = \"t\"\n{google}")] {
        let error = refusal(&endpoint("http://h/p", &attributes, "")).await;
        assert!(error.contains("at most one of sigv4, azuread, google_iam"), "{error}");
    }
}
