//! What the machine and the process know of themselves.

use std::collections::BTreeMap;
use std::path::PathBuf;

use corten_net::{Client, ClientConfig, TlsConfig};
use http::Method;
use serde_json::Value;

use super::arguments::{Consul, Docker, Heroku, System};
use super::outside::{Attributes, Found, Miss, Outside, ask, json};
use super::{names, platform};

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
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    let (dyno, app) = (outside.env("HEROKU_DYNO_ID"), outside.env("HEROKU_APP_ID"));
    if dyno.is_none() && app.is_none() {
        let why = "heroku metadata unavailable: HEROKU_DYNO_ID and HEROKU_APP_ID env vars not set";
        found.lacking.push(why.to_owned());
    }
    found.texts([
        ("cloud.provider", app.as_ref().map(|_| "heroku".to_owned())),
        ("heroku.dyno.id", dyno.clone()),
        ("service.instance.id", dyno),
        ("heroku.app.id", app),
        ("service.name", outside.env("HEROKU_APP_NAME")),
        ("heroku.release.creation_timestamp", outside.env("HEROKU_RELEASE_CREATED_AT")),
        ("service.version", outside.env("HEROKU_RELEASE_VERSION")),
        ("heroku.release.commit", outside.env("HEROKU_SLUG_COMMIT")),
    ]);
    found
}

/// What OneAgent writes for others.
const DYNATRACE: &str = "/var/lib/dynatrace/enrichment/dt_host_metadata.properties";

pub(super) async fn dynatrace(outside: &Outside) -> Result<Attributes, Miss> {
    let mut found = Attributes::default();
    let content = match outside.file(DYNATRACE).await {
        Ok(content) => content,
        Err(_) if !outside.path(DYNATRACE).exists() => return Ok(found),
        Err(why) => return Err(Miss::Failed(why)),
    };
    for (name, value) in content.lines().filter_map(|line| line.split_once('=')) {
        if matches!(name, "dt.entity.host" | "host.name" | "dt.smartscape.host") && !value.is_empty() {
            found.found.retain(|(known, _)| known != name);
            found.free(name, value.trim());
        }
    }
    Ok(found)
}

pub(super) async fn docker(settings: &Docker, outside: &Outside) -> Result<Attributes, Miss> {
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    if !found.wants("host.name") && !found.wants("os.type") {
        return Ok(found);
    }
    let address = outside.env("DOCKER_HOST").unwrap_or_else(|| {
        let socket = outside.path("/var/run/docker.sock");
        format!("unix://{}", socket.display())
    });
    let mut options = outside.options();
    let mut config = ClientConfig { enable_http2: false, ..ClientConfig::default() };
    let certificates = outside.env("DOCKER_CERT_PATH");
    let origin = match address.strip_prefix("unix://") {
        Some(socket) => {
            options.unix_socket = Some(PathBuf::from(socket));
            "http://docker".to_owned()
        }
        None => {
            let scheme = if certificates.is_some() { "https://" } else { "http://" };
            address.replacen("tcp://", scheme, 1)
        }
    };
    if let Some(folder) = certificates {
        let file = |name: &str| outside.path(&format!("{folder}/{name}")).display().to_string();
        config.tls_config = TlsConfig {
            ca_file: file("ca.pem"),
            cert_file: file("cert.pem"),
            key_file: file("key.pem"),
            insecure_skip_verify: outside.env("DOCKER_TLS_VERIFY").is_none(),
            ..TlsConfig::default()
        };
    }
    let client = Client::new(config, options).await.map_err(|error| format!("failed creating detector: {error}"))?;
    let url = format!("{origin}/info");
    let info = ask(&client, Method::GET, &url, &[]).await.and_then(|body| json(&url, &body));
    let missing = |why| Miss::elsewhere(format!("docker metadata unavailable: failed to fetch Docker OS type: {why}"));
    let info = info.map_err(missing)?;
    found.fields(&info, [("os.type", "OSType"), ("host.name", "Name")]);
    Ok(found)
}

