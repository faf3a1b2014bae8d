//! `stage.geoip`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};

use corten_component::Logger;
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_jmespath::{Expression, Value as Record};
use maxminddb::{MaxMindDbError, Reader, geoip2};

use super::stage::{Build, Compile, Emit, Next, Slot, Stage, StageError, Value, Work, check, now_ns};

/// Extracts what a MaxMind database says about an IP address.
///
/// Names are the English ones. What the database does not say is left out.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct GeoIpStage {
    /// File of the database. It is read when the pipeline is made.
    db: String,
    /// Name of the extracted value that is the address.
    source: String,
    /// What to extract: `city`, `country` or `asn`. Without it, only `custom_lookups` counts.
    #[arg(optional)]
    db_type: String,
    /// Names of extracted values, with JMESPath expressions for the record of the address. An empty expression is the
    /// name.
    custom_lookups: Option<BTreeMap<String, String>>,
}

/// The largest database, in bytes.
const DB_BYTES_MAX: u64 = 1 << 30;

impl GeoIpStage {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }
}

impl Build for GeoIpStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        if self.db.is_empty() {
            return Err(StageError::at("db", "db path cannot be empty"));
        }
        if self.source.is_empty() {
            return Err(StageError::at("source", "source cannot be empty"));
        }
        if self.db_type.is_empty() && self.custom_lookups.is_none() {
            return Err(StageError::of(&["db_type", "custom_lookups"], "db type or values need to be set"));
        }
        let slots = match self.db_type.as_str() {
            "city" => Some(Slots::City(City::new(cx))),
            "country" => Some(Slots::Country(Country::new(cx))),
            "asn" => Some(Slots::Asn {
                number: cx.slot("geoip_autonomous_system_number"),
                organization: cx.slot("geoip_autonomous_system_organization"),
            }),
            "" => None,
            _ => return Err(StageError::at("db_type", "db type should be either city or asn")),
        };
        let mut lookups = Vec::new();
        for (name, expression) in self.custom_lookups.iter().flatten() {
            let expression = Expression::new(if expression.is_empty() { name } else { expression });
            let error = |_| StageError::at("custom_lookups", "could not compile JMES expression");
            lookups.push((cx.slot(name), expression.map_err(error)?));
        }
        let source = cx.slot(&self.source);
        if cx.is_check() {
            return Ok(Box::new(Unopened));
        }
        let database = open(&self.db).map_err(|error| StageError::at("db", error))?;
        let told_s = AtomicI64::new(i64::MIN);
        Ok(Box::new(GeoIp { source, slots, lookups, database, logger: cx.logger(), told_s }))
    }
}

fn open(path: &str) -> Result<Reader<Vec<u8>>, String> {
    let error = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("open {path}: no such file or directory"),
        _ => format!("open {path}: {error}"),
    };
    let file = File::open(path).map_err(error)?;
    let mut bytes = Vec::new();
    file.take(DB_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() as u64 > DB_BYTES_MAX {
        return Err(format!("database {path} is larger than the limit of {DB_BYTES_MAX} bytes"));
    }
    Reader::from_source(bytes).map_err(|error| format!("error opening database: {error}"))
}

/// The stage as the static check makes it.
struct Unopened;

impl Stage for Unopened {
    fn run(&self, _: &mut Work, _: &mut Emit) -> Next {
        Next::Keep
    }
}

struct GeoIp {
    source: Slot,
    slots: Option<Slots>,
    lookups: Vec<(Slot, Expression)>,
    database: Reader<Vec<u8>>,
    logger: Option<Logger>,
    /// When an error was last told of, in seconds since the Unix epoch.
    told_s: AtomicI64,
}

enum Slots {
    City(City),
    Country(Country),
    Asn { number: Slot, organization: Slot },
}

struct Country {
    country_name: Slot,
    country_code: Slot,
    continent_name: Slot,
    continent_code: Slot,
}

impl Country {
    fn new(cx: &mut Compile<'_>) -> Self {
        Country {
            country_name: cx.slot("geoip_country_name"),
            country_code: cx.slot("geoip_country_code"),
            continent_name: cx.slot("geoip_continent_name"),
            continent_code: cx.slot("geoip_continent_code"),
        }
    }

