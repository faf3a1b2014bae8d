//! As much HTTP as the harness needs: a server for the target and the sink, a one-shot client for the driver.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
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