pub(super) async fn consul(settings: &Consul, outside: &Outside) -> Result<Attributes, Miss> {
    let given = |text: &str, variable: &str| {
        Some(text.to_owned()).filter(|text| !text.is_empty()).or_else(|| outside.env(variable))
    };
    let address = given(&settings.address, "CONSUL_HTTP_ADDR").unwrap_or_else(|| "127.0.0.1:8500".to_owned());
    let is_secure = outside.env("CONSUL_HTTP_SSL").is_some_and(|text| matches!(&*text, "1" | "t" | "T" | "true"));
    let scheme = if is_secure { "https" } else { "http" };
    let address = if address.contains("://") { address } else { format!("{scheme}://{address}") };
    let mut url = format!("{}/v1/agent/self", address.trim_end_matches('/'));
    let parameters = [("dc", given(&settings.datacenter, "")), ("ns", given(&settings.namespace, "CONSUL_NAMESPACE"))];
    let mut before = '?';
    for (name, value) in parameters {
        if let Some(value) = value {
            url.push_str(&format!("{before}{name}={}", escaped(&value)));
            before = '&';
        }
    }
    let token = match outside.env("CONSUL_HTTP_TOKEN_FILE") {
        Some(file) if settings.token.is_empty() => {
            let token = outside.file(&file).await;
            let failed = |why| format!("failed creating consul client: Error loading token file {file} : {why}");
            Some(token.map_err(failed)?.trim().to_owned()).filter(|token| !token.is_empty())
        }
        _ => None,
    };
    let token = token.or_else(|| given(settings.token.expose(), "CONSUL_HTTP_TOKEN"));
    let header = token.as_deref().map(|token| ("X-Consul-Token", token));
    let missing = |why| Miss::elsewhere(format!("failed to get consul metadata: {why}"));
    let unread = |why| missing(format!("failed to get local agent information: {why}"));
    let agent = outside.json(&url, header.as_slice()).await.map_err(unread)?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    for (name, path) in [("host.name", "NodeName"), ("cloud.region", "Datacenter"), ("host.id", "NodeID")] {
        let value = agent.get("Config").and_then(|config| config.get(path)).and_then(Value::as_str);
        found.text(name, value.ok_or_else(|| missing(format!("'{path}' was not returned by consul")))?);
    }
    for (name, value) in agent.get("Meta").and_then(Value::as_object).into_iter().flatten() {
        if let Some(value) = value.as_str()
            && settings.meta.contains(name)
        {
            found.free(name, value);
        }
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
    if ["os.description", "os.build.id"].iter().any(|name| found.wants(name)) {
        release(outside, &mut found).await;
    }
    if ["os.name", "os.version"].iter().any(|name| found.wants(name)) {
        let (name, version) = platform::of(outside).await;
        found.text("os.name", name);
        found.text("os.version", version);
    }
    if found.wants_any_of("host.cpu.") {
        let cpus = outside.file("/proc/cpuinfo").await;
        cpu(&cpus.map_err(|why| format!("failed getting host cpuinfo: {why}"))?, &mut found);
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
        "loongarch64" => "loong64",
        "powerpc64" => "ppc64",
        other => other,
    }
}

/// All interfaces, and the addresses of those that are up and not the loopback.
async fn interfaces(outside: &Outside, found: &mut Attributes) {
    let folder = outside.path("/sys/class/net");
    let listed = tokio::task::spawn_blocking(move || {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect::<Vec<String>>()
    });
    let mut interfaces = Vec::new();
    for name in listed.await.unwrap_or_default() {
        let index = outside.line(&format!("/sys/class/net/{name}/ifindex")).await;
        interfaces.push((index.and_then(|index| index.parse().ok()).unwrap_or(u32::MAX), name));
    }
    interfaces.sort();
    let (mut up, mut addresses) = (Vec::new(), Vec::new());
    for (_, name) in &interfaces {
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
        up.push(&**name);
    }
    let mut ips = ipv4(&outside.file("/proc/net/fib_trie").await.unwrap_or_default());
    ips.extend(ipv6(&outside.file("/proc/net/if_inet6").await.unwrap_or_default(), &up));
    let names = interfaces.iter().map(|(_, name)| name.clone()).collect();
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

/// The own addresses of some interfaces, without the loopback.
fn ipv6(table: &str, interfaces: &[&str]) -> Vec<String> {
    let addresses = table.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let bits = u128::from_str_radix(words.next()?, 16).ok()?;
        interfaces.contains(&words.last()?).then(|| std::net::Ipv6Addr::from(bits))
    });
    addresses.filter(|address| !address.is_loopback()).map(|address| address.to_string()).collect()
}

