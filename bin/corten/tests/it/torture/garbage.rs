//! What others may send instead of what they should.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::net::{Client, Counting, Server, push_head, read_request};
use super::push::receiver;
use super::push::{self, Pusher, Seen};
use super::sink::{Mood, Sink};
use super::{Rng, expect_ready, metric, resident_max, shared, until, wire};
use crate::support::{Corten, Folder};

/// The most resident memory that all of it may cost, in bytes.
const MEMORY_MAX: u64 = 300 << 20;

fn write(sink: &Sink) -> String {
    format!(
        "prometheus.remote_write \"out\" {{
	endpoint {{
		url = \"http://{}/api/v1/write\"
		queue_config {{
			batch_send_deadline = \"50ms\"
			max_shards          = 1
		}}
	}}
}}
",
        sink.address
    )
}

/// Writes until the other side has enough.
fn pour(stream: &mut TcpStream, piece: &[u8], times: usize) {
    for _ in 0..times {
        if stream.write_all(piece).is_err() {
            return;
        }
    }
}

const FOR_EVER: usize = usize::MAX;

/// The head of a good answer, with further headers.
fn head(more: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n{more}\r\n")
}

/// As many bytes of zeros or of something else as a page has, compressed.
fn gzip(piece: &[u8], times: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..times {
        encoder.write_all(piece).expect("memory takes it");
    }
    encoder.finish().expect("memory takes it")
}

/// What a target does with a connection whose request it has read.
type Misdeed = Box<dyn Fn(&mut TcpStream) + Send + Sync>;

/// What one target does, what its scrape is configured with, and what is said of it. Without words it is up.
struct Bad {
    name: &'static str,
    arguments: &'static str,
    misdeed: Misdeed,
    /// One of these stands in the error.
    words: &'static [&'static str],
}

fn bad(
    name: &'static str,
    words: &'static [&'static str],
    misdeed: impl Fn(&mut TcpStream) + Send + Sync + 'static,
) -> Bad {
    Bad { name, arguments: "", misdeed: Box::new(misdeed), words }
}

