//! The API of a cluster as a pod sees it.

use std::sync::Arc;
use std::time::Duration;

use corten_net::ClientOptions;
use corten_net::kubernetes::{Api, ApiConfig, Change, Collection, Surroundings};
use serde_json::json;

use crate::support::{Authority, TestServer, status, text, write_old};

const ACCOUNT: &str = "var/run/secrets/kubernetes.io/serviceaccount";

#[tokio::test]
async fn a_pod_trusts_its_authorities_and_shows_the_token_that_it_has_now() {
    let authority = Authority::new("cluster");
    let server = TestServer::start_tls(authority.issue("localhost").server(), |seen| {
        match (seen.header("authorization"), seen.target.contains("watch=true")) {
            ("Bearer first" | "Bearer second", true) => {
                text("{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"b\",\"resourceVersion\":\"8\"}}}\n")
            }
            ("Bearer first" | "Bearer second", false) => {
                text("{\"metadata\":{\"resourceVersion\":\"7\"},\"items\":[{\"metadata\":{\"name\":\"a\"}}]}")
            }
            _ => status(401),
        }
    })
    .await;
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join(ACCOUNT);
    std::fs::create_dir_all(&folder).unwrap();
    write_old(&folder.join("ca.crt"), &authority.pem(), 60);
    std::fs::write(folder.join("token"), "first\n").unwrap();
    let port = server.address.port().to_string();
    let env = move |name: &str| match name {
        "KUBERNETES_SERVICE_HOST" => Some("localhost".to_owned()),
        "KUBERNETES_SERVICE_PORT" => Some(port.clone()),
        _ => None,
    };
    let surroundings = Surroundings::new(Arc::new(env), root.path().to_owned());
    let config = ApiConfig::find(&surroundings).await.unwrap();
    let api = Api::new(config, ClientOptions::default()).await.unwrap();
    let things = Collection::new("/api/v1", "", "things");
    let mut follower = api.follow(things, |object| object["metadata"]["name"].clone());
    let next = tokio::time::timeout(Duration::from_secs(60), follower.next()).await.unwrap();
    assert_eq!(next, Ok(Change::All(vec![("a".to_owned(), json!("a"))])));
    std::fs::write(folder.join("token"), "second\n").unwrap();
    let next = tokio::time::timeout(Duration::from_secs(60), follower.next()).await.unwrap();
    assert_eq!(next, Ok(Change::Is("b".to_owned(), json!("b"))));
    let shown: Vec<String> = server.seen().iter().map(|seen| seen.header("authorization").to_owned()).collect();
    assert_eq!(shown, ["Bearer first", "Bearer second"]);
    std::fs::write(folder.join("token"), "third").unwrap();
    let error = api.get("/version").await.unwrap_err();
    assert_eq!(error.code(), 401);
    let stranger =
        ApiConfig { client: corten_net::ClientConfig::default(), ..ApiConfig::find(&surroundings).await.unwrap() };
    let stranger = Api::new(stranger, ClientOptions::default()).await.unwrap();
    let error = stranger.get("/version").await.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
}
