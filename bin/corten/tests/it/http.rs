//! The HTTP server as strangers, browsers and the careless use it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::support::{Corten, Folder, WAIT_MAX, free_port};

/// Sends bytes on a connection of their own, and gives what is answered until the server ends it.
fn raw(corten: &Corten, bytes: &[u8]) -> String {
    answered(&send(corten, bytes))
}

/// As [`raw`], and says that no more bytes come.
fn raw_whole(corten: &Corten, bytes: &[u8]) -> String {
    let stream = send(corten, bytes);
    // The server may have closed it already.
    let _ = stream.shutdown(Shutdown::Write);
    answered(&stream)
}

fn send(corten: &Corten, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(&corten.address).expect("it listens");
    stream.set_read_timeout(Some(WAIT_MAX)).expect("a limit");
    // The server may have had enough before all is written.
    let _ = stream.write_all(bytes);
    stream
}

fn answered(mut stream: &TcpStream) -> String {
    let mut answer = Vec::new();
    // A server that closes without having read all shows as an error behind the answer.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn request(corten: &Corten, method: &str, target: &str) -> String {
    raw(corten, format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[test]
fn what_is_no_http_ends_its_own_connection_only() {
    let corten = Corten::start("");
    let tls_hello = [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[0xab; 512]].concat();
    let http2 = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0xff; 4096]].concat();
    for bytes in
        [&b"\0\0\0\0"[..], b"garbage\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", &tls_hello, &http2, b""]
    {
        let answer = raw_whole(&corten, bytes);
        assert!(!answer.contains(" 200 "), "{bytes:?}: {answer}");
        assert_eq!(corten.get("/-/ready").status, 200, "{bytes:?}");
    }
    corten.end();
}

