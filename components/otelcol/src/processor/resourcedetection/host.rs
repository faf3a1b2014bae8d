//! What the machine and the process know of themselves.

use std::collections::BTreeMap;
use std::path::PathBuf;

use corten_net::{Client, ClientConfig};
use http::Method;
use serde_json::Value;

use super::arguments::{Consul, Docker, Heroku, System};
use super::names;
use super::outside::{Attributes, Found, Miss, Outside, ask, json, text};

/// The attributes of `OTEL_RESOURCE_ATTRIBUTES`, or of its predecessor.
pub(super) fn env(outside: &Outside) -> Result<Attributes, Miss> {
    let given = |name: &str| outside.env(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let Some(text) = given("OTEL_RESOURCE_ATTRIBUTES").or_else(|| given("OTEL_RESOURCE")) else {
        return Ok(Attributes::default());
    };
    let mut found = Attributes::default();
    for (key, value) in pairs(&text)? {
        found.found.retain(|(known, _)| *known != key);
        found.free(key, value);
    }
    Ok(found)
}

/// How long a key and a value are at most.
const TEXT_BYTES_MAX: usize = 256;

/// Reads `key=value,key=value`. As in the reference a comma before the first `=` belongs to the key.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut rest = text;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let invalid = || match found.is_empty() {
            true => format!("invalid resource format: {text:?}"),
            false => format!("invalid resource format, invalid text: {rest:?}"),
        };
        let body = rest.trim_start();
        let first = body.chars().next().map_or(0, char::len_utf8);
        let equals = first + body[first..].find('=').ok_or_else(invalid)?;
        let (key, after) = (body[..equals].trim(), &body[equals + 1..]);
        let (value, next) = after.split_once(',').unwrap_or((after, ""));
        let value = value.trim();
        let fits = |text: &str| text.is_ascii() && text.len() <= TEXT_BYTES_MAX;
        if key.is_empty() || !fits(key) || !fits(value) {
            return Err(invalid());
        }
        let whole = &rest[..rest.len() - next.len()];
        let value = unescaped(value).map_err(|what| {
            format!("invalid resource format in attribute: {whole:?}, err: invalid URL escape {what:?}")
        })?;
        found.push((key.to_owned(), value));
        rest = next;
    }
    Ok(found)
}

/// Decodes `+` and `%XX`.
fn unescaped(text: &str) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = text.get(at + 1..at + 3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
                let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                out.push(value.ok_or_else(|| text[at..].chars().take(3).collect::<String>())?);
                bytes.nth(1);
            }
            other => out.push(other),
        }
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

pub(super) fn heroku(settings: &Heroku, outside: &Outside) -> Attributes {
    let Some(dyno) = outside.env("HEROKU_DYNO_ID") else { return Attributes::default() };
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "heroku");
    found.text("heroku.dyno.id", &*dyno);
    found.text("service.instance.id", dyno);
    found.texts([
        ("heroku.app.id", outside.env("HEROKU_APP_ID")),
        ("service.name", outside.env("HEROKU_APP_NAME")),
        ("heroku.release.creation_timestamp", outside.env("HEROKU_RELEASE_CREATED_AT")),
        ("service.version", outside.env("HEROKU_RELEASE_VERSION")),
        ("heroku.release.commit", outside.env("HEROKU_SLUG_COMMIT")),
    ]);
    found
}

/// What OneAgent writes for others.
const DYNATRACE: &str = "/var/lib/dynatrace/enrichment/dt_host_metadata.properties";

pub(super) async fn dynatrace(outside: &Outside) -> Attributes {
    let mut found = Attributes::default();
    let Ok(content) = outside.file(DYNATRACE).await else { return found };
    let properties = content.lines().filter_map(|line| line.split_once('='));
    let properties: BTreeMap<&str, &str> = properties.map(|(name, value)| (name.trim(), value.trim())).collect();
    for name in ["dt.entity.host", "host.name", "dt.smartscape.host"] {
        if let Some(value) = properties.get(name) {
            found.free(name, *value);
        }
    }
    found
}

pub(super) async fn docker(settings: &Docker, outside: &Outside) -> Result<Attributes, Miss> {
    let address = outside.env("DOCKER_HOST").unwrap_or_else(|| {
        let socket = outside.path("/var/run/docker.sock");
        format!("unix://{}", socket.display())
    });
    let mut options = outside.options();
    let origin = match address.strip_prefix("unix://") {
        Some(socket) => {
            options.unix_socket = Some(PathBuf::from(socket));
            "http://docker".to_owned()
        }
        None => address.replacen("tcp://", "http://", 1),
    };
    let config = ClientConfig { enable_http2: false, ..ClientConfig::default() };
    let client = Client::new(config, options).await.map_err(|error| format!("failed creating detector: {error}"))?;
    let url = format!("{origin}/info");
    let info = ask(&client, Method::GET, &url, &[]).await.and_then(|body| json(&url, &body));
    let info = info.map_err(|why| format!("failed getting OS type: {why}"))?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("host.name", text(&info, "Name"));
    found.text("os.type", text(&info, "OSType").to_lowercase());
    Ok(found)
}

