//! Redirects.

use corten_net::{Body, ClientConfig, ErrorKind, Headers, Secret};
use http::{Request, Response, header};

use crate::support::{Seen, TestServer, client, fetch, get, post, status, text};

fn redirect(code: u16, location: &str) -> Response<corten_net::ServerBody> {
    let mut response = status(code);
    response.headers_mut().insert(header::LOCATION, location.parse().unwrap());
    response
}

/// Redirects from `/<status>` to `/end`.
fn by_path(seen: &Seen) -> Response<corten_net::ServerBody> {
    match seen.target.trim_start_matches('/').parse() {
        Ok(code) => redirect(code, "/end"),
        Err(_) => text("end"),
    }
}

#[tokio::test]
async fn the_method_and_the_body_survive_only_where_the_status_says_so() {
    let server = TestServer::start(by_path).await;
    let client = client(ClientConfig::default()).await;
    for (code, method, body) in
        [(301, "GET", ""), (302, "GET", ""), (303, "GET", ""), (307, "POST", "x"), (308, "POST", "x")]
    {
        let mut request = post(&server.url(&format!("/{code}")), "x");
        request.headers_mut().insert(header::CONTENT_TYPE, "text/x".parse().unwrap());
        assert_eq!(fetch(&client, request).await.unwrap(), (200, "end".to_owned()));
        let seen = server.last();
        assert_eq!(
            (seen.method.as_str(), seen.target.as_str(), &seen.body[..]),
            (method, "/end", body.as_bytes()),
            "{code}"
        );
        assert_eq!(seen.header("content-type"), if body.is_empty() { "" } else { "text/x" });
        assert_eq!(seen.header("referer"), "");
    }
    let peers: Vec<String> = server.seen().into_iter().map(|seen| seen.peer).collect();
    assert!(peers.iter().all(|peer| *peer == peers[0]), "redirects keep the connection: {peers:?}");
}

#[tokio::test]
async fn a_redirect_is_the_response_when_it_is_not_to_be_followed_or_has_no_target() {
    let server = TestServer::start(|seen| if seen.target == "/none" { status(302) } else { by_path(seen) }).await;
    let stay = client(ClientConfig { follow_redirects: false, ..ClientConfig::default() }).await;
    assert_eq!(fetch(&stay, get(&server.url("/302"))).await.unwrap().0, 302);
    let go = client(ClientConfig::default()).await;
    assert_eq!(fetch(&go, get(&server.url("/none"))).await.unwrap().0, 302);
}

#[tokio::test]
async fn ten_redirects_are_followed_and_no_more() {
    let server = TestServer::start(|seen| {
        let left: u32 = seen.target.trim_start_matches('/').parse().unwrap();
        if left == 0 { text("end") } else { redirect(302, &format!("/{}", left - 1)) }
    })
    .await;
    let client = client(ClientConfig::default()).await;
    assert_eq!(fetch(&client, get(&server.url("/10"))).await.unwrap().0, 200);
    let error = fetch(&client, get(&server.url("/11"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Redirect);
    assert_eq!(error.to_string(), format!("Get \"{}\": stopped after 10 redirects", server.url("/11")));
}

#[tokio::test]
async fn credentials_do_not_reach_another_host_and_stay_away_on_the_way_back() {
    let home = TestServer::start(|seen| match seen.target.as_str() {
        "/away" => redirect(307, seen.header("x-away")),
        "/near" => redirect(307, "/end"),
        _ => text("end"),
    })
    .await;
    // The same server under another name.
    let elsewhere = format!("http://localhost:{}", home.address.port());
    let back = home.url("/end");
    let away = TestServer::start(move |_| redirect(307, &back)).await;

    let config = ClientConfig {
        bearer_token: Secret::new("hunter2"),
        http_headers: Headers::from([
            ("X-Scope-OrgID".to_owned(), vec![Secret::new("tenant")]),
            ("Cookie".to_owned(), vec![Secret::new("session")]),
        ]),
        ..ClientConfig::default()
    };
    let client = client(config).await;
    let ask = |target: &str, away: String| {
        Request::get(home.url(target)).header("x-away", away).header("cookie2", "own").body(Body::empty()).unwrap()
    };

    fetch(&client, ask("/near", String::new())).await.unwrap();
    let seen = home.last();
    assert_eq!((seen.header("authorization"), seen.header("cookie")), ("Bearer hunter2", "session"));
    assert_eq!(seen.header("cookie2"), "own");

    fetch(&client, ask("/away", format!("{elsewhere}/end"))).await.unwrap();
    let seen = home.last();
    assert_eq!(seen.target, "/end");
    for name in ["authorization", "cookie", "cookie2"] {
        assert_eq!(seen.header(name), "", "{name}");
    }
    assert_eq!(seen.header("x-scope-orgid"), "tenant", "other configured headers go along, as in the reference");

    let port = away.address.port();
    fetch(&client, ask("/away", format!("http://localhost:{port}/"))).await.unwrap();
    let seen = home.last();
    assert_eq!((seen.target.as_str(), seen.header("authorization")), ("/end", ""), "back home, still without");
}

#[tokio::test]
async fn user_information_of_a_url_goes_along_with_a_relative_redirect_only() {
    let server = TestServer::start(|seen| match seen.target.as_str() {
        "/relative" => redirect(302, "end"),
        "/absolute" => redirect(302, &format!("http://{}/end", seen.header("host"))),
        _ => text(""),
    })
    .await;
    let client = client(ClientConfig::default()).await;
    for (path, authorization) in [("relative", "Basic dTpw"), ("absolute", "")] {
        fetch(&client, get(&format!("http://u:p@{}/{path}", server.address))).await.unwrap();
        assert_eq!(server.last().header("authorization"), authorization, "{path}");
    }
}

#[tokio::test]
async fn a_target_of_another_kind_is_not_followed() {
    let server = TestServer::start(|_| redirect(302, "file:///etc/passwd?token=hunter2")).await;
    let error = fetch(&client(ClientConfig::default()).await, get(&server.url("/"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Redirect);
    assert!(error.to_string().ends_with("unsupported protocol scheme \"file\""), "{error}");
}
