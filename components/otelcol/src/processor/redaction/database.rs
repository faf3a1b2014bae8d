//! Statements and commands for databases, with their values hidden.

use corten_config::Arguments;
use corten_otlp::{Arena, Map, Value};

use super::{json, redis, sql, trim};

/// How to hide the values in statements and commands for databases.
///
/// The attribute `db.system.name`, or else `db.system`, of what holds the attribute says which database it is for. Log records
/// need not have either: without it, all databases that are enabled have their turn.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct DbSanitizer {
    /// Whether names of spans are changed.
    #[arg(default = true)]
    sanitize_span_name: bool,
    /// Statements in SQL. Strings, numbers, truth values and `NULL` become question marks, and so do digits in names.
    #[block(optional)]
    sql: Database,
    /// Commands of Redis. Values become question marks.
    #[block(optional)]
    redis: Database,
    /// Commands of Valkey. Values become question marks.
    #[block(optional)]
    valkey: Database,
    /// Commands of Memcached. Only the first line stays.
    #[block(optional)]
    memcached: Database,
    /// Commands of MongoDB in JSON. Values become question marks.
    #[block(optional)]
    mongo: Database,
    /// Queries of OpenSearch in JSON. Values become question marks.
    #[block(optional)]
    opensearch: Database,
    /// Queries of Elasticsearch in JSON. Values become question marks.
    #[block(optional)]
    es: Database,
}

/// A kind of database.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub(super) struct Database {
    /// Whether statements for it are changed: in bodies of log records, in names of spans, and in `attributes`.
    #[arg(default = false)]
    enabled: bool,
    /// Keys of the attributes to change.
    #[arg(optional)]
    attributes: Vec<String>,
}

/// What is done with statements.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Language {
    Sql,
    Redis,
    Memcached,
    Json,
}

impl Language {
    fn hide(self, text: &[u8], system: &str) -> Vec<u8> {
        match self {
            Language::Sql => sql::hide(text, system == "mysql"),
            Language::Redis => redis::hide(text),
            Language::Memcached => {
                let end = text.windows(2).position(|two| two == b"\r\n").unwrap_or(text.len());
                trim(&text[..end]).to_vec()
            }
            Language::Json => json::hide(text).unwrap_or_else(|| text.to_vec()),
        }
    }
}

/// The databases whose statements are changed.
#[derive(Debug)]
pub(super) struct Databases {
    databases: Vec<Known>,
    pub(super) changes_span_names: bool,
}

#[derive(Debug)]
struct Known {
    language: Language,
    systems: &'static [&'static str],
    attributes: Vec<String>,
}

impl Known {
    fn has_attribute(&self, key: &[u8]) -> bool {
        self.attributes.iter().any(|known| known.as_bytes() == key)
    }
}

impl Databases {
    pub(super) fn new(arguments: &DbSanitizer) -> Self {
        let DbSanitizer { sanitize_span_name, sql, redis, valkey, memcached, mongo, opensearch, es } = arguments;
        let sql_systems = &["other_sql", "mysql", "postgresql", "mariadb", "sqlite"];
        let known: [(&Database, Language, &'static [&'static str]); 7] = [
            (sql, Language::Sql, sql_systems),
            (redis, Language::Redis, &["redis"]),
            (valkey, Language::Redis, &["valkey"]),
            (memcached, Language::Memcached, &["memcached"]),
            (mongo, Language::Json, &["mongodb"]),
            (opensearch, Language::Json, &["opensearch"]),
            (es, Language::Json, &["elasticsearch"]),
        ];
        let enabled = known.into_iter().filter(|(database, ..)| database.enabled);
        let databases = enabled.map(|(database, language, systems)| Known {
            language,
            systems,
            attributes: database.attributes.clone(),
        });
        Databases { databases: databases.collect(), changes_span_names: *sanitize_span_name }
    }

    /// No databases.
    pub(super) fn none() -> Self {
        Databases { databases: Vec::new(), changes_span_names: false }
    }

    /// Whether statements are changed in attributes of a key.
    pub(super) fn has_attribute(&self, key: &[u8]) -> bool {
        self.databases.iter().any(|known| known.has_attribute(key))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.databases.is_empty()
    }

    /// A text that is for any of them.
    pub(super) fn hide(&self, text: Vec<u8>) -> Vec<u8> {
        self.databases.iter().fold(text, |text, known| known.language.hide(&text, ""))
    }

    /// An attribute of what names a database, or of a log record that need not.
    pub(super) fn hide_attribute(&self, text: Vec<u8>, key: &[u8], system: &str, needs_system: bool) -> Vec<u8> {
        let mut holding = self.databases.iter().filter(|known| known.has_attribute(key));
        if !system.is_empty() {
            let known = holding.find(|known| known.systems.contains(&system));
            return match known {
                Some(known) => known.language.hide(&text, system),
                None => text,
            };
        }
        if needs_system {
            return text;
        }
        holding.fold(text, |text, known| known.language.hide(&text, ""))
    }

    /// The name of a span that is about a database.
    pub(super) fn hide_name(&self, name: &[u8], system: &str) -> Option<Vec<u8>> {
        let known = self.databases.iter().find(|known| known.systems.contains(&system))?;
        Some(known.language.hide(name, system))
    }
}

/// The database that attributes name, in lower case; empty if they name none.
pub(super) fn system_of(attributes: Map, arena: &Arena) -> String {
    let name = |key: &[u8]| match arena.get(attributes, key) {
        Some(Value::Str(name)) if !name.is_empty() => Some(arena.text(name).to_lowercase()),
        _ => None,
    };
    name(b"db.system.name").or_else(|| name(b"db.system")).unwrap_or_default()
}
