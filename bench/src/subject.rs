//! The systems under test: how each is configured and started, all in one place.

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::error::{Context, Error, Result};

/// What no series of the pages begins with.
const NOTHING: &str = "nothing_";

/// What is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `corten run` with a configuration.
    CortenRun,
    /// Prometheus in agent mode.
    Prometheus,
    /// rotel, which takes and sends OTLP.
    Rotel,
    /// rsyslog, which tails files.
    Rsyslog,
    /// vmagent of VictoriaMetrics.
    Vmagent,
}

/// One system under test.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// What the report calls it.
    pub(crate) name: String,
    /// What is started.
    pub(crate) kind: Kind,
    /// The program.
    pub(crate) binary: PathBuf,
    /// Further arguments, behind those of the template.
    pub(crate) extra: Vec<String>,
    /// The version, if it is known without asking the program.
    pub(crate) version: Option<String>,
    /// Folders of libraries that no loader finds by itself.
    pub(crate) libraries: Vec<PathBuf>,
}

/// What a subject shall do in one run.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// A fresh directory for configuration and data.
    pub(crate) dir: &'a Path,
    /// How often targets are scraped.
    pub(crate) interval: Duration,
    /// The URLs of the targets, one a line, and the file_sd file of the same; `None` for an empty configuration.
    pub(crate) targets: Option<Targets<'a>>,
    /// Where samples are sent.
    pub(crate) sink: SocketAddr,
    /// Whether samples are relabelled.
    pub(crate) relabel: bool,
    /// A second place that samples are sent to; only for ours.
    pub(crate) hole: Option<SocketAddr>,
    /// The cap of the queue, if it is not to be the default; only for ours.
    pub(crate) queue_cap: Option<&'static str>,
    /// Whether somebody may look at what passes; only for ours.
    pub(crate) live_view: bool,
}

/// What of a configuration allows to look at what passes.
pub(crate) const LIVE_VIEW: &str = "livedebugging {\n\tenabled = true\n}\n\n";

/// The targets in two forms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Targets<'a> {
    /// One URL a line.
    pub(crate) list: &'a Path,
    /// For `file_sd_configs`.
    pub(crate) file_sd: &'a Path,
}

/// A command line, and where the process says that it is ready, if it does.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) args: Vec<String>,
    pub(crate) ready: Option<SocketAddr>,
}

impl Subject {
    /// Writes the configuration and gives the command line.
    pub(crate) fn prepare(&self, job: &Job<'_>) -> Result<Launch> {
        let write = |name: &str, text: String| -> Result<String> {
            let path = job.dir.join(name);
            fs::write(&path, text).context(format!("cannot write {}", path.display()))?;
            utf8(&path)
        };
        let data = utf8(&job.dir.join("data"))?;
        let url = format!("http://{}/api/v1/write", job.sink);
        let http = free_address()?;
        let (mut args, ready) = match self.kind {
            Kind::CortenRun => {
                let ours = run_ours(job.dir, &alloy(job, &url)?)?;
                (ours.args, ours.ready)
            }
            Kind::Prometheus => {
                let config = write("prometheus.yml", scrape_config(job)? + &remote_write_config(job, &url))?;
                let args = vec![
                    "--enable-feature=agent".to_owned(),
                    format!("--config.file={config}"),
                    format!("--storage.agent.path={data}"),
                    format!("--web.listen-address={http}"),
                ];
                (args, Some(http))
            }
            Kind::Rotel | Kind::Rsyslog => return Err(Error::new(format!("{} does not scrape", self.name))),
            Kind::Vmagent => {
                let config = write("vmagent.yml", scrape_config(job)?)?;
                let args = vec![
                    format!("-promscrape.config={config}"),
                    "-promscrape.suppressDuplicateScrapeTargetErrors".to_owned(),
                    // Its default of 16 MiB is less than the page of s3.
                    "-promscrape.maxScrapeSize=256MiB".to_owned(),
                    format!("-remoteWrite.url={url}"),
                    format!("-remoteWrite.tmpDataPath={data}"),
                    format!("-httpListenAddr={http}"),
                ];
                (args, Some(http))
            }
        };
        args.extend(self.extra.iter().cloned());
        Ok(Launch { args, ready })
    }
}

