//! How each subject is told to tail files, all in one place.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::{
    error::{Context, Error, Result},
    subject::{Kind, Subject, run_ours, utf8},
};

/// What is taken out of each line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parse {
    /// Nothing.
    None,
    /// An object: three of its fields become labels, one the time.
    Json,
    /// Six groups of a regular expression; one becomes a label.
    Regex,
}

/// What a subject shall do in one run.
#[derive(Debug)]
pub(crate) struct LogsJob<'a> {
    /// A fresh directory for configuration and data.
    pub(crate) dir: &'a Path,
    /// Where the files are.
    pub(crate) logs: &'a Path,
    /// How many there are; none for an empty configuration.
    pub(crate) files: usize,
    /// What is taken out of each line.
    pub(crate) parse: Parse,
    /// Whether the queue of ours is on the disk, as it is by default.
    pub(crate) durable: bool,
    /// Where lines are pushed.
    pub(crate) push: SocketAddr,
    /// Where lines are sent as text.
    pub(crate) text: SocketAddr,
}

/// A program, its command line, and where it says that it is ready, if it does.
#[derive(Debug)]
pub(crate) struct LogsLaunch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) ready: Option<SocketAddr>,
}

/// Files that are written out in the configuration of ours; more are found by a pattern.
const LISTED_MAX: usize = 10;

/// The line of nginx, for Go and for POSIX.
const NGINX: &str = r#"^(?P<remote_addr>\S+) - (?P<remote_user>\S+) \[(?P<time_local>[^\]]+)\] "(?P<request>[^"]*)" (?P<status>\d+) (?P<body_bytes_sent>\d+)"#;
const NGINX_POSIX: &str = r#"^([^ ]+) - ([^ ]+) \[([^]]+)\] "([^"]*)" ([0-9]+) ([0-9]+)"#;

impl Subject {
    /// Whether it sends labels and times, rather than lines alone.
    pub(crate) fn sends_labels(&self) -> bool {
        self.kind == Kind::CortenRun
    }
}

/// Writes the configuration and gives the command line.
pub(crate) fn prepare(subject: &Subject, job: &LogsJob<'_>) -> Result<LogsLaunch> {
    let data = job.dir.join("data");
    fs::create_dir_all(&data).context(format!("cannot make {}", data.display()))?;
    let data = utf8(&data)?;
    let write = |name: &str, text: String| -> Result<String> {
        let path = job.dir.join(name);
        fs::write(&path, text).context(format!("cannot write {}", path.display()))?;
        utf8(&path)
    };
    let (program, mut args, ready) = match subject.kind {
        Kind::CortenRun => {
            let ours = run_ours(job.dir, &alloy(job)?)?;
            (subject.binary.clone(), ours.args, ours.ready)
        }
        Kind::Rsyslog => {
            let config = write("rsyslog.conf", rsyslog(job, &data)?)?;
            let libraries = subject.libraries.iter().map(|path| utf8(path)).collect::<Result<Vec<_>>>()?;
            let modules = libraries.iter().map(|path| format!("{path}/rsyslog")).collect::<Vec<_>>();
            // The program's libraries lie where no loader looks; `env` gives way to the program.
            let args = vec![
                format!("LD_LIBRARY_PATH={}", libraries.join(":")),
                utf8(&subject.binary)?,
                "-n".to_owned(),
                format!("-f{config}"),
                format!("-i{data}/pid"),
                format!("-M{}", modules.join(":")),
            ];
            (PathBuf::from("env"), args, None)
        }
        Kind::Prometheus | Kind::Rotel | Kind::Vmagent => {
            return Err(Error::new(format!("{} does not tail files", subject.name)));
        }
    };
    args.extend(subject.extra.iter().cloned());
    Ok(LogsLaunch { program, args, ready })
}

/// The configuration of ours.
fn alloy(job: &LogsJob<'_>) -> Result<String> {
    if job.files == 0 {
        return Ok("// Nothing to do.\n".to_owned());
    }
    let logs = utf8(job.logs)?;
    let mut text = String::new();
    let targets = if job.files <= LISTED_MAX {
        let mut list = "[\n".to_owned();
        for file in 0..job.files {
            // Writing to a string cannot fail.
            let _ = writeln!(list, "\t\t{{\"__path__\" = \"{logs}/{file}.log\", \"job\" = \"bench\"}},");
        }
        list + "\t]"
    } else {
        text += &format!(
            "local.file_match \"bench\" {{\n\tpath_targets = [{{\"__path__\" = \"{logs}/*.log\", \"job\" = \"bench\"}}]\n}}\n\n"
        );
        "local.file_match.bench.targets".to_owned()
    };
    let receiver = if job.parse == Parse::None { "loki.write.bench.receiver" } else { "loki.process.bench.receiver" };
    text += &format!("loki.source.file \"bench\" {{\n\ttargets = {targets}\n\tforward_to = [{receiver}]\n}}\n\n");
    let stages = match job.parse {
        Parse::None => String::new(),
        Parse::Json => "\tstage.json {\n\
             \t\texpressions = {ts = \"\", level = \"\", service = \"\", method = \"\"}\n\t}\n\n\
             \tstage.labels {\n\t\tvalues = {level = \"\", service = \"\", method = \"\"}\n\t}\n\n\
             \tstage.timestamp {\n\t\tsource = \"ts\"\n\t\tformat = \"RFC3339Nano\"\n\t}\n"
            .to_owned(),
        Parse::Regex => format!(
            "\tstage.regex {{\n\t\texpression = `{NGINX}`\n\t}}\n\n\
             \tstage.labels {{\n\t\tvalues = {{status = \"\"}}\n\t}}\n"
        ),
    };
    if !stages.is_empty() {
        text += &format!("loki.process \"bench\" {{\n\tforward_to = [loki.write.bench.receiver]\n\n{stages}}}\n\n");
    }
    text +=
        &format!("loki.write \"bench\" {{\n\tendpoint {{\n\t\turl = \"http://{}/loki/api/v1/push\"\n\t}}\n", job.push);
    if !job.durable {
        text += "\n\twal {\n\t\tenabled = false\n\t}\n";
    }
    text += "}\n";
    Ok(text)
}

