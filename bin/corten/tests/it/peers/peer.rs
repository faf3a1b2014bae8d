//! The peers as processes, and what they know.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::net::{Request, send};
use super::until;
use crate::support::fetched;

/// A running peer. It is killed when it is dropped.
pub(super) struct Peer {
    folder: TempDir,
    child: Child,
    pub(super) address: SocketAddr,
    write_path: &'static str,
}

/// A Prometheus that takes remote write; none if there is none on this machine.
pub(super) fn prometheus() -> Option<Peer> {
    let arguments = |folder: &Path| {
        let config = folder.join("prometheus.yml");
        fs::write(&config, "").expect("a file");
        vec![
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", folder.join("data").display()),
            "--web.listen-address=127.0.0.1:0".to_owned(),
            "--web.enable-remote-write-receiver".to_owned(),
            "--enable-feature=exemplar-storage,native-histograms".to_owned(),
        ]
    };
    Peer::start("prometheus", arguments, "/-/ready", "/api/v1/write")
}

/// What an agent scrapes and sends, ten times a second, as its configuration.
fn agent_config(targets: &[(&str, SocketAddr)], write_url: &str, more: &str) -> String {
    let targets: String = targets
        .iter()
        .map(|(instance, address)| {
            format!("      - targets: [\"{address}\"]\n        labels: {{ instance: {instance:?} }}\n")
        })
        .collect();
    format!(
        "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms }}
scrape_configs:
  - job_name: j
    static_configs:
{targets}
remote_write:
  - url: {write_url:?}
{more}
"
    )
}

/// A Prometheus in agent mode, which scrapes targets of some instances and sends by remote write.
pub(super) fn prometheus_agent(targets: &[(&str, SocketAddr)], write_url: &str) -> Option<Peer> {
    let arguments = |folder: &Path| {
        let config = folder.join("prometheus.yml");
        let more = "    send_exemplars: true
    send_native_histograms: true
    queue_config: { batch_send_deadline: 100ms, max_shards: 1, min_shards: 1 }
    metadata_config: { send: false }";
        fs::write(&config, agent_config(targets, write_url, more)).expect("a file");
        vec![
            format!("--config.file={}", config.display()),
            format!("--storage.agent.path={}", folder.join("data").display()),
            "--web.listen-address=127.0.0.1:0".to_owned(),
            "--enable-feature=agent,native-histograms".to_owned(),
        ]
    };
    Peer::start("prometheus", arguments, "/-/ready", "")
}

/// A vmagent, which scrapes targets of some instances and sends by remote write.
pub(super) fn vmagent(targets: &[(&str, SocketAddr)], write_url: &str) -> Option<Peer> {
    let arguments = |folder: &Path| {
        let config = folder.join("vmagent.yml");
        let whole = agent_config(targets, write_url, "");
        let (scrapes, _) = whole.split_once("remote_write:").expect("both parts");
        fs::write(&config, scrapes).expect("a file");
        vec![
            format!("-promscrape.config={}", config.display()),
            format!("-remoteWrite.url={write_url}"),
            format!("-remoteWrite.tmpDataPath={}", folder.join("data").display()),
            "-remoteWrite.queues=1".to_owned(),
            "-httpListenAddr=127.0.0.1:0".to_owned(),
            "-memory.allowedBytes=64MB".to_owned(),
        ]
    };
    Peer::start("vmagent", arguments, "/health", "")
}

/// A VictoriaMetrics; none if there is none on this machine.
pub(super) fn victoria_metrics() -> Option<Peer> {
    let arguments = |folder: &Path| {
        vec![
            format!("-storageDataPath={}", folder.join("data").display()),
            "-httpListenAddr=127.0.0.1:0".to_owned(),
            // Its default hides what is younger than half a minute.
            "-search.latencyOffset=0s".to_owned(),
            "-search.disableCache".to_owned(),
            "-memory.allowedBytes=64MB".to_owned(),
        ]
    };
    Peer::start("victoria-metrics", arguments, "/health", "/api/v1/write")
}

