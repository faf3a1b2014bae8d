//! The program's own API.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Fixture, Reader, run};

const FLOW: &str = r#"test.emit "from" {
	forward_to = [test.keep.to.receiver]
}

test.keep "to" {
	password = "hush-hush"
}
"#;

const DEBUGGING: &str = "livedebugging {\n\tenabled = true\n}\n";

async fn emit(api: &Fixture, count: usize) {
    let answer = api.get(&format!("/api/v0/component/test.emit.from/{count}")).await;
    assert_eq!(answer.text(), "Ok(())");
}

#[test]
fn the_graph_shows_what_there_is_and_where_data_goes() {
    run(async {
        let api = Fixture::new(&format!("{FLOW}\nlogging {{ }}\n{DEBUGGING}")).await;
        let answer = api.get("/api/v0/corten/graph").await;
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!((answer.header("cache-control"), answer.header("x-content-type-options")), ("no-store", "nosniff"));
        assert!(!answer.text().contains("hush"), "{}", answer.text());
        let graph = answer.json();
        assert_eq!(graph["liveDebugging"], true);
        assert_eq!(graph["version"], "v0.0.0");
        assert!(graph["loadedAt"].as_str().is_some_and(|at| at.starts_with("20")), "{graph}");
        assert_eq!(
            graph["edges"],
            json!([
                {"i": 0, "from": "test.emit.from", "to": "test.keep.to", "kind": "loki_log"},
                {"i": 1, "from": "test.keep.to", "to": "test.keep.to#store", "kind": "loki_log"},
            ])
        );
        let node = |id: &str| {
            let nodes = graph["nodes"].as_array().expect("nodes");
            nodes.iter().find(|node| node["id"] == id).unwrap_or_else(|| panic!("{id}: {graph}")).clone()
        };
        let emit = node("test.emit.from");
        assert_eq!((&emit["role"], &emit["kinds"]), (&json!("source"), &json!(["loki_log"])));
        assert_eq!((&emit["name"], &emit["label"], &emit["module"]), (&json!("test.emit"), &json!("from"), &json!("")));
        assert_eq!((&emit["line"], &emit["endLine"]), (&json!(1), &json!(3)));
        assert_eq!(emit["health"]["state"], "healthy");
        let keep = node("test.keep.to");
        assert_eq!(keep["role"], "sink");
        assert_eq!(keep["ends"], json!([{"name": "store", "url": "http://user:(secret)@store/", "kind": "loki_log"}]));
        assert_eq!(node("logging")["kind"], "config");
        assert_eq!(node("livedebugging")["kind"], "service");
        api.end().await;
    });
}

#[test]
fn a_component_is_shown_with_all_that_is_known_of_it() {
    run(async {
        let api = Fixture::new(FLOW).await;
        emit(&api, 3).await;
        let answer = api.get("/api/v0/corten/components/test.keep.to").await;
        assert!(!answer.text().contains("hush-hush"), "{}", answer.text());
        let keep = answer.json();
        assert_eq!(keep["source"], "test.keep \"to\" {\n\tpassword = \"(secret)\"\n}");
        let password = json!({"name": "password", "type": "attr", "value": {"type": "capsule", "value": "(secret)"}});
        assert_eq!(keep["arguments"], json!([password]));
        assert_eq!(keep["exports"][0]["name"], "receiver");
        assert_eq!(
            (&keep["referencedBy"], &keep["receivesFrom"]),
            (&json!(["test.emit.from"]), &json!(["test.emit.from"]))
        );
        assert_eq!((&keep["references"], &keep["sendsTo"]), (&json!([]), &json!([])));
        let edge = json!({
            "from": "test.emit.from", "to": "test.keep.to", "kind": "loki_log", "sent": 3, "taken": 3, "refused": 0,
            "lost": [], "inFlight": 0, "bytes": keep["edgesIn"][0]["bytes"], "batches": 1,
        });
        assert_eq!(keep["edgesIn"], json!([edge]));
        assert_eq!(keep["rows"][0]["taken"], 3);
        assert_eq!(keep["ends"][0]["delivered"], 3);
        assert_eq!(keep["ends"][0]["lastAnswer"]["text"], "204 (secret)");
        let messages: Vec<&str> = keep["healthHistory"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|health| health["message"].as_str())
            .collect();
        assert_eq!(messages.first(), Some(&"component created"));
        let emit = api.get("/api/v0/corten/components/test.emit.from").await.json();
        assert_eq!((&emit["sendsTo"], &emit["edgesOut"]), (&json!(["test.keep.to"]), &json!([edge])));
        let unknown = api.get("/api/v0/corten/components/test.keep.nobody").await;
        assert_eq!((unknown.status, unknown.json()), (404, json!({"error": "component not found"})));
        api.end().await;
    });
}

