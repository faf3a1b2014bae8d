//! Servers whose answers the test decides: a target that is scraped, and a gate before a peer.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a peer may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Response {
    pub(super) fn new(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Response { status, headers, body: body.into() }
    }
}

type Handler = dyn Fn(&Request) -> Option<Response> + Send + Sync;

/// A server on a port of loopback that the system chose. Where the handler gives no answer, the connection is closed.
struct Server {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl Server {
    fn start(handler: Arc<Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let ended = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ended);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let handler = Arc::clone(&handler);
                std::thread::spawn(move || connection(&stream, &*handler));
            }
        });
        Server { address, ended }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts; if it is gone already, all the better.
        let _ = TcpStream::connect(self.address);
    }
}

/// Serves a connection until one side closes it.
fn connection(stream: &TcpStream, handler: &Handler) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        let Some(response) = handler(&request) else { return };
        let mut bytes = format!("HTTP/1.1 {} Told\r\nContent-Length: {}\r\n", response.status, response.body.len());
        for (name, value) in &response.headers {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        bytes.push_str("\r\n");
        let mut writer = stream;
        if writer.write_all(bytes.as_bytes()).and_then(|()| writer.write_all(&response.body)).is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut request = Request { method, target, headers: Vec::new(), body: Vec::new() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        request.headers.push((name.to_owned(), value.trim().to_owned()));
    }
    assert!(request.header("transfer-encoding").is_none(), "these servers read bodies of a stated length only");
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    request.body = vec![0; length];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

/// Sends a request and reads the answer to its end. HTTP/1.0, so that no answer comes in chunks.
pub(super) fn send(address: SocketAddr, request: &Request) -> std::io::Result<Response> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    let mut head = format!("{} {} HTTP/1.0\r\n", request.method, request.target);
    let own = ["host", "connection", "content-length"];
    for (name, value) in request.headers.iter().filter(|(name, _)| !own.contains(&&*name.to_lowercase())) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Host: {address}\r\nContent-Length: {}\r\n\r\n", request.body.len()));
    stream.write_all(head.as_bytes())?;
    stream.write_all(&request.body)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let bad = || std::io::Error::other("no answer");
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(bad)?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(bad)?;
    Ok(Response { status, headers: Vec::new(), body: bytes[end + 4..].to_vec() })
}

/// A target whose page the test decides.
pub(super) struct Target {
    server: Server,
    page: Arc<Mutex<Page>>,
}

struct Page {
    response: Option<Response>,
    scrapes: u64,
}

/// The type of the text format.
const TEXT: &str = "text/plain; version=0.0.4";

impl Target {
    /// A target with a page in the text format. `@` stands for how often it was scraped.
    pub(super) fn start(text: &str) -> Self {
        let page = Arc::new(Mutex::new(Page { response: None, scrapes: 0 }));
        let shown = Arc::clone(&page);
        let server = Server::start(Arc::new(move |_| {
            let mut page = shown.lock().expect("a page");
            let mut response = page.response.clone()?;
            page.scrapes += 1;
            if let Ok(text) = std::str::from_utf8(&response.body) {
                response.body = text.replace('@', &page.scrapes.to_string()).into_bytes();
            }
            Some(response)
        }));
        let target = Target { server, page };
        target.show(text);
        target
    }

    /// A target that counts how often it was scraped.
    pub(super) fn counting() -> Self {
        Self::start("e2e_tick @\n")
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Puts another page in the text format in place.
    pub(super) fn show(&self, text: &str) {
        self.answer(Some(Response::new(200, &[("Content-Type", TEXT)], text)));
    }

    /// Puts another answer in place. None closes connections.
    pub(super) fn answer(&self, response: Option<Response>) {
        self.page.lock().expect("a page").response = response;
    }

    /// How often the target was scraped.
    pub(super) fn scrapes(&self) -> u64 {
        self.page.lock().expect("a page").scrapes
    }

    /// Waits until the target was scraped some times more: all but the last of them have been forwarded then, because a
    /// scrape begins after the one before it has been forwarded.
    pub(super) fn scraped_more(&self, times: u64) -> u64 {
        let from = self.scrapes();
        super::until("the target is scraped", || {
            let now = self.scrapes();
            if now >= from + times { Ok(now) } else { Err(format!("{now} of {}", from + times)) }
        })
    }
}

/// Stands before a peer and lets requests through, or does not.
pub(super) struct Gate {
    server: Server,
    state: Arc<Mutex<GateState>>,
}

struct GateState {
    open: bool,
    /// Given instead of the peer's answers, the first to the next request.
    answers: VecDeque<Response>,
    seen: Vec<(Instant, Request)>,
}

impl Gate {
    pub(super) fn before(peer: SocketAddr, open: bool) -> Self {
        let state = Arc::new(Mutex::new(GateState { open, answers: VecDeque::new(), seen: Vec::new() }));
        let kept = Arc::clone(&state);
        let server = Server::start(Arc::new(move |request| {
            {
                let mut state = kept.lock().expect("a state");
                state.seen.push((Instant::now(), request.clone()));
                if !state.open {
                    return None;
                }
                if let Some(answer) = state.answers.pop_front() {
                    return Some(answer);
                }
            }
            Some(send(peer, request).unwrap_or_else(|error| Response::new(502, &[], error.to_string())))
        }));
        Gate { server, state }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.server.address
    }

    pub(super) fn open(&self) {
        self.state.lock().expect("a state").open = true;
    }

    /// Answers the next request in the peer's place.
    pub(super) fn answer_next(&self, response: Response) {
        self.state.lock().expect("a state").answers.push_back(response);
    }

    /// What came so far, and when.
    pub(super) fn seen(&self) -> Vec<(Instant, Request)> {
        self.state.lock().expect("a state").seen.clone()
    }
}