impl Peer {
    fn start(
        name: &str,
        arguments: impl FnOnce(&Path) -> Vec<String>,
        ready: &str,
        write_path: &'static str,
    ) -> Option<Self> {
        let (program, _) = fetched(name)?;
        let folder = tempfile::tempdir().expect("a folder");
        let log = File::create(folder.path().join("log")).expect("a file");
        let mut command = Command::new(program);
        command.args(arguments(folder.path())).current_dir(folder.path()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a file")).stderr(log);
        let child = command.spawn().expect("the peer runs");
        let mut peer = Peer { folder, child, address: ([127, 0, 0, 1], 0).into(), write_path };
        peer.address = until("the peer listens", || {
            peer.check();
            listening(peer.child.id()).ok_or_else(|| peer.log())
        });
        until("the peer is ready", || {
            peer.check();
            match peer.get(ready) {
                Ok(answer) if answer.0 == 200 => Ok(()),
                other => Err(format!("{other:?}: {}", peer.log())),
            }
        });
        Some(peer)
    }

    fn check(&mut self) {
        let ended = self.child.try_wait().expect("a status");
        assert!(ended.is_none(), "the peer ended with {ended:?}: {}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Where samples are sent.
    pub(super) fn write_url(&self) -> String {
        format!("http://{}{}", self.address, self.write_path)
    }

    fn get(&self, target: &str) -> Result<(u16, String), String> {
        let request = Request { method: "GET".into(), target: target.into(), headers: Vec::new(), body: Vec::new() };
        let answer = send(self.address, &request).map_err(|error| error.to_string())?;
        Ok((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
    }

    /// What an instant query finds.
    pub(super) fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        list(&self.data(&format!("/api/v1/query?query={}", percent(query)))?["result"])
    }

    /// The data of an answer.
    fn data(&self, target: &str) -> Result<Value, String> {
        let (status, body) = self.get(target)?;
        let mut answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {status} {body}"))?;
        if status == 200 { Ok(answer["data"].take()) } else { Err(format!("{status} {body}")) }
    }

    /// The series that a selector finds now, as `name{label="value"} value`, sorted.
    pub(super) fn series(&self, selector: &str) -> Result<Vec<String>, String> {
        let mut series: Vec<String> = self.query(selector)?.iter().map(shown).collect();
        series.sort();
        Ok(series)
    }

    /// Waits until a selector finds exactly these series.
    pub(super) fn expect(&self, selector: &str, series: &[impl AsRef<str>]) {
        let mut wanted: Vec<&str> = series.iter().map(AsRef::as_ref).collect();
        wanted.sort_unstable();
        until(&format!("{selector} finds {wanted:#?}"), || match self.series(selector)? {
            found if found == wanted => Ok(()),
            found => Err(format!("{found:#?}")),
        });
    }

    /// As [`Peer::series`], at another time, in seconds.
    pub(super) fn series_at(&self, selector: &str, time: f64) -> Result<Vec<String>, String> {
        let found = self.data(&format!("/api/v1/query?time={time}&query={}", percent(selector)))?;
        let mut series: Vec<String> = list(&found["result"])?.iter().map(shown).collect();
        series.sort();
        Ok(series)
    }

    /// All values that a series had within the hour, in the order of their times.
    pub(super) fn values(&self, selector: &str) -> Result<Vec<f64>, String> {
        Ok(self.samples(selector)?.iter().map(|(_, value)| number(value)).collect())
    }

    /// All samples that a series had within the hour, floats or histograms: times in seconds, and what they are.
    pub(super) fn samples(&self, selector: &str) -> Result<Vec<(f64, Value)>, String> {
        let result = self.query(&format!("{selector}[1h]"))?;
        match result.as_slice() {
            [] => Ok(Vec::new()),
            [one] => {
                let samples = ["values", "histograms"].iter().filter_map(|kind| one[kind].as_array()).flatten();
                Ok(samples.map(|sample| (sample[0].as_f64().unwrap_or(f64::NAN), sample[1].clone())).collect())
            }
            _ => Err(format!("more than one series: {result:?}")),
        }
    }

    /// The exemplars of some series, each as `name{labels} {its labels} value @time`, the time in seconds; in order of
    /// series and times.
    pub(super) fn exemplars(&self, selector: &str) -> Result<Vec<String>, String> {
        let all = "start=0&end=4000000000";
        let found = self.data(&format!("/api/v1/query_exemplars?{all}&query={}", percent(selector)))?;
        let mut shown = Vec::new();
        for series in list(&found)? {
            for exemplar in list(&series["exemplars"])? {
                let (value, time) = (number(&exemplar["value"]), &exemplar["timestamp"]);
                shown.push(format!(
                    "{} {} {value} @{time}",
                    named(&series["seriesLabels"]),
                    named(&exemplar["labels"])
                ));
            }
        }
        shown.sort();
        Ok(shown)
    }

    /// Waits until there are exactly these exemplars.
    pub(super) fn expect_exemplars(&self, selector: &str, exemplars: &[impl AsRef<str>]) {
        let mut wanted: Vec<&str> = exemplars.iter().map(AsRef::as_ref).collect();
        wanted.sort_unstable();
        until(&format!("the exemplars of {selector} are {wanted:#?}"), || match self.exemplars(selector)? {
            found if found == wanted => Ok(()),
            found => Err(format!("{found:#?}")),
        });
    }

    /// Waits until a counting target's values from 1 to `last` have come, each once and in order, and nothing else.
    pub(super) fn expect_counted(&self, selector: &str, last: u64) {
        until(&format!("{selector} counts from 1 to {last}"), || {
            let found = self.values(selector)?;
            self.only_failed(missing(&found, 1, last), "up")
        });
    }

    /// Whether no more of a counting target's values are missing than scrapes failed, as its series `up` says: on a busy machine
    /// one may take too long that the target has counted.
    pub(super) fn only_failed(&self, missing: usize, up: &str) -> Result<(), String> {
        let failed = self.values(up)?.into_iter().filter(|up| *up == 0.0).count();
        if missing <= failed { Ok(()) } else { Err(format!("{missing} are missing, {failed} failed")) }
    }
}

/// How many of the values from `first` to `last` there are not.
///
/// # Panics
///
/// When they are not in order, each once, or there are others.
pub(super) fn missing(found: &[f64], first: u64, last: u64) -> usize {
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "something was repeated or overtaken: {found:?}");
    let is_wanted = |value: &f64| (first as f64..=last as f64).contains(value) && value.fract() == 0.0;
    assert!(found.iter().all(is_wanted), "something else than from {first} to {last}: {found:?}");
    (last + 1 - first) as usize - found.len()
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn list(value: &Value) -> Result<Vec<Value>, String> {
    value.as_array().cloned().ok_or_else(|| format!("no list: {value}"))
}

/// A series and its value, which is JSON if it is a histogram.
fn shown(result: &Value) -> String {
    let value = match &result["histogram"] {
        Value::Null => number(&result["value"][1]).to_string(),
        histogram => histogram[1].to_string(),
    };
    format!("{} {value}", named(&result["metric"]))
}

/// Labels, the name first.
fn named(labels: &Value) -> String {
    let labels = labels.as_object().expect("labels");
    let name = labels.get("__name__").and_then(Value::as_str).unwrap_or_default();
    let labels: Vec<String> = labels
        .iter()
        .filter(|(name, _)| *name != "__name__")
        .map(|(name, value)| format!("{name}={:?}", value.as_str().unwrap_or_default()))
        .collect();
    format!("{name}{{{}}}", labels.join(","))
}

/// A number as the peers write it; read, because they differ in how they write large ones.
fn number(value: &Value) -> f64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no number: {value}"))
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Where a process listens: VictoriaMetrics does not tell which port the system chose for it.
fn listening(pid: u32) -> Option<SocketAddr> {
    let links: Vec<PathBuf> = fs::read_dir(format!("/proc/{pid}/fd"))
        .ok()?
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).ok()?;
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let own = links.iter().any(|link| link.to_str() == Some(&format!("socket:[{inode}]")));
        let port = u16::from_str_radix(local.split_once(':')?.1, 16).ok()?;
        (own && *state == "0A").then(|| ([127, 0, 0, 1], port).into())
    })
}