/// What `/etc/os-release` and the kernel say.
async fn release(outside: &Outside, found: &mut Attributes) {
    let content = match outside.file("/etc/os-release").await {
        Ok(content) => content,
        Err(_) => outside.file("/usr/lib/os-release").await.unwrap_or_default(),
    };
    let values: BTreeMap<&str, &str> = content
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim(), unquoted(value.trim())))
        .collect();
    let value = |name: &str| values.get(name).copied().filter(|value| !value.is_empty());
    let named = match (value("NAME"), value("VERSION").or_else(|| value("VERSION_ID"))) {
        (Some(name), Some(version)) => format!("{name} {version}"),
        _ => value("PRETTY_NAME").unwrap_or_default().to_owned(),
    };
    let mut kernel = Vec::new();
    for file in ["ostype", "hostname", "osrelease", "version"] {
        kernel.extend(outside.line(&format!("/proc/sys/kernel/{file}")).await);
    }
    kernel.push(std::env::consts::ARCH.to_owned());
    let kernel = kernel.join(" ");
    found.text("os.description", if named.is_empty() { kernel } else { format!("{named} ({kernel})") });
    let build = match value("BUILD_ID") {
        Some(build) => Some(build.to_owned()),
        None => outside.line("/proc/sys/kernel/osrelease").await,
    };
    found.texts([("os.build.id", build)]);
}

/// A text without the quotes around it.
fn unquoted(text: &str) -> &str {
    let within = |quote| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    within('"').or_else(|| within('\'')).unwrap_or(text)
}

/// What the kernel says of the first processor. As in the reference what it does not say is empty or 0.
fn cpu(text: &str, found: &mut Attributes) {
    let first = text.split("\n\n").next().unwrap_or_default();
    let fields = first.lines().filter_map(|line| line.split_once(':'));
    let fields: BTreeMap<&str, &str> = fields.map(|(name, value)| (name.trim(), value.trim())).collect();
    let field = |names: &[&str]| names.iter().find_map(|name| fields.get(name)).copied();
    let number = |text: &str| text.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let made = field(&["CPU implementer"]).and_then(number).and_then(|made| named(IMPLEMENTERS, made));
    let vendor = made.or_else(|| field(&["vendor_id", "vendorId"])).unwrap_or_default();
    let model = field(&["model", "CPU part"]);
    let of_arm = || named(ARM, number(model?)?).or(Some("Undefined"));
    let name = if vendor == "ARM" { of_arm() } else { field(&["model name", "Model Name", "cpu"]) };
    found.text("host.cpu.vendor.id", vendor);
    found.text("host.cpu.family", field(&["cpu family"]).unwrap_or_default());
    found.texts([("host.cpu.model.id", model.map(str::to_owned))]);
    found.text("host.cpu.model.name", name.unwrap_or_default());
    let stepping =
        field(&["stepping", "CPU revision", "revision"]).and_then(|text| text.split('.').next()?.parse().ok());
    found.text("host.cpu.stepping", stepping.unwrap_or(0_i32).to_string());
    let kibibytes = field(&["cache size"]).and_then(|size| size.split(' ').next()?.parse().ok()).unwrap_or(0);
    found.put("host.cpu.cache.l2.size", "host.cpu.cache.l2.size", Found::Int(kibibytes));
}

