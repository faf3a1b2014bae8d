//! The logs of containers, as their runtimes write them.

use corten_golang::time::Zone;
use corten_signal::regex::GoRegex;

use super::parsers::{Matcher, object};
use super::recombine::{Recombine, Recombined};
use super::{Next, Parse, Parser, Transform};
use crate::build::{Built, Fields};
use crate::entry::Entry;
use crate::field::Field;
use crate::json;
use crate::pipeline::Source;
use crate::time::TimeReader;
use crate::value::{Text, Value};

const CRIO: &str = r"^(?P<time>[^ Z]+) (?P<stream>stdout|stderr) (?P<logtag>[^ ]*) ?(?P<log>.*)$";
const CONTAINERD: &str = r"^(?P<time>[^ ^Z]+Z) (?P<stream>stdout|stderr) (?P<logtag>[^ ]*) ?(?P<log>.*)$";
const PATH: &str = r"^.*(\/|\\)(?P<namespace>[^_]+)_(?P<pod_name>[^_]+)_(?P<uid>[a-f0-9\-]+)(\/|\\)(?P<container_name>[^\._]+)(\/|\\)(?P<restart_count>\d+)\.log(\.\d{8}-\d{6})?$";

/// What parts of the path say of the resource.
const OF_PATH: [(&str, &str); 5] = [
    ("container_name", "k8s.container.name"),
    ("namespace", "k8s.namespace.name"),
    ("pod_name", "k8s.pod.name"),
    ("restart_count", "k8s.container.restart_count"),
    ("uid", "k8s.pod.uid"),
];

/// How much text parts are joined to, in bytes.
const LOG_BYTES: i64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Docker,
    Crio,
    Containerd,
}

/// Reads the logs of containers.
pub(crate) struct Container {
    format: Option<Format>,
    from: Field,
    parser: Parser<Line>,
    path: Option<Matcher>,
    /// The paths of files come again and again.
    known_path: (Text, Vec<(Text, Text)>),
    log: Field,
    time: Field,
    stream: Field,
    docker_time: TimeReader,
    crio_time: TimeReader,
    recombine: Recombine,
    id: String,
}

/// A line in one of the formats.
struct Line {
    /// That of the line that comes next.
    format: Format,
    crio: Matcher,
    containerd: Matcher,
}

impl Line {
    fn new() -> Built<Self> {
        let matcher = |pattern: &str| GoRegex::new(pattern).map(Matcher::new).map_err(|error| error.to_string());
        Ok(Line { format: Format::Docker, crio: matcher(CRIO)?, containerd: matcher(CONTAINERD)? })
    }
}

impl Parse for Line {
    fn parse(&mut self, value: &Value, _: &Entry) -> Result<Value, String> {
        let name = match self.format {
            Format::Docker => "docker container logs",
            Format::Crio => "cri-o container logs",
            Format::Containerd => "containerd logs",
        };
        let Value::Str(text) = value else {
            return Err(format!("type '{}' cannot be parsed as {name}", value.go_type()));
        };
        let groups = match self.format {
            Format::Docker => return object(text, json::Options::default()),
            Format::Crio => self.crio.groups(text),
            Format::Containerd => self.containerd.groups(text),
        };
        groups.map(Value::Map).ok_or_else(|| "regex pattern does not match".to_owned())
    }
}

impl Container {
    pub(super) fn new(fields: &Fields<'_>) -> Built<Self> {
        let format = match &*fields.text_or("format", "")? {
            "" => None,
            "docker" => Some(Format::Docker),
            "crio" => Some(Format::Crio),
            "containerd" => Some(Format::Containerd),
            other => {
                return Err(format!("operator config has an invalid `format` field.: {{\"format\":{other:?}}}"));
            }
        };
        let path = GoRegex::new(PATH).map(Matcher::new).map_err(|error| error.to_string())?;
        let local = Zone::load("Local").map_err(|error| error.to_string())?;
        Ok(Container {
            format,
            from: fields.field("parse_from")?.unwrap_or_else(Field::body),
            parser: Parser::new(fields, Line::new()?)?,
            path: fields.bool_or("add_metadata_from_filepath", true)?.then_some(path),
            known_path: Default::default(),
            log: Field::attribute("log"),
            time: Field::attribute("time"),
            stream: Field::attribute("stream"),
            docker_time: TimeReader::go("2006-01-02T15:04:05.999Z", Zone::UTC),
            crio_time: TimeReader::go("2006-01-02T15:04:05.999999999Z07:00", local),
            recombine: Recombine::of_containers(fields.bytes_or("max_log_size", LOG_BYTES)?)?,
            id: fields.text_or("id", "container")?,
        })
    }

