//! An endpoint that accepts connections, reads what comes, and never answers.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{io::AsyncReadExt, net::TcpListener, task::JoinHandle};

use crate::{
    error::{Context, Error, Result},
    http,
};

/// How often it is asked whether something was dropped.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the queue may take until it is at its cap.
const FULL_WAIT: Duration = Duration::from_secs(900);

/// The endpoint. It ends with its handle.
#[derive(Debug)]
pub(crate) struct Hole {
    address: SocketAddr,
    task: JoinHandle<()>,
    connections: Arc<AtomicU64>,
}

impl Hole {
    /// Listens on a port that is free.
    pub(crate) async fn open() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("cannot open the hole")?;
        let address = listener.local_addr().context("cannot open the hole")?;
        let connections = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else {
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                };
                count.fetch_add(1, Ordering::Relaxed);
                // What is not read would fill the sender's buffers, and show that something is wrong too early.
                tokio::spawn(async move {
                    let mut buffer = vec![0; 64 << 10];
                    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                });
            }
        });
        Ok(Self { address, task, connections })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Samples that the subject, which tells at `subject`, dropped because the queue of this endpoint was at its cap.
    pub(crate) async fn dropped(&self, subject: SocketAddr) -> Result<f64> {
        let (status, body) = http::get(subject, "/metrics").await?;
        if status != 200 {
            return Err(Error::new(format!("the metrics of {subject} have status {status}")));
        }
        Ok(overflow(&String::from_utf8_lossy(&body), self.address))
    }

    /// Waits until the first sample was dropped.
    pub(crate) async fn wait_full(&self, subject: SocketAddr) -> Result<()> {
        let full = async {
            while self.dropped(subject).await? == 0.0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok(())
        };
        tokio::time::timeout(FULL_WAIT, full).await.context("the queue did not come to its cap")?
    }
}

impl Drop for Hole {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a page of metrics says of samples dropped for an endpoint by the cap.
fn overflow(page: &str, endpoint: SocketAddr) -> f64 {
    let url = format!("url=\"http://{endpoint}/");
    let lines = page.lines().filter(|line| {
        line.starts_with("prometheus_remote_storage_samples_dropped_total{")
            && line.contains("reason=\"overflow\"")
            && line.contains(&url)
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_hole_takes_all_and_says_nothing() {
        let hole = Hole::open().await.unwrap();
        let mut stream = TcpStream::connect(hole.address()).await.unwrap();
        // More than the buffers of both sides hold.
        stream.write_all(&vec![0; 16 << 20]).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut [0; 1])).await;
        assert!(answer.is_err() && hole.connections() == 1);
    }

    #[test]
    fn drops_of_the_endpoint_by_the_cap_are_counted() {
        let page = "# TYPE prometheus_remote_storage_samples_dropped_total counter\n\
            prometheus_remote_storage_samples_dropped_total{reason=\"overflow\",url=\"http://127.0.0.1:10/x\"} 1.5e+06\n\
            prometheus_remote_storage_samples_dropped_total{reason=\"overflow\",url=\"http://127.0.0.1:100/x\"} 7\n\
            prometheus_remote_storage_samples_dropped_total{reason=\"expired\",url=\"http://127.0.0.1:10/x\"} 9\n";
        assert_eq!(overflow(page, "127.0.0.1:10".parse().unwrap()), 1.5e6);
        assert_eq!(overflow("", "127.0.0.1:10".parse().unwrap()), 0.0);
    }
}
