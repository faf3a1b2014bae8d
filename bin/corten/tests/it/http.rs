//! The HTTP server as strangers, browsers and the careless use it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::support::{Corten, Folder};

/// How long an answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

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
    stream.set_read_timeout(Some(ANSWER_WAIT)).expect("a limit");
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
    raw(corten, format!("{method} {target} HTTP/1.1\r\nHost: corten\r\nConnection: close\r\n\r\n").as_bytes())
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
        assert!(matches!(status(&answer), "400" | "404"), "{target}: {answer}");
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
        assert_eq!(status(&request(&corten, method, "/-/reload")), "404", "{method}: only GET and POST reload");
    }
    assert_eq!(status(&raw(&corten, b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\n\r\n")), "404");
    assert_eq!(status(&raw(&corten, b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")), "404");
    // HTTP/1.0 needs no host.
    assert!(raw(&corten, b"GET /-/ready HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200 OK\r\n"));
    corten.end();
}

#[test]
fn support_bundles_are_refused_with_the_reason() {
    let corten = Corten::start("");
    let answer = corten.get("/-/support");
    assert_eq!((answer.status, &*answer.body), (501, "support bundles are not implemented\n"));
    corten.end();
    let corten = Corten::start_in(Folder::new(""), &["--server.http.disable-support-bundle"]);
    let answer = corten.get("/-/support");
    let expected = "support bundle generation is disabled; it can be re-enabled by removing the \
                    --server.http.disable-support-bundle flag\n";
    assert_eq!((answer.status, &*answer.body), (403, expected));
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
        "/component/prometheus.remote_write.a",
        "/component/local.file.key",
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
    all.push_str(&corten.end().join("\n"));
    let at = all.find("hush");
    assert!(at.is_none(), "{}", &all[at.unwrap_or_default().saturating_sub(200)..]);
}

#[test]
fn the_quick_start_shows_samples_passing() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/quickstart.alloy");
    let example = std::fs::read_to_string(example).expect("the example");
    // The port may be taken on this machine; the program would wait for it, and so would the test.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let config = example.replace("12346", &port.to_string()).replace("\"5s\"", "\"1s\"");
    assert_ne!(config, example);
    let corten = Corten::start_in(Folder::new(&config), &["--stability.level=experimental"]);
    let line = corten.line("weather_temperature_celsius{city=\\\"Oslo\\\",example=\\\"quickstart\\\"");
    assert!(line.contains("component_id=prometheus.echo.log"), "{line}");
    corten.line("process_resident_memory_bytes{example=");
    let page = corten.get("/").body;
    for id in ["prometheus.scrape.all", "prometheus.relabel.few", "prometheus.remote_write.loop", "prometheus.echo.log"]
    {
        assert!(page.contains(&format!("<a href=\"/component/{id}\">{id}</a>")), "{id}: {page}");
    }
    corten.end();
}