    fn set(&self, country: &geoip2::country::Country<'_>, continent: &geoip2::country::Continent<'_>, work: &mut Work) {
        set(self.country_name, country.names.english, work);
        set(self.country_code, country.iso_code, work);
        set(self.continent_name, continent.names.english, work);
        set(self.continent_code, continent.code, work);
    }
}

struct City {
    country: Country,
    name: Slot,
    latitude: Slot,
    longitude: Slot,
    postal_code: Slot,
    timezone: Slot,
    subdivision_name: Slot,
    subdivision_code: Slot,
}

impl City {
    fn new(cx: &mut Compile<'_>) -> Self {
        City {
            country: Country::new(cx),
            name: cx.slot("geoip_city_name"),
            latitude: cx.slot("geoip_location_latitude"),
            longitude: cx.slot("geoip_location_longitude"),
            postal_code: cx.slot("geoip_postal_code"),
            timezone: cx.slot("geoip_timezone"),
            subdivision_name: cx.slot("geoip_subdivision_name"),
            subdivision_code: cx.slot("geoip_subdivision_code"),
        }
    }

    fn set(&self, record: &geoip2::City<'_>, work: &mut Work) {
        self.country.set(&record.country, &record.continent, work);
        set(self.name, record.city.names.english, work);
        let (latitude, longitude) =
            (record.location.latitude.unwrap_or_default(), record.location.longitude.unwrap_or_default());
        if latitude != 0.0 || longitude != 0.0 {
            work.set_value(self.latitude, Value::Float(latitude));
            work.set_value(self.longitude, Value::Float(longitude));
        }
        set(self.postal_code, record.postal.code, work);
        set(self.timezone, record.location.time_zone, work);
        if let Some(last) = record.subdivisions.last() {
            set(self.subdivision_name, last.names.english, work);
            set(self.subdivision_code, last.iso_code, work);
        }
    }
}

fn set(slot: Slot, text: Option<&str>, work: &mut Work) {
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        let text = work.add(text.as_bytes());
        work.set_value(slot, Value::Text(text));
    }
}

impl Stage for GeoIp {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        let Some(text) = work.text_of(work.value(self.source)) else { return Next::Keep };
        match work.str(text).and_then(|text| text.parse::<IpAddr>().ok()) {
            None => self.tell("source is not an ip", &String::from_utf8_lossy(work.bytes(text))),
            // An IPv4 address in the clothes of an IPv6 one is an IPv4 address.
            Some(address) => {
                if let Err(error) = self.extract(address.to_canonical(), work) {
                    self.tell("unable to get record for the ip", &error.to_string());
                }
            }
        }
        Next::Keep
    }
}

