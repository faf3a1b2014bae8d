//! The web interface in a real browser, against the real program with real pipelines.
//!
//! What is looked at is written in `ui/e2e/*.e2e.mjs`; what there is to see is said here.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::loki::Loki;
use crate::support::{Corten, Folder, fetched, not_run};
use crate::torture::net::Counting;

/// The folder of the sources of the interface.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui")
}

/// Whether the packages of the interface are there; if not, that is said.
fn has_packages() -> bool {
    let there = sources().join("node_modules/playwright-core/package.json").is_file();
    there
        || not_run::<()>("not run: the packages of the web interface are not there; fetch them with `cargo xtask ui`")
            .is_some()
}

/// Names under which a browser may be on the path.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Tells `run.mjs` where the browser is that was fetched, unless the machine has one. Whether there is any.
fn with_browser(command: &mut Command) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| BROWSERS.iter().any(|name| dir.join(name).is_file())) {
        return true;
    }
    let Some((_, dir)) = fetched("browser") else { return false };
    command.env("BROWSER_MODULES", dir.join("browser/node_modules"));
    // The package brings the libraries that the browser loads, for machines that have none of them, when it is told that it
    // runs on one of those.
    command.env("AWS_LAMBDA_JS_RUNTIME", "nodejs22.x");
    true
}

/// Runs walks through the pages of a program, and fails with what they did not find.
#[expect(clippy::print_stdout, reason = "figures are for who asks for them with --nocapture")]
fn walk(corten: &Corten, prefix: &str, walks: &[&str], auth: Option<&str>, expect: &Value) {
    if !has_packages() {
        return;
    }
    let mut command = Command::new("node");
    if !with_browser(&mut command) {
        return;
    }
    command.current_dir(sources()).arg("e2e/run.mjs");
    command.args(walks.iter().map(|walk| format!("e2e/{walk}.e2e.mjs")));
    command.arg(format!("http://{}{prefix}/", corten.address)).env("EXPECT", expect.to_string());
    if let Some(auth) = auth {
        command.env("AUTH", auth);
    }
    if let Some(shots) = std::env::var_os("UI_SCREENSHOTS") {
        command.arg(shots);
    }
    let output = command.stdin(Stdio::null()).output().expect("node runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong: Vec<&str> = said.lines().filter(|line| line.contains("\"ok\":false")).collect();
    assert!(
        output.status.success() && wrong.is_empty(),
        "{}\n{}\nthe program says:\n{}",
        wrong.join("\n"),
        String::from_utf8_lossy(&output.stderr),
        corten.lines().join("\n")
    );
    assert!(said.lines().last().is_some_and(|sum| sum.contains("\"passed\"")), "no walk came to its end: {said}");
    for figures in said.lines().filter(|line| line.contains("\"figures\"")) {
        println!("{figures}");
    }
}

/// What stands around the pipeline: a target that answers, a place for logs, and a file that grows.
struct Surroundings {
    target: Counting,
    loki: Loki,
    corten: Corten,
}

/// A page with series that a rule drops, and with a label that another one drops.
fn page(scrape: u64) -> String {
    format!(
        "# TYPE shop_orders_total counter\nshop_orders_total{{pod=\"a-1\",shop=\"north\"}} {scrape}\n\
         shop_orders_total{{pod=\"b-2\",shop=\"south\"}} {scrape}\n# TYPE go_goroutines gauge\ngo_goroutines 7\n"
    )
}

/// The secret of the configuration, which must be seen nowhere.
const SECRET: &str = "hunter2-in-the-clear";

fn config(target: &str, loki: &str, folder: &Path, more: &str) -> String {
    format!(
        r#"livedebugging {{
  enabled = true
}}

