//! Authentication and TLS of the API, switched while it runs.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use corten_net::{Body, Client, ClientConfig, ClientOptions, TlsConfig};
use http::Request;

use crate::support::{Corten, Folder, WAIT_MAX};

/// u:p
const RIGHT: &str = "dTpw";
/// u:q
const WRONG: &str = "dTpx";

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// Asks with a client of the program's own; the status.
fn ask(url: String, tls_config: TlsConfig, options: ClientOptions) -> Result<u16, corten_net::Error> {
    run(async {
        let client = Client::new(ClientConfig { tls_config, ..ClientConfig::default() }, options).await?;
        let response = client.request(Request::get(url).body(Body::empty()).expect("a request")).await?;
        Ok(response.status().as_u16())
    })
}

#[test]
fn both_versions_of_http_are_spoken_in_clear_text() {
    let corten = Corten::start("");
    let url = format!("http://{}/-/ready", corten.address);
    let http2 = ClientOptions { http2_prior_knowledge: true, ..ClientOptions::default() };
    for options in [ClientOptions::default(), http2] {
        assert_eq!(ask(url.clone(), TlsConfig::default(), options).expect("an answer"), 200);
    }
    corten.end();
}

#[test]
fn authentication_is_switched_on_limited_and_off() {
    let corten = Corten::start("");
    assert_eq!(corten.get("/metrics").status, 200);
    let basic = "\t\tbasic {\n\t\t\tusername = \"u\"\n\t\t\tpassword = \"p\"\n\t\t}\n";
    let all = format!("http {{\n\tauth {{\n{basic}\t}}\n}}\n");
    assert_eq!(corten.reload(&all).status, 200);
    let refused = corten.get("/metrics");
    assert_eq!((refused.status, &*refused.body), (401, ""));
    assert!(refused.has_header("WWW-Authenticate: Basic realm=\"Restricted\""), "{refused:?}");
    assert_eq!(corten.get_as("/metrics", WRONG).status, 401);
    assert_eq!(corten.get_as("/metrics", RIGHT).status, 200);
    let line = corten.line("failed to authenticate request");
    assert!(line.contains("level=info") && line.contains("service=http") && line.contains("path=/metrics"), "{line}");

    corten.folder.write(&format!(
        "http {{\n\tauth {{\n{basic}\n\t\tfilter {{\n\t\t\tpaths = [\"/metrics\"]\n\t\t}}\n\t}}\n}}\n"
    ));
    assert_eq!(corten.get_as("/-/reload", RIGHT).status, 200);
    assert_eq!(corten.get("/metrics").status, 401);
    assert_eq!(corten.get("/-/ready").status, 200);

    // What is refused changes nothing about who may send requests.
    assert_eq!(corten.reload("http {\n\ttls { }\n}\n").status, 400);
    assert_eq!(corten.get("/metrics").status, 401);

    assert_eq!(corten.reload("").status, 200);
    assert_eq!(corten.get("/metrics").status, 200);
    corten.end();
}

#[test]
fn a_password_that_changes_in_its_file_counts_at_once() {
    let folder = Folder::new("");
    let file = folder.path().join("password");
    std::fs::write(&file, "p").expect("a file");
    folder.write(&format!(
        "local.file \"password\" {{\n\tfilename       = \"{}\"\n\tis_secret      = true\n\tdetector       = \"poll\"\n\
         \tpoll_frequency = \"20ms\"\n}}\n\nhttp {{\n\tauth {{\n\t\tbasic {{\n\t\t\tusername = \"u\"\n\t\t\tpassword = \
         local.file.password.content\n\t\t}}\n\t}}\n}}\n",
        file.display()
    ));
    let corten = Corten::start_in(folder, &[]);
    assert_eq!((corten.get_as("/", RIGHT).status, corten.get_as("/", WRONG).status), (200, 401));
    std::fs::write(&file, "q").expect("a file");
    let started = Instant::now();
    while corten.get_as("/", WRONG).status != 200 {
        assert!(started.elapsed() < WAIT_MAX, "the new password does not count: {:#?}", corten.lines());
    }
    assert_eq!(corten.get_as("/", RIGHT).status, 401);
    corten.end_as(WRONG);
}

#[test]
fn tls_is_switched_on_and_off_for_new_connections() {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let corten = Corten::start("");
    let (cert_file, key_file) = (corten.folder.path().join("cert.pem"), corten.folder.path().join("key.pem"));
    std::fs::write(&cert_file, key.cert.pem()).expect("a file");
    std::fs::write(&key_file, key.signing_key.serialize_pem()).expect("a file");
    let config = format!(
        "http {{\n\ttls {{\n\t\tcert_file = \"{}\"\n\t\tkey_file  = \"{}\"\n\t}}\n}}\n",
        cert_file.display(),
        key_file.display()
    );
    let mut old = TcpStream::connect(&corten.address).expect("it listens");
    old.set_read_timeout(Some(WAIT_MAX)).expect("a limit");
    let mut ask_on_old = || {
        old.write_all(b"GET /-/ready HTTP/1.1\r\nHost: corten\r\n\r\n").expect("it reads");
        let mut answer = [0; 15];
        old.read_exact(&mut answer).expect("it answers");
        // The rest comes with it, and is read so that the next answer begins at its beginning.
        let mut rest = Vec::new();
        while !rest.ends_with(b"Alloy is ready.\n") {
            let mut byte = [0];
            old.read_exact(&mut byte).expect("it answers");
            rest.extend(byte);
        }
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
    };
    ask_on_old();
    let reloaded = corten.reload(&config);
    assert_eq!(reloaded.status, 200, "{reloaded:?}");
    let line = corten.line("applying TLS config to HTTP server");
    assert!(line.ends_with(" level=info msg=\"applying TLS config to HTTP server\" service=http"), "{line}");
    let port = corten.address.rsplit(':').next().expect("a port");
    let tls = || TlsConfig { ca_pem: key.cert.pem(), server_name: "localhost".to_owned(), ..TlsConfig::default() };
    let https = |path: &str| ask(format!("https://127.0.0.1:{port}{path}"), tls(), ClientOptions::default());
    assert_eq!(https("/-/ready").expect("an answer"), 200);
    assert!(ask(format!("http://127.0.0.1:{port}/-/ready"), tls(), ClientOptions::default()).is_err());

    ask_on_old();

    corten.folder.write("");
    assert_eq!(https("/-/reload").expect("an answer"), 200);
    corten.line("applying non-TLS config to HTTP server");
    assert!(https("/-/ready").is_err());
    assert_eq!(corten.get("/-/ready").status, 200);
    corten.end();
}

#[test]
fn a_certificate_that_cannot_be_read_is_a_refused_reload() {
    let corten = Corten::start("");
    let refused =
        corten.reload("http {\n\ttls {\n\t\tcert_file = \"/nowhere\"\n\t\tkey_file  = \"/nowhere\"\n\t}\n}\n");
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("failed to read cert_file"), "{}", refused.body);
    assert_eq!(corten.get("/-/ready").status, 200);
    corten.end();
}