pub(super) async fn consul(settings: &Consul, outside: &Outside) -> Result<Attributes, Miss> {
    let given = |text: &str, variable: &str| {
        Some(text.to_owned()).filter(|text| !text.is_empty()).or_else(|| outside.env(variable))
    };
    let address = given(&settings.address, "CONSUL_HTTP_ADDR").unwrap_or_else(|| "127.0.0.1:8500".to_owned());
    let address = if address.contains("://") { address } else { format!("http://{address}") };
    let mut url = format!("{}/v1/agent/self", address.trim_end_matches('/'));
    let parameters = [("dc", given(&settings.datacenter, "")), ("ns", given(&settings.namespace, "CONSUL_NAMESPACE"))];
    let mut before = '?';
    for (name, value) in parameters {
        if let Some(value) = value {
            url.push_str(&format!("{before}{name}={}", escaped(&value)));
            before = '&';
        }
    }
    let token = given(settings.token.expose(), "CONSUL_HTTP_TOKEN");
    let header = token.as_deref().map(|token| ("X-Consul-Token", token));
    let failed = |why| format!("failed to get consul metadata: failed to get local agent information: {why}");
    let agent = outside.json(&url, header.as_slice()).await.map_err(failed)?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    for (name, value) in agent.get("Meta").and_then(Value::as_object).into_iter().flatten() {
        if let Some(value) = value.as_str()
            && settings.meta.contains(name)
        {
            found.free(name, value);
        }
    }
    for (name, path) in [("host.name", "NodeName"), ("cloud.region", "Datacenter"), ("host.id", "NodeID")] {
        let value = agent.get("Config").and_then(|config| config.get(path)).and_then(Value::as_str);
        let missing = || format!("failed to get consul metadata: '{path}' was not returned by consul");
        found.text(name, value.ok_or_else(missing)?);
    }
    Ok(found)
}

/// Text within a query.
fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

pub(super) async fn system(settings: &System, outside: &Outside) -> Result<Attributes, Miss> {
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    let sources = match &*settings.hostname_sources {
        [] => &["dns".to_owned(), "os".to_owned()],
        sources => sources,
    };
    let own = outside.line("/proc/sys/kernel/hostname").await.or_else(corten_os::host::hostname);
    let mut name = None;
    for source in sources {
        name = match (&**source, &own) {
            (_, None) => None,
            ("dns", Some(own)) => names::full(own, outside).await,
            ("cname", Some(own)) => names::canonical(own, outside).await,
            ("lookup", Some(own)) => names::of_address(own, outside).await,
            (_, Some(own)) => Some(own.clone()),
        };
        if name.is_some() {
            break;
        }
    }
    let name = name.ok_or_else(|| "all hostname sources failed to get hostname".to_owned())?;
    found.text("host.name", name);
    found.text("os.type", os_type());
    if found.wants("host.id") {
        let id = match outside.line("/etc/machine-id").await {
            Some(id) => Some(id),
            None => outside.line("/var/lib/dbus/machine-id").await,
        };
        found.texts([("host.id", id)]);
    }
    found.text("host.arch", architecture());
    if ["host.ip", "host.mac", "host.interface"].iter().any(|name| found.wants(name)) {
        interfaces(outside, &mut found).await;
    }
    if ["os.description", "os.name", "os.version", "os.build.id"].iter().any(|name| found.wants(name)) {
        release(outside, &mut found).await;
    }
    if let Ok(cpus) = outside.file("/proc/cpuinfo").await {
        cpu(&cpus, &mut found);
    }
    Ok(found)
}

fn os_type() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "arm32",
        "powerpc64" => "ppc64",
        "powerpc" => "ppc32",
        other => other,
    }
}

/// Interfaces that are up and not the loopback, with their addresses.
async fn interfaces(outside: &Outside, found: &mut Attributes) {
    let folder = outside.path("/sys/class/net");
    let listed = tokio::task::spawn_blocking(move || {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        names
    });
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for name in listed.await.unwrap_or_default() {
        let flags = outside.line(&format!("/sys/class/net/{name}/flags")).await.unwrap_or_default();
        let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap_or_default();
        const UP: u32 = 1;
        const LOOPBACK: u32 = 8;
        if flags & UP == 0 || flags & LOOPBACK != 0 {
            continue;
        }
        if let Some(mac) = outside.line(&format!("/sys/class/net/{name}/address")).await {
            addresses.push(mac.to_uppercase().replace(':', "-"));
        }
        names.push(name);
    }
    let mut ips = ipv4(&outside.file("/proc/net/fib_trie").await.unwrap_or_default());
    ips.extend(ipv6(&outside.file("/proc/net/if_inet6").await.unwrap_or_default()));
    for (name, list) in [("host.ip", ips), ("host.mac", addresses), ("host.interface", names)] {
        found.put(name, name, Found::List(list));
    }
}

