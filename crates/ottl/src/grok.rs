//! Grok: patterns by name.

use corten_signal::regex::GoRegex;

/// The longest regular expression that a pattern may become, in bytes.
const EXPANDED_BYTES_MAX: usize = 1 << 17;

/// A pattern whose names were resolved.
#[derive(Debug)]
pub(crate) struct Grok {
    pub(crate) regex: GoRegex,
    /// The groups that have a name, with it and with the type that was asked for.
    pub(crate) groups: Vec<(usize, String, Kind)>,
}

/// What a match is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Int,
    Double,
    Bool,
    /// There is no such type, which only shows when there is a match.
    Unknown,
}

/// A point in a name, which regular expressions do not take.
const POINT: &str = "___";

/// The names that are known without being defined. Groups within them have their names where all are captured, so that these
/// count as well as what they match.
const PATTERNS: &[(&str, &str)] = &[
    ("WORD", r"\b\w+\b"),
    ("NOTSPACE", r"\S+"),
    ("SPACE", r"\s*"),
    ("DATA", ".*?"),
    ("GREEDYDATA", ".*"),
    ("INT", "(?:[-+]?[0-9]+)"),
    ("BASE10NUM", r"(?:[-+]?[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"),
    ("NUMBER", "(?:%{BASE10NUM})"),
    ("BASE16NUM", "[-+]?(?:0x)?[[:xdigit:]]+"),
    ("BASE16FLOAT", r"[-+]?(?:0x)?[[:xdigit:]]+(?:\.[[:xdigit:]]*)?"),
    ("POSINT", r"\b[1-9]\d*\b"),
    ("NONNEGINT", r"\b\d+\b"),
    ("BOOL", "true|false"),
    ("QUOTEDSTRING", r#""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"#),
    ("QS", "%{QUOTEDSTRING}"),
    ("UUID", "[[:xdigit:]]{8}-(?:[[:xdigit:]]{4}-){3}[[:xdigit:]]{12}"),
    ("URN", r"urn:[[:alnum:]][[:alnum:]-]{0,31}:[[:alnum:]()+,.:=@;$_!*'/?#-]+"),
    ("USERNAME", "[[:alnum:]._-]+"),
    ("USER", "%{USERNAME}"),
    ("EMAILLOCALPART", "[[:alpha:]][[:alnum:]_.+:=-]+"),
    ("EMAILADDRESS", "%{EMAILLOCALPART}@%{HOSTNAME}"),
    ("CISCOMAC", r"(?:(?:[[:xdigit:]]{4}\.){2}[[:xdigit:]]{4})"),
    ("WINDOWSMAC", "(?:(?:[[:xdigit:]]{2}-){5}[[:xdigit:]]{2})"),
    ("COMMONMAC", "(?:(?:[[:xdigit:]]{2}:){5}[[:xdigit:]]{2})"),
    ("MAC", "(?:%{CISCOMAC}|%{WINDOWSMAC}|%{COMMONMAC})"),
    ("IPV4", r"(?:(?:25[0-5]|2[0-4]\d|[01]?\d\d?)\.){3}(?:25[0-5]|2[0-4]\d|[01]?\d\d?)"),
    (
        "IPV6",
        "(?:(?:[[:xdigit:]]{1,4}:){7}[[:xdigit:]]{1,4}|(?:[[:xdigit:]]{1,4}:){6}(?:\\d{1,3}\\.){3}\\d{1,3}\
         |(?:[[:xdigit:]]{1,4}:){0,6}(?::(?:[[:xdigit:]]{1,4}:){0,5}(?:\\d{1,3}\\.){3}\\d{1,3}|(?::[[:xdigit:]]{1,4}){1,7}|:)\
         |:(?::[[:xdigit:]]{1,4}){1,7}|::)(?:%[[:alnum:]]+)?",
    ),
    ("IP", "(?:%{IPV6}|%{IPV4})"),
    ("HOSTNAME", r"\b[[:alnum:]][[:alnum:]-]{0,62}(?:\.[[:alnum:]][[:alnum:]-]{0,62})*(?:\.?|\b)"),
    ("HOST", "%{HOSTNAME}"),
    ("IPORHOST", "(?:%{IP}|%{HOSTNAME})"),
    ("HOSTPORT", "%{IPORHOST}:%{POSINT}"),
    ("UNIXPATH", r"(?:/[\w%!$@:.,+~-]+)+"),
    ("WINPATH", r"[A-Za-z]+:(?:\\[^\\?*]+)+"),
    ("PATH", "(?:%{UNIXPATH}|%{WINPATH})"),
    ("TTY", r"/dev/(?:pts|tty[pq]?)\w*/?[0-9]+"),
    ("URIPROTO", r"[[:alpha:]][[:alnum:]+.-]+"),
    ("URIHOST", "%{IPORHOST}(?::%{POSINT})?"),
    ("URIPATH", r"(?:/[[:alnum:]$.+!*'(){},~:;=@#%&_-]+)+"),
    ("URIQUERY", r"[[:alnum:]$.+!*'|(){},~@#%&/=:;_?\[\]<>-]*"),
    ("URIPARAM", r"\?%{URIQUERY}"),
    ("URIPATHPARAM", r"%{URIPATH}(?:\?%{URIQUERY})?"),
    ("URI", r"%{URIPROTO}://(?:%{USER}(?::[^@]*)?@)?%{URIHOST}(?:%{URIPATH}(?:\?%{URIQUERY})?)?"),
    (
        "MONTH",
        r"\b(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sep(?:tember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\b",
    ),
    ("MONTHNUM", "(?:0[1-9]|1[0-2])"),
    ("MONTHDAY", "(?:0[1-9]|[12][0-9]|3[01]|[1-9])"),
    ("DAY", r"\b(?:(?:Mon|Fri|Sun)(?:day)?|Tue(?:sday)?|Wed(?:nesday)?|Thu(?:rsday)?|Sat(?:urday)?)\b"),
    ("YEAR", r"(?:\d\d){1,2}"),
    ("HOUR", "(?:2[0-3]|[01]?[0-9])"),
    ("MINUTE", "(?:[0-5][0-9])"),
    ("SECOND", "(?:(?:[0-5][0-9]|60)(?:[:.,][0-9]+)?)"),
    ("TIME", "%{HOUR}:%{MINUTE}(?::%{SECOND})?"),
    ("DATE_US", "%{MONTHNUM}[/-]%{MONTHDAY}[/-]%{YEAR}"),
    ("DATE_EU", "%{MONTHDAY}[./-]%{MONTHNUM}[./-]%{YEAR}"),
    ("DATE", "%{DATE_US}|%{DATE_EU}"),
    ("DATESTAMP", "%{DATE}[- ]%{TIME}"),
    ("ISO8601_TIMEZONE", "(?:Z|[+-]%{HOUR}(?::?%{MINUTE}))"),
    ("ISO8601_SECOND", "%{SECOND}"),
    ("TIMESTAMP_ISO8601", "%{YEAR}-%{MONTHNUM}-%{MONTHDAY}[T ]%{HOUR}:?%{MINUTE}(?::?%{SECOND})?%{ISO8601_TIMEZONE}?"),
    ("TZ", "(?:[PMACE][SED]T|UTC)"),
    ("DATESTAMP_RFC822", "%{DAY} %{MONTH} %{MONTHDAY} %{YEAR} %{TIME} %{TZ}"),
    ("DATESTAMP_RFC2822", "%{DAY}, %{MONTHDAY} %{MONTH} %{YEAR} %{TIME} %{ISO8601_TIMEZONE}"),
    ("DATESTAMP_OTHER", "%{DAY} %{MONTH} %{MONTHDAY} %{TIME} %{TZ} %{YEAR}"),
    ("DATESTAMP_EVENTLOG", "%{YEAR}%{MONTHNUM}%{MONTHDAY}%{HOUR}%{MINUTE}%{SECOND}"),
    ("SYSLOGTIMESTAMP", "%{MONTH} +%{MONTHDAY} %{TIME}"),
    ("PROG", r"[!-Z\\^-~]+"),
    ("SYSLOGPROG", r"%{PROG}(?:\[\d+\])?"),
    ("SYSLOGHOST", "%{IPORHOST}"),
    ("SYSLOGFACILITY", "<%{NONNEGINT}.%{NONNEGINT}>"),
    ("SYSLOGBASE", "%{SYSLOGTIMESTAMP:timestamp} (?:%{SYSLOGFACILITY} )?%{SYSLOGHOST:host.name} %{SYSLOGPROG}:"),
    (
        "SYSLOGBASE2",
        "(?:%{SYSLOGTIMESTAMP:timestamp}|%{TIMESTAMP_ISO8601:timestamp})(?: %{SYSLOGFACILITY})?(?: %{SYSLOGHOST:host.name})?(?: %{SYSLOGPROG}:)?",
    ),
    ("SYSLOGLINE", "%{SYSLOGBASE2} %{GREEDYDATA:message}"),
    ("CRON_ACTION", "[A-Z ]+"),
    ("CRONLOG", r"%{SYSLOGBASE} \(%{USER:user.name}\) %{CRON_ACTION:system.cron.action} \(%{DATA:message}\)"),
    ("HTTPDATE", "%{MONTHDAY}/%{MONTH}/%{YEAR}:%{TIME} %{INT}"),
    ("HTTPDUSER", "%{EMAILADDRESS}|%{USER}"),
    ("HTTPDERROR_DATE", "%{DAY} %{MONTH} %{MONTHDAY} %{TIME} %{YEAR}"),
    (
        "HTTPD_COMMONLOG",
        r#"%{IPORHOST:source.address} (?:-|%{HTTPDUSER:apache.access.user.identity}) (?:-|%{HTTPDUSER:user.name}) \[%{HTTPDATE:timestamp}\] "(?:%{WORD:http.request.method} %{NOTSPACE:url.original}(?: HTTP/%{NUMBER:http.version})?|%{DATA})" (?:-|%{INT:http.response.status_code:int}) (?:-|%{INT:http.response.body.size:long})"#,
    ),
    (
        "HTTPD_COMBINEDLOG",
        r#"%{HTTPD_COMMONLOG} "(?:-|%{DATA:http.request.referrer})" "(?:-|%{DATA:user_agent.original})""#,
    ),
    ("COMMONAPACHELOG", "%{HTTPD_COMMONLOG}"),
    ("COMBINEDAPACHELOG", "%{HTTPD_COMBINEDLOG}"),
    // Of the error log, in the form of version 2.0 or 2.4.
    (
        "HTTPD20_ERRORLOG",
        r"\[%{HTTPDERROR_DATE:timestamp}\] \[%{LOGLEVEL:log.level}\] (?:\[client %{IPORHOST:source.address}\] )?%{GREEDYDATA:message}",
    ),
    (
        "HTTPD24_ERRORLOG",
        concat!(
            r"\[%{HTTPDERROR_DATE:timestamp}\] \[(?:%{WORD:apache.error.module})?:%{LOGLEVEL:log.level}\]",
            r" \[pid %{POSINT:process.pid:long}(?::tid %{INT:process.thread.id:int})?\]",
            r"(?: \(%{POSINT:apache.error.proxy.error.code}\)?%{DATA:apache.error.proxy.error.message}:)?",
            r"(?: \[client %{IPORHOST:source.address}(?::%{POSINT:source.port:int})?\])?",
            r"(?: %{DATA:error.code}:)? %{GREEDYDATA:message}"
        ),
    ),
    ("HTTPD_ERRORLOG", "%{HTTPD20_ERRORLOG}|%{HTTPD24_ERRORLOG}"),
    // Syslog as in RFC 5424: what is not known is a dash.
    ("SYSLOG5424PRINTASCII", "[!-~]+"),
    ("SYSLOG5424PRI", "<%{NONNEGINT:log.syslog.priority:int}>"),
    ("SYSLOG5424SD", r"\[%{DATA}\]+"),
    (
        "SYSLOG5424BASE",
        concat!(
            "%{SYSLOG5424PRI}%{NONNEGINT:system.syslog.version} +(?:-|%{TIMESTAMP_ISO8601:timestamp})",
            " +(?:-|%{IPORHOST:host.name}) +(?:-|%{SYSLOG5424PRINTASCII:process.command}) +(?:-|%{POSINT:process.pid:int})",
            " +(?:-|%{SYSLOG5424PRINTASCII:event.code}) +(?:-|%{SYSLOG5424SD:system.syslog.structured_data})?"
        ),
    ),
    ("SYSLOG5424LINE", "%{SYSLOG5424BASE} +%{GREEDYDATA:message}"),
    (
        "SYSLOGPAMSESSION",
        concat!(
            "%{SYSLOGBASE} (?:%{GREEDYDATA:message})%{WORD:system.auth.pam.module}",
            r"\(%{DATA:system.auth.pam.origin}\): session %{WORD:system.auth.pam.session_state}",
            " for user %{USERNAME:user.name}(?: by %{GREEDYDATA})?"
        ),
    ),
    // Java, and what runs it.
    ("JAVACLASS", r"(?:[[:alpha:]$_][\w$]*\.)*[[:alpha:]$_][\w$]*"),
    ("JAVAFILE", "(?:[[:alnum:]$_. -]+)"),
    ("JAVAMETHOD", r"(?:<(?:cl)?init>|[[:alpha:]$_][\w$]*)"),
    ("JAVATHREAD", r"(?:[A-Z]{2}-Processor\d+)"),
    ("JAVALOGMESSAGE", "(?:.*)"),
    (
        "JAVASTACKTRACEPART",
        concat!(
            r"%{SPACE}at %{JAVACLASS:java.log.origin.class.name}\.%{JAVAMETHOD:log.origin.function}",
            r"\(%{JAVAFILE:log.origin.file.name}(?::%{INT:log.origin.file.line:int})?\)"
        ),
    ),
    ("CATALINA7_DATESTAMP", "%{MONTH} %{MONTHDAY}, %{YEAR} %{HOUR}:%{MINUTE}:%{SECOND} (?:AM|PM)"),
    ("CATALINA8_DATESTAMP", "%{MONTHDAY}-%{MONTH}-%{YEAR} %{HOUR}:%{MINUTE}:%{SECOND}"),
    ("CATALINA_DATESTAMP", "(?:%{CATALINA8_DATESTAMP})|(?:%{CATALINA7_DATESTAMP})"),
    (
        "CATALINA7_LOG",
        concat!(
            "%{CATALINA7_DATESTAMP:timestamp} %{JAVACLASS:java.log.origin.class.name}(?: %{JAVAMETHOD:log.origin.function})?",
            r"\s*(?:%{LOGLEVEL:log.level}:)? %{JAVALOGMESSAGE:message}"
        ),
    ),
    (
        "CATALINA8_LOG",
        concat!(
            r"%{CATALINA8_DATESTAMP:timestamp} %{LOGLEVEL:log.level} \[%{DATA:java.log.origin.thread.name}\]",
            r" %{JAVACLASS:java.log.origin.class.name}\.(?:%{JAVAMETHOD:log.origin.function})? %{JAVALOGMESSAGE:message}"
        ),
    ),
    ("CATALINALOG", "(?:%{CATALINA8_LOG})|(?:%{CATALINA7_LOG})"),
    ("TOMCAT7_LOG", "%{CATALINA7_LOG}"),
    ("TOMCAT8_LOG", "%{CATALINA8_LOG}"),
    // Stores of data.
    ("REDISTIMESTAMP", "%{MONTHDAY} %{MONTH} %{TIME}"),
    ("REDISLOG", r"\[%{POSINT:process.pid:int}\] %{REDISTIMESTAMP:timestamp} \*"),
    (
        "REDISMONLOG",
        concat!(
            r"%{NUMBER:timestamp} \[%{INT:redis.database.id} %{IP:client.address}:%{POSINT:client.port:int}\]",
            r#" "%{WORD:redis.command.name}"\s?%{GREEDYDATA:redis.command.args}"#
        ),
    ),
    (
        "POSTGRESQL",
        concat!(
            "%{DATESTAMP:timestamp} %{TZ:event.timezone} %{DATA:user.name} %{GREEDYDATA:postgresql.log.connection_id}",
            " %{POSINT:process.pid:int}"
        ),
    ),
    ("MONGO_LOG", r"%{SYSLOGTIMESTAMP:timestamp} \[%{WORD:db.mongodb.component}\] %{GREEDYDATA:message}"),
    ("MONGO_WORDDASH", r"\b[\w-]+\b"),
    ("MONGO3_SEVERITY", r"\w"),
    ("MONGO3_COMPONENT", "%{WORD}"),
    (
        "MONGO3_LOG",
        concat!(
            "%{TIMESTAMP_ISO8601:timestamp} %{MONGO3_SEVERITY:log.level} (?:-|%{MONGO3_COMPONENT:db.mongodb.component})",
            r"%{SPACE}(?:\[%{DATA:db.mongodb.context}\])? %{GREEDYDATA:message}"
        ),
    ),
    ("RUBY_LOGLEVEL", "(?:DEBUG|INFO|WARN|ERROR|FATAL)"),
    (
        "RUBY_LOGGER",
        concat!(
            r"[DIWEF], \[%{TIMESTAMP_ISO8601:timestamp} #%{POSINT:process.pid:int}\]",
            " *%{RUBY_LOGLEVEL:log.level} -- +%{DATA:process.command}: %{GREEDYDATA:message}"
        ),
    ),
    (
        "LOGLEVEL",
        "(?i)(?:alert|trace|debug|notice|info(?:rmation)?|warn(?:ing)?|err(?:or)?|crit(?:ical)?|fatal|severe|emerg(?:ency)?)",
    ),
];

impl Grok {
    /// Reads a pattern. Names may be defined as `NAME=pattern`. With `named_only`, what has no name of its own in the
    /// pattern is not captured.
    pub(crate) fn new(pattern: &str, definitions: &[&str], named_only: bool) -> Result<Self, String> {
        let mut own: Vec<(&str, &str)> = Vec::new();
        for definition in definitions {
            let (name, pattern) = definition
                .split_once('=')
                .ok_or_else(|| format!("{definition:?} is no definition, which is written NAME=pattern"))?;
            if name.contains(':') {
                return Err(format!("the name {name:?} of a pattern cannot contain a colon"));
            }
            own.push((name, pattern));
        }
        let mut kinds: Vec<(String, Kind)> = Vec::new();
        let mut expanded = pattern.to_owned();
        let mut from = 0;
        while let Some((at, len)) = reference(&expanded, from) {
            // What stands before it refers to nothing any more.
            from = at;
            let mut parts = expanded[at + 2..at + len - 1].split(':');
            let name = parts.next().unwrap_or_default().to_owned();
            let target = parts.next().map(|target| target.replace('.', POINT));
            if let (Some(target), Some(kind)) = (&target, parts.next()) {
                let kind = match kind {
                    "string" => Kind::Text,
                    "int" | "long" => Kind::Int,
                    "float" | "double" => Kind::Double,
                    "bool" | "boolean" => Kind::Bool,
                    _ => Kind::Unknown,
                };
                kinds.push((target.clone(), kind));
            }
            // Of equal names the last definition counts.
            let found = own.iter().rev().chain(PATTERNS).find(|(known, _)| *known == name);
            let (_, definition) = found.ok_or_else(|| format!("the pattern {name} is not known"))?;
            let group = match target {
                None if named_only => format!("({definition})"),
                None => format!("(?P<{name}>{definition})"),
                Some(target) => format!("(?P<{target}>{definition})"),
            };
            expanded.replace_range(at..at + len, &group);
            if expanded.len() > EXPANDED_BYTES_MAX {
                return Err("the pattern refers to itself, or is too large".to_owned());
            }
        }
        let regex = GoRegex::new(&expanded).map_err(|error| error.to_string())?;
        let groups = regex.group_names().enumerate().filter_map(|(at, name)| {
            let name = name?;
            let kind = kinds.iter().rev().find(|(known, _)| known == name).map_or(Kind::Text, |(_, kind)| *kind);
            Some((at + 1, name.replace(POINT, "."), kind))
        });
        let groups: Vec<_> = groups.collect();
        if named_only && groups.is_empty() {
            return Err("the pattern needs at least one name, as in %{WORD:name}".to_owned());
        }
        Ok(Grok { regex, groups })
    }
}

/// Where from a place on the first `%{NAME}`, `%{NAME:target}` or `%{NAME:target:type}` stands, and how long it is.
fn reference(pattern: &str, from: usize) -> Option<(usize, usize)> {
    let is_word =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let is_target = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'+'))
    };
    pattern[from..].match_indices("%{").find_map(|(at, _)| {
        let at = from + at;
        let len = pattern[at..].find('}')? + 1;
        let parts: Vec<&str> = pattern[at + 2..at + len - 1].split(':').collect();
        let fits = match parts[..] {
            [name] => is_word(name),
            [name, target] => is_word(name) && is_target(target),
            [name, target, kind] => is_word(name) && is_target(target) && is_word(kind),
            _ => false,
        };
        fits.then_some((at, len))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_pattern_can_be_read() {
        for (name, _) in PATTERNS {
            for named_only in [true, false] {
                let read = Grok::new(&format!("%{{{name}:x}}"), &[], named_only);
                assert!(read.is_ok(), "{name}: {read:?}");
            }
        }
    }

    #[test]
    fn a_pattern_that_refers_to_itself_is_refused() {
        for definitions in [&["A=%{A}"][..], &["A=%{B}%{B}", "B=%{A}%{A}"], &["A=x%{A:y}"]] {
            let error = Grok::new("%{A:a}", definitions, true).unwrap_err();
            assert!(error.contains("itself"), "{error}");
        }
        assert!(Grok::new("%{NOPE:a}", &[], true).unwrap_err().contains("NOPE"));
    }
}