/// Writes a configuration of ours into a directory, and gives the command line that runs it with its data beside it.
pub(crate) fn run_ours(dir: &Path, config: &str) -> Result<Launch> {
    let path = dir.join("config.alloy");
    fs::write(&path, config).context(format!("cannot write {}", path.display()))?;
    let http = free_address()?;
    let args = vec![
        "run".to_owned(),
        utf8(&path)?,
        format!("--storage.path={}", utf8(&dir.join("data"))?),
        format!("--server.http.listen-addr={http}"),
    ];
    Ok(Launch { args, ready: Some(http) })
}

/// A loopback address with a port that is free now.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot find a free port")?;
    listener.local_addr().context("cannot find a free port")
}

/// A path as text that can stand in a configuration.
pub(crate) fn utf8(path: &Path) -> Result<String> {
    let text = path.to_str().ok_or_else(|| Error::new(format!("{} is not valid UTF-8", path.display())))?;
    if text.contains(['"', '\\', '\n']) {
        return Err(Error::new(format!("{text:?} cannot be written into a configuration")));
    }
    Ok(text.to_owned())
}

/// The part of the configuration that Prometheus and vmagent share.
fn scrape_config(job: &Job<'_>) -> Result<String> {
    let Some(targets) = job.targets else { return Ok("scrape_configs: []\n".to_owned()) };
    let interval = job.interval.as_millis();
    let mut text = format!(
        "global:\n  scrape_interval: {interval}ms\n  scrape_timeout: {interval}ms\n\
         scrape_configs:\n- job_name: bench\n  file_sd_configs:\n  - files: [\"{}\"]\n",
        utf8(targets.file_sd)?
    );
    if job.relabel {
        text += &format!(
            "  metric_relabel_configs:\n\
             \x20 - {{source_labels: [__name__], regex: \"{NOTHING}.*\", action: drop}}\n\
             \x20 - {{source_labels: [service], regex: \"svc-(.*)\", target_label: app, replacement: \"team-$1\"}}\n\
             \x20 - {{source_labels: [pod], modulus: 16, target_label: part, action: hashmod}}\n\
             \x20 - {{regex: pod, replacement: workload, action: labelmap}}\n\
             \x20 - {{regex: pod, action: labeldrop}}\n"
        );
    }
    Ok(text)
}

fn remote_write_config(job: &Job<'_>, url: &str) -> String {
    if job.targets.is_none() { String::new() } else { format!("remote_write:\n- url: {url}\n") }
}