#[test]
fn heads_that_are_too_long_are_refused() {
    let corten = Corten::start("");
    let long = "x".repeat(200 << 10);
    let many: String = (0..2_000).map(|index| format!("H{index}: v\r\n")).collect();
    for head in [
        format!("GET /-/ready HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
        format!("GET /-/ready HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
    ] {
        let answer = raw(&corten, head.as_bytes());
        assert!(matches!(status(&answer), "431" | "none"), "{}", &answer[..answer.len().min(200)]);
    }
    let answer = raw(&corten, format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    assert!(matches!(status(&answer), "414" | "431" | "none"), "{}", &answer[..answer.len().min(200)]);
    assert_eq!(corten.get("/-/ready").status, 200);
    corten.end();
}

#[test]
fn clients_that_never_finish_their_requests_hold_up_nobody() {
    let corten = Corten::start("");
    let slow: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = TcpStream::connect(&corten.address).expect("it listens");
            stream.write_all(b"GET /-/ready HTTP/1.1\r\nHo").expect("it reads");
            stream
        })
        .collect();
    assert_eq!(corten.get("/-/ready").status, 200);
    assert_eq!(corten.get("/metrics").status, 200);
    drop(slow);
    // A body that is announced and does not come is not waited for.
    let answer = request(&corten, "POST", "/-/reload\u{20}HTTP/1.1\r\nContent-Length: 100000\r\nX:");
    assert_eq!(status(&answer), "200", "{answer}");
    corten.end();
}

#[test]
fn no_spelling_of_a_path_leads_out_of_its_place() {
    let corten = Corten::start("local.file \"a\" {\n\tfilename = \"/etc/hostname\"\n}\n");
    for target in [
        "/../../etc/passwd",
        "/component/../../../etc/passwd",
        "/component/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/component/local.file.a/../local.file.b",
        "/component/",
        "/component",
        "//",
        "/index.html",
        "/assets/../../../etc/passwd",
        "/assets/..%2f..%2f..%2fetc%2fpasswd",
        "/api/v0/corten/../../../metrics",
        "/api/v0/corten/components/../../../metrics",
        "/api/v0/corten/docs/../../../etc/passwd",
        "/api/v0/web/components/../../../../metrics",
        "/api/v0/web/components/",
        "/api/v0/component/../../../metrics",
        "/api/v0/component/local.file.a/metrics",
        "/api/v0/component/",
        "/debug/pprof/heap",
        "/graphql",
        "/%00",
        "/%zz",
    ] {
        let answer = request(&corten, "GET", target);
        // What is no file is a place of the web interface, which is one page.
        assert!(matches!(status(&answer), "200" | "400" | "404"), "{target}: {answer}");
        assert!(status(&answer) != "200" || answer.contains("<base href=\"/\""), "{target}: {answer}");
        assert!(!answer.contains("root:") && !answer.contains("alloy_build_info"), "{target}: {answer}");
    }
    // A path that begins with the whole address means the same.
    assert_eq!(status(&request(&corten, "GET", "http://other:1/-/ready")), "200");
    corten.end();
}

#[test]
fn other_methods_than_get_are_answered() {
    let corten = Corten::start("");
    for target in ["/", "/metrics", "/-/ready", "/-/healthy", "/api/v0/web/components"] {
        let get = request(&corten, "GET", target);
        let head = request(&corten, "HEAD", target);
        assert_eq!((status(&get), status(&head)), ("200", "200"), "{target}");
        assert!(body(&head).is_empty() && !body(&get).is_empty(), "{target}: {head}");
        assert!(head.to_ascii_lowercase().contains("\r\ncontent-length: "), "{head}");
    }
    for method in ["OPTIONS", "TRACE", "DELETE", "PROPFIND"] {
        assert_eq!(status(&request(&corten, method, "/-/ready")), "200", "{method}");
        let answer = request(&corten, method, "/-/reload");
        assert!(
            answer.contains("<base href=\"/\"") && !answer.contains("reloaded"),
            "{method}: only GET and POST reload"
        );
    }
    assert_eq!(status(&raw(&corten, b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\n\r\n")), "404");
    assert_eq!(status(&raw(&corten, b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")), "404");
    // HTTP/1.0 needs no host.
    assert!(raw(&corten, b"GET /-/ready HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200 OK\r\n"));
    corten.end();
}

#[test]
fn no_answer_and_no_line_shows_a_secret() {
    let config = |level: &str| {
        format!(
            r#"logging {{
	level = "{level}"
}}

local.file "key" {{
	filename  = "KEY"
	is_secret = true
}}

prometheus.remote_write "a" {{
	external_labels = {{
		made = string.format("x-%s", convert.nonsensitive("open")),
	}}

	endpoint {{
		url = "http://user:hush-url@127.0.0.1:9/w?token=hush-query"

		authorization {{
			type        = "Bearer"
			credentials = local.file.key.content
		}}
	}}

	endpoint {{
		url = "http://127.0.0.1:9/other"

		basic_auth {{
			username = "u"
			password = "hush-password"
		}}
	}}
}}
"#
        )
    };
    let folder = Folder::new("");
    let key = folder.path().join("key");
    std::fs::write(&key, "hush-file").expect("a file");
    let config = |level: &str| config(level).replace("KEY", &key.display().to_string());
    folder.write(&config("debug"));
    let corten = Corten::start_in(folder, &[]);
    let mut all = String::new();
    for path in [
        "/",
        "/api/v0/corten/graph",
        "/api/v0/corten/balance",
        "/api/v0/corten/config",
        "/api/v0/corten/plan",
        "/api/v0/corten/components/prometheus.remote_write.a",
        "/api/v0/corten/components/prometheus.remote_write.a/metrics",
        "/api/v0/corten/components/prometheus.remote_write.a/history",
        "/api/v0/corten/components/local.file.key",
        "/api/v0/corten/targets",
        "/api/v0/web/components",
        "/api/v0/web/components/prometheus.remote_write.a",
        "/api/v0/web/components/local.file.key",
        "/metrics",
        "/-/healthy",
    ] {
        let answer = corten.get(path);
        assert!(answer.body.len() > 10, "{path}: {answer:?}");
        all.push_str(&answer.body);
    }
    assert!(all.contains("(secret)") && all.contains("external_labels"), "{all}");
    let refused = corten.reload(&config("debug").replace("\"http://127.0.0.1:9/other\"", "local.file.key.content + 1"));
    assert_eq!(refused.status, 400, "{refused:?}");
    all.push_str(&refused.body);
    let refused = corten.reload(
        &config("debug").replace("password = \"hush-password\"", "password = 1\n\t\t\tx = local.file.key.content"),
    );
    all.push_str(&refused.body);
    assert_eq!(refused.status, 400, "{refused:?}");
    // The texts that were refused and what they would change are shown as well.
    for path in ["/api/v0/corten/config", "/api/v0/corten/plan"] {
        let answer = corten.get(path);
        assert!(answer.body.contains("(secret)"), "{path}: {answer:?}");
        all.push_str(&answer.body);
    }
    all.push_str(&corten.end().join("\n"));
    let at = all.find("hush");
    assert!(at.is_none(), "{}", &all[at.unwrap_or_default().saturating_sub(200)..]);
}

/// Answers each request with an error that repeats what it was sent, and says what else it knows, until it is dropped.
fn talker(says: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("a port").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                let mut piece = [0; 4096];
                // Heads of requests are short, and whoever is refused need not be heard out.
                while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut piece) {
                        Ok(1..) if seen.len() < 100_000 => seen.extend_from_slice(&piece),
                        _ => return,
                    }
                }
                let head = String::from_utf8_lossy(&seen);
                let sent = head.lines().filter(|line| line.to_ascii_lowercase().starts_with("authorization"));
                let body = format!("{says}; {}", sent.collect::<Vec<_>>().join("; "));
                let answer = format!(
                    "HTTP/1.1 400 Bad Request\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                // Whoever asked may be gone.
                let _ = stream.write_all(answer.as_bytes());
                let _ = stream.shutdown(Shutdown::Write);
                while matches!(stream.read(&mut piece), Ok(1..)) {}
            });
        }
    });
    port
}

