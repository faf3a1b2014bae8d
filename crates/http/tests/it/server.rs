//! Each route.

use std::io::Read as _;

use serde_json::json;

use crate::support::{Fixture, run};

const CONFIG: &str = r#"test.source "from" {
	forward_to = [test.sink.to.receiver]
	name       = test.sink.other.place
}

test.sink "to" {
	password = "hush"
	place    = "here"
}

test.sink "other" { }
"#;

/// The component without what depends on the time: when its health changed, and whether it was evaluated once more since
/// it started.
fn timeless(mut component: serde_json::Value) -> serde_json::Value {
    let Some(health) = component["health"].as_object_mut() else { panic!("no health: {component}") };
    let mut take = |key: &str| health.remove(key).and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default();
    let (updated, message) = (take("updatedTime"), take("message"));
    assert!(updated.starts_with("20") && updated.ends_with('Z'), "{updated:?} is a time");
    assert!(["started component", "component evaluated"].contains(&&*message), "{message}");
    component
}

#[test]
fn readiness_and_health_are_told() {
    run(async {
        let api = Fixture::new(CONFIG).await;
        let ready = api.get("/-/ready").await;
        assert_eq!((ready.status, ready.text()), (200, "Alloy is ready.\n"));
        let healthy = api.get("/-/healthy").await;
        assert_eq!((healthy.status, healthy.text()), (200, "All Alloy components are healthy.\n"));
        api.write_config("test.sink \"a\" {\n\tplace = \"bad\"\n}\n\ntest.sink \"b\" {\n\tplace = \"bad\"\n}\n");
        assert_eq!(api.post("/-/reload").await.status, 200);
        let healthy = api.get("/-/healthy").await;
        assert_eq!((healthy.status, healthy.text()), (500, "unhealthy components: test.sink, test.sink\n"));
        assert_eq!(healthy.header("x-content-type-options"), "nosniff");
        assert_eq!(healthy.header("content-type"), "text/plain; charset=utf-8");
        api.end().await;
    });
}

#[test]
fn a_reload_takes_place_whole_or_not_at_all() {
    run(async {
        let api = Fixture::new("test.sink \"a\" { }\n").await;
        let load = |text: &'static str| {
            api.write_config(text);
            api.get("/-/reload")
        };
        let reloaded = load("test.sink \"b\" { }\n").await;
        assert_eq!((reloaded.status, reloaded.text()), (200, "config reloaded\n"));
        assert_eq!(api.get("/api/v0/web/components/test.sink.b").await.status, 200);
        let path = api.config_path();
        for (text, error) in [
            (
                "test.sink \"c\" {\n",
                format!("reading config path \"{0}\": {0}:2:1: expected }}, got EOF\n", path.display()),
            ),
            (
                "test.sink \"c\" { }\n\ntest.sink \"d\" {\n\tplace = test.sink.e.place\n}\n",
                format!(
                    "error during the initial load: {}:4:10: component \"test.sink.e.place\" does not exist or is out of scope\n",
                    path.display()
                ),
            ),
        ] {
            let refused = load(text).await;
            assert_eq!((refused.status, refused.text()), (400, &*error), "{text}");
            assert_eq!(refused.header("x-content-type-options"), "nosniff");
            assert_eq!(api.get("/api/v0/web/components/test.sink.b").await.status, 200, "what ran goes on");
            assert_eq!(api.get("/api/v0/web/components/test.sink.c").await.status, 404);
            let metrics = api.get("/metrics").await;
            assert!(metrics.text().contains("\nalloy_config_last_load_successful 0\n"), "{}", metrics.text());
        }
        std::fs::remove_file(&path).expect("there is a file");
        let refused = api.get("/-/reload").await;
        let expected = format!("reading config path \"{0}\": stat {0}: no such file or directory\n", path.display());
        assert_eq!((refused.status, refused.text()), (400, &*expected));
        assert_eq!(load("test.sink \"b\" { }\n").await.status, 200);
        assert!(api.get("/metrics").await.text().contains("\nalloy_config_last_load_successful 1\n"));
        // A method that a route does not have leads to the page.
        let asked = "/-/support?duration=0";
        assert_eq!((api.post(asked).await.status, api.get(asked).await.status), (200, 400));
        let other = api.put("/-/reload").await;
        assert_eq!(
            (other.status, other.header("content-type")),
            (200, "text/html; charset=utf-8"),
            "a page, and no reload"
        );
        api.end().await;
    });
}