/// A target that sends bytes and closes.
fn sends(name: &'static str, words: &'static [&'static str], bytes: impl Into<Vec<u8>>) -> Bad {
    let bytes = bytes.into();
    bad(name, words, move |stream| pour(stream, &bytes, 1))
}

/// A target that sends a page of a stated length.
fn shows(name: &'static str, words: &'static [&'static str], more: &str, page: &[u8]) -> Bad {
    let head = head(&format!("{more}Content-Length: {}\r\n", page.len()));
    sends(name, words, [head.as_bytes(), page].concat())
}

const MIB: usize = 1 << 20;
const LATE: &[&str] = &["context deadline exceeded"];
/// What is said of an answer that ends too early.
const CUT: &[&str] = &["before the response was complete", "end of file", "unexpected EOF"];

fn bad_targets(rng: &mut Rng) -> Vec<Bad> {
    let gzipped = "Content-Encoding: gzip\r\n";
    let million: String = (0..1_000_000).map(|at| format!("l{at}=\"v\",")).collect();
    let endless = |piece: &'static [u8]| {
        move |stream: &mut TcpStream| {
            pour(stream, head("Transfer-Encoding: chunked\r\n").as_bytes(), 1);
            let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
            pour(stream, &chunk.repeat(1000), FOR_EVER);
        }
    };
    let mut cut_in_chunks = head("Transfer-Encoding: chunked\r\n").into_bytes();
    cut_in_chunks.extend_from_slice(b"20\r\nbad_metric 1\n");
    let big = |more: &str| head(&format!("{more}Content-Length: {}\r\n", 100 * MIB));
    let unique = |stream: &mut TcpStream, head: &str| {
        pour(stream, head.as_bytes(), 1);
        for at in 0..FOR_EVER {
            let lines: String = (0..100).map(|line| format!("bad_metric{{a=\"{at}\",b=\"{line}\"}} 1\n")).collect();
            if stream.write_all(lines.as_bytes()).is_err() {
                return;
            }
        }
    };
    let (big_head, big_too) = (big(""), big(""));
    vec![
        shows("random", &["expected", "invalid", "unexpected"], "", &rng.bytes(64 << 10)),
        sends("random_answer", &["invalid HTTP", "malformed HTTP"], rng.bytes(64 << 10)),
        sends("another_protocol", &["invalid HTTP", "malformed HTTP"], "SSH-2.0-OpenSSH_9.9\r\n"),
        sends("nothing", &["EOF", "closed", "reset"], ""),
        Bad {
            arguments: "body_size_limit = \"100KiB\"",
            ..bad("long_limited", &["body size limit exceeded"], move |stream| {
                unique(stream, &big_head);
            })
        },
        Bad {
            arguments: "sample_limit = 1000",
            ..bad("long_sampled", &["sample limit exceeded", "context deadline"], move |stream| {
                unique(stream, &big_too);
            })
        },
        bad("long_comments", LATE, move |stream| {
            pour(stream, big("").as_bytes(), 1);
            pour(stream, &b"# just a comment\n".repeat(1000), 6_000);
            std::thread::sleep(Duration::from_secs(3));
        }),
        shows("bomb_of_a_line", &["longer than the limit"], gzipped, &gzip(&[b'a'; MIB], 100)),
        shows("bomb_of_zeros", &["longer than the limit", "expected", "invalid"], gzipped, &gzip(&[0; MIB], 100)),
        shows("bomb_of_lines", LATE, gzipped, &gzip(&[b'\n'; MIB], 2_000)),
        shows("not_gzip", &["gzip: "], gzipped, &rng.bytes(1000)),
        shows("cut_gzip", &["gzip: "], gzipped, &gzip(b"bad_metric 1\n", 10)[..20]),
        shows("million_labels", &["longer than the limit"], "", format!("bad_metric{{{million}}} 1\n").as_bytes()),
        shows(
            "long_label",
            &["longer than the limit"],
            "",
            format!("bad_metric{{a=\"{}\"}} 1\n", "x".repeat(10 * MIB)).as_bytes(),
        ),
        shows("long_name", &["longer than the limit"], "", format!("{} 1\n", "x".repeat(10 * MIB)).as_bytes()),
        bad("slow_page", LATE, |stream| {
            pour(stream, head("Content-Length: 1000\r\n").as_bytes(), 1);
            while stream.write_all(b"#").is_ok() {
                std::thread::sleep(Duration::from_secs(1));
            }
        }),
        bad("slow_head", LATE, |stream| {
            for byte in head("").bytes().cycle() {
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        }),
        bad("silent", LATE, |_| std::thread::sleep(Duration::from_secs(5))),
        bad("endless_headers", &["head", "header", "too large", "too many"], |stream| {
            pour(stream, b"HTTP/1.1 200 OK\r\n", 1);
            for at in 0..FOR_EVER {
                if stream.write_all(format!("X-Header-{at}: {}\r\n", "x".repeat(100)).as_bytes()).is_err() {
                    return;
                }
            }
        }),
        bad("endless_header", &["head", "header", "too large", "too many"], |stream| {
            pour(stream, b"HTTP/1.1 200 OK\r\nX: ", 1);
            pour(stream, &[b'x'; 10_000], FOR_EVER);
        }),
        bad("endless_hints", &["too many 1xx informational responses"], |stream| {
            pour(stream, &b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000), FOR_EVER);
        }),
        bad("endless_chunks", LATE, endless(b"# nothing\n")),
        bad("endless_lines", &["longer than the limit"], endless(&[b'a'; 10_000])),
        sends("cut_page", CUT, head("Content-Length: 1000\r\n") + "bad_metric 1\n"),
        sends("cut_chunk", CUT, cut_in_chunks),
        sends("bad_chunk", &["chunk", "invalid", "malformed"], head("Transfer-Encoding: chunked\r\n") + "nonsense\r\n"),
        sends("old_protocol", &[], "HTTP/1.0 200 OK\r\n\r\ngood_metric 1\n"),
        sends(
            "web_page",
            &["expected", "invalid", "unexpected"],
            "HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<html>\n",
        ),
        Bad {
            arguments: "scrape_fallback_protocol = \"\"",
            ..sends(
                "wrong_type",
                &["no fallback_scrape_protocol specified for target"],
                "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\ngood_metric 1\n",
            )
        },
        sends(
            "round_trip",
            &["stopped after 10 redirects"],
            "HTTP/1.1 302 Found\r\nLocation: /metrics\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        ),
        sends(
            "sick",
            &["server returned HTTP status 500 Internal Server Error"],
            "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
        ),
    ]
}

/// What the program says of the one target of a scrape.
fn told(corten: &Corten, scrape: &str) -> String {
    corten.get(&format!("/api/v0/web/components/prometheus.scrape.{scrape}")).body
}

#[test]
fn a_bad_target_is_told_from_the_others_and_costs_little() {
    let mut rng = Rng::new("garbage on scrape");
    let sink = Sink::start(Mood::Works, rng.next());
    let sibling = Counting::start(|scrape| format!("torture_scrape {scrape}\n"));
    let base = format!(
        "{}
prometheus.scrape \"sibling\" {{
	targets         = [{{ __address__ = \"{}\", instance = \"i\" }}]
	forward_to      = [prometheus.remote_write.out.receiver]
	scrape_interval = \"200ms\"
	scrape_timeout  = \"200ms\"
}}
",
        write(&sink),
        sibling.address()
    );
    let corten = Corten::start_in(Folder::new(&base), &[]);
    sibling.scraped_more(2);
    let mut targets = bad_targets(&mut rng);
    // Some at a time, or the machine would have more to do with sending garbage than the program with reading it.
    while !targets.is_empty() {
        let group = targets.split_off(targets.len().saturating_sub(4));
        bad_group(&corten, &base, group);
    }
    assert_eq!(corten.reload(&base).status, 200);
    sibling.scraped_more(2);
    expect_ready(&corten);
    let memory = resident_max(&corten);
    assert!(memory.is_none_or(|bytes| bytes < MEMORY_MAX), "{memory:?} bytes");
    // Nothing keeps the sibling from being scraped for long, on however slow a machine.
    assert!(sibling.longest_pause() < Duration::from_secs(20), "{:?}", sibling.longest_pause());
    corten.end();
    let mut seen = Seen::default();
    seen.read(&sink);
    let series = sink.number("{__name__=\"torture_scrape\",instance=\"i\",job=\"prometheus.scrape.sibling\"}");
    let series = series.expect("it was scraped");
    let failed = sink.of("__name__=\"up\",instance=\"i\"").into_iter().filter(|(value, _)| *value == 0.0).count();
    let missing = (1..=sibling.scrapes()).filter(|scrape| !seen.has(series, *scrape as f64)).count();
    assert!(missing <= failed, "{missing} scrapes are missing, {failed} failed");
    assert!(sink.of("bad_metric").is_empty(), "nothing of a scrape that fails arrives: {:?}", sink.names());
    assert!(!sink.of("good_metric").is_empty());
}

/// Has some bad targets scraped until each was told from the others.
fn bad_group(corten: &Corten, base: &str, group: Vec<Bad>) {
    let mut config = base.to_owned();
    let mut servers = Vec::new();
    let mut expected = Vec::new();
    for Bad { name, arguments, misdeed, words } in group {
        let server = Server::start(move |mut stream| {
            let mut reader = std::io::BufReader::new(stream.try_clone().expect("a connection"));
            if read_request(&mut reader).is_some() {
                misdeed(&mut stream);
            }
        });
        config.push_str(&format!(
            "prometheus.scrape \"{name}\" {{
	targets         = [{{ __address__ = \"{}\" }}]
	forward_to      = [prometheus.remote_write.out.receiver]
	scrape_interval = \"1s\"
	scrape_timeout  = \"1s\"
	{arguments}
}}
",
            server.address
        ));
        servers.push(server);
        expected.push((name, words));
    }
    let reloaded = corten.reload(&config);
    assert_eq!(reloaded.status, 200, "{reloaded:?}");
    for (name, words) in expected {
        until(&format!("{name} is told from the others"), || {
            let told = told(corten, name);
            // Of what it sent only an excerpt is shown.
            assert!(told.len() < 20_000, "{name}: {} bytes are told", told.len());
            let is_so = match words {
                [] => told.contains("\"up\""),
                words => told.contains("\"down\"") && words.iter().any(|word| told.contains(word)),
            };
            if is_so { Ok(()) } else { Err(told) }
        });
    }
}

/// A request of remote write by another head, with the body that belongs to it.
fn request(head: &str, body: &[u8]) -> Vec<u8> {
    [head.as_bytes(), body].concat()
}

/// A body of so many bytes, all of one kind, as it stands in a request.
fn filled(len: usize) -> Vec<u8> {
    wire::compress(&vec![0; len])
}

/// A message whose fields do not end where they say.
fn wrong_lengths() -> Vec<Vec<u8>> {
    let mut good = Vec::new();
    wire::put_series(&mut good, &[("__name__", "bad_metric"), ("a", "b")], 1.0, 1);
    let mut messages: Vec<Vec<u8>> = (1..good.len()).map(|len| good[..len].to_vec()).collect();
    for at in 0..good.len() {
        let mut message = good.clone();
        message[at] = 0xff;
        messages.push(message);
    }
    messages
}

#[test]
fn a_bad_push_is_refused_and_costs_others_nothing() {
    let mut rng = Rng::new("garbage on push");
    let sink = Sink::start(Mood::Works, rng.next());
    let config = format!(
        "{}
prometheus.receive_http \"push\" {{
	http {{
		listen_address      = \"127.0.0.1\"
		listen_port         = 0
		server_read_timeout = \"5s\"
	}}
	forward_to = [prometheus.remote_write.out.receiver]
}}
",
        write(&sink)
    );
    let corten = Corten::start_in(Folder::new(&config), &[]);
    let address = receiver(&corten);
    let to = shared(Some(address));
    let mut pusher = Pusher::start(0, 20, Duration::from_millis(20), &to);

    // Whole requests, each on a connection of its own, and how they are answered.
    let usual = |body: &[u8]| request(&push_head(body.len()), body);
    let replaced = |from: &str, to: &str, body: &[u8]| {
        let head = push_head(body.len());
        assert!(head.contains(from), "{head}");
        request(&head.replace(from, to), body)
    };
    let good = push::body(1, 1, 1);
    let mut name = Vec::new();
    wire::put_series(&mut name, &[("__name__", "bad_metric"), ("a", &"x".repeat(10 * MIB))], 1.0, 1);
    let labels: Vec<String> = (0..1_000_000).map(|at| format!("l{at}")).collect();
    let labels: Vec<(&str, &str)> =
        std::iter::once(("__name__", "bad_metric")).chain(labels.iter().map(|label| (&**label, "v"))).collect();
    let mut many = Vec::new();
    wire::put_series(&mut many, &labels, 1.0, 1);
    let chunked = "Transfer-Encoding: chunked\r\nX-Length: 0";
    let length = format!("Content-Length: {}", good.len());
    let in_chunks = [format!("{:x}\r\n", good.len()).as_bytes(), &good, b"\r\n0\r\n\r\n"].concat();
    let too_long = format!("Content-Length: {}", 100 * MIB);
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("what is good", usual(&good), &[204]),
        ("random bytes", usual(&rng.bytes(100_000)), &[400]),
        ("nothing", usual(b""), &[204, 400]),
        ("a message of zeros", usual(&filled(1000)), &[400]),
        ("a bomb within the limit", usual(&filled(32 * MIB)), &[400]),
        ("a bomb beyond the limit", usual(&filled(100 * MIB)), &[400]),
        ("a bomb that says that it is one", usual(b"\xff\xff\xff\xff\x0f\x00\x00"), &[400]),
        ("a block that says less than it has", usual(&[&[5][..], &good[1..]].concat()), &[400]),
        ("millions of series of nothing", usual(&wire::compress(&[0x0a, 0x00].repeat(8 * MIB))), &[204, 400]),
        ("a long label", usual(&wire::compress(&name)), &[204, 400]),
        ("a million labels", usual(&wire::compress(&many)), &[204, 400]),
        ("a body of 100 MB", request(&push_head(100 * MIB), &vec![7; 100 * MIB]), &[413]),
        ("not a message", replaced("application/x-protobuf", "text/plain", &good), &[415]),
        ("another message", replaced("x-protobuf", "x-protobuf;proto=io.prometheus.write.v2.Request", &good), &[415]),
        ("another encoding", replaced("snappy", "gzip", &good), &[415]),
        ("no encoding", replaced("Content-Encoding: snappy", "X: y", &good), &[204]),
        ("another path", replaced("/api/v1/metrics/write", "/elsewhere", &good), &[404]),
        ("another method", replaced("POST", "PUT", &good), &[405]),
        ("another method than there are", replaced("POST", "X-SPLIT", &good), &[405]),
        ("HTTP/1.0", replaced("HTTP/1.1", "HTTP/1.0", &good), &[204]),
        ("HTTP/3.7", replaced("HTTP/1.1", "HTTP/3.7", &good), &[400]),
        ("chunks", request(&push_head(good.len()).replace(&length, chunked), &in_chunks), &[204]),
        ("bad chunks", request(&push_head(good.len()).replace(&length, chunked), b"nonsense\r\n"), &[400]),
        ("two lengths", replaced(&length, &format!("{length}\r\nContent-Length: 3"), &good), &[400]),
        ("a length that is none", replaced(&length, "Content-Length: -1", &good), &[400]),
        ("a length that it does not keep", replaced(&length, &too_long, &good), &[413, 408]),
        ("a head that does not end", [b"POST / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 4 * MIB]].concat(), &[431, 400]),
        ("headers without end", [b"POST / HTTP/1.1\r\n".to_vec(), b"X-A: b\r\n".repeat(500_000)].concat(), &[431, 400]),
    ];
    for (what, bytes, statuses) in cases {
        let mut client = Client::connect(address).expect("it listens");
        // It may have answered and closed before all was sent.
        let _ = client.send(&bytes);
        match client.answer() {
            Ok(answer) => {
                assert!(statuses.contains(&answer.status), "{what}: {} {}", answer.status, answer.body);
                assert!(answer.body.len() < 70_000, "{what}: {} bytes", answer.body.len());
            }
            // Who goes on sending what nobody reads may lose the answer.
            Err(error) => assert!(statuses[0] == 431 || statuses[0] == 413, "{what}: {error}"),
        }
    }
    let mut client = Client::connect(address).expect("it listens");
    for message in wrong_lengths() {
        let answer = client.push(&wire::compress(&message)).expect("an answer");
        assert!([204, 400].contains(&answer.status), "{message:?}: {} {}", answer.status, answer.body);
    }
    // Cut in the middle.
    for len in [1, 10, 100, push_head(good.len()).len(), push_head(good.len()).len() + 5] {
        let mut client = Client::connect(address).expect("it listens");
        client.send(&usual(&good)[..len]).expect("it reads");
    }
    // A body in chunks that does not end.
    let mut client = Client::connect(address).expect("it listens");
    client.send(push_head(0).replace("Content-Length: 0", chunked).as_bytes()).expect("it reads");
    let chunk = [b"100000\r\n".to_vec(), vec![7; MIB], b"\r\n".to_vec()].concat();
    pour(&mut client.stream, &chunk, 200);
    if let Ok(answer) = client.answer() {
        assert_eq!(answer.status, 413, "{}", answer.body);
    }
    expect_slow_clients_are_left(&corten, address);
    expect_ready(&corten);
    let memory = resident_max(&corten);
    assert!(memory.is_none_or(|bytes| bytes < MEMORY_MAX), "{memory:?} bytes");
    let ledger = pusher.stop();
    assert!(ledger.refused.is_empty() && ledger.unknown.is_empty(), "{ledger:?}");
    assert!(ledger.accepted.len() > 20, "{ledger:?}");
    corten.end();
    let mut seen = Seen::default();
    seen.read(&sink);
    assert!(pusher.missing(&sink, &seen).is_empty(), "{:?}", pusher.missing(&sink, &seen));
}

/// Clients that send a byte now and then, in head or body, are left alone by the program after the time that a request may
/// take; on the API they disturb nobody.
fn expect_slow_clients_are_left(corten: &Corten, address: SocketAddr) {
    let head = push_head(1000);
    let api: SocketAddr = corten.address.parse().expect("an address");
    let connect = |address, sent: &str| {
        let mut client = Client::connect(address).expect("it listens");
        client.send(sent.as_bytes()).expect("it reads");
        client.stream.set_nonblocking(true).expect("a connection");
        client.stream
    };
    let mut slow: Vec<TcpStream> =
        (0..60).map(|at| connect(address, if at % 2 == 0 { &head } else { &head[..at] })).collect();
    let mut on_api: Vec<TcpStream> = (0..60).map(|_| connect(api, "GET /-/ready HTTP/1.1\r\nHo")).collect();
    until("slow clients are left", || {
        slow.retain_mut(|stream| {
            // A byte a second is what a patient attacker sends; here it may be more.
            let is_open = stream.write(b"x").is_ok_and(|written| written > 0);
            let mut answer = [0; 1000];
            is_open && !matches!(stream.read(&mut answer), Ok(0))
        });
        for stream in &mut on_api {
            // Whatever becomes of it.
            let _ = stream.write(b"x");
        }
        expect_ready(corten);
        std::thread::sleep(Duration::from_millis(200));
        if slow.is_empty() { Ok(()) } else { Err(format!("{} are still served", slow.len())) }
    });
}

#[test]
fn bad_requests_to_the_api_are_refused() {
    let corten = Corten::start("");
    let api: SocketAddr = corten.address.parse().expect("an address");
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("random bytes", Rng::new("garbage on the API").bytes(10_000), &[400, 431]),
        ("a long path", format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(MIB)).into_bytes(), &[414, 431, 400]),
        ("headers without end", [b"GET / HTTP/1.1\r\n".to_vec(), b"X-A: b\r\n".repeat(500_000)].concat(), &[431, 400]),
        (
            "a body of 100 MB",
            request(
                "POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\nConnection: close\r\n\r\n",
                &vec![7; 100 * MIB],
            ),
            &[200, 413],
        ),
        (
            "a path that is none",
            b"GET /api/v0/web/components/%00%ff/../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            &[400, 404],
        ),
        (
            "a component that is none",
            b"GET /api/v0/component/prometheus.scrape.none/metrics HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            &[400, 404],
        ),
    ];
    for (what, bytes, statuses) in cases {
        let mut client = Client::connect(api).expect("it listens");
        // It may have answered and closed before all was sent.
        let _ = client.send(&bytes);
        match client.answer() {
            Ok(answer) => assert!(statuses.contains(&answer.status), "{what}: {} {}", answer.status, answer.body),
            Err(error) => assert!(bytes.len() > 100_000 || what == "random bytes", "{what}: {error}"),
        }
        expect_ready(&corten);
    }
    // As in the reference, what is not asked as it should be gets the pages, and does nothing. The load before is behind all
    // that was asked for above.
    assert_eq!(corten.reload("").status, 200);
    let loaded = |corten: &Corten| metric(corten, "alloy_config_last_load_success_timestamp_seconds", &[]);
    let before = loaded(&corten);
    assert!(before > Some(0.0), "{before:?}");
    let mut client = Client::connect(api).expect("it listens");
    client.send(b"DELETE /-/reload HTTP/1.1\r\nHost: x\r\n\r\n").expect("it reads");
    let answer = client.answer().expect("an answer");
    assert!(answer.status == 200 && answer.body.contains("<!doctype html>"), "{} {}", answer.status, answer.body);
    assert_eq!(loaded(&corten), before);
    let memory = resident_max(&corten);
    assert!(memory.is_none_or(|bytes| bytes < MEMORY_MAX), "{memory:?} bytes");
    corten.end();
}
