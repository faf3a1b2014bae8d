//! Opens queues.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use corten_component::Error;
use corten_queue::{Options, Queue};

/// How long to wait for a queue that somebody is closing.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(10);

/// Opens a queue, and adds to `took` how long that takes. One that is in use is waited for: a load that was refused may be
/// closing it still.
///
/// # Errors
///
/// Where it cannot be opened.
pub async fn open_queue(dir: PathBuf, options: Options, took: &mut Duration) -> Result<Queue, Error> {
    let shown = dir.display().to_string();
    let started = Instant::now();
    let opened = loop {
        let (dir, options) = (dir.clone(), options.clone());
        let opened = tokio::task::spawn_blocking(move || Queue::open(&dir, options)).await;
        match &opened {
            Ok(Err(error)) if error.kind() == ErrorKind::ResourceBusy && started.elapsed() < CLOSE_WAIT_MAX => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            _ => break opened,
        }
    };
    *took += started.elapsed();
    let opened = opened.map_err(|error| Error::new(format!("opening the queue {shown}: {error}")))?;
    opened.map_err(|error| Error::new(format!("opening the queue {shown}: {error}")))
}