fn named(table: &[(u32, &'static str)], number: u32) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// Who makes processors of ARM's kind, by the number that the processor tells.
const IMPLEMENTERS: &[(u32, &str)] = &[
    (0x41, "ARM"),
    (0x42, "Broadcom"),
    (0x43, "Cavium"),
    (0x44, "DEC"),
    (0x46, "Fujitsu"),
    (0x48, "HiSilicon"),
    (0x49, "Infineon"),
    (0x4d, "Motorola/Freescale"),
    (0x4e, "NVIDIA"),
    (0x50, "APM"),
    (0x51, "Qualcomm"),
    (0x56, "Marvell"),
    (0x61, "Apple"),
    (0x69, "Intel"),
    (0xc0, "Ampere"),
];

/// ARM's own designs that run whole machines, by the number that the processor tells.
const ARM: &[(u32, &str)] = &[
    (0xb76, "ARM1176"),
    (0xc05, "Cortex-A5"),
    (0xc07, "Cortex-A7"),
    (0xc08, "Cortex-A8"),
    (0xc09, "Cortex-A9"),
    (0xc0d, "Cortex-A17"),
    (0xc0e, "Cortex-A17"),
    (0xc0f, "Cortex-A15"),
    (0xd01, "Cortex-A32"),
    (0xd02, "Cortex-A34"),
    (0xd03, "Cortex-A53"),
    (0xd04, "Cortex-A35"),
    (0xd05, "Cortex-A55"),
    (0xd06, "Cortex-A65"),
    (0xd07, "Cortex-A57"),
    (0xd08, "Cortex-A72"),
    (0xd09, "Cortex-A73"),
    (0xd0a, "Cortex-A75"),
    (0xd0b, "Cortex-A76"),
    (0xd0c, "Neoverse-N1"),
    (0xd0d, "Cortex-A77"),
    (0xd0e, "Cortex-A76AE"),
    (0xd40, "Neoverse-V1"),
    (0xd41, "Cortex-A78"),
    (0xd42, "Cortex-A78AE"),
    (0xd43, "Cortex-A65AE"),
    (0xd44, "Cortex-X1"),
    (0xd46, "Cortex-A510"),
    (0xd47, "Cortex-A710"),
    (0xd48, "Cortex-X2"),
    (0xd49, "Neoverse-N2"),
    (0xd4a, "Neoverse-E1"),
    (0xd4b, "Cortex-A78C"),
    (0xd4c, "Cortex-X1C"),
    (0xd4d, "Cortex-A715"),
    (0xd4e, "Cortex-X3"),
    (0xd4f, "Neoverse-V2"),
    (0xd81, "Cortex-A720"),
    (0xd82, "Cortex-X4"),
    (0xd84, "Neoverse-V3"),
    (0xd85, "Cortex-X925"),
    (0xd87, "Cortex-A725"),
    (0xd8e, "Neoverse-N3"),
];

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
        assert_eq!(ipv6(table, &["eth0"]), ["fe80::ff:fe00:1"]);
        assert!(ipv6(table, &["eth1"]).is_empty());
    }

    #[test]
    fn processors_are_known_by_what_the_kernel_says() {
        const INTEL: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: \
                             Xeon\nstepping\t: 7\ncache size\t: 36608 KB\n\nprocessor\t: 1\nmodel\t: 9\n";
        const GRAVITON: &str = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\nCPU revision\t: 1\n";
        for (text, want) in [
            (INTEL, ["GenuineIntel", "6", "85", "Xeon", "7", "36608"]),
            (GRAVITON, ["ARM", "", "0xd40", "Neoverse-V1", "1", "0"]),
            ("processor: 0\nCPU implementer: 0x41\nCPU part: 0xfff", ["ARM", "", "0xfff", "Undefined", "0", "0"]),
        ] {
            let all = ["vendor.id", "family", "model.id", "model.name", "stepping", "cache.l2.size"];
            let all = all.map(|name| &*format!("host.cpu.{name}").leak());
            let mut found = Attributes::of(all.into_iter().collect());
            cpu(text, &mut found);
            let want: Vec<String> = all.iter().zip(want).map(|(name, value)| format!("{name}={value}")).collect();
            let got: Vec<String> = found.found.iter().map(|(name, value)| format!("{name}={value}")).collect();
            assert_eq!(got, want);
        }
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
            ipv6(&text, &["eth0"]);
            cpu(&text, &mut Attributes::default());
        }
    }
}