discovery.relabel "fleet" {{
  targets = [
    {{"__address__" = "{target}", "env" = "prod", "__meta_team" = "shop"}},
    {{"__address__" = "127.0.0.1:1", "env" = "prod", "__meta_team" = "shop"}},
    {{"__address__" = "127.0.0.1:2", "env" = "test", "__meta_team" = "shop"}},
  ]

  rule {{
    source_labels = ["__meta_team"]
    target_label  = "team"
  }}

  rule {{
    source_labels = ["env"]
    regex         = "test"
    action        = "drop"
  }}
}}

prometheus.scrape "fleet" {{
  targets         = discovery.relabel.fleet.output
  forward_to      = [prometheus.relabel.cardinality.receiver]
  scrape_interval = "1s"
  scrape_timeout  = "900ms"
}}

prometheus.relabel "cardinality" {{
  rule {{
    regex  = "pod"
    action = "labeldrop"
  }}

  rule {{
    source_labels = ["__name__"]
    regex         = "go_.*"
    action        = "drop"
  }}

  forward_to = [prometheus.remote_write.dead.receiver]
}}

prometheus.remote_write "dead" {{
  endpoint {{
    name         = "dead"
    url          = "http://127.0.0.1:3/api/v1/push"
    bearer_token = "{SECRET}"
  }}
}}

loki.source.file "app" {{
  targets    = [{{"__path__" = "{file}", "job" = "app"}}]
  forward_to = [loki.process.app.receiver]
}}

loki.process "app" {{
  stage.drop {{
    expression          = "level=debug"
    drop_counter_reason = "debug line"
  }}

  stage.static_labels {{
    values = {{ "team" = "shop" }}
  }}

  forward_to = [loki.write.central.receiver]
}}

loki.write "central" {{
  endpoint {{
    name = "central"
    url  = "http://{loki}/loki/api/v1/push"
  }}
}}
{more}"#,
        file = folder.join("app.log").display(),
    )
}

/// Starts the pipeline, and waits until data has come through.
fn start(more: &[&str], block: &str) -> Surroundings {
    let (target, loki) = (Counting::start(page), Loki::start());
    let folder = Folder::new("");
    grow(folder.path());
    folder.write(&config(&target.address().to_string(), &loki.address().to_string(), folder.path(), block));
    let corten = Corten::start_in(folder, more);
    loki.entry("level=error");
    target.scraped_more(2);
    Surroundings { target, loki, corten }
}

/// Writes lines to the file, of which one in three is dropped.
fn grow(folder: &Path) {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("app.log")).expect("a file");
    for at in 0..10 {
        let lines = format!(
            "level=info msg=\"order {at}\"\nlevel=debug msg=noise\nlevel=error password={SECRET} msg=\"order {at} failed\"\n"
        );
        file.write_all(lines.as_bytes()).expect("it is written");
    }
}

/// Does something ten times a second until this is dropped.
struct Repeated {
    ended: std::sync::mpsc::Sender<()>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Repeated {
    fn start(act: impl Fn() + Send + 'static) -> Self {
        let (ended, over) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let pause = std::time::Duration::from_millis(100);
            while over.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                act();
            }
        });
        Repeated { ended, thread: Some(thread) }
    }

    /// Lets the file of a folder grow.
    fn growing(folder: &Path) -> Self {
        let folder = folder.to_owned();
        Repeated::start(move || grow(&folder))
    }
}

