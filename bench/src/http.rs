//! As much HTTP as the harness needs: a server for the target and the sink, a one-shot client for the driver.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::error::{Context, Error, Result};

/// What a handler answers.
pub(crate) type Answer = Response<Full<Bytes>>;

/// The longest answer that the client takes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// How long an accept loop rests after an error such as too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves HTTP/1.1 on the listener until the process ends.
pub(crate) async fn serve<H, F>(listener: TcpListener, handler: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        // Without it, small answers would wait for acknowledgements; a failure costs only time.
        let _ = stream.set_nodelay(true);
        let handler = handler.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = handler(request);
                async { Ok::<_, Infallible>(answer.await) }
            });
            // A connection that breaks is the client's affair: it shows as a lost scrape or a repeated request.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// An answer with a status and a text.
pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
}

/// An answer of JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => text(StatusCode::OK, body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// An answer that goes on and on, read as it comes until this is dropped.
#[derive(Debug)]
pub(crate) struct Follow {
    reader: JoinHandle<String>,
    bytes: Arc<AtomicU64>,
    items: Arc<AtomicU64>,
}

/// What each item of a live view begins with.
const ITEM: &[u8] = b"event: item\n";

impl Follow {
    /// Asks for a path, and waits for the head of the answer, which has to be 200.
    pub(crate) async fn start(address: SocketAddr, path: &str) -> Result<Self> {
        let what = format!("GET http://{address}{path}");
        let asked = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).await?;
            head.truncate(length);
            io::Result::Ok((stream, head))
        };
        let asked = tokio::time::timeout(Duration::from_secs(30), asked).await.context(&what)?.context(&what)?;
        let (mut stream, head) = asked;
        if status(&head) != Some(200) {
            let said = String::from_utf8_lossy(&head);
            return Err(Error::new(format!("{what}: {}", said.lines().next().unwrap_or("no answer"))));
        }
        let bytes = Arc::new(AtomicU64::new(0));
        let items = Arc::new(AtomicU64::new(0));
        let (counted, counted_items) = (Arc::clone(&bytes), Arc::clone(&items));
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            // What an item may begin with stays in front of what is read next.
            let mut kept = 0;
            loop {
                let length = match stream.read(&mut buffer[kept..]).await {
                    Ok(0) => return "the answer ended".to_owned(),
                    Ok(length) => length,
                    Err(error) => return error.to_string(),
                };
                counted.fetch_add(length as u64, Ordering::Relaxed);
                let there = &buffer[..kept + length];
                let found = there.windows(ITEM.len()).filter(|window| *window == ITEM).count();
                counted_items.fetch_add(found as u64, Ordering::Relaxed);
                kept = there.len().min(ITEM.len() - 1);
                let from = there.len() - kept;
                buffer.copy_within(from..from + kept, 0);
            }
        });
        Ok(Self { reader, bytes, items })
    }

    /// How many items of a live view came so far.
    pub(crate) fn items(&self) -> u64 {
        self.items.load(Ordering::Relaxed)
    }

    /// What is wrong with it, if it has ended or brought nothing.
    pub(crate) fn ended(&self) -> Option<String> {
        if self.reader.is_finished() {
            return Some("what was followed has ended".to_owned());
        }
        (self.bytes.load(Ordering::Relaxed) == 0).then(|| "what was followed has brought nothing".to_owned())
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Asks for a path on a connection of its own; gives the status and the body.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<(u16, Vec<u8>)> {
    let what = format!("GET http://{address}{path}");
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        // Version 1.0, so that the answer is never chunked and ends with the connection.
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(30), asked).await.context(&what)?.context(&what)?;
    let status = status(&answer).ok_or_else(|| Error::new(format!("{what}: no status line")))?;
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    Ok((status, answer[body..].to_vec()))
}

/// Asks for JSON.
pub(crate) async fn get_json<T: serde::de::DeserializeOwned>(address: SocketAddr, path: &str) -> Result<T> {
    let (status, body) = get(address, path).await?;
    if status != 200 {
        return Err(Error::new(format!("GET http://{address}{path}: status {status}")));
    }
    serde_json::from_slice(&body).context(format!("GET http://{address}{path}"))
}

/// The status in the first line of an answer.
pub(crate) fn status(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.")?;
    std::str::from_utf8(rest.get(2..5)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_status_is_read_from_the_first_line() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 503"), Some(503));
        assert_eq!(status(b"HTTP/1.0 50"), None);
        assert_eq!(status(b"garbage"), None);
    }

    #[tokio::test]
    async fn the_client_reads_what_the_server_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, |request: Request<Incoming>| async move {
            match request.uri().path() {
                "/list" => json(&[1, 2, 3]),
                _ => text(StatusCode::NOT_FOUND, "no"),
            }
        }));
        assert_eq!(get_json::<Vec<u8>>(address, "/list").await.unwrap(), [1, 2, 3]);
        assert_eq!(get(address, "/").await.unwrap(), (404, b"no".to_vec()));
        assert!(get_json::<Vec<u8>>(address, "/").await.unwrap_err().to_string().ends_with("status 404"));
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_status_panic(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = status(&bytes);
            let _ = status(&[b"HTTP/1.", &bytes[..]].concat());
        }
    }
}