#[test]
fn metrics_come_in_the_format_and_coding_that_are_accepted() {
    run(async {
        let api = Fixture::new(CONFIG).await;
        let text = api.get("/metrics").await;
        assert_eq!(text.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        assert_eq!(text.header("content-encoding"), "");
        let line = "test_source_total{component_id=\"test.source.from\",component_path=\"/\"} 7\n";
        assert!(text.text().contains(line), "{}", text.text());
        let edge = "from=\"test.source.from\",to=\"test.sink.to\"} 1\n";
        assert!(text.text().contains(edge), "{}", text.text());
        let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        let open = api.get_with("/metrics", &[("accept", accept), ("accept-encoding", "gzip")]).await;
        assert_eq!(open.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert_eq!(open.header("content-encoding"), "gzip");
        let mut plain = String::new();
        flate2::read::GzDecoder::new(&*open.body).read_to_string(&mut plain).expect("gzip");
        assert!(plain.contains("# TYPE test_source counter\n") && plain.ends_with("# EOF\n"), "{plain}");
        api.end().await;
    });
}

#[test]
fn components_are_listed_without_their_contents() {
    run(async {
        let api = Fixture::new(CONFIG).await;
        let list = api.get("/api/v0/web/components").await;
        assert_eq!(list.header("content-type"), "application/json");
        let list = list.json();
        let components: Vec<_> = list.as_array().expect("an array").iter().cloned().map(timeless).collect();
        let health = json!({ "state": "healthy" });
        let expected = |id: &str, label: &str, to: &[&str], by: &[&str], flow: &[&str]| {
            json!({
                "name": if id.starts_with("test.sink") { "test.sink" } else { "test.source" },
                "type": "block", "localID": id, "moduleID": "", "label": label,
                "referencesTo": to, "referencedBy": by, "dataFlowEdgesTo": flow,
                "health": health, "original": "", "arguments": [], "exports": [], "debugInfo": [],
                "liveDebuggingEnabled": id != "test.sink.other",
            })
        };
        let sinks = ["test.sink.other", "test.sink.to"];
        assert_eq!(
            components,
            [
                expected("test.sink.other", "other", &[], &["test.source.from"], &["test.source.from"]),
                expected("test.sink.to", "to", &[], &["test.source.from"], &[]),
                expected("test.source.from", "from", &sinks, &[], &["test.sink.to"]),
            ]
        );
        api.end().await;
    });
}

#[test]
fn a_component_is_shown_with_its_contents_and_without_its_secrets() {
    run(async {
        let api = Fixture::new(CONFIG).await;
        let sink = api.get("/api/v0/web/components/test.sink.to").await;
        assert!(!sink.text().contains("hush"), "{}", sink.text());
        let sink = sink.json();
        let attr = |name: &str, ty: &str, value: &str| json!({"name": name, "type": "attr", "value": {"type": ty, "value": value}});
        assert_eq!(
            sink["arguments"],
            json!([attr("password", "capsule", "(secret)"), attr("place", "string", "here")])
        );
        assert_eq!(
            sink["exports"],
            json!([attr("receiver", "capsule", "capsule(\"storage.Appendable\")"), attr("place", "string", "here")])
        );
        assert_eq!(sink["debugInfo"], json!([]));
        let source = api.get("/api/v0/web/components/test.source.from").await.json();
        let sent = json!({"name": "sent", "type": "attr", "value": {"type": "number", "value": 7}});
        assert_eq!(source["debugInfo"], json!([{"name": "peer", "type": "block", "body": [sent]}]));
        let unknown = api.get("/api/v0/web/components/test.sink.nobody").await;
        assert_eq!((unknown.status, unknown.text()), (404, "404 page not found\n"));
        api.end().await;
    });
}

#[test]
fn a_component_answers_below_its_id() {
    run(async {
        let api = Fixture::new(CONFIG).await;
        for (path, seen) in [
            ("/api/v0/component/test.source.from", "GET /"),
            ("/api/v0/component/test.source.from/", "GET /"),
            ("/api/v0/component/test.source.from/a/b%20c?d=e", "GET /a/b%20c?d=e"),
            ("/api/v0/component/test%2Esource.from/x", "GET /x"),
        ] {
            let answer = api.get(path).await;
            assert_eq!((answer.status, answer.text()), (200, seen), "{path}");
        }
        let unknown = api.get("/api/v0/component/test.source.nobody/a").await;
        let expected = "failed to parse URL path \"/api/v0/component/test.source.nobody/a\": invalid path\n";
        assert_eq!((unknown.status, unknown.text()), (400, expected));
        let silent = api.get("/api/v0/component/test.sink.to/a").await;
        assert_eq!((silent.status, silent.text()), (404, ""));
        api.end().await;
    });
}

#[test]
fn what_is_not_there_is_not_found() {
    run(async {
        let api = Fixture::new("").await;
        for path in [
            "/debug/pprof/",
            "/api/",
            "/api/v0/web/nothing",
            "/api/v0/web/graphs",
            "/api/v0/web/remotecfg/components/a.b",
            "/assets/nothing.js",
        ] {
            let answer = api.get(path).await;
            assert_eq!((answer.status, answer.text()), (404, "404 page not found\n"), "{path}");
        }
        assert_eq!(api.get("/%zz").await.status, 400);
        for path in ["/api/v0/web/modules/mod.x/components", "/api/v0/web/remotecfg/modules/mod.x/components"] {
            let module = api.get(path).await;
            assert_eq!((module.status, module.text()), (500, "module not found\n"), "{path}");
        }
        assert_eq!(api.get("/api/v0/web/remotecfg/components").await.text(), "[]");
        let stream = api.get("/api/v0/web/debug/test.sink.a?sampleProb=1").await;
        let expected = "the live debugging service is disabled. Check the documentation to find out how to enable it\n";
        assert_eq!((stream.status, stream.text()), (500, expected));
        let peers = api.get("/api/v1/ckit/transport/stream").await;
        assert_eq!((peers.status, peers.text()), (404, "clustering is disabled\n"));
        let peers = api.get("/api/v0/web/peers").await.json();
        assert_eq!(peers, json!([{"name": "one", "addr": "127.0.0.1:80", "isSelf": true, "state": "participant"}]));
        api.end().await;
    });
}

#[test]
fn the_prefix_moves_what_the_web_interface_reads_and_nothing_else() {
    run(async {
        let api = Fixture::with_prefix("", "/ui/").await;
        assert_eq!(api.get("/ui/api/v0/web/components").await.text(), "[]");
        for path in ["/api/v0/web/components", "/", "/uix", "/ui/assets/nothing"] {
            assert_eq!(api.get(path).await.status, 404, "{path}");
        }
        assert_eq!(api.get("/-/ready").await.status, 200);
        assert!(api.get("/ui/").await.text().contains("<base href=\"/ui/\""));
        let moved = api.get_unfollowed("/ui").await;
        assert_eq!((moved.status, moved.header("location")), (302, "/ui/"));
        api.end().await;
    });
}

#[test]
fn authentication_counts_within_the_process_too_and_ends_with_its_block() {
    run(async {
        let auth = "http {\n\tauth {\n\t\tbasic {\n\t\t\tusername = \"u\"\n\t\t\tpassword = \"p\"\n\t\t}\n\n\t\tfilter {\n\
                    \t\t\tpaths = [\"/-/ready\", \"/-/reload\"]\n\t\t\tauthenticate_matching_paths = false\n\t\t}\n\t}\n}\n";
        let api = Fixture::new(auth).await;
        assert_eq!(api.get("/-/ready").await.status, 200);
        let refused = api.get("/metrics").await;
        assert_eq!((refused.status, refused.text()), (401, ""));
        assert_eq!(refused.header("www-authenticate"), "Basic realm=\"Restricted\"");
        for path in ["/%6Detrics", "//metrics", "/-/ready/../../metrics"] {
            let answer = api.get(path).await;
            assert!(answer.status == 401 || !answer.text().contains("alloy_"), "{path}: {}", answer.text());
        }
        // u:p
        let passed = api.get_with("/metrics", &[("authorization", "Basic dTpw")]).await;
        assert_eq!(passed.status, 200);
        api.write_config("");
        assert_eq!(api.post("/-/reload").await.status, 200);
        assert_eq!(api.get("/metrics").await.status, 200);
        api.end().await;
    });
}