impl Drop for Repeated {
    fn drop(&mut self) {
        // Whoever has ended already does not hear it.
        let _ = self.ended.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn the_pipeline_is_seen_with_what_is_wrong_in_it() {
    let Surroundings { corten, .. } = start(&[], "");
    let _growing = Repeated::growing(corten.folder.path());
    let expect = json!({
        "overview": {
            "boxes": {"prometheus.scrape.fleet": "fleet", "prometheus.remote_write.dead": "dead", "loki.write.central": "central"},
            "count": 8,
            "unhealthy": [{"id": "prometheus.remote_write.dead", "text": "connection refused"}],
            "drops": [{"id": "loki.process.app", "reason": "debug line"}],
            "waiting": {"id": "prometheus.remote_write.dead#dead", "answer": "refused"},
            "failing": {"id": "prometheus.scrape.fleet", "text": "1 target of prometheus.scrape.fleet fails", "error": "refused"},
            "load": null,
            "along": ["prometheus.scrape.fleet", "prometheus.relabel.cardinality"],
            "search": {"text": "central", "id": "loki.write.central"},
            "module": null,
            "phone": "fleet",
        },
    });
    walk(&corten, "", &["overview"], None, &expect);
}

#[test]
fn a_component_tells_all_that_is_known_of_it() {
    let Surroundings { target, corten, .. } = start(&[], "");
    let _growing = Repeated::growing(corten.folder.path());
    let expect = json!({
        "component": {
            "id": "prometheus.relabel.cardinality",
            "kinds": ["Prometheus metrics"],
            "references": ["prometheus.remote_write.dead"],
            "referencedBy": ["prometheus.scrape.fleet"],
            "receivesFrom": ["prometheus.scrape.fleet"],
            "sendsTo": ["prometheus.remote_write.dead"],
            "dropped": "rule 2 drop",
            "source": "labeldrop",
            "arguments": "labeldrop",
            "metrics": ["prometheus_forwarded_samples_total"],
            "debug": {
                "id": "prometheus.scrape.fleet", "heading": "Targets",
                "rows": [["http://127.0.0.1:1/metrics", "down", "refused"], [format!("http://{}/metrics", target.address()), "up"]],
            },
            "sink": {
                "id": "prometheus.remote_write.dead", "state": "unhealthy", "message": "connection refused",
                "end": "dead", "answer": "refused", "pending": true,
            },
            "secret": {"id": "prometheus.remote_write.dead", "name": "bearer_token", "hidden": SECRET},
        },
    });
    walk(&corten, "", &["component"], None, &expect);
}

#[test]
fn what_passes_is_seen_before_and_after_and_without_secrets() {
    let Surroundings { corten, .. } = start(&[], "");
    let _growing = Repeated::growing(corten.folder.path());
    let expect = json!({
        "live": {
            "id": "loki.process.app", "filter": "level=error", "filtered": "level=error", "hidden": SECRET, "field": "job",
        },
    });
    walk(&corten, "", &["live"], None, &expect);
}

#[test]
fn targets_are_found_with_what_became_of_them() {
    let Surroundings { target, corten, .. } = start(&[], "");
    let address = target.address().to_string();
    let expect = json!({
        "targets": {
            "total": 4,
            "states": {"up": 2, "down": 1, "dropped": 1, "refused": 0, "found": 0},
            "down": {"q": "127.0.0.1:1 ", "url": "http://127.0.0.1:1/metrics", "error": "refused"},
            "dropped": {
                "q": "127.0.0.1:2", "address": "127.0.0.1:2", "rule": "rule 2", "action": "drop",
                "component": "discovery.relabel.fleet", "place": "config.alloy:", "label": "env",
            },
            "changed": {"q": address, "url": format!("http://{address}/metrics"), "added": "job", "removed": "__meta_team"},
            "component": "prometheus.scrape.fleet",
        },
    });
    walk(&corten, "", &["targets"], None, &expect);
}

#[test]
fn a_reload_is_foreseen_refused_and_done() {
    let Surroundings { target, loki, corten } = start(&[], "");
    let addresses = (target.address().to_string(), loki.address().to_string());
    let running = config(&addresses.0, &addresses.1, corten.folder.path(), "");
    let wrong = running.replace("prometheus.remote_write.dead.receiver]", "prometheus.remote_write.daed.receiver]");
    assert_eq!(corten.reload(&wrong).status, 400);
    let line = wrong.lines().position(|line| line.contains("daed")).expect("a line") + 1;
    let next = running
        .replace("loki.process \"app\"", "loki.process \"shop\"")
        .replace("loki.process.app.receiver", "loki.process.shop.receiver")
        .replace("\"team\" = \"shop\"", "\"team\" = \"store\"");
    corten.folder.write(&next);
    let expect = json!({
        "config": {
            "files": ["config.alloy"],
            "refused": {"line": line, "message": "daed"},
            "plan": {
                "created": ["loki.process.shop"], "updated": ["loki.source.file.app"], "affected": [],
                "removed": ["loki.process.app"], "argument": null, "says": null, "wrong": null,
            },
            "reloads": ["ok"],
        },
    });
    walk(&corten, "", &["config"], None, &expect);
    corten.line("config reloaded");
}

#[test]
fn the_balance_is_seen_to_close() {
    let Surroundings { corten, .. } = start(&[], "");
    let expect = json!({
        "balance": {
            "components": [{"id": "loki.process.app", "taken": 30, "out": 20}],
            "dropped": [{"id": "loki.process.app", "reason": "debug line"}],
            "edges": [{"from": "prometheus.scrape.fleet", "to": "prometheus.relabel.cardinality"}],
            "ends": [{"component": "prometheus.remote_write.dead", "name": "dead"}],
        },
    });
    walk(&corten, "", &["balance"], None, &expect);
}

#[test]
fn files_say_how_far_they_are_read_and_why_some_are_not() {
    let loki = Loki::start();
    let folder = Folder::new("");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir(folder.path().join("logs")).expect("a folder");
    // A folder is what nobody can read as a file.
    std::fs::create_dir(folder.path().join("folder.txt")).expect("a folder");
    for (name, lines) in [("logs/app.log", 20), ("logs/other.log", 1), ("logs/skip.log", 1)] {
        std::fs::write(folder.path().join(name), "level=info msg=order\n".repeat(lines)).expect("a file");
    }
    std::fs::write(folder.path().join("slow.txt"), format!("{}\n", "x".repeat(1023)).repeat(HELD_LINES))
        .expect("a file");
    let config = format!(
        r#"livedebugging {{
  enabled = true
}}

local.file_match "logs" {{
  path_targets = [
    {{"__path__" = "{logs}", "__path_exclude__" = "**/skip.log", "job" = "shop"}},
    {{"job" = "nowhere"}},
  ]
  sync_period = "1s"
}}

loki.source.file "logs" {{
  targets    = local.file_match.logs.targets
  forward_to = [loki.write.central.receiver]
}}

loki.source.file "fixed" {{
  targets = [
    {{"__path__" = "{folder_path}", "job" = "shop"}},
    {{"__path__" = "{absent}", "job" = "shop"}},
    {{"__path__" = "{other}", "job" = "shop"}},
  ]
  forward_to = [loki.write.central.receiver]
}}

loki.source.file "slow" {{
  targets    = [{{"__path__" = "{slow}", "job" = "slow"}}]
  forward_to = [loki.write.dead.receiver]
}}

loki.write "central" {{
  endpoint {{
    name = "central"
    url  = "http://{central}/loki/api/v1/push"
  }}
}}

loki.write "dead" {{
  endpoint {{
    name                = "dead"
    url                 = "http://127.0.0.1:3/loki/api/v1/push"
    max_backoff_retries = 0
    max_backoff_period  = "1s"

    queue_config {{
      capacity = "64KiB"
    }}
  }}

  wal {{
    enabled = false
  }}
}}
"#,
        logs = path("logs/*.log"),
        folder_path = path("folder.txt"),
        absent = path("absent.txt"),
        other = path("logs/skip.log"),
        slow = path("slow.txt"),
        central = loki.address(),
    );
    folder.write(&config);
    let (fixed, absent, slow) = (path("folder.txt"), path("absent.txt"), path("slow.txt"));
    let (app, skip) = (path("logs/app.log"), path("logs/skip.log"));
    let corten = Corten::start_in(folder, &["--stability.level=experimental"]);
    loki.entry("msg=order");
    // What is written while nothing is taken is seen as what is missing.
    let mut file = std::fs::OpenOptions::new().append(true).open(&slow).expect("a file");
    file.write_all("x\n".repeat(500_000).as_bytes()).expect("it is written");
    let expect = json!({
        "files": {
            "reader": "loki.source.file.logs",
            "read": app,
            "unreadable": null,
            "absent": null,
            "behind": {"id": "loki.source.file.slow", "path": slow, "bytes": 1_000_000, "why": "is not taken"},
            "match": {"id": "local.file_match.logs", "count": 2, "excluded": skip, "pathless": "nowhere"},
            "live": ["app.log", "other.log"],
        },
    });
    walk(&corten, "", &["files"], None, &expect);
    let expect = json!({
        "files": {
            "reader": "loki.source.file.fixed",
            "read": skip,
            "unreadable": {"path": fixed, "error": "is a directory"},
            "absent": absent,
            "behind": null,
            "match": null,
            "live": null,
        },
    });
    walk(&corten, "", &["files"], None, &expect);
}