/// A file of an archive, found by the list at its end.
fn unpacked(archive: &[u8], wanted: &str) -> String {
    let number = |at: usize, bytes: usize| {
        archive[at..at + bytes].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let mut at = number(archive.len() - 6, 4);
    while archive[at..].starts_with(b"PK\x01\x02") {
        let (packed, name, head) = (number(at + 20, 4), number(at + 28, 2), number(at + 42, 4));
        if archive[at + 46..].starts_with(wanted.as_bytes()) {
            let data = &archive[head + 30 + name..][..packed];
            return std::io::read_to_string(flate2::read::DeflateDecoder::new(data)).expect("text");
        }
        at += 46 + name;
    }
    panic!("no {wanted}");
}

#[test]
fn a_support_bundle_tells_of_each_component_what_its_page_does() {
    run(async {
        let more = "test.emit \"more\" {\n\tforward_to = [test.keep.to.receiver, test.keep.other.receiver]\n}\n\ntest.keep \"other\" { }\n";
        let api = Fixture::new(&format!("{FLOW}\n{more}")).await;
        emit(&api, 3).await;
        let bundle = api.get("/-/support?duration=1").await;
        let told = unpacked(&bundle.body, "alloy-support-bundle/corten-components.json");
        let told: Value = serde_json::from_str(&told).expect("json");
        let told = told.as_array().expect("a list");
        assert_eq!((told.len(), told.last()), (5, Some(&json!({"leftOut": 0}))));
        for page in &told[..4] {
            let id = page["id"].as_str().expect("an id");
            let alone = api.get(&format!("/api/v0/corten/components/{id}")).await.json();
            assert_eq!(*page, alone, "{id}");
        }
        let page = |id: &str| told.iter().find(|page| page["id"] == id).unwrap_or_else(|| panic!("no {id}"));
        assert_eq!(page("test.keep.to")["receivesFrom"], json!(["test.emit.from", "test.emit.more"]));
        let froms: Vec<&Value> =
            page("test.keep.to")["edgesIn"].as_array().expect("a list").iter().map(|edge| &edge["from"]).collect();
        assert_eq!(froms, ["test.emit.from", "test.emit.more"]);
        assert_eq!(page("test.keep.other")["edgesIn"].as_array().map(Vec::len), Some(1));
        assert_eq!(page("test.emit.more")["edgesIn"], json!([]));
        api.end().await;
    });
}

#[test]
fn the_metrics_of_a_component_are_numbers() {
    run(async {
        let api = Fixture::new("test.source \"a\" {\n\tforward_to = []\n}\n").await;
        let metrics = api.get("/api/v0/corten/components/test.source.a/metrics").await.json();
        assert_eq!(
            metrics["families"],
            json!([{"name": "test_source_total", "help": "Samples.", "type": "counter", "series": [{"labels": {}, "value": 7.0}]}])
        );
        assert!(metrics["t"].as_i64().is_some_and(|t| t > 1_700_000_000_000));
        api.end().await;
        // Those of its books, too, without labels that name it.
        let api = Fixture::new(FLOW).await;
        emit(&api, 7).await;
        let metrics = api.get("/api/v0/corten/components/test.keep.to/metrics").await.json();
        let families = metrics["families"].as_array().expect("families");
        let items = families.iter().find(|family| family["name"] == "corten_component_items_total").expect("items");
        let taken = json!({"labels": {"signal": "loki_log", "way": "taken"}, "value": 7.0});
        assert!(items["series"].as_array().is_some_and(|series| series.contains(&taken)), "{items}");
        assert!(families.iter().any(|family| family["name"] == "corten_end_items_total"), "{metrics}");
        api.end().await;
    });
}

#[test]
fn the_balance_closes_and_says_where_it_does_not() {
    run(async {
        let api = Fixture::new(&FLOW.replace("password", "refuse = true\n\tpassword")).await;
        emit(&api, 5).await;
        let balance = api.get("/api/v0/corten/balance").await.json();
        assert_eq!((&balance["closes"], &balance["open"]), (&json!(true), &json!([])), "{balance}");
        let row = json!({
            "kind": "loki_log", "taken": 5, "received": 5, "created": [], "out": 5, "dropped": [["unwanted", 5]],
            "merged": [], "held": 0, "difference": 0,
        });
        assert_eq!(balance["program"], json!([row]));
        assert_eq!(balance["edges"][0]["taken"], 5);
        assert_eq!(balance["components"].as_array().map(Vec::len), Some(2));
        let metrics = api.get("/metrics").await;
        for line in [
            "corten_component_items_total{component_id=\"test.keep.to\",component_path=\"/\",signal=\"loki_log\",way=\"taken\"} 5\n",
            "corten_component_dropped_items_total{component_id=\"test.keep.to\",component_path=\"/\",reason=\"unwanted\",signal=\"loki_log\"} 5\n",
            "corten_edge_items_total{component_id=\"test.emit.from\",component_path=\"/\",signal=\"loki_log\",to=\"test.keep.to\",way=\"sent\"} 5\n",
            "corten_balance_open_items{signal=\"loki_log\"} 0\n",
        ] {
            assert!(metrics.text().contains(line), "{line}: {}", metrics.text());
        }
        assert!(!metrics.text().contains("reason=\"\"") && !metrics.text().contains("corten_component_merged"));
        api.end().await;
    });
}

#[test]
fn documentation_is_that_of_the_tables() {
    run(async {
        let api = Fixture::new("").await;
        let docs = api.get("/api/v0/corten/docs/test.targets").await.json();
        assert_eq!((&docs["name"], &docs["summary"]), (&json!("test.targets"), &json!("Has targets.")));
        let attribute = |name: &str, ty: &str, doc: &str| json!({"name": name, "type": ty, "required": true, "default": null, "doc": doc});
        assert_eq!(docs["arguments"]["attributes"][0]["name"], "count");
        assert_eq!(
            docs["arguments"]["blocks"],
            json!([{
                "name": "rule", "required": false, "many": true, "doc": "What drops some.", "blocks": [],
                "attributes": [attribute("action", "string", "What it does.")],
            }])
        );
        assert_eq!(api.get("/api/v0/corten/docs/livedebugging").await.status, 200);
        assert_eq!(api.get("/api/v0/corten/docs/nothing").await.status, 404);
        api.end().await;
    });
}

#[test]
fn the_configuration_is_shown_planned_and_loaded() {
    run(async {
        let api = Fixture::new(FLOW).await;
        let config = api.get("/api/v0/corten/config").await;
        assert!(!config.text().contains("hush"), "{}", config.text());
        let config = config.json();
        let path = api.config_path().display().to_string();
        let shown = FLOW.replace("hush-hush", "(secret)");
        assert_eq!((&config["path"], &config["reloadAllowed"]), (&json!(path), &json!(true)));
        assert_eq!(config["files"], json!([{"name": path, "text": shown}]));
        assert_eq!((&config["lastLoad"]["ok"], &config["lastLoad"]["by"]), (&json!(true), &json!("start")));

        let plan = api.get("/api/v0/corten/plan").await.json();
        assert_eq!((&plan["changed"], &plan["untouched"], &plan["updated"]), (&json!(false), &json!(2), &json!([])));
        api.write_config(&FLOW.replace("hush-hush", "hush-again").replace("\"from\"", "\"other\""));
        let plan = api.get("/api/v0/corten/plan").await;
        assert!(!plan.text().contains("hush"), "{}", plan.text());
        let plan = plan.json();
        let ids = |of: &str| -> Vec<String> {
            let list = plan[of].as_array().expect("a list");
            list.iter().filter_map(|change| change["id"].as_str().map(str::to_owned)).collect()
        };
        assert_eq!(ids("created"), ["test.emit.other"]);
        assert_eq!(ids("updated"), ["test.keep.to"]);
        assert_eq!(ids("removed"), ["test.emit.from"]);
        assert_eq!(plan["updated"][0]["arguments"][0]["after"], "\"(secret)\"");
        assert_eq!(plan["updated"][0]["line"], 5);

        // A load that is refused says why, and leaves its texts to be looked at.
        api.write_config("// token = \"hush-comment\"\ntest.keep \"to\" {\n\tnothing = 1\n}\n");
        let refused = api.post_own("/api/v0/corten/reload", &[]).await;
        let error = "unrecognized attribute name \"nothing\"";
        assert_eq!(refused.status, 400);
        let diagnostic = json!({
            "file": path, "line": 3, "column": 2, "end_line": 3, "end_column": 12, "severity": "error", "message": error,
        });
        assert_eq!(refused.json()["diagnostics"], json!([diagnostic]));
        let last = api.get("/api/v0/corten/config").await.json()["lastLoad"].clone();
        assert_eq!((&last["ok"], &last["by"]), (&json!(false), &json!("request")));
        let text = "// token = \"(secret)\"\ntest.keep \"to\" {\n\tnothing = 1\n}\n";
        assert_eq!(last["failed"], json!([{"name": path, "text": text}]));
        assert!(last["error"].as_str().is_some_and(|text| text.ends_with(error)), "{last}");

        api.write_config(FLOW);
        assert_eq!(api.post_own("/api/v0/corten/reload", &[]).await.json(), json!({"ok": true}));
        std::fs::remove_file(api.config_path()).expect("there is a file");
        let plan = api.get("/api/v0/corten/plan").await;
        assert_eq!(plan.status, 400);
        assert!(plan.text().contains("no such file or directory"), "{}", plan.text());
        api.end().await;
    });
}

#[test]
fn a_change_is_taken_from_the_pages_of_this_server_only() {
    run(async {
        let api = Fixture::new("").await;
        let path = "/api/v0/corten/reload";
        for (headers, status) in [
            (&[][..], 200),
            (&[("origin", "http://test.internal:80")], 200),
            (&[("origin", "http://evil.example")], 403),
            (&[("origin", "null")], 403),
        ] {
            assert_eq!(api.post_own(path, headers).await.status, status, "{headers:?}");
        }
        let bare = api.post(path).await;
        assert_eq!((bare.status, bare.json()), (403, json!({"error": "the header X-Corten: 1 is missing"})));
        for (answer, place) in [(api.get(path).await, path), (api.put(path).await, path)] {
            assert_eq!(answer.status, 405, "{place}");
        }
        assert_eq!(api.post_own("/api/v0/corten/graph", &[]).await.status, 405);
        assert_eq!(api.post_own("/api/v0/corten/tap/a", &[]).await.status, 405);
        api.end().await;
    });
}

#[test]
fn wrong_requests_are_told_what_is_wrong() {
    run(async {
        let api = Fixture::new(&format!("{FLOW}{DEBUGGING}\ntest.source \"alone\" {{\n\tforward_to = []\n}}\n")).await;
        let long = format!("/api/v0/corten/targets?q={}", "x".repeat(20_000));
        for (path, status) in [
            ("/api/v0/corten/", 404),
            ("/api/v0/corten/nothing", 404),
            ("/api/v0/corten/components/", 404),
            ("/api/v0/corten/components//metrics", 404),
            ("/api/v0/corten/components/test.keep.to/nothing", 404),
            ("/api/v0/corten/components/a%2F..%2F..%2Fmetrics", 404),
            ("/api/v0/corten/../../metrics", 404),
            ("/api/v0/corten/docs/%22%3Cscript%3E", 404),
            ("/api/v0/corten/components/test.keep%2Eto", 200),
            ("/api/v0/corten/components/%74est.keep.to/history", 200),
            ("/api/v0/corten/stream?component=nobody", 404),
            ("/api/v0/corten/tap/nobody", 404),
            ("/api/v0/corten/tap/test.source.alone", 409),
            ("/api/v0/corten/tap/test.keep.to?side=up", 400),
            ("/api/v0/corten/tap/test.keep.to?prob=2", 400),
            ("/api/v0/corten/tap/test.keep.to?prob=NaN", 400),
            ("/api/v0/corten/tap/test.keep.to?rate=0", 400),
            ("/api/v0/corten/tap/test.keep.to?rate=-1", 400),
            ("/api/v0/corten/tap/test.keep.to?filter=a%3D~%22(%22", 400),
            ("/api/v0/corten/targets?state=odd", 400),
            ("/api/v0/corten/targets?sort=odd", 400),
            ("/api/v0/corten/targets?limit=x", 400),
            (&*long, 400),
        ] {
            let answer = api.get(path).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
            assert_eq!(answer.header("content-type"), "application/json", "{path}");
            assert_eq!(answer.json()["error"].is_string(), status != 200, "{path}");
        }
        api.end().await;
    });
}

#[test]
fn a_stream_tells_at_once_what_there_is_and_then_what_changes() {
    run(async {
        let api = Fixture::new(FLOW).await;
        let mut stream = api.open("/api/v0/corten/stream?graph=1", &[]).await;
        assert_eq!((stream.status, stream.header("content-type")), (200, "text/event-stream"));
        assert_eq!(stream.header("cache-control"), "no-store");
        let graph = stream.event("graph").await;
        assert_eq!(graph["generation"], api.get("/api/v0/corten/graph").await.json()["generation"]);
        assert_eq!(stream.event("load").await["ok"], true);
        let health = stream.event("health").await;
        assert_eq!(health.as_array().map(Vec::len), Some(2), "{health}");
        emit(&api, 300).await;
        let edges = stream.event("edges").await;
        let row = edges["d"].as_array().and_then(|rows| rows.iter().find(|row| row[0] == 0)).expect("edge 0").clone();
        assert!(
            row[1].as_f64().is_some_and(|items| items > 0.0) && row[2].as_f64().is_some_and(|bytes| bytes > 0.0),
            "{row}"
        );
        let ends = stream.event_where("ends", |ends| ends["d"][0][6].as_f64() > Some(0.0)).await;
        assert_eq!((&ends["d"][0][0], &ends["d"][0][1]), (&json!("test.keep.to"), &json!("store")));
        assert_eq!(ends["d"][0][5], "204 (secret)");
        // What came to rest is told once more.
        stream
            .event_where("edges", |edges| {
                edges["d"] == json!([[0, 0.0, 0.0, 0.0, 0.0, 0.0], [1, 0.0, 0.0, 0.0, 0.0, 0.0]])
            })
            .await;
        api.write_config(&FLOW.replace("hush-hush", "other"));
        assert_eq!(api.post_own("/api/v0/corten/reload", &[]).await.status, 200);
        assert_eq!(stream.event("load").await["by"], "request");
        let changed = stream.event("graph").await;
        assert!(changed["generation"].as_u64() > graph["generation"].as_u64(), "{changed}");
        api.write_config("nonsense");
        assert_eq!(api.post_own("/api/v0/corten/reload", &[]).await.status, 400);
        assert_eq!(stream.event("load").await["ok"], false);
        // The end of the server ends the stream, and the server does not wait for whoever reads it.
        let ended = tokio::spawn(async move { stream.read_out().await });
        api.end().await;
        assert!(ended.await.expect("it ends"), "a stream that is waited for is cut off in the end");
    });
}

#[test]
fn a_stream_that_was_open_to_all_ends_when_a_password_is_asked_for() {
    run(async {
        let api = Fixture::new(FLOW).await;
        let mut stream = api.open("/api/v0/corten/stream", &[]).await;
        let mut graph = api.open("/api/v0/web/graph?window=1", &[]).await;
        stream.event("graph").await;
        let auth = "http {\n\tauth {\n\t\tbasic {\n\t\t\tusername = \"u\"\n\t\t\tpassword = \"p\"\n\t\t}\n\t}\n}\n";
        api.write_config(&format!("{FLOW}{auth}"));
        assert_eq!(api.post("/-/reload").await.status, 200);
        stream.read_out().await;
        graph.read_out().await;
        api.end().await;
    });
}

#[test]
#[cfg_attr(debug_assertions, ignore = "unoptimized code says nothing of the time")]
fn a_hundred_thousand_targets_are_searched_in_a_moment() {
    run(async {
        let api = Fixture::new("test.targets \"many\" {\n\tcount = 100000\n}\n").await;
        for query in [
            "q=pod-99999",
            "q=nothing",
            "",
            "q=instance%3Dhost77777:80&sort=-samples",
            "state=up&sort=url",
            "q=pod&sort=durationMs",
            "q=zone%3Dnorth",
            "q=instance%3D~%22(h.*o.*s.*t.*)%2B9%22",
        ] {
            let answer = api.get(&format!("/api/v0/corten/targets?{query}")).await.json();
            assert_eq!(answer["total"], 100_000, "{query}");
            assert!(answer["tookMs"].as_f64() < Some(300.0), "{query}: {}", answer["tookMs"]);
        }
        api.end().await;
    });
}

#[test]
fn a_stream_of_one_component_tells_of_no_other() {
    run(async {
        let api = Fixture::new(&format!("{FLOW}\ntest.keep \"other\" {{ }}\n")).await;
        let mut stream = api.open("/api/v0/corten/stream?component=test.keep.other", &[]).await;
        let health = stream.event("health").await;
        assert_eq!(health.as_array().map(Vec::len), Some(1), "{health}");
        assert_eq!(health[0][0], "test.keep.other");
        api.end().await;
    });
}

#[test]
fn too_many_streams_are_refused_and_those_that_end_make_room() {
    run(async {
        let api = Fixture::new(FLOW).await;
        let mut open: Vec<Reader> = Vec::new();
        for _ in 0..64 {
            let mut stream = api.open("/api/v0/corten/stream", &[]).await;
            assert_eq!(stream.status, 200);
            stream.event("graph").await;
            open.push(stream);
        }
        for path in ["/api/v0/corten/stream", "/api/v0/web/graph"] {
            assert_eq!(api.get(path).await.status, 503, "{path}");
        }
        drop(open);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let stream = api.open("/api/v0/corten/stream", &[]).await;
            if stream.status == 200 {
                break;
            }
            assert!(Instant::now() < deadline, "no room again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        api.end().await;
    });
}

#[test]
fn whoever_looks_sees_items_pass_with_their_secrets_masked() {
    run(async {
        let api = Fixture::new(&format!("{FLOW}{DEBUGGING}")).await;
        let mut tap = api.open("/api/v0/corten/tap/test.keep.to?filter=%22line%202%22", &[]).await;
        assert_eq!((tap.status, tap.header("content-type")), (200, "text/event-stream"));
        tap.event("stat").await;
        emit(&api, 3).await;
        let item = tap.event("item").await;
        assert_eq!((&item["n"], &item["side"], &item["kind"]), (&json!(1), &json!("in"), &json!("loki_log")));
        assert_eq!((&item["from"], &item["to"]), (&json!("test.emit.from"), &json!("test.keep.to")));
        let text = item["text"].as_str().expect("text");
        assert!(text.contains("line 2") && text.contains("(secret)") && !item.to_string().contains("hush"), "{item}");
        let stat = tap.event_where("stat", |stat| stat["seen"] != 0).await;
        assert_eq!((&stat["seen"], &stat["matched"], &stat["limited"]), (&json!(3), &json!(1), &json!(false)));
        // As lines, for the command line.
        let mut lines =
            api.open("/api/v0/corten/tap/test.emit.from?side=out", &[("accept", "application/x-ndjson")]).await;
        assert_eq!(lines.header("content-type"), "application/x-ndjson");
        let first = lines.line().await;
        assert_eq!(serde_json::from_str::<Value>(&first).expect("json")["event"], "stat");
        // A load ends it, and so does the block that no longer allows it.
        let mut other = api.open("/api/v0/corten/tap/test.emit.from", &[]).await;
        other.event("stat").await;
        api.write_config(FLOW);
        assert_eq!(api.post_own("/api/v0/corten/reload", &[]).await.status, 200);
        assert_eq!(tap.event("end").await, json!({"reason": "disabled"}));
        tap.read_out().await;
        let refused = api.get("/api/v0/corten/tap/test.keep.to").await;
        let disabled = "the live debugging service is disabled. Check the documentation to find out how to enable it";
        assert_eq!((refused.status, refused.json()), (500, json!({"error": disabled})));
        api.end().await;
    });
}

#[test]
fn targets_are_shown_whole_whenever_they_are_others() {
    run(async {
        let config = "test.targets \"some\" {\n\tcount = 3\n}\n\ntest.uses \"them\" {\n\ttargets = test.targets.some.targets\n}\n";
        let api = Fixture::new(&format!("{config}{DEBUGGING}")).await;
        let graph = api.get("/api/v0/corten/graph").await.json();
        let edge = json!({"i": 0, "from": "test.targets.some", "to": "test.uses.them", "kind": "target"});
        assert_eq!(graph["edges"], json!([edge]));
        let mut tap = api.open("/api/v0/corten/tap/test.uses.them?filter=__address__%3D~host[01].*", &[]).await;
        for at in 0..2 {
            let item = tap.event("item").await;
            assert_eq!((&item["n"], &item["side"], &item["kind"]), (&json!(at + 1), &json!("in"), &json!("target")));
            assert_eq!((&item["from"], &item["to"]), (&json!("test.targets.some"), &json!("test.uses.them")));
            assert_eq!(item["fields"]["__address__"], format!("host{at}:80"));
            let text = format!(
                "{{__address__=\"host{at}:80\", __meta_kubernetes_pod_name=\"pod-{at}\", __meta_zone=\"north\", \
                 __param_token=\"(secret)\"}}"
            );
            assert_eq!(item["text"], text);
            assert_eq!(item["fields"]["__param_token"], "(secret)");
        }
        let stat = tap.event("stat").await;
        assert_eq!((&stat["seen"], &stat["matched"], &stat["missed"]), (&json!(3), &json!(2), &json!(0)));
        assert_eq!(api.get("/api/v0/component/test.targets.some/").await.status, 200);
        assert_eq!(tap.event("item").await["fields"]["__address__"], "host0:80");
        let stat = tap.event("stat").await;
        assert_eq!((&stat["seen"], &stat["matched"]), (&json!(1), &json!(1)));
        // Nobody finds out a secret by asking for it.
        let mut tap = api.open("/api/v0/corten/tap/test.uses.them?filter=__param_token%3D~hush.*", &[]).await;
        assert_eq!(tap.event("stat").await["matched"], 0);
        let mut tap = api.open("/api/v0/corten/tap/test.uses.them?filter=hush", &[]).await;
        assert_eq!(tap.event("stat").await["matched"], 0);
        // What the reference shows of the same.
        let mut debug = api.open("/api/v0/web/debug/test.targets.some", &[]).await;
        assert!(debug.until("|;|").await.starts_with("[OUT] {__address__=\"host0:80\""));
        api.end().await;
    });
}

#[test]
fn an_edge_of_targets_says_how_many_there_are() {
    run(async {
        let config = "test.targets \"some\" {\n\tcount = 3\n}\n\ntest.uses \"them\" {\n\ttargets = test.targets.some.targets\n}\n";
        let api = Fixture::new(config).await;
        let mut stream = api.open("/api/v0/corten/stream", &[]).await;
        let edges = stream.event("edges").await;
        assert_eq!(edges["d"], json!([[0, 0.0, 0.0, 0.0, 0.0, 3.0]]));
        assert_eq!(api.get("/api/v0/component/test.targets.some/").await.status, 200);
        let edges = stream.event("edges").await;
        assert_eq!(edges["d"], json!([[0, 0.0, 0.0, 0.0, 0.0, 1.0]]));
        api.end().await;
    });
}

#[test]
fn a_load_ends_who_looks_and_too_many_are_refused() {
    run(async {
        let api = Fixture::new(&format!("{FLOW}{DEBUGGING}")).await;
        let mut open = Vec::new();
        for _ in 0..8 {
            let mut tap = api.open("/api/v0/corten/tap/test.emit.from", &[]).await;
            tap.event("stat").await;
            open.push(tap);
        }
        assert_eq!(api.get("/api/v0/corten/tap/test.emit.from").await.status, 503);
        assert_eq!(api.get("/api/v0/web/debug/test.emit.from").await.status, 503);
        api.write_config(&format!("{}{DEBUGGING}", FLOW.replace("\"from\"", "\"other\"")));
        assert_eq!(api.post_own("/api/v0/corten/reload", &[]).await.status, 200);
        for mut tap in open {
            assert_eq!(tap.event("end").await, json!({"reason": "gone"}));
        }
        let mut tap = api.open("/api/v0/corten/tap/test.keep.to", &[]).await;
        tap.event("stat").await;
        assert_eq!(api.post_own("/api/v0/corten/reload", &[]).await.status, 200);
        assert_eq!(tap.event("end").await, json!({"reason": "reload"}));
        api.end().await;
    });
}

#[test]
fn whoever_is_gone_gives_up_his_place_although_nothing_passes() {
    run(async {
        let api = Fixture::new(&format!("{FLOW}{DEBUGGING}")).await;
        let path = "/api/v0/web/debug/test.emit.from";
        let mut open = Vec::new();
        loop {
            let reader = api.open(path, &[]).await;
            if reader.status != 200 {
                break;
            }
            open.push(reader);
        }
        assert!(!open.is_empty());
        drop(open);
        let started = Instant::now();
        while api.open(path, &[]).await.status != 200 {
            assert!(started.elapsed() < Duration::from_secs(60), "the places are still taken");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        api.end().await;
    });
}

#[test]
fn the_streams_of_the_reference_have_their_errors_and_their_form() {
    run(async {
        let api = Fixture::new(FLOW).await;
        let disabled = "the live debugging service is disabled. Check the documentation to find out how to enable it\n";
        for (path, status, text) in [
            ("/api/v0/web/debug/test.keep.to?sampleProb=1", 500, disabled),
            ("/api/v0/web/debug/nobody", 500, disabled),
            ("/api/v0/web/debug/nobody?sampleProb=x", 400, "Invalid sample probability\n"),
            ("/api/v0/web/graph?window=0", 400, "Invalid window: must be an integer between 1 and 60\n"),
            ("/api/v0/web/graph?window=61", 400, "Invalid window: must be an integer between 1 and 60\n"),
            ("/api/v0/web/graph?window=x", 400, "Invalid window: must be an integer between 1 and 60\n"),
            ("/api/v0/web/graph/mod.x", 500, "module not found\n"),
        ] {
            let answer = api.get(path).await;
            assert_eq!((answer.status, answer.text()), (status, text), "{path}");
        }
        let mut graph = api.open("/api/v0/web/graph?window=1", &[]).await;
        emit(&api, 3).await;
        let text = loop {
            let text = graph.until("|;|").await;
            if text != "[]|;|" {
                break text;
            }
        };
        let feeds: Value = serde_json::from_str(text.trim_end_matches("|;|")).expect("json");
        let expected = json!([{
            "componentID": "test.emit.from", "targetComponentIDs": ["test.keep.to"], "type": "loki_log",
            "rate": 3.0,
        }]);
        assert_eq!(feeds, expected);
        let sole = "test.source \"alone\" {\n\tforward_to = []\n}\n";
        api.write_config(&format!("{FLOW}{DEBUGGING}{sole}"));
        assert_eq!(api.post("/-/reload").await.status, 200);
        for (path, status, text) in [
            ("/api/v0/web/debug/nobody", 500, "component not found\n"),
            (
                "/api/v0/web/debug/test.source.alone",
                500,
                "the component \"test.source.alone\" does not support live debugging\n",
            ),
            ("/api/v0/web/debug/test.keep.to?sampleProb=2", 400, "Invalid sample probability\n"),
            ("/api/v0/web/debug/test.keep.to?sampleProb=x", 400, "Invalid sample probability\n"),
        ] {
            let answer = api.get(path).await;
            assert_eq!((answer.status, answer.text()), (status, text), "{path}");
        }
        let list = api.get("/api/v0/web/components").await.json();
        let enabled: Vec<(&str, bool)> = list
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| (one["localID"].as_str().unwrap_or_default(), one["liveDebuggingEnabled"] == true))
            .collect();
        assert_eq!(enabled, [("test.emit.from", true), ("test.keep.to", true), ("test.source.alone", false)]);
        let mut debug = api.open("/api/v0/web/debug/test.keep.to?sampleProb=1", &[]).await;
        emit(&api, 1).await;
        let text = debug.until("|;|").await;
        assert!(text.starts_with("[IN] ") && text.contains("line 1") && !text.contains("hush"), "{text}");
        api.end().await;
    });
}

#[test]
fn targets_are_searched_and_paged() {
    run(async {
        let config = "test.targets \"many\" {\n\tcount = 1000\n\n\trule {\n\t\taction = \"keep\"\n\t}\n\n\trule {\n\t\taction = \"drop\"\n\t}\n}\n\
                      test.targets \"few\" {\n\tcount = 5\n}\n";
        let api = Fixture::new(config).await;
        let all = api.get("/api/v0/corten/targets").await.json();
        assert_eq!((&all["total"], &all["matched"]), (&json!(1005), &json!(1005)));
        assert_eq!(all["rows"].as_array().map(Vec::len), Some(50));
        assert_eq!(
            all["states"],
            json!({"up": 201, "down": 201, "unknown": 201, "dropped": 201, "refused": 201, "found": 0})
        );
        assert_eq!(all["components"], json!([["test.targets.few", 5], ["test.targets.many", 1000]]));
        let matched = async |query: &str| {
            let answer = api.get(&format!("/api/v0/corten/targets?{query}")).await;
            answer.json()["matched"].as_u64().unwrap_or_else(|| panic!("{query}: {}", answer.text()))
        };
        for (query, expected) in [
            ("q=pod-99", 11),
            ("q=instance%3Dhost999:80", 1),
            ("q=__meta_zone%3Dnorth", 1005),
            ("q=state%3Dup", 201),
            ("q=refused&state=down", 201),
            ("only=down", 201),
            ("only=down,refused", 402),
            ("only=down,refused&state=up", 0),
            ("q=nothing", 0),
            ("component=test.targets.few", 5),
            ("component=test.targets.few&state=up", 1),
            ("q=__meta_kubernetes_pod_name%3D~%22pod-..%22&component=test.targets.many", 90),
        ] {
            assert_eq!(matched(query).await, expected, "{query}");
        }
        let dropped =
            api.get("/api/v0/corten/targets?q=pod-3&state=dropped&component=test.targets.many&limit=1").await.json();
        assert_eq!(
            dropped["rows"],
            json!([{
                "component": "test.targets.many", "state": "dropped", "url": "http://host3:80/metrics", "labels": null,
                "discovered": {
                    "__address__": "host3:80", "__meta_kubernetes_pod_name": "pod-3", "__meta_zone": "north",
                    "__param_token": "(secret)",
                },
                "rule": {
                    "component": "test.targets.many", "index": 1, "action": "drop", "line": 8,
                    "file": api.config_path().display().to_string(),
                },
                "lastScrape": null, "durationMs": null, "samples": null, "error": null,
            }])
        );
        let one = api.get("/api/v0/corten/targets?only=down&each=1").await.json();
        assert_eq!((&one["matched"], one["rows"].as_array().map(Vec::len)), (&json!(201), Some(2)));
        assert_eq!(one["components"], json!([["test.targets.few", 1], ["test.targets.many", 200]]));
        let last = api.get("/api/v0/corten/targets?sort=-samples&limit=1&offset=1").await.json();
        assert_eq!((&last["rows"][0]["samples"], &last["rows"][0]["durationMs"]), (&json!(990), &json!(990.0)));
        assert_eq!(
            api.get("/api/v0/corten/targets?limit=100000").await.json()["rows"].as_array().map(Vec::len),
            Some(200)
        );
        api.end().await;
    });
}

#[test]
fn a_search_that_waits_for_a_component_ends_in_time_and_holds_up_nothing() {
    run(async {
        let api = Fixture::new("test.slow \"it\" { }\ntest.targets \"few\" {\n\tcount = 5\n}\n").await;
        let asked = async |of: &str| api.get(&format!("/api/v0/component/test.slow.it/{of}")).await.text().to_owned();
        let late = async {
            // All else is answered meanwhile.
            let deadline = Instant::now() + Duration::from_secs(60);
            while asked("asked").await != "1" {
                assert!(Instant::now() < deadline, "it is not asked");
            }
            assert_eq!(api.get("/api/v0/corten/components/test.targets.few").await.status, 200);
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(11)).await;
            tokio::time::resume();
        };
        let (answer, ()) = tokio::join!(api.get("/api/v0/corten/targets"), late);
        assert_eq!((answer.status, answer.json()), (503, json!({"error": "the search took too long"})));
        // What nobody asks for any more ends, and others have their turn.
        asked("open").await;
        let answer = api.get("/api/v0/corten/targets").await;
        assert_eq!((answer.status, &answer.json()["total"]), (200, &json!(6)));
        assert_eq!(asked("asked").await, "2");
        api.end().await;
    });
}

#[test]
fn nobody_finds_out_what_targets_hide() {
    run(async {
        let api = Fixture::new("test.targets \"some\" {\n\tcount = 3\n}\n").await;
        let answer = api.get("/api/v0/corten/targets").await;
        assert!(answer.text().contains("__param_token") && !answer.text().contains("hush"), "{}", answer.text());
        assert!(!api.get("/api/v0/corten/components/test.targets.some").await.text().contains("hush"));
        for query in ["q=hush", "q=__param_token%3Dhush-1", "q=__param_token%3D~hush.*"] {
            let answer = api.get(&format!("/api/v0/corten/targets?{query}")).await.json();
            assert_eq!(answer["matched"], 0, "{query}");
        }
        assert_eq!(api.get("/api/v0/corten/targets?q=__param_token%3D~.*secret.*").await.json()["matched"], 3);
        api.end().await;
    });
}

#[test]
fn everything_of_the_interface_is_behind_authentication_and_below_the_prefix() {
    run(async {
        let auth = "http {\n\tauth {\n\t\tbasic {\n\t\t\tusername = \"u\"\n\t\t\tpassword = \"p\"\n\t\t}\n\t}\n}\n";
        let api = Fixture::with_prefix(&format!("{FLOW}{DEBUGGING}{auth}"), "/a/b/").await;
        let paths = [
            "/a/b/",
            "/a/b/component/test.keep.to",
            "/a/b/api/v0/corten/graph",
            "/a/b/api/v0/corten/stream",
            "/a/b/api/v0/corten/balance",
            "/a/b/api/v0/corten/config",
            "/a/b/api/v0/corten/plan",
            "/a/b/api/v0/corten/targets",
            "/a/b/api/v0/corten/tap/test.keep.to",
            "/a/b/api/v0/corten/docs/test.keep",
            "/a/b/api/v0/corten/components/test.keep.to",
            "/a/b/api/v0/corten/components/test.keep.to/metrics",
            "/a/b/api/v0/corten/components/test.keep.to/history",
            "/a/b/api/v0/corten/peers",
            "/a/b/api/v0/web/components",
            "/a/b/api/v0/web/debug/test.keep.to",
            "/a/b/api/v0/web/graph",
        ];
        for path in paths {
            let refused = api.open(path, &[]).await;
            assert_eq!(refused.status, 401, "{path}");
            let spelled = api.open(&path.replacen("/b/", "/%62/", 1), &[]).await;
            assert_eq!(spelled.status, 401, "{path}");
            let passed = api.open(path, &[("authorization", "Basic dTpw")]).await;
            assert_eq!(passed.status, 200, "{path}");
            // Without the prefix there is nothing.
            let beside = api.open(path.trim_start_matches("/a/b"), &[("authorization", "Basic dTpw")]).await;
            assert_eq!(beside.status, 404, "{path}");
        }
        assert_eq!(api.post_own("/a/b/api/v0/corten/reload", &[]).await.status, 401);
        let reloaded = api.post_own("/a/b/api/v0/corten/reload", &[("authorization", "Basic dTpw")]).await;
        assert_eq!(reloaded.status, 200);
        api.end().await;
    });
}

#[test]
fn the_last_minutes_are_remembered_without_anybody_watching() {
    run(async {
        let api = Fixture::new(FLOW).await;
        let started = Instant::now();
        loop {
            emit(&api, 50).await;
            let history = api.get("/api/v0/corten/components/test.keep.to/history").await.json();
            assert_eq!(history["stepMs"], 5_000);
            let series = history["series"].as_array().expect("series");
            let found = series.iter().find(|one| one["edge"] == "test.emit.from>test.keep.to loki_log");
            let rates = found.and_then(|one| one["items"].as_array()).cloned().unwrap_or_default();
            if rates.iter().any(|rate| rate.as_f64() > Some(0.0)) {
                let store = "test.keep.to>test.keep.to#store loki_log";
                assert!(series.iter().any(|one| one["edge"] == store), "{history}");
                assert_eq!(found.and_then(|one| one["bytes"].as_array()).map(Vec::len), Some(rates.len()));
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{history}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // Whoever begins to watch is told at once how much there was, although nothing passes now.
        let mut stream = api.open("/api/v0/corten/stream", &[]).await;
        let first = stream.event("edges").await;
        let row = first["d"].as_array().and_then(|rows| rows.iter().find(|row| row[0] == 0)).expect("edge 0").clone();
        assert!(row[1].as_f64() > Some(0.0) && row[2].as_f64() > Some(0.0), "{first}");
        let second = stream.event_where("edges", |edges| edges["d"][0][1] == 0.0).await;
        assert_eq!(second["d"][0], json!([0, 0.0, 0.0, 0.0, 0.0, 0.0]));
        let other = api.get("/api/v0/corten/components/test.emit.from/history").await.json();
        assert_eq!(other["series"].as_array().map(Vec::len), Some(1), "{other}");
        api.end().await;
    });
}