/// The configuration of rsyslog: `imfile` to `omfwd` over TCP, its own defaults for queues but one.
///
/// It starts a second worker when its queue fills, and lines overtake each other then: order is part of the work.
fn rsyslog(job: &LogsJob<'_>, data: &str) -> Result<String> {
    let logs = utf8(job.logs)?;
    let (modules, template, steps) = match job.parse {
        Parse::None => (String::new(), "%msg%\\n".to_owned(), String::new()),
        Parse::Json => (
            "module(load=\"mmjsonparse\")\n".to_owned(),
            "%$!ts% %$!level% %$!service% %$!method%\\t%msg%\\n".to_owned(),
            "  action(type=\"mmjsonparse\" cookie=\"\")\n".to_owned(),
        ),
        Parse::Regex => {
            let pattern = NGINX_POSIX.replace('\\', "\\\\").replace('"', "\\\"");
            let (mut template, mut steps) = (Vec::new(), String::new());
            for group in 1..=6 {
                template.push(format!("%$!g{group}%"));
                let _ = writeln!(steps, "  set $!g{group} = re_extract($msg, \"{pattern}\", 0, {group}, \"\");");
            }
            (String::new(), template.join(" ") + "\\t%msg%\\n", steps)
        }
    };
    Ok(format!(
        "global(workDirectory=\"{data}\" maxMessageSize=\"64k\")\nmain_queue(queue.workerThreads=\"1\")\nmodule(load=\"imfile\")\n{modules}\
         template(name=\"line\" type=\"string\" string=\"{template}\")\n\
         ruleset(name=\"send\") {{\n{steps}\
         \x20 action(type=\"omfwd\" target=\"{}\" port=\"{}\" protocol=\"tcp\" template=\"line\")\n}}\n\
         input(type=\"imfile\" file=\"{logs}/*.log\" tag=\"bench\" ruleset=\"send\")\n",
        job.text.ip(),
        job.text.port(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job<'a>(dir: &'a Path, files: usize, parse: Parse) -> LogsJob<'a> {
        LogsJob {
            dir,
            logs: dir,
            files,
            parse,
            durable: true,
            push: "127.0.0.1:9".parse().unwrap(),
            text: "127.0.0.1:10".parse().unwrap(),
        }
    }

    #[test]
    fn few_files_are_listed_and_many_are_found() {
        let dir = Path::new("/logs");
        let few = alloy(&job(dir, 2, Parse::None)).unwrap();
        assert!(few.contains("{\"__path__\" = \"/logs/1.log\", \"job\" = \"bench\"},"), "{few}");
        assert!(few.contains("forward_to = [loki.write.bench.receiver]"), "{few}");
        let many = alloy(&job(dir, 50, Parse::None)).unwrap();
        assert!(many.contains("targets = local.file_match.bench.targets"), "{many}");
        assert_eq!(alloy(&job(dir, 0, Parse::None)).unwrap(), "// Nothing to do.\n");
    }

    #[test]
    fn the_same_is_taken_out_of_lines_by_all() {
        let dir = Path::new("/logs");
        let json = (alloy(&job(dir, 1, Parse::Json)).unwrap(), rsyslog(&job(dir, 1, Parse::Json), "/data").unwrap());
        for part in ["ts", "level", "service", "method"] {
            assert!(json.0.contains(part) && json.1.contains(part), "{part}: {json:?}");
        }
        let regex = rsyslog(&job(dir, 1, Parse::Regex), "/data").unwrap();
        assert_eq!(regex.matches("re_extract").count(), 6);
        assert_eq!(alloy(&job(dir, 1, Parse::Regex)).unwrap().matches("(?P<").count(), 6);
        assert!(regex.contains("\\\\[([^]]+)\\\\] \\\"([^\\\"]*)\\\" "), "{regex}");
    }

    #[test]
    fn the_queue_is_switched_off_where_that_is_asked_for() {
        let dir = Path::new("/logs");
        assert!(!alloy(&job(dir, 1, Parse::None)).unwrap().contains("wal"));
        let off = LogsJob { durable: false, ..job(dir, 1, Parse::None) };
        assert!(alloy(&off).unwrap().ends_with("\twal {\n\t\tenabled = false\n\t}\n}\n"));
    }
}