/// How many lines of a kilobyte there are that a sink does not take: more than a file may have on its way.
const HELD_LINES: usize = 12 << 10;

/// A configuration of so many pipelines, each of a scrape with two stages and of a file with three, and their two sinks: seven
/// components each.
fn large(pipelines: usize, folder: &Path) -> String {
    let pipeline = |at: usize| {
        format!(
            r#"
prometheus.scrape "shop_{at}" {{
  targets         = [{{"__address__" = "127.0.0.1:1", "pod" = "shop-{at}"}}]
  forward_to      = [prometheus.relabel.shop_{at}.receiver]
  scrape_interval = "10m"
}}

prometheus.relabel "shop_{at}" {{
  rule {{
    regex  = "pod"
    action = "labeldrop"
  }}
  forward_to = [prometheus.relabel.shop_{at}_names.receiver]
}}

prometheus.relabel "shop_{at}_names" {{
  rule {{
    source_labels = ["__name__"]
    regex         = "go_.*"
    action        = "drop"
  }}
  forward_to = [prometheus.remote_write.mimir.receiver]
}}

loki.source.file "shop_{at}" {{
  targets    = [{{"__path__" = "{file}", "job" = "shop_{at}"}}]
  forward_to = [loki.process.shop_{at}.receiver]
}}

loki.process "shop_{at}" {{
  stage.static_labels {{
    values = {{ "team" = "shop" }}
  }}
  forward_to = [loki.process.shop_{at}_levels.receiver]
}}

loki.process "shop_{at}_levels" {{
  stage.drop {{
    expression = "level=debug"
  }}
  forward_to = [loki.relabel.shop_{at}.receiver]
}}

loki.relabel "shop_{at}" {{
  rule {{
    regex  = "filename"
    action = "labeldrop"
  }}
  forward_to = [loki.write.central.receiver]
}}
"#,
            file = folder.join("app.log").display(),
        )
    };
    let sinks = r#"
prometheus.remote_write "mimir" {
  endpoint {
    name = "mimir"
    url  = "http://127.0.0.1:3/api/v1/push"
  }
}

loki.write "central" {
  endpoint {
    name = "central"
    url  = "http://127.0.0.1:3/loki/api/v1/push"
  }
}
"#;
    (0..pipelines).map(pipeline).chain([sinks.to_owned()]).collect()
}