impl GeoIp {
    fn extract(&self, address: IpAddr, work: &mut Work) -> Result<(), MaxMindDbError> {
        let found = self.database.lookup(address)?;
        match &self.slots {
            None => {}
            Some(Slots::City(slots)) => {
                if let Some(record) = found.decode::<geoip2::City<'_>>()? {
                    slots.set(&record, work);
                }
            }
            Some(Slots::Country(slots)) => {
                if let Some(record) = found.decode::<geoip2::Country<'_>>()? {
                    slots.set(&record.country, &record.continent, work);
                }
            }
            Some(Slots::Asn { number, organization }) => {
                if let Some(record) = found.decode::<geoip2::Asn<'_>>()? {
                    if let Some(found) = record.autonomous_system_number.filter(|number| *number != 0) {
                        work.set_value(*number, Value::Uint(u64::from(found)));
                    }
                    set(*organization, record.autonomous_system_organization, work);
                }
            }
        }
        if self.lookups.is_empty() {
            return Ok(());
        }
        let Some(record) = found.decode::<serde_json::Value>()? else { return Ok(()) };
        let Some(record) = Record::from_json(record.to_string().as_bytes()) else { return Ok(()) };
        for (slot, expression) in &self.lookups {
            match expression.search(&record) {
                Ok(found) => self.set_found(*slot, &found, work),
                Err(error) => self.tell("failed to search JMES expression", &error.to_string()),
            }
        }
        Ok(())
    }

    /// Stores what an expression found, unless that is nothing.
    fn set_found(&self, slot: Slot, found: &Record, work: &mut Work) {
        let value = match found {
            Record::Null => return,
            Record::Bool(value) => Value::Bool(*value),
            Record::Number(value) => Value::Float(*value),
            Record::String(text) => Value::Text(work.add(text.as_bytes())),
            // What has no string is there nevertheless.
            _ => Value::Opaque,
        };
        work.set_value(slot, value);
    }

    /// Says that something is wrong with an entry, at most once a second.
    fn tell(&self, message: &str, what: &str) {
        let now_s = now_ns().div_euclid(1_000_000_000);
        if self.told_s.swap(now_s, Ordering::Relaxed) != now_s
            && let Some(logger) = &self.logger
        {
            logger.error(message, &[("source", what.into())]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::super::testing::{recorded, run};
    use super::*;

    /// Appends a value in the format of such databases.
    fn put(value: &Json, out: &mut Vec<u8>) {
        let control = |kind: u8, len: usize, out: &mut Vec<u8>| {
            let (first, rest) = if len < 29 { (len as u8, None) } else { (29, Some((len - 29) as u8)) };
            if kind > 7 {
                out.extend([first, kind - 7]);
            } else {
                out.push(kind << 5 | first);
            }
            out.extend(rest);
        };
        match value {
            Json::String(text) => {
                control(2, text.len(), out);
                out.extend(text.as_bytes());
            }
            Json::Number(number) if number.is_f64() => {
                control(3, 8, out);
                out.extend(number.as_f64().unwrap().to_be_bytes());
            }
            Json::Object(fields) => {
                control(7, fields.len(), out);
                for (name, value) in fields {
                    put(&json!(name), out);
                    // How wide a number is depends on the field.
                    match (name.as_str(), value.as_u64()) {
                        ("node_count" | "autonomous_system_number", Some(number)) => {
                            control(6, 4, out);
                            out.extend((number as u32).to_be_bytes());
                        }
                        ("build_epoch", Some(number)) => {
                            control(9, 8, out);
                            out.extend(number.to_be_bytes());
                        }
                        (_, Some(number)) => {
                            control(5, 2, out);
                            out.extend((number as u16).to_be_bytes());
                        }
                        (_, None) => put(value, out),
                    }
                }
            }
            Json::Array(items) => {
                control(11, items.len(), out);
                items.iter().for_each(|item| put(item, out));
            }
            other => panic!("not in tests: {other}"),
        }
    }

    /// A database of version 6 in which all IPv4 addresses from 128.0.0.0 on have one record.
    fn database(record: &Json) -> Vec<u8> {
        // The first 96 bits are those in front of an IPv4 address; the last node decides about its first bit.
        const NODES: u32 = 97;
        let mut out = Vec::new();
        for node in 0..NODES {
            let (zero, one) = if node + 1 == NODES { (NODES, NODES + 16) } else { (node + 1, NODES) };
            out.extend(&zero.to_be_bytes()[1..]);
            out.extend(&one.to_be_bytes()[1..]);
        }
        out.extend([0; 16]);
        put(record, &mut out);
        out.extend(b"\xab\xcd\xefMaxMind.com");
        let metadata = json!({
            "node_count": NODES, "record_size": 24, "ip_version": 6, "database_type": "Test", "languages": ["en"],
            "binary_format_major_version": 2, "binary_format_minor_version": 0, "build_epoch": 1, "description": {},
        });
        put(&metadata, &mut out);
        out
    }

    fn extracted(kind: &str, record: &Json, ip: &str) -> Json {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db.mmdb");
        std::fs::write(&path, database(record)).unwrap();
        let config = format!("stage.geoip {{\ndb = \"{}\"\nsource = \"ip\"\ndb_type = \"{kind}\"\n}}", path.display());
        let ran = run(&config, &[json!({ "line": "x", "labels": { "ip": ip } })]).unwrap();
        let mut extracted = ran.entries[0]["extracted"].clone();
        extracted.as_object_mut().unwrap().remove("ip");
        extracted
    }

    fn city() -> Json {
        json!({
            "city": { "names": { "de": "Wien", "en": "Vienna" } },
            "country": { "iso_code": "AT", "names": { "en": "Austria" } },
            "continent": { "code": "EU", "names": { "en": "Europe" } },
            "location": { "latitude": 48.25, "longitude": 16.5, "time_zone": "Europe/Vienna" },
            "postal": { "code": "1010" },
            "subdivisions": [
                { "iso_code": "X", "names": { "en": "First" } },
                { "iso_code": "9", "names": { "en": "Last" } },
            ],
        })
    }

    #[test]
    fn configurations_are_refused_as_by_the_reference() {
        assert!(recorded("geoip") >= 6);
    }

    #[test]
    fn a_city_is_extracted_with_its_country_and_its_last_subdivision() {
        let expected = json!({
            "geoip_city_name": "Vienna", "geoip_country_name": "Austria", "geoip_country_code": "AT",
            "geoip_continent_name": "Europe", "geoip_continent_code": "EU", "geoip_location_latitude": 48.25,
            "geoip_location_longitude": 16.5, "geoip_postal_code": "1010", "geoip_timezone": "Europe/Vienna",
            "geoip_subdivision_name": "Last", "geoip_subdivision_code": "9",
        });
        assert_eq!(extracted("city", &city(), "200.1.2.3"), expected);
        assert_eq!(extracted("city", &city(), "::ffff:200.1.2.3"), expected);
        for ip in ["1.2.3.4", "2001::1", "200.1.2", "", "200.1.2.03", "fe80::1%eth0"] {
            assert_eq!(extracted("city", &city(), ip), json!({}), "{ip}");
        }
    }

    #[test]
    fn what_a_record_lacks_is_left_out() {
        let record = json!({
            "country": { "iso_code": "", "names": { "de": "Nirgends" } },
            "location": { "latitude": 0.0, "longitude": 0.0 },
            "postal": { "code": "1" },
        });
        assert_eq!(extracted("city", &record, "200.1.2.3"), json!({ "geoip_postal_code": "1" }));
        assert_eq!(extracted("country", &record, "200.1.2.3"), json!({}));
    }

    #[test]
    fn countries_and_networks_have_databases_of_their_own() {
        assert_eq!(
            extracted("country", &city(), "200.1.2.3"),
            json!({
                "geoip_country_name": "Austria", "geoip_country_code": "AT",
                "geoip_continent_name": "Europe", "geoip_continent_code": "EU",
            })
        );
        let asn = json!({ "autonomous_system_number": 64512, "autonomous_system_organization": "Private" });
        assert_eq!(
            extracted("asn", &asn, "200.1.2.3"),
            json!({ "geoip_autonomous_system_number": { "uint": 64512 }, "geoip_autonomous_system_organization": "Private" })
        );
        assert_eq!(extracted("asn", &json!({ "autonomous_system_number": 0 }), "200.1.2.3"), json!({}));
    }

    #[test]
    fn records_can_be_searched_with_expressions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db.mmdb");
        std::fs::write(&path, database(&city())).unwrap();
        let config = format!(
            "stage.geoip {{\ndb = \"{}\"\nsource = \"ip\"\ncustom_lookups = {{\ncode = \"country.iso_code\", postal = \"\", \
             latitude = \"location.latitude\", none = \"nothing.here\",\n}}\n}}",
            path.display()
        );
        let ran = run(&config, &[json!({ "line": "x", "labels": { "ip": "200.1.2.3" } })]).unwrap();
        let expected = json!({ "ip": "200.1.2.3", "code": "AT", "postal": { "json": null }, "latitude": 48.25 });
        assert_eq!(ran.entries[0]["extracted"], expected);
    }

    #[test]
    fn a_file_that_is_no_database_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no database").unwrap();
        let error = open(&file.path().display().to_string()).unwrap_err();
        assert!(error.starts_with("error opening database: "), "{error}");
    }

    proptest! {
        #[test]
        fn a_damaged_database_makes_nothing_panic(
            flips in proptest::collection::vec((0..10_000usize, any::<u8>()), 1..8),
            ip in any::<u32>(),
        ) {
            let mut bytes = database(&city());
            for (at, value) in flips {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            if let Ok(database) = Reader::from_source(bytes)
                && let Ok(found) = database.lookup(std::net::Ipv4Addr::from(ip).into())
            {
                let _ = found.decode::<geoip2::City<'_>>();
                let _ = found.decode::<geoip2::Asn<'_>>();
            }
        }
    }
}
