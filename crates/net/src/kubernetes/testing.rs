//! A server of the API for the tests of this folder. It says what it is told to, request by request.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Api, ApiConfig};
use crate::{ClientConfig, ClientOptions};

/// What is said to a request.
pub(super) enum Reply {
    Whole(u16, String),
    /// These pieces, and the end of the body when there are no more.
    Stream(UnboundedReceiver<String>),
    /// This much of a body, and then the connection is gone.
    Cut(String),
}

#[derive(Clone, Default)]
pub(super) struct Script {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    targets: Arc<Mutex<Vec<String>>>,
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    script: Script,
}

impl Server {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, script) = (listener.local_addr().unwrap(), Script::default());
        let shared = script.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(shared.clone().answer(stream));
            }
        });
        Server { address, script }
    }

    pub(super) async fn api(&self) -> Api {
        let config = ApiConfig { url: format!("http://{}", self.address), client: ClientConfig::default() };
        Api::new(config, ClientOptions::default()).await.unwrap()
    }

    pub(super) fn says(&self, status: u16, body: impl Into<String>) {
        self.script.replies.lock().unwrap().push_back(Reply::Whole(status, body.into()));
    }

    pub(super) fn breaks_off(&self, body: impl Into<String>) {
        self.script.replies.lock().unwrap().push_back(Reply::Cut(body.into()));
    }

    pub(super) fn streams(&self) -> UnboundedSender<String> {
        let (sender, receiver) = unbounded_channel();
        self.script.replies.lock().unwrap().push_back(Reply::Stream(receiver));
        sender
    }

    /// Paths and queries of the requests so far.
    pub(super) fn targets(&self) -> Vec<String> {
        self.script.targets.lock().unwrap().clone()
    }
}

impl Script {
    async fn answer(self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line| line != "\r\n") {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or_default() == 0 {
                return;
            }
            lines.push(line);
        }
        self.targets.lock().unwrap().push(lines[0].split(' ').nth(1).unwrap().to_owned());
        let reply = loop {
            if let Some(reply) = self.replies.lock().unwrap().pop_front() {
                break reply;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
        let begin = "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
        let mut write = async |text: String| stream.write_all(text.as_bytes()).await.is_ok();
        match reply {
            Reply::Whole(status, body) => {
                let head =
                    format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
                write(head + &body).await;
            }
            Reply::Cut(body) => {
                write(begin + &chunk(&body)).await;
            }
            Reply::Stream(mut pieces) => {
                write(begin).await;
                while let Some(piece) = pieces.recv().await {
                    if !write(chunk(&piece)).await {
                        return;
                    }
                }
                write("0\r\n\r\n".to_owned()).await;
            }
        }
    }
}