/// The machine's own addresses in the kernel's routing table, without the loopback.
fn ipv4(trie: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut last = "";
    for line in trie.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address;
        } else if line.starts_with("/32 host LOCAL")
            && !last.starts_with("127.")
            && !found.iter().any(|known| known == last)
        {
            found.push(last.to_owned());
        }
    }
    found
}

/// The machine's own addresses, without the loopback.
fn ipv6(table: &str) -> Vec<String> {
    let addresses = table.lines().filter_map(|line| {
        let bits = u128::from_str_radix(line.split_ascii_whitespace().next()?, 16).ok()?;
        Some(std::net::Ipv6Addr::from(bits))
    });
    addresses.filter(|address| !address.is_loopback()).map(|address| address.to_string()).collect()
}

/// What `/etc/os-release` and the kernel say.
async fn release(outside: &Outside, found: &mut Attributes) {
    let content = match outside.file("/etc/os-release").await {
        Ok(content) => content,
        Err(_) => outside.file("/usr/lib/os-release").await.unwrap_or_default(),
    };
    let unquoted = |text: &str| text.trim().trim_matches(|quote| matches!(quote, '"' | '\'')).to_owned();
    let values = content.lines().filter_map(|line| line.split_once('='));
    let values: BTreeMap<&str, String> = values.map(|(name, value)| (name.trim(), unquoted(value))).collect();
    let value = |name: &str| values.get(name).filter(|value| !value.is_empty()).cloned();
    let version = value("VERSION").or_else(|| value("VERSION_ID"));
    let named = match (value("NAME"), version) {
        (Some(name), Some(version)) => format!("{name} {version}"),
        (name, _) => name.or_else(|| value("PRETTY_NAME")).unwrap_or_default(),
    };
    let mut kernel = Vec::new();
    for file in ["ostype", "hostname", "osrelease", "version"] {
        kernel.extend(outside.line(&format!("/proc/sys/kernel/{file}")).await);
    }
    kernel.push(std::env::consts::ARCH.to_owned());
    found.text("os.description", format!("{named} ({})", kernel.join(" ")));
    let build = match value("BUILD_ID") {
        Some(build) => Some(build),
        None => outside.line("/proc/sys/kernel/osrelease").await,
    };
    found.texts([("os.name", value("NAME")), ("os.version", value("VERSION_ID")), ("os.build.id", build)]);
}

/// What the kernel says of the first processor.
fn cpu(text: &str, found: &mut Attributes) {
    let first = text.split("\n\n").next().unwrap_or_default();
    let fields = first.lines().filter_map(|line| line.split_once(':'));
    let fields: BTreeMap<&str, &str> = fields.map(|(name, value)| (name.trim(), value.trim())).collect();
    for (name, field) in [
        ("host.cpu.vendor.id", "vendor_id"),
        ("host.cpu.family", "cpu family"),
        ("host.cpu.model.id", "model"),
        ("host.cpu.model.name", "model name"),
        ("host.cpu.stepping", "stepping"),
    ] {
        found.texts([(name, fields.get(field).map(|value| (*value).to_owned()))]);
    }
    let size = fields.get("cache size").and_then(|size| size.split(' ').next()?.parse().ok());
    if let Some(kibibytes) = size {
        found.put("host.cpu.cache.l2.size", "host.cpu.cache.l2.size", Found::Int(kibibytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_the_environment() {
        for (text, want) in [
            ("a=b", Ok("a=b")),
            (" a = b , c = d%20e+f ,", Ok("a=b|c=d e f")),
            ("example.org/key=v=w", Ok("example.org/key=v=w")),
            ("a=,b=1", Ok("a=|b=1")),
            ("a,b=1", Ok("a,b=1")),
            ("nothing", Err("invalid resource format: \"nothing\"")),
            ("a=b,nothing", Err("invalid resource format, invalid text: \"nothing\"")),
            ("ä=b", Err("invalid resource format: \"ä=b\"")),
            ("a=%zz", Err("invalid resource format in attribute: \"a=%zz\", err: invalid URL escape \"%zz\"")),
        ] {
            let got =
                pairs(text).map(|pairs| pairs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("|"));
            assert_eq!(got.as_deref().map_err(|error| &**error), want, "{text}");
        }
    }

    #[test]
    fn addresses_stand_in_tables_of_the_kernel() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /16 link UNICAST\n     |-- 10.0.0.7\n        \
                    /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\nLocal:\n     |-- 10.0.0.7\n        /32 host LOCAL\n";
        assert_eq!(ipv4(trie), ["10.0.0.7"]);
        let table =
            "fe80000000000000000000fffe000001 02 40 20 80 eth0\n00000000000000000000000000000001 01 80 10 80 lo\n";
        assert_eq!(ipv6(table), ["fe80::ff:fe00:1"]);
    }

    proptest::proptest! {
        #[test]
        fn no_environment_makes_it_panic(text in ".{0,40}", more in "[a=,%+ ]{0,20}") {
            let _ = pairs(&text);
            let _ = pairs(&more);
        }

        #[test]
        fn no_table_makes_it_panic(text in ".{0,80}") {
            ipv4(&text);
            ipv6(&text);
            cpu(&text, &mut Attributes::default());
        }
    }
}
