//! The program's own API and the commands that ask it: `corten plan` and `corten tap`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::support::{Corten, Folder, WAIT_MAX, corten, free_port};

/// A configuration with a source of log entries for tests: whoever posts a line to the port sends one.
fn pipeline(port: u16, more: &str) -> String {
    format!(
        "livedebugging {{\n\tenabled = true\n}}\n\n\
         loki.source.api \"in\" {{\n\thttp {{\n\t\tlisten_address = \"127.0.0.1\"\n\t\tlisten_port    = {port}\n\t}}\n\n\
         \tforward_to = [loki.process.mid.receiver]\n}}\n\n\
         loki.process \"mid\" {{\n\tforward_to = [loki.echo.out.receiver]\n\n\
         \tstage.drop {{\n\t\texpression          = \"^debug\"\n\t\tdrop_counter_reason = \"noise\"\n\t}}\n}}\n\n\
         loki.echo \"out\" {{ }}\n{more}"
    )
}

/// Sends lines to the source.
fn push(port: u16, lines: &[&str]) {
    let values: Vec<String> = lines
        .iter()
        .enumerate()
        .map(|(at, line)| format!("[\"{}\",\"{line}\"]", 1_700_000_000_000_000_000_u64 + at as u64))
        .collect();
    let body = format!("{{\"streams\":[{{\"stream\":{{\"job\":\"test\"}},\"values\":[{}]}}]}}", values.join(","));
    let request = format!(
        "POST /loki/api/v1/push HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let started = Instant::now();
    loop {
        match crate::support::exchange(&format!("127.0.0.1:{port}"), &request) {
            Ok(answer) => {
                assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
                return;
            }
            Err(error) => assert!(started.elapsed() < WAIT_MAX, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a command against a program: its status, standard output and standard error.
fn command(program: &Corten, arguments: &[&str]) -> (i32, String, String) {
    let address = format!("--address=http://{}", program.address);
    let output = corten(arguments).arg(&address).output().expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[test]
fn a_plan_tells_what_a_reload_would_change_and_its_status_says_whether() {
    let folder = Folder::new("");
    for name in ["one", "two"] {
        std::fs::write(folder.path().join(name), name).expect("a file");
    }
    let file = |name: &str| format!("filename  = \"{}\"", folder.path().join(name).display());
    let (one, two) = (file("one"), file("two"));
    folder.write(&format!("local.file \"a\" {{\n\t{one}\n}}\n\nloki.echo \"b\" {{ }}\n"));
    let program = Corten::start_in(folder, &[]);
    assert_eq!(command(&program, &["plan"]), (0, "2 untouched\n".to_owned(), String::new()));
    program.folder.write(&format!("local.file \"a\" {{\n\t{two}\n\tis_secret = true\n}}\n\nloki.echo \"c\" {{ }}\n"));
    let plan = "+ loki.echo.c\n~ local.file.a (filename, is_secret)\n- loki.echo.b\n0 untouched\n";
    assert_eq!(command(&program, &["plan"]), (2, plan.to_owned(), String::new()));
    let (status, out, _) = command(&program, &["plan", "--json"]);
    assert_eq!(status, 2);
    let plan: serde_json::Value = serde_json::from_str(&out).expect("json");
    assert_eq!((&plan["changed"], &plan["removed"][0]["id"]), (&true.into(), &"loki.echo.b".into()));
    program.folder.write("loki.echo \"b\" {\n\tx = 1\n}\n");
    let place = program.folder.config_text();
    let (status, out, error) = command(&program, &["plan"]);
    let expected =
        format!("{place}:2:2: unrecognized attribute name \"x\"\nError: the configuration would be refused\n");
    assert_eq!((status, out.as_str(), error), (1, "", expected));
    program.folder.write("loki.echo {\n");
    let (status, _, error) = command(&program, &["plan"]);
    assert!(status == 1 && error.starts_with(&format!("{place}:2:1: expected }}, got EOF\n")), "{status} {error}");
    program.end();
}

#[test]
fn what_never_happened_stands_in_no_balance_unless_it_is_asked_for() {
    let port = free_port();
    let program = Corten::start(&pipeline(port, "\nloki.echo \"idle\" { }\n"));
    push(port, &["one"]);
    program.line("entry=one");
    program.balanced();
    let rows = |path: &str| {
        let balance: serde_json::Value = serde_json::from_str(&program.get(path).body).expect("json");
        let components = balance["components"].as_array().expect("components").clone();
        components.into_iter().map(|of| of["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    let used = ["loki.echo.out", "loki.process.mid", "loki.source.api.in"];
    let mut found = rows("/api/v0/corten/balance");
    found.sort();
    assert_eq!(found, used);
    assert!(rows("/api/v0/corten/balance?all=true").contains(&"loki.echo.idle".to_owned()));
    let page = program.get("/api/v0/corten/components/loki.echo.idle").body;
    let page: serde_json::Value = serde_json::from_str(&page).expect("json");
    assert_eq!(page["rows"], serde_json::json!([]));
    let metrics = program.get("/metrics").body;
    let of = |id: &str| format!("corten_component_items_total{{component_id=\"{id}\"");
    assert!(metrics.contains(&of("loki.echo.out")) && !metrics.contains(&of("loki.echo.idle")), "{metrics}");
    program.end();
}

#[test]
fn each_way_out_says_what_went_over_it_also_where_reloads_add_and_remove_some() {
    let port = free_port();
    let config = |outs: &[&str]| {
        let to: Vec<String> = outs.iter().map(|name| format!("loki.echo.{name}.receiver")).collect();
        let more: String = outs
            .iter()
            .filter(|name| **name != "out")
            .fold(String::new(), |more, name| more + &format!("\nloki.echo \"{name}\" {{ }}\n"));
        pipeline(port, &more).replace("[loki.echo.out.receiver]", &format!("[{}]", to.join(", ")))
    };
    let program = Corten::start(&config(&["out"]));
    let mut sent = 0;
    let mut push_more = || {
        push(port, &["one", "two"]);
        sent += 2;
        sent
    };
    push_more();
    for (outs, expected) in [
        (&["out", "b"][..], &[("loki.echo.b", 2), ("loki.echo.out", 4)][..]),
        (&["out", "c", "b"], &[("loki.echo.b", 4), ("loki.echo.c", 2), ("loki.echo.out", 6)]),
        (&["out"], &[("loki.echo.out", 8)]),
        (&["b", "out"], &[("loki.echo.b", 2), ("loki.echo.out", 10)]),
    ] {
        let reloaded = program.reload(&config(outs));
        assert_eq!(reloaded.status, 200, "{reloaded:?}");
        let sent = push_more();
        program.balanced();
        let page = program.get("/api/v0/corten/components/loki.process.mid").body;
        let page: serde_json::Value = serde_json::from_str(&page).expect("json");
        let ways = page["edgesOut"].as_array().expect("edges").iter();
        let mut ways: Vec<(&str, u64)> =
            ways.map(|way| (way["to"].as_str().expect("an id"), way["taken"].as_u64().expect("a count"))).collect();
        ways.sort_unstable();
        assert_eq!((ways.as_slice(), &page["rows"][0]["out"]), (expected, &sent.into()), "{outs:?}");
    }
    program.end();
}

#[test]
fn commands_say_why_they_cannot_ask() {
    let nobody = corten(&["plan", "--address=http://127.0.0.1:1"]).output().expect("the program runs");
    let error = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(nobody.status.code() == Some(1) && error.contains("connection refused"), "{error}");
    let auth = "http {\n\tauth {\n\t\tbasic {\n\t\t\tusername = \"u\"\n\t\t\tpassword = \"hush\"\n\t\t}\n\t}\n}\n";
    let folder = Folder::new(auth);
    let password = folder.path().join("password");
    std::fs::write(&password, "hush\n").expect("a file");
    let program = Corten::start_in(folder, &["--server.http.ui-path-prefix=/deep/down"]);
    let file = format!("--password-file={}", password.display());
    let asks = "Error: the program that runs asks for a user: --user and --password-file\n";
    let (status, _, error) = command(&program, &["plan", "--path-prefix=/deep/down"]);
    assert_eq!((status, error.as_str()), (1, asks));
    let (status, out, error) = command(&program, &["plan", "--path-prefix=/deep/down/", "--user=u", &file]);
    assert_eq!((status, out.as_str()), (0, "1 untouched\n"), "{error}");
    let (status, _, error) = command(&program, &["plan", "--user=u", &file]);
    assert_eq!((status, error.as_str()), (1, "Error: the answer has status 404 Not Found\n"));
    let (status, _, error) = command(&program, &["plan", &file]);
    assert_eq!((status, error.as_str()), (1, "Error: --password-file needs --user\n"));
    let (status, _, error) = command(&program, &["tap"]);
    assert_eq!((status, error.as_str()), (1, "Error: accepts 1 arg(s), received 0\n"));
    let disabled =
        "Error: the live debugging service is disabled. Check the documentation to find out how to enable it\n";
    let (status, _, error) = command(&program, &["tap", "http", "--path-prefix=/deep/down", "--user=u", &file]);
    assert_eq!((status, error.as_str()), (1, disabled));
    program.end_unasked();
}

#[test]
fn commands_know_a_program_by_its_authority_and_show_it_a_certificate() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let folder = Folder::new("");
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let issue = |name: &str| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        let cert = params.signed_by(&key, &authority).expect("a certificate");
        (write(&format!("{name}.pem"), cert.pem()), write(&format!("{name}.key"), key.serialize_pem()))
    };
    let ca = write("ca.pem", authority.pem());
    let ((cert, key), (own_cert, own_key)) = (issue("server"), issue("client"));
    folder.write(&format!(
        "http {{\n\ttls {{\n\t\tcert_file = \"{cert}\"\n\t\tkey_file = \"{key}\"\n\t\tclient_ca_file = \"{ca}\"\n\
         \t\tclient_auth_type = \"RequireAndVerifyClientCert\"\n\t}}\n}}\n"
    ));
    let program = Corten::start_in(folder, &["--stability.level=experimental", "--server.http.enable-graphql"]);
    let address = program.address.replace("127.0.0.1", "localhost");
    let run = |arguments: &[&str]| {
        let output = corten(arguments).output().expect("the program runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    };
    let flag = |name: &str, value: &str| format!("--{name}={value}");
    let (https, bare) = (flag("address", &format!("https://{address}")), flag("address", &address));
    let (ca, cert, key) = (flag("ca-file", &ca), flag("cert-file", &own_cert), flag("key-file", &own_key));
    let untouched = (0, "1 untouched\n".to_owned(), String::new());
    assert_eq!(run(&["plan", &https, &ca, &cert, &key]), untouched);
    assert_eq!(run(&["plan", &bare, &ca, &cert, &key]), untouched);
    assert_eq!(run(&["plan", &bare, "--insecure-skip-verify", &cert, &key]), untouched);
    let (status, _, error) = run(&["tap", "http", &https, &ca, &cert, &key]);
    assert!(status == 1 && error.contains("the live debugging service is disabled"), "{error}");
    let endpoint = flag("endpoint", &format!("https://{address}/graphql"));
    let (status, out, error) = run(&["gql", &endpoint, &ca, &cert, &key, "alloy { isReady }"]);
    assert!(status == 0 && out.contains("\"isReady\": true"), "{error}");
    for (flags, expected) in [
        (vec![&https, &cert, &key], "UnknownIssuer"),
        (vec![&https, &ca, &cert], "--cert-file and --key-file need each other"),
        (vec![&flag("address", "http://localhost:1"), &ca], "certificates are only looked at where --address begins"),
        (vec![&https, &flag("ca-file", "/none")], "/none"),
    ] {
        let flags: Vec<&str> = flags.into_iter().map(String::as_str).collect();
        let (status, out, error) = run(&[&["plan"], flags.as_slice()].concat());
        assert!(status == 1 && out.is_empty() && error.contains(expected), "{flags:?}: {out}{error}");
    }
    // With TLS 1.3 the server refuses after the handshake, when the request may be on its way already.
    let (status, out, error) = run(&["plan", &https, &ca]);
    assert!(status == 1 && out.is_empty() && error.contains("CertificateRequired"), "{out}{error}");
    program.end_unasked();
}

/// What is sent first, what later, and that no more is sent.
const FIRST: u8 = 1;
const LATER: u8 = 2;
const OVER: u8 = 3;

/// Has a sender end when this is dropped.
struct Ended<'p>(&'p AtomicU8);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(OVER, Ordering::Relaxed);
    }
}

#[test]
fn a_tap_prints_what_passes_until_it_is_interrupted() {
    let port = free_port();
    let program = Corten::start(&pipeline(port, ""));
    let address = format!("--address=http://{}", program.address);
    let mut child = corten(&["tap", "loki.process.mid", &address, "--filter=wanted"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    // Nobody says when it looks: entries are sent until it has seen some. They are fewer than are shown in a second.
    let phase = AtomicU8::new(FIRST);
    std::thread::scope(|scope| {
        // Also where an assertion fails.
        let _ended = Ended(&phase);
        scope.spawn(|| {
            while phase.load(Ordering::Relaxed) != OVER {
                let number = phase.load(Ordering::Relaxed);
                let wanted = format!("wanted {number} password=hunter2 \\u001b[31m");
                push(port, &[wanted.as_str(), "other", "debug wanted"]);
                std::thread::sleep(Duration::from_millis(250));
            }
        });
        let mut next = |start: &str, text: &str| loop {
            let line = lines.next().expect("a line").expect("text");
            if line.starts_with(start) && line.contains(text) {
                return line;
            }
        };
        let into = next("in  from loki.source.api.in: ", "wanted");
        assert!(into.contains(" password=(secret) \\u{1b}[31m") || into.contains("debug wanted"), "{into}");
        let out = next("out to loki.echo.out: ", "");
        assert!(out.contains("wanted 1 password=(secret)") && !out.contains("debug"), "{out}");
        // Once a second it is told how much was seen, before what passes then.
        std::thread::sleep(Duration::from_millis(1_500));
        phase.store(LATER, Ordering::Relaxed);
        next("out to loki.echo.out: ", "wanted 2 ");
    });
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    let mut error = String::new();
    child.stderr.take().expect("its errors").read_to_string(&mut error).expect("text");
    assert!(child.wait().expect("it ends").success(), "{error}");
    let counts: Vec<u64> = error.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect();
    let [passed, looked, matched, missed] = counts[..] else { panic!("{error}") };
    assert!(passed >= looked && looked >= matched && matched > 0 && missed == 0, "{error}");
    // It ends when nobody reads any more.
    let mut child = corten(&["tap", "loki.process.mid", &address])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    drop(child.stdout.take());
    let started = Instant::now();
    while child.try_wait().expect("a status").is_none() {
        assert!(started.elapsed() < WAIT_MAX, "it goes on");
        push(port, &["one more"]);
        std::thread::sleep(Duration::from_millis(100));
    }
    // A load ends it with the reason.
    let mut child = corten(&["tap", "loki.echo.out", &address, "--json", "--in"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    phase.store(FIRST, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let _ended = Ended(&phase);
        scope.spawn(|| {
            while phase.load(Ordering::Relaxed) != OVER {
                push(port, &["one more"]);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        lines.next().expect("it looks").expect("text");
    });
    assert_eq!(program.reload(&pipeline(port, "")).status, 200);
    let mut error = String::new();
    child.stderr.take().expect("its errors").read_to_string(&mut error).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
    assert!(error.ends_with("Error: the configuration was loaded again\n"), "{error}");
    program.end();
}

#[test]
fn the_balance_of_a_pipeline_closes_and_tells_what_was_dropped() {
    let port = free_port();
    let program = Corten::start(&pipeline(port, ""));
    push(port, &["one", "two", "debug three"]);
    program.line("entry=two");
    program.balanced();
    let balance: serde_json::Value = serde_json::from_str(&program.get("/api/v0/corten/balance").body).expect("json");
    assert_eq!(balance["closes"], true, "{balance:#}");
    let rows = balance["components"].as_array().expect("components");
    let mid = rows.iter().find(|of| of["id"] == "loki.process.mid").unwrap_or_else(|| panic!("{balance:#}"));
    assert_eq!((&mid["rows"][0]["taken"], &mid["rows"][0]["out"]), (&3.into(), &2.into()));
    assert_eq!(mid["rows"][0]["dropped"], serde_json::json!([["noise", 1]]));
    let metrics = program.get("/metrics").body;
    let line = "corten_component_dropped_items_total{component_id=\"loki.process.mid\",component_path=\"/\",reason=\"noise\",signal=\"loki_log\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    program.end();
    let program = Corten::start_in(Folder::new(&pipeline(free_port(), "")), &["--server.http.disable-ledger-metrics"]);
    let metrics = program.get("/metrics").body;
    assert!(metrics.contains("alloy_build_info") && !metrics.contains("corten_component_items_total"), "{metrics}");
    program.end();
}

#[test]
fn browsers_that_do_not_read_cost_little_memory() {
    let more: String = (0..100).map(|at| format!("loki.echo \"more{at}\" {{ }}\n")).collect();
    let port = free_port();
    let to: Vec<String> = (0..100).map(|at| format!("loki.echo.more{at}.receiver")).collect();
    let fan = format!("loki.relabel \"fan\" {{\n\tforward_to = [{}]\n}}\n", to.join(", "));
    let config =
        pipeline(port, &format!("{more}{fan}")).replace("[loki.echo.out.receiver]", "[loki.relabel.fan.receiver]");
    let program = Corten::start(&config);
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("its memory").to_owned();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
    };
    // What the first ones cost is not theirs alone: buffers, tables, the page.
    push(port, &["one"]);
    program.get("/api/v0/corten/graph");
    let open = || {
        let mut stream = TcpStream::connect(&program.address).expect("it listens");
        stream.write_all(b"GET /api/v0/corten/stream HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
        stream
    };
    let mut first = open();
    let mut start = [0; 64];
    first.read_exact(&mut start).expect("an answer");
    let before = resident();
    let unread: Vec<TcpStream> = (0..63).map(|_| open()).collect();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(8) {
        push(port, &["a", "b", "c"]);
        std::thread::sleep(Duration::from_millis(250));
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes for 63 that do not read");
    // They are all there are, and others are answered.
    let mut refused = open();
    let mut head = [0; 12];
    refused.read_exact(&mut head).expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 503");
    assert_eq!(program.get("/-/ready").status, 200);
    drop(unread);
    // Its end does not wait for those that still do not read.
    program.balanced();
    let started = Instant::now();
    program.end_unasked();
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

#[test]
fn the_graph_knows_what_goes_where_in_all_families() {
    let (grpc, http) = (free_port(), free_port());
    let folder = Folder::new(&format!(
        r#"logging {{
	write_to = [loki.echo.log.receiver]
}}

tracing {{
	write_to = [otelcol.exporter.debug.end.input]
}}

otelcol.receiver.otlp "in" {{
	grpc {{
		endpoint = "127.0.0.1:{grpc}"
	}}

	output {{
		metrics = [otelcol.exporter.prometheus.bridge.input]
		logs    = [otelcol.processor.batch.mid.input]
		traces  = [otelcol.processor.batch.mid.input, otelcol.exporter.debug.end.input]
	}}
}}

otelcol.processor.batch "mid" {{
	output {{
		logs   = [otelcol.exporter.debug.end.input]
		traces = [otelcol.exporter.debug.end.input]
	}}
}}

otelcol.exporter.debug "end" {{ }}

otelcol.exporter.prometheus "bridge" {{
	forward_to = [prometheus.relabel.keep.receiver]
}}

prometheus.relabel "keep" {{
	forward_to = []
}}

discovery.relabel "rules" {{
	targets = [{{"__address__" = "127.0.0.1:{http}"}}]
}}

prometheus.scrape "pull" {{
	targets    = discovery.relabel.rules.output
	forward_to = [prometheus.relabel.keep.receiver]
}}

loki.echo "log" {{ }}
"#
    ));
    let program = Corten::start_in(folder, &["--stability.level=experimental"]);
    let graph: serde_json::Value = serde_json::from_str(&program.get("/api/v0/corten/graph").body).expect("json");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let edges = graph["edges"].as_array().expect("edges").iter();
    let mut edges: Vec<String> = edges
        .filter(|edge| !text(&edge["to"]).contains('#'))
        .map(|edge| format!("{} > {}: {}", text(&edge["from"]), text(&edge["to"]), text(&edge["kind"])))
        .collect();
    edges.sort();
    assert_eq!(
        edges,
        [
            "discovery.relabel.rules > prometheus.scrape.pull: target",
            "logging > loki.echo.log: loki_log",
            "otelcol.exporter.prometheus.bridge > prometheus.relabel.keep: prometheus_metric",
            "otelcol.processor.batch.mid > otelcol.exporter.debug.end: otel_log",
            "otelcol.processor.batch.mid > otelcol.exporter.debug.end: otel_trace",
            "otelcol.receiver.otlp.in > otelcol.exporter.debug.end: otel_trace",
            "otelcol.receiver.otlp.in > otelcol.exporter.prometheus.bridge: otel_metric",
            "otelcol.receiver.otlp.in > otelcol.processor.batch.mid: otel_log",
            "otelcol.receiver.otlp.in > otelcol.processor.batch.mid: otel_trace",
            "prometheus.scrape.pull > prometheus.relabel.keep: prometheus_metric",
            "tracing > otelcol.exporter.debug.end: otel_trace",
        ]
    );
    program.end();
}
