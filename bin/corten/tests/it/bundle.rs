//! Support bundles of the program.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use corten_net::{Body, Client, ClientConfig, ClientOptions, TlsConfig};
use http::Request;

use crate::support::{Corten, Folder, WAIT_MAX, corten};

/// u:hush-of-the-config
const CREDENTIALS: &str = "dTpodXNoLW9mLXRoZS1jb25maWc=";
const SECRET: &str = "hush-of-the-config";

fn auth(more: &str) -> String {
    format!(
        "http {{\n\tauth {{\n\t\tbasic {{\n\t\t\tusername = \"u\"\n\t\t\tpassword = \"{SECRET}\"\n\t\t}}\n\t}}\n{more}}}\n"
    )
}

/// Sends a request and reads until the connection ends: the head and the body.
fn ask(corten: &Corten, path: &str, credentials: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(&corten.address).expect("it listens");
    stream.set_read_timeout(Some(WAIT_MAX)).expect("a limit");
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Basic {credentials}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).expect("text");
    let mut rest = &answer[end + 4..];
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return (head, rest.to_vec());
    }
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n").expect("the length of a chunk");
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).expect("text"), 16).expect("a length");
        if length == 0 {
            return (head, body);
        }
        body.extend(&rest[line + 2..line + 2 + length]);
        rest = &rest[line + 4 + length..];
    }
}

/// The files of an archive, read by the list at its end.
fn unzip(archive: &[u8]) -> BTreeMap<String, String> {
    let two = |at: usize| usize::from(u16::from_le_bytes(archive[at..at + 2].try_into().expect("two bytes")));
    let four = |at: usize| u32::from_le_bytes(archive[at..at + 4].try_into().expect("four bytes"));
    let end = archive.len() - 22;
    assert_eq!(&archive[end..end + 4], b"PK\x05\x06", "the end of an archive");
    let (entries, mut at) = (two(end + 10), four(end + 16) as usize);
    assert_eq!(at + four(end + 12) as usize, end, "the list goes up to the end");
    let mut files = BTreeMap::new();
    for _ in 0..entries {
        assert_eq!(&archive[at..at + 4], b"PK\x01\x02", "an entry");
        let (packed, length, name) = (four(at + 20) as usize, four(at + 24) as usize, two(at + 28));
        let (sum, offset) = (four(at + 16), four(at + 42) as usize);
        let name_at = at + 46;
        assert_eq!(&archive[offset..offset + 4], b"PK\x03\x04", "a file");
        assert_eq!(&archive[offset + 4..offset + 30], &archive[at + 6..at + 32], "its head says the same");
        assert_eq!(&archive[offset + 30..offset + 30 + name], &archive[name_at..name_at + name], "under the same name");
        let data = &archive[offset + 30 + name..offset + 30 + name + packed];
        let mut contents = Vec::new();
        match two(at + 10) {
            0 => contents.extend(data),
            8 => _ = flate2::read::DeflateDecoder::new(data).read_to_end(&mut contents).expect("its data"),
            method => panic!("method {method}"),
        }
        let mut found = flate2::Crc::new();
        found.update(&contents);
        assert_eq!((contents.len(), found.sum()), (length, sum), "the file is whole");
        let name_text = String::from_utf8(archive[name_at..name_at + name].to_vec()).expect("a name");
        assert!(files.insert(name_text, String::from_utf8(contents).expect("text")).is_none(), "there once");
        at = name_at + name + two(at + 30) + two(at + 32);
    }
    assert_eq!(at, end);
    files
}

/// The file of that name in a bundle.
fn file<'f>(files: &'f BTreeMap<String, String>, name: &str) -> &'f str {
    files.get(&format!("alloy-support-bundle/{name}")).unwrap_or_else(|| panic!("no {name}: {:?}", files.keys()))
}