#[test]
fn five_hundred_components_are_seen_moved_read_and_searched() {
    let folder = Folder::new("");
    grow(folder.path());
    folder.write(&large(72, folder.path()));
    let corten = Corten::start_in(folder, &[]);
    let expect = json!({
        "large": {
            "count": 508,
            "ids": ["prometheus.remote_write.mimir", "loki.write.central", "loki.relabel.shop_71"],
            "search": {"text": "prometheus.scrape.shop_33", "id": "prometheus.scrape.shop_33"},
            "pipeline": {
                "id": "loki.process.shop_7",
                "on": ["loki.source.file.shop_7", "loki.process.shop_7_levels", "loki.relabel.shop_7", "loki.write.central"],
                "off": ["loki.process.shop_8", "prometheus.scrape.shop_7", "prometheus.remote_write.mimir"],
            },
        },
    });
    walk(&corten, "", &["large"], None, &expect);
}

#[test]
fn attributes_of_opentelemetry_are_seen_by_their_keys() {
    let folder = Folder::new(
        r#"livedebugging {
  enabled = true
}

otelcol.receiver.otlp "shop" {
  http {
    endpoint = "127.0.0.1:0"
  }

  output {
    traces = [otelcol.processor.attributes.shop.input]
  }
}

otelcol.processor.attributes "shop" {
  action {
    key    = "env"
    value  = "prod"
    action = "insert"
  }

  output {
    traces = [otelcol.exporter.debug.shop.input]
  }
}

otelcol.exporter.debug "shop" { }
"#,
    );
    let corten = Corten::start_in(folder, &["--stability.level=experimental"]);
    let address = crate::otlp::listening(&corten, "Starting HTTP server");
    let _sending = Repeated::start(move || {
        let body = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"GET","kind":2,"startTimeUnixNano":"1","endTimeUnixNano":"2","attributes":[{"key":"http.route","value":{"stringValue":"/orders"}},{"key":"http.status_code","value":{"intValue":"200"}}]}]}]}]}"#;
        let request = format!(
            "POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        // The program may have ended.
        let _ = crate::support::exchange(&address, &request);
    });
    let expect = json!({"live-otlp": {"id": "otelcol.processor.attributes.shop"}});
    walk(&corten, "", &["live-otlp"], None, &expect);
}