    fn detect(&mut self, entry: &Entry) -> Result<Format, String> {
        let line = &mut self.parser.parse;
        let found = match self.from.get(entry) {
            None => Err("entry cannot be parsed as container logs".to_owned()),
            Some(Value::Str(text)) if text.starts_with(b"{") => Ok(Format::Docker),
            Some(Value::Str(text)) if line.crio.is_match(text) => Ok(Format::Crio),
            Some(Value::Str(text)) if line.containerd.is_match(text) => Ok(Format::Containerd),
            Some(Value::Str(text)) => Err(format!("entry cannot be parsed as container logs: {}", text.lossy())),
            Some(other) => Err(format!("type '{}' cannot be parsed as container logs", other.go_type())),
        };
        found.map_err(|error| format!("failed to detect a valid container log format: {error}"))
    }

    /// Reads an entry. What may be a part of a line is to be kept.
    pub(super) fn look(&mut self, entry: &mut Entry) -> Result<Next, String> {
        let format = match self.format {
            Some(format) => format,
            None => self.detect(entry)?,
        };
        self.parser.parse.format = format;
        self.parser.transform(entry)?;
        self.move_parts(entry, format)?;
        self.name_resource(entry)?;
        if format == Format::Docker {
            return Ok(Next::On);
        }
        self.recombine.look(entry)?;
        Ok(Next::Keep)
    }

    fn move_parts(&self, entry: &mut Entry, format: Format) -> Result<(), String> {
        let reader = if format == Format::Crio { &self.crio_time } else { &self.docker_time };
        let Some(time) = self.time.get(entry) else {
            return Err("failed to parse time: failed to get the time".to_owned());
        };
        entry.timestamp = Some(reader.read(time).map_err(|error| format!("failed to parse time: {error}"))?);
        self.time.delete(entry);
        let log = self.log.delete(entry).ok_or_else(|| "move: field log does not exist".to_owned())?;
        Field::body().set(entry, log)?;
        let stream = self.stream.delete(entry).ok_or_else(|| "move: field stream does not exist".to_owned())?;
        entry.attributes_mut().put(Text::of("log.iostream"), stream);
        Ok(())
    }

    fn name_resource(&mut self, entry: &mut Entry) -> Result<(), String> {
        let Some(matcher) = &mut self.path else { return Ok(()) };
        let path = match entry.attributes.as_map().and_then(|attributes| attributes.get(b"log.file.path")) {
            Some(Value::Str(path)) => path.clone(),
            Some(other) => return Err(format!("type '{}' cannot be parsed as log path field", other.go_type())),
            None => {
                return Err(format!(
                    "operator '{}' has 'add_metadata_from_filepath' enabled, but the log record attribute 'log.file.path' is missing. Perhaps enable the 'include_file_path' option?",
                    self.id
                ));
            }
        };
        if self.known_path.0 != path {
            let Some(parts) = matcher.groups(&path) else {
                return Err("failed to detect a valid log path".to_owned());
            };
            let parts = OF_PATH
                .iter()
                .filter_map(|(part, name)| Some((Text::of(name), parts.get(part.as_bytes())?.as_text()?.clone())));
            self.known_path = (path, parts.collect());
        }
        for (name, part) in &self.known_path.1 {
            entry.resource_mut().put(name.clone(), Value::Str(part.clone()));
        }
        Ok(())
    }

    pub(super) fn keep(&mut self, entry: Entry, source: &Source<'_>, flushed: &mut Vec<Recombined>) {
        self.recombine.keep(entry, source, flushed);
    }

    pub(super) fn flush(&mut self, now_ns: u64, all: bool, flushed: &mut Vec<Recombined>) {
        self.recombine.flush(now_ns, all, flushed);
    }

    pub(super) fn keeps(&self) -> bool {
        self.recombine.keeps()
    }
}
