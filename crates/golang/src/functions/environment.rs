//! The environment and the network.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::mpsc;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Type::Text;
use super::{Answer, Function, function, text};
use crate::template::{OUTPUT_BYTES_MAX, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    function("env", &[Text], |_, args| Ok(Value::from(variable(text(args, 0))))),
    function("expandenv", &[Text], |_, args| expand(text(args, 0))),
    function("getHostByName", &[Text], |_, args| host_by_name(&String::from_utf8_lossy(text(args, 0)))),
];

/// A variable of the environment; empty if there is none.
fn variable(name: &[u8]) -> Vec<u8> {
    // Such names are no variables, and asking for them is an error.
    if name.is_empty() || name.contains(&b'=') || name.contains(&0) {
        return Vec::new();
    }
    let value = std::env::var_os(String::from_utf8_lossy(name).as_ref());
    value.map(|value| value.to_string_lossy().into_owned().into_bytes()).unwrap_or_default()
}

/// Variables, `$name` and `${name}`, replaced as Go's `os.ExpandEnv` does.
fn expand(subject: &[u8]) -> Answer {
    let mut out = Vec::new();
    let mut rest = subject;
    while let Some(at) = memchr::memchr(b'$', rest) {
        let behind = &rest[at + 1..];
        if behind.is_empty() {
            break;
        }
        out.extend_from_slice(&rest[..at]);
        let (name, len) = shell_name(behind);
        match (name, len) {
            // No name: the dollar stays; a bad one is eaten.
            (b"", 0) => out.push(b'$'),
            (b"", _) => {}
            (name, _) => out.extend_from_slice(&variable(name)),
        }
        if out.len() > OUTPUT_BYTES_MAX {
            return Err(format!("result is larger than {OUTPUT_BYTES_MAX} bytes"));
        }
        rest = &behind[len..];
    }
    out.extend_from_slice(rest);
    Ok(Value::from(out))
}

/// The name behind a dollar and how many bytes it takes with its braces.
fn shell_name(text: &[u8]) -> (&[u8], usize) {
    let special = |byte: &u8| b"*#$@!?-0123456789".contains(byte);
    match text {
        [b'{', name, b'}', ..] if special(name) => (&text[1..2], 3),
        [b'{', ..] => match memchr::memchr(b'}', text) {
            None => (b"", 1),
            Some(1) => (b"", 2),
            Some(end) => (&text[1..end], end + 1),
        },
        [first, ..] if special(first) => (&text[..1], 1),
        _ => {
            let len = text.iter().take_while(|byte| **byte == b'_' || byte.is_ascii_alphanumeric()).count();
            (&text[..len], len)
        }
    }
}

/// How long an answer is kept, also that there is none.
const KEPT: Duration = Duration::from_secs(30);
/// How long a line waits for an answer.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How many names are kept.
const NAMES_MAX: usize = 1024;

/// What a name stands for, and since when that is known.
type Hosts = HashMap<String, (Instant, Vec<IpAddr>)>;

/// What was asked for. An answer that has not come yet is none.
static HOSTS: LazyLock<Mutex<Hosts>> = LazyLock::new(Mutex::default);

/// One of the addresses of a host. The reference asks for each line; here answers are kept, and a line waits for at most
/// a second, as names must not stop the logs.
fn host_by_name(name: &str) -> Answer {
    let known = {
        let mut hosts = HOSTS.lock().unwrap_or_else(PoisonError::into_inner);
        match hosts.get(name).filter(|(at, _)| at.elapsed() < KEPT) {
            Some((_, addresses)) => Some(addresses.clone()),
            None => {
                if hosts.len() >= NAMES_MAX {
                    hosts.clear();
                }
                // Whoever asks meanwhile gets no answer rather than a second look-up.
                hosts.insert(name.to_owned(), (Instant::now(), Vec::new()));
                None
            }
        }
    };
    let addresses = known.unwrap_or_else(|| {
        let (sender, receiver) = mpsc::channel();
        let asked = name.to_owned();
        let ask = move || {
            let found = (asked.as_str(), 0).to_socket_addrs();
            let mut addresses: Vec<IpAddr> = found.map(|all| all.map(|one| one.ip()).collect()).unwrap_or_default();
            addresses.dedup();
            let mut hosts = HOSTS.lock().unwrap_or_else(PoisonError::into_inner);
            hosts.insert(asked, (Instant::now(), addresses.clone()));
            // Nobody may be waiting any more.
            let _ = sender.send(addresses);
        };
        let thread = std::thread::Builder::new().name("template-host".to_owned()).spawn(ask);
        thread.ok().and_then(|_| receiver.recv_timeout(WAIT_MAX).ok()).unwrap_or_default()
    });
    match addresses.first() {
        Some(address) => Ok(Value::from(address.to_string())),
        None => Err("invalid argument to Intn".to_owned()),
    }
}