/// The configuration of ours.
fn alloy(job: &Job<'_>, url: &str) -> Result<String> {
    let Some(targets) = job.targets else { return Ok("// Nothing to do.\n".to_owned()) };
    let list = fs::read_to_string(targets.list).context(format!("cannot read {}", targets.list.display()))?;
    let mut text = if job.live_view { LIVE_VIEW.to_owned() } else { String::new() };
    text += "prometheus.scrape \"bench\" {\n\ttargets = [\n";
    for target in list.lines() {
        let (address, path) = target
            .strip_prefix("http://")
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(|| Error::new(format!("{target:?} is not the URL of a target")))?;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\t\t{{\"__address__\" = \"{address}\", \"__metrics_path__\" = \"/{path}\"}},");
    }
    let receiver = if job.relabel { "prometheus.relabel.bench" } else { "prometheus.remote_write.bench" };
    let interval = job.interval.as_millis();
    text += &format!(
        "\t]\n\tforward_to = [{receiver}.receiver]\n\tjob_name = \"bench\"\n\
         \tscrape_interval = \"{interval}ms\"\n\tscrape_timeout = \"{interval}ms\"\n}}\n\n"
    );
    if job.relabel {
        text += &format!(
            "prometheus.relabel \"bench\" {{\n\tforward_to = [prometheus.remote_write.bench.receiver]\n\n\
             \trule {{\n\t\tsource_labels = [\"__name__\"]\n\t\tregex = \"{NOTHING}.*\"\n\t\taction = \"drop\"\n\t}}\n\n\
             \trule {{\n\t\tsource_labels = [\"service\"]\n\t\tregex = \"svc-(.*)\"\n\t\ttarget_label = \"app\"\n\
             \t\treplacement = \"team-$1\"\n\t}}\n\n\
             \trule {{\n\t\tsource_labels = [\"pod\"]\n\t\tmodulus = 16\n\t\ttarget_label = \"part\"\n\
             \t\taction = \"hashmod\"\n\t}}\n\n\
             \trule {{\n\t\tregex = \"pod\"\n\t\treplacement = \"workload\"\n\t\taction = \"labelmap\"\n\t}}\n\n\
             \trule {{\n\t\tregex = \"pod\"\n\t\taction = \"labeldrop\"\n\t}}\n}}\n\n"
        );
    }
    text += &format!("prometheus.remote_write \"bench\" {{\n\tendpoint {{\n\t\turl = \"{url}\"\n\t}}\n");
    if let Some(hole) = job.hole {
        text += &format!("\n\tendpoint {{\n\t\turl = \"http://{hole}/api/v1/write\"\n\t}}\n");
    }
    if let Some(cap) = job.queue_cap {
        text += &format!("\n\twal {{\n\t\tmax_bytes = \"{cap}\"\n\t}}\n");
    }
    text += "}\n";
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepare(kind: Kind, targets: bool, relabel: bool) -> (Vec<String>, String, Option<SocketAddr>) {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("corten-bench-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let list = dir.join("list");
        fs::write(&list, "http://127.1.0.1:80/t/0/metrics\nhttp://127.1.0.2:80/t/1/metrics\n").unwrap();
        let file_sd = dir.join("sd.json");
        let subject = Subject {
            name: "x".to_owned(),
            kind,
            binary: PathBuf::from("x"),
            extra: vec!["--more".to_owned()],
            version: None,
            libraries: Vec::new(),
        };
        let launch = subject
            .prepare(&Job {
                dir: &dir,
                interval: Duration::from_secs(5),
                targets: targets.then_some(Targets { list: &list, file_sd: &file_sd }),
                sink: "127.0.0.1:9".parse().unwrap(),
                relabel,
                hole: relabel.then(|| ([127, 0, 0, 1], 10).into()),
                queue_cap: relabel.then_some("4MiB"),
                live_view: false,
            })
            .unwrap();
        let config = ["config.alloy", "prometheus.yml", "vmagent.yml", "targets.txt"];
        let config = config.into_iter().find_map(|name| fs::read_to_string(dir.join(name)).ok()).unwrap_or_default();
        let place = dir.to_str().unwrap();
        let args = launch.args.iter().map(|arg| arg.replace(place, "DIR")).collect();
        let config = config.replace(place, "DIR");
        fs::remove_dir_all(dir).unwrap();
        (args, config, launch.ready)
    }

    #[test]
    fn ours_is_started_as_a_user_starts_it() {
        let (args, config, ready) = prepare(Kind::CortenRun, true, false);
        let listen = format!("--server.http.listen-addr={}", ready.unwrap());
        assert_eq!(args, ["run", "DIR/config.alloy", "--storage.path=DIR/data", &listen, "--more"]);
        assert!(config.contains("{\"__address__\" = \"127.1.0.2:80\", \"__metrics_path__\" = \"/t/1/metrics\"},\n"));
        assert!(config.contains("forward_to = [prometheus.remote_write.bench.receiver]"));
        assert!(config.contains("url = \"http://127.0.0.1:9/api/v1/write\""));
    }

    #[test]
    fn relabel_rules_are_the_same_for_all() {
        for kind in [Kind::CortenRun, Kind::Prometheus, Kind::Vmagent] {
            let (_, config, _) = prepare(kind, true, true);
            for part in ["nothing_.*", "svc-(.*)", "team-$1", "hashmod", "labelmap", "labeldrop", "drop"] {
                assert!(config.contains(part), "{kind:?} lacks {part}");
            }
        }
    }

    #[test]
    fn a_second_endpoint_and_a_cap_are_written_for_ours() {
        let (_, config, _) = prepare(Kind::CortenRun, true, true);
        let end = "\tendpoint {\n\t\turl = \"http://127.0.0.1:9/api/v1/write\"\n\t}\n\n\tendpoint {\n\t\turl = \
                   \"http://127.0.0.1:10/api/v1/write\"\n\t}\n\n\twal {\n\t\tmax_bytes = \"4MiB\"\n\t}\n}\n";
        assert!(config.ends_with(end), "{config}");
        assert!(!prepare(Kind::CortenRun, true, false).1.contains("wal"));
    }

    #[test]
    fn an_empty_configuration_has_no_targets() {
        assert_eq!(prepare(Kind::Prometheus, false, false).1, "scrape_configs: []\n");
        assert_eq!(prepare(Kind::Vmagent, false, false).1, "scrape_configs: []\n");
        assert_eq!(prepare(Kind::CortenRun, false, false).1, "// Nothing to do.\n");
    }
}