#[test]
fn a_bundle_holds_what_helps_and_no_secret() {
    let folder = Folder::new("");
    folder.write(&format!(
        "{}\nlogging   {{\n\tlevel = \"debug\"\n}}\n\nprometheus.remote_write \"a\" {{\n\tendpoint {{\n\t\turl = \
         \"http://user:hush-of-the-url@127.0.0.1:9/w\"\n\n\t\tbasic_auth {{\n\t\t\tusername = \"u\"\n\t\t\tpassword = \
         sys.env(\"BUNDLE_TEST\")\n\t\t}}\n\t}}\n}}\n\nlocal.file \"f\" {{\n\tfilename = \"{}\"\n}}\n",
        auth(""),
        folder.config_text()
    ));
    let arguments = folder.run_arguments(&["--server.http.memory-addr=other.internal:1"]);
    let mut command = corten(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    command.env("BUNDLE_TEST", "hush-of-the-environment").env("HTTP_PROXY", "http://me:hush-of-the-proxy@127.0.0.1:1");
    command.env("GOGC", "hush-of-the-environment");
    let corten = Corten::start_by(command, folder);
    // The last line of the start is not to be among those that are written while the bundle is made.
    corten.line("Alloy is running");
    let started = Instant::now();
    let (head, archive) = std::thread::scope(|scope| {
        let bundle = scope.spawn(|| ask(&corten, "/-/support?duration=2", CREDENTIALS));
        // Lines while it is made: one with a secret of the configuration, one with what looks like one.
        let mut nth = 0;
        while !bundle.is_finished() {
            corten.get(&format!("/said/{SECRET}/{nth}"));
            corten.get("/said/Bearer%20hush-of-the-line-0123456789");
            nth += 1;
            std::thread::sleep(Duration::from_millis(50));
        }
        bundle.join().expect("an answer")
    });
    assert!(started.elapsed() >= Duration::from_millis(1_800), "it takes its time: {:?}", started.elapsed());
    let head = head.to_lowercase();
    for line in [
        "http/1.1 200 ok",
        "content-type: application/zip",
        "content-disposition: attachment; filename=\"alloy-support-bundle.zip\"",
    ] {
        assert!(head.lines().any(|found| found == line), "{line}: {head}");
    }
    let files = unzip(&archive);
    let names: Vec<&str> =
        files.keys().map(|name| name.strip_prefix("alloy-support-bundle/").expect("the folder")).collect();
    assert_eq!(
        names,
        [
            "README.txt",
            "alloy-components.json",
            "alloy-environment.txt",
            "alloy-logs.txt",
            "alloy-metadata.yaml",
            "alloy-metrics-sample-end.txt",
            "alloy-metrics-sample-start.txt",
            "alloy-peers.json",
            "alloy-runtime-flags.txt",
            "corten-balance.json",
            "corten-components.json",
            "corten-graph.json",
            "corten-last-load.json",
            "sources/config.alloy",
        ]
    );
    for (name, text) in &files {
        for secret in ["hush", "dTpodXNo"] {
            assert!(!text.contains(secret), "{secret} in {name}: {text}");
        }
        if name.ends_with(".json") {
            serde_json::from_str::<serde_json::Value>(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    let logs = file(&files, "alloy-logs.txt");
    assert!(logs.contains("failed to authenticate request\" service=http path=/said/(secret)/"), "{logs}");
    assert!(logs.contains("Bearer (secret)"), "{logs}");
    assert!(!logs.contains("Alloy is running"), "only what was written meanwhile: {logs}");
    let environment = file(&files, "alloy-environment.txt");
    for line in ["HTTP_PROXY=http://(secret)@127.0.0.1:1", "GOGC=(secret)", "GODEBUG="] {
        assert!(environment.lines().any(|found| found == line), "{line}: {environment}");
    }
    let flags = file(&files, "alloy-runtime-flags.txt");
    for line in [
        "server.http.memory-addr=other.internal:1",
        "stability.level=generally-available",
        "feature.component-shutdown-deadline=10m0s",
        "cluster.enabled=false",
        "config.extra-args=",
    ] {
        assert!(flags.lines().any(|found| found == line), "{line}: {flags}");
    }
    let metadata = file(&files, "alloy-metadata.yaml");
    let keys: Vec<&str> = metadata.lines().filter_map(|line| line.split(':').next()).collect();
    assert!(keys.starts_with(&["build_version", "os", "architecture", "uptime"]), "{metadata}");
    for name in ["alloy-metrics-sample-start.txt", "alloy-metrics-sample-end.txt"] {
        assert!(file(&files, name).contains("alloy_component_controller_running_components"), "{name}");
    }
    // As the formatter lays it out.
    let source = file(&files, "sources/config.alloy");
    assert!(source.contains("\nlogging {\n\tlevel = \"debug\"\n}\n"), "{source}");
    assert!(source.contains("password = \"(secret)\""), "{source}");
    assert!(file(&files, "alloy-components.json").contains("\"localID\":\"prometheus.remote_write.a\""));
    assert!(file(&files, "alloy-peers.json").contains("\"isSelf\":true"));
    assert!(file(&files, "corten-balance.json").contains("\"closes\":"));
    assert!(file(&files, "corten-components.json").contains("\"id\":\"local.file.f\""));
    corten.end_as(CREDENTIALS);
}

#[test]
fn a_duration_that_cannot_be_is_refused_and_one_request_waits_for_the_other() {
    let corten = Corten::start("");
    for (query, expected) in [
        (
            "duration=x",
            "duration value (in seconds) should be a positive integer: strconv.Atoi: parsing \"x\": invalid syntax\n",
        ),
        ("duration=0", "duration value (in seconds) should be larger than 1\n"),
        ("duration=31", "duration value exceeds the server's write timeout\n"),
    ] {
        let answer = corten.get(&format!("/-/support?{query}"));
        assert_eq!((answer.status, &*answer.body), (400, expected), "{query}");
    }
    let (started, ask) = (Instant::now(), || ask(&corten, "/-/support?duration=1", ""));
    std::thread::scope(|scope| {
        let first = scope.spawn(ask);
        for (head, _) in [ask(), first.join().expect("an answer")] {
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        }
    });
    assert!(started.elapsed() >= Duration::from_millis(1_600), "one after the other: {:?}", started.elapsed());

    // Whoever goes away is not waited for.
    let mut gone = TcpStream::connect(&corten.address).expect("it listens");
    gone.write_all(b"GET /-/support HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
    gone.read_exact(&mut [0; 12]).expect("it answers");
    drop(gone);
    let started = Instant::now();
    let (head, _) = ask();
    assert!(head.starts_with("HTTP/1.1 200") && started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());

    // The end of the program is none that waits for a bundle.
    let mut late = TcpStream::connect(&corten.address).expect("it listens");
    late.write_all(b"GET /-/support HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it reads");
    // The answer begins when the request is read.
    let mut answer = vec![0; 12];
    late.read_exact(&mut answer).expect("it answers");
    let started = Instant::now();
    corten.end_unasked();
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    // How the connection ends does not matter, but that its end is not that of an archive.
    let _ = late.read_to_end(&mut answer);
    assert!(
        answer.starts_with(b"HTTP/1.1 200") && !answer.ends_with(b"0\r\n\r\n"),
        "a part of an archive that says so"
    );
}

#[test]
fn a_bundle_that_nobody_wants_made_is_refused_with_the_reason() {
    let corten = Corten::start_in(Folder::new(""), &["--server.http.disable-support-bundle"]);
    let answer = corten.get("/-/support?duration=1");
    let expected = "support bundle generation is disabled; it can be re-enabled by removing the \
                    --server.http.disable-support-bundle flag";
    assert_eq!((answer.status, &*answer.body), (403, expected));
    assert!(answer.has_header("content-type: text/plain; charset=utf-8"), "{answer:?}");
    corten.end();
}

#[test]
fn neither_tls_nor_a_password_leaves_a_bundle_empty() {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let folder = Folder::new("");
    let (cert_file, key_file) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert_file, key.cert.pem()).expect("a file");
    std::fs::write(&key_file, key.signing_key.serialize_pem()).expect("a file");
    let tls = format!(
        "\n\ttls {{\n\t\tcert_file = \"{}\"\n\t\tkey_file  = \"{}\"\n\t}}\n",
        cert_file.display(),
        key_file.display()
    );
    folder.write(&auth(&tls));
    let corten = Corten::start_in(folder, &["--server.http.ui-path-prefix=/deep"]);
    let port = corten.address.rsplit(':').next().expect("a port");
    let url = format!("https://127.0.0.1:{port}/-/support?duration=1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let archive = runtime.block_on(async {
        let tls_config =
            TlsConfig { ca_pem: key.cert.pem(), server_name: "localhost".to_owned(), ..TlsConfig::default() };
        let config = ClientConfig { tls_config, ..ClientConfig::default() };
        let client = Client::new(config, ClientOptions::default()).await.expect("a client");
        let refused = client.request(Request::get(&url).body(Body::empty()).expect("a request")).await;
        assert_eq!(refused.expect("an answer").status().as_u16(), 401);
        let request = Request::get(&url).header("authorization", format!("Basic {CREDENTIALS}"));
        let answer = client.request(request.body(Body::empty()).expect("a request")).await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        answer.into_body().read(64 << 20).await.expect("a body").to_vec()
    });
    let files = unzip(&archive);
    for name in ["alloy-metrics-sample-start.txt", "alloy-metrics-sample-end.txt"] {
        assert!(file(&files, name).contains("alloy_build_info"), "{name}");
    }
    assert!(file(&files, "alloy-peers.json").contains("\"isSelf\":true"));
    assert!(file(&files, "sources/config.alloy").contains("key_file  = "), "{files:?}");
    corten.end_unasked();
}