#[test]
fn what_an_endpoint_repeats_of_a_request_is_not_in_the_log() {
    let port = talker("the password hush-password is wrong, and so is \"hush \\\\ token\"");
    let folder = Folder::new("");
    let file = folder.path().join("lines");
    std::fs::write(&file, "a line\n").expect("a file");
    folder.write(&format!(
        r#"prometheus.exporter.self "me" {{ }}

prometheus.scrape "me" {{
	targets         = prometheus.exporter.self.me.targets
	forward_to      = [prometheus.remote_write.out.receiver]
	scrape_interval = "200ms"
	scrape_timeout  = "200ms"
}}

prometheus.remote_write "out" {{
	endpoint {{
		url = "http://127.0.0.1:{port}/metrics"

		basic_auth {{
			username = "u"
			password = "hush-password"
		}}
	}}
}}

loki.source.file "lines" {{
	targets    = [{{__path__ = "{}"}}]
	forward_to = [loki.write.out.receiver, otelcol.receiver.loki.in.receiver]
}}

loki.write "out" {{
	endpoint {{
		url          = "http://127.0.0.1:{port}/logs"
		bearer_token = "hush \\ token"
	}}
}}

otelcol.receiver.loki "in" {{
	output {{
		logs = [otelcol.exporter.otlphttp.out.input]
	}}
}}

otelcol.auth.basic "out" {{
	username = "u"
	password = "hush-password"
}}

otelcol.exporter.otlphttp "out" {{
	client {{
		endpoint = "http://127.0.0.1:{port}"
		auth     = otelcol.auth.basic.out.handler
	}}
}}
"#,
        file.display()
    ));
    let corten = Corten::start_in(folder, &[]);
    for (sink, says) in [
        ("prometheus.remote_write.out", "the password (secret) is wrong"),
        ("loki.write.out", "the password (secret) is wrong"),
        ("otelcol.exporter.otlphttp.out", "HTTP Status Code 400"),
    ] {
        let started = std::time::Instant::now();
        while !corten.lines().iter().any(|line| line.contains(sink) && line.contains(says)) {
            assert!(started.elapsed() < WAIT_MAX, "{sink} says nothing: {:#?}", corten.lines());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    // What is gone still sends what it has, with the secrets that it had.
    let reloaded = corten.reload("loki.echo \"a\" { }\n");
    assert_eq!(reloaded.status, 200, "{reloaded:?}");
    let lines = corten.end().join("\n");
    for secret in ["hush", "dTpodXNo"] {
        let at = lines.find(secret);
        assert!(at.is_none(), "{}", &lines[at.unwrap_or_default().saturating_sub(300)..]);
    }
}

#[test]
fn a_page_of_another_site_whose_name_leads_here_sees_nothing_and_changes_nothing() {
    let ask = |corten: &Corten, method: &str, target: &str, host: &str| {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nX-Corten: 1\r\nConnection: close\r\n\r\n"
        );
        raw(corten, head.as_bytes())
    };
    let corten = Corten::start("");
    let port = corten.address.rsplit(':').next().expect("a port").to_owned();
    let evil = format!("evil.example:{port}");
    for (method, path) in [
        ("POST", "/api/v0/corten/reload"),
        ("GET", "/api/v0/corten/tap/http"),
        ("GET", "/api/v0/corten/stream"),
        ("GET", "/api/v0/corten/config"),
        ("GET", "/api/v0/web/components"),
        ("GET", "/api/v0/web/debug/http"),
        ("GET", "//api/v0/corten/graph"),
        ("GET", "/-/support?duration=1"),
    ] {
        let answer = ask(&corten, method, path, &evil);
        let fine = status(&answer) == "403" || path.starts_with("//") && !answer.contains("\"nodes\"");
        assert!(fine, "{path}: {answer}");
    }
    let answer = ask(&corten, "GET", "/api/v0/corten/graph", &evil);
    assert!(body(&answer).contains("--server.http.allowed-hosts"), "{answer}");
    for host in
        [&corten.address, &format!("localhost:{port}"), &format!("a.localhost:{port}"), &format!("[::1]:{port}")]
    {
        assert_eq!(status(&ask(&corten, "GET", "/api/v0/corten/graph", host)), "200", "{host}");
        assert_eq!(status(&ask(&corten, "POST", "/api/v0/corten/reload", host)), "200", "{host}");
    }
    // What the reference tells everybody is told to everybody.
    for path in ["/-/ready", "/metrics", "/-/reload", "/"] {
        assert_eq!(status(&ask(&corten, "GET", path, &evil)), "200", "{path}");
    }
    // A browser gives no page of another site the password for this one.
    let auth = "http {\n\tauth {\n\t\tbasic {\n\t\t\tusername = \"u\"\n\t\t\tpassword = \"p\"\n\t\t}\n\t}\n}\n";
    assert_eq!(corten.reload(auth).status, 200);
    assert_eq!(status(&ask(&corten, "GET", "/api/v0/corten/graph", &evil)), "401");
    let with = format!(
        "GET /api/v0/corten/graph HTTP/1.1\r\nHost: {evil}\r\nAuthorization: Basic dTpw\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(status(&raw(&corten, with.as_bytes())), "200");
    corten.end_as("dTpw");

    let corten = Corten::start_in(Folder::new(""), &["--server.http.allowed-hosts=corten.example, other.example"]);
    for (host, expected) in
        [("corten.example", "200"), ("other.example:80", "200"), ("localhost", "200"), ("evil.example", "403")]
    {
        assert_eq!(status(&ask(&corten, "GET", "/api/v0/corten/graph", host)), expected, "{host}");
    }
    corten.end();
    let (_, error) = Folder::new("").refused(&["--server.http.allowed-hosts=http://a/"]);
    assert!(error.contains("--server.http.allowed-hosts: \"http://a/\" is not the name of a host"), "{error}");
}

#[test]
fn the_quick_start_shows_samples_passing() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/quickstart.alloy");
    let example = std::fs::read_to_string(example).expect("the example");
    // The port may be taken on this machine; the program would wait for it, and so would the test.
    let port = free_port();
    let config = example.replace("12346", &port.to_string()).replace("\"5s\"", "\"1s\"");
    assert_ne!(config, example);
    let corten = Corten::start_in(Folder::new(&config), &["--stability.level=experimental"]);
    let line = corten.line("weather_temperature_celsius{city=\\\"Oslo\\\",example=\\\"quickstart\\\"");
    assert!(line.contains("component_id=prometheus.echo.log"), "{line}");
    corten.line("process_resident_memory_bytes{example=");
    let list = corten.get("/api/v0/corten/graph").body;
    for id in ["prometheus.scrape.all", "prometheus.relabel.few", "prometheus.remote_write.loop", "prometheus.echo.log"]
    {
        assert!(list.contains(&format!("\"id\":\"{id}\"")), "{id}: {list}");
    }
    corten.end();
}
