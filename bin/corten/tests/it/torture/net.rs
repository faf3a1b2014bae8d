//! Servers and clients that may misbehave.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{lock, shared};

/// How long an answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// Reads a request: its body. None at the end of the connection.
pub(crate) fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut body = vec![0; header(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

/// The value of a header.
pub(super) fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    headers.find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// A server on a port that the system chose. Each connection has a thread, which does what it likes.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    door: Option<Door>,
}

/// What accepts connections.
pub(super) struct Door {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Door {
    pub(super) fn open(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().expect("its address");
        let ended = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ended);
        let serve = Arc::new(serve);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::Acquire) {
                    return;
                }
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(stream));
            }
        });
        Door { address, ended, thread }
    }

    /// Takes no further connections. When this returns, the port is closed.
    pub(super) fn close(self) {
        self.ended.store(true, Ordering::Release);
        // Wakes the thread that accepts; if it is gone already, all the better.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.join();
    }
}

impl Server {
    pub(crate) fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        Server { address, door: Some(Door::open(listener, serve)) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(door) = self.door.take() {
            door.close();
        }
    }
}

/// A target that exposes how often it was scraped.
pub(crate) struct Counting {
    server: Server,
    scrapes: Arc<AtomicU64>,
    /// When it was scraped last, and the longest time between two scrapes.
    pauses: Arc<Mutex<(Option<Instant>, Duration)>>,
}

impl Counting {
    /// A target whose page is made from the number of the scrape.
    pub(crate) fn start(page: impl Fn(u64) -> String + Send + Sync + 'static) -> Self {
        let scrapes = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&scrapes);
        let pauses = shared((None, Duration::ZERO));
        let kept = Arc::clone(&pauses);
        let server = Server::start(move |mut stream| {
            let mut reader = BufReader::new(stream.try_clone().expect("a connection"));
            while read_request(&mut reader).is_some() {
                {
                    let mut pauses = lock(&kept);
                    let now = Instant::now();
                    let pause = pauses.0.replace(now).map_or(Duration::ZERO, |before| now - before);
                    pauses.1 = pauses.1.max(pause);
                }
                let page = page(count.fetch_add(1, Ordering::Relaxed) + 1);
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n",
                    page.len()
                );
                if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(page.as_bytes())).is_err() {
                    return;
                }
            }
        });
        Counting { server, scrapes, pauses }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    pub(super) fn scrapes(&self) -> u64 {
        self.scrapes.load(Ordering::Relaxed)
    }

    /// The longest time between two scrapes.
    pub(super) fn longest_pause(&self) -> Duration {
        lock(&self.pauses).1
    }

    /// Waits until it was scraped some times more: all but the last of them have been forwarded then.
    pub(crate) fn scraped_more(&self, times: u64) -> u64 {
        let from = self.scrapes();
        super::until("the target is scraped", || {
            let now = self.scrapes();
            if now >= from + times { Ok(now) } else { Err(format!("{now} of {}", from + times)) }
        })
    }
}

/// A connection to the program.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    reader: BufReader<TcpStream>,
}

/// An answer to a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Client {
    pub(super) fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        stream.set_write_timeout(Some(ANSWER_WAIT))?;
        Ok(Client { reader: BufReader::new(stream.try_clone()?), stream })
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads an answer whose body has a stated length or ends with the connection.
    pub(super) fn answer(&mut self) -> std::io::Result<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.reader.read_line(&mut head)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("no status: {head:?}")))?;
        let mut body = Vec::new();
        match header(&head, "content-length").and_then(|length| length.parse().ok()) {
            Some(length) => {
                body.resize(length, 0);
                self.reader.read_exact(&mut body)?;
            }
            None if status == 204 => {}
            None => drop(self.reader.read_to_end(&mut body)?),
        }
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// Sends a request of remote write and reads the answer.
    pub(super) fn push(&mut self, body: &[u8]) -> std::io::Result<Answer> {
        self.send(push_head(body.len()).as_bytes())?;
        self.send(body)?;
        self.answer()
    }
}

/// The head of a request of remote write.
pub(super) fn push_head(length: usize) -> String {
    format!(
        "POST /api/v1/metrics/write HTTP/1.1\r\nHost: corten\r\nContent-Encoding: snappy\r\nContent-Type: \
         application/x-protobuf\r\nX-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: {length}\r\n\r\n"
    )
}