#[test]
fn where_nobody_may_look_the_page_says_how_to_allow_it_below_a_prefix_and_behind_a_password() {
    let block =
        "\nhttp {\n  auth {\n    basic {\n      username = \"admin\"\n      password = \"secret\"\n    }\n  }\n}\n";
    let folder = Folder::new(&format!("loki.echo \"a\" {{ }}\n{block}"));
    let corten = Corten::start_in(folder, &["--server.http.ui-path-prefix=/a/b"]);
    assert_eq!(corten.get("/a/b/").status, 401);
    walk(&corten, "/a/b", &["live-disabled"], Some("admin:secret"), &json!({"live-disabled": {"id": "loki.echo.a"}}));
}

/// All files of a folder with their content, by their paths within it.
fn files(dir: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let content = std::fs::read(&path).expect("a file");
                found.insert(path.strip_prefix(dir).expect("within").to_owned(), content);
            }
        }
    }
    found
}

#[test]
fn the_bundle_is_what_the_sources_give_and_small() {
    if !has_packages() {
        return;
    }
    let out = tempfile::tempdir().expect("a folder");
    let vite = sources().join("node_modules/vite/bin/vite.js");
    let mut command = Command::new("node");
    command.current_dir(sources()).arg(vite).args(["build", "--logLevel", "error", "--emptyOutDir", "--outDir"]);
    let output = command.arg(out.path()).stdin(Stdio::null()).output().expect("node runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (built, kept) = (files(out.path()), files(&sources().join("dist")));
    let names = |files: &std::collections::BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&built), names(&kept), "ui/dist is not what `cargo xtask ui` builds");
    for (name, content) in &built {
        assert!(kept[name] == *content, "{} is not what `cargo xtask ui` builds", name.display());
    }
    let packed: usize = kept
        .values()
        .map(|content| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            packer.write_all(content).expect("it is packed");
            packer.finish().expect("it is packed").len()
        })
        .sum();
    assert!(packed < 200 << 10, "the bundle has {packed} bytes packed");
}
