//! URLs, as Go's `net/url` reads and writes them.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use bytes::Bytes;

use super::Type::{Dict, Text};
use super::{Answer, Function, any, function, text};
use crate::template::{Exec, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    function("urlJoin", &[Dict], join),
    function("urlParse", &[Text], |exec, args| parse_to_dict(exec, text(args, 0))),
];

/// A part of a URL, each with its own characters that need no escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Path,
    User,
    Query,
    Fragment,
    Host,
    Zone,
}

fn escapes(byte: u8, part: Part) -> bool {
    if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
        return false;
    }
    match part {
        Part::Path => !b"$&+,/:;=@".contains(&byte),
        Part::User => !b"$&+,;=".contains(&byte),
        Part::Query => true,
        Part::Fragment => !b"$&+,/:;=?@!()*".contains(&byte),
        Part::Host | Part::Zone => !b"!$&'()*+,;=:[]<>\"".contains(&byte),
    }
}

fn escape(bytes: &[u8], part: Part) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for byte in bytes {
        if *byte == b' ' && part == Part::Query {
            out.push(b'+');
        } else if escapes(*byte, part) {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            out.push(*byte);
        }
    }
    out
}

/// A text as a value of a query.
pub(super) fn query_escape(bytes: &[u8]) -> Vec<u8> {
    escape(bytes, Part::Query)
}

fn shown(bytes: &[u8]) -> String {
    crate::text::quote(bytes)
}

fn unescape(bytes: &[u8], part: Part) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'%' {
            let strict = matches!(part, Part::Host | Part::Zone);
            if strict && bytes[at] < 0x80 && escapes(bytes[at], part) {
                return Err(format!("invalid character {} in host name", shown(&bytes[at..=at])));
            }
            out.push(bytes[at]);
            at += 1;
            continue;
        }
        let whole = &bytes[at..bytes.len().min(at + 3)];
        let bad = || format!("invalid URL escape {}", shown(whole));
        let digit = |index: usize| whole.get(index).and_then(|byte| char::from(*byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(1), digit(2)) else { return Err(bad()) };
        let byte = (high << 4 | low) as u8;
        if part == Part::Host && high < 8 && whole != b"%25" {
            return Err(bad());
        }
        if part == Part::Zone && whole != b"%25" && byte != b' ' && escapes(byte, Part::Host) {
            return Err(bad());
        }
        out.push(byte);
        at += 3;
    }
    Ok(out)
}

#[derive(Default)]
struct Url {
    scheme: Vec<u8>,
    opaque: Vec<u8>,
    /// The name, and the password if there is one.
    user: Option<(Vec<u8>, Option<Vec<u8>>)>,
    host: Vec<u8>,
    path: Vec<u8>,
    query: Vec<u8>,
    fragment: Vec<u8>,
}

/// The part before a byte and the part behind it, if it is there.
fn cut(bytes: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(at, bytes) {
        Some(place) => (&bytes[..place], Some(&bytes[place + 1..])),
        None => (bytes, None),
    }
}

fn scheme(bytes: &[u8]) -> Result<(&[u8], &[u8]), String> {
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            b':' => return Ok((&bytes[..at], &bytes[at + 1..])),
            _ => break,
        }
    }
    Ok((b"", bytes))
}

fn parse(bytes: &[u8]) -> Result<Url, String> {
    let (bytes, fragment) = cut(bytes, b'#');
    if bytes.iter().any(|byte| *byte < b' ' || *byte == 0x7f) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    let mut url = Url { fragment: unescape(fragment.unwrap_or_default(), Part::Fragment)?, ..Url::default() };
    if bytes == b"*" {
        url.path = b"*".to_vec();
        return Ok(url);
    }
    let (scheme, rest) = scheme(bytes)?;
    url.scheme = scheme.to_ascii_lowercase();
    let (rest, query) = cut(rest, b'?');
    url.query = query.unwrap_or_default().to_vec();
    let mut rest = rest;
    if !rest.starts_with(b"/") {
        if !url.scheme.is_empty() {
            url.opaque = rest.to_vec();
            return Ok(url);
        }
        if cut(rest, b'/').0.contains(&b':') {
            return Err("first path segment in URL cannot contain colon".to_owned());
        }
    }
    if (!url.scheme.is_empty() || !rest.starts_with(b"///"))
        && let Some(behind) = rest.strip_prefix(b"//")
    {
        let end = memchr::memchr(b'/', behind).unwrap_or(behind.len());
        authority(&mut url, &behind[..end])?;
        rest = &behind[end..];
    }
    url.path = unescape(rest, Part::Path)?;
    Ok(url)
}

/// The parts of a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UrlParts {
    /// The whole, as Go writes it.
    pub text: Vec<u8>,
    /// The scheme, in lower case.
    pub scheme: Vec<u8>,
    /// The name of the user, and the password if there is one.
    pub user: Option<(Vec<u8>, Option<Vec<u8>>)>,
    /// The user as it is written.
    pub user_text: Vec<u8>,
    /// The host without its port and brackets.
    pub host_name: Vec<u8>,
    /// The port; empty if there is none.
    pub port: Vec<u8>,
    /// The path.
    pub path: Vec<u8>,
    /// The query as it is written.
    pub query: Vec<u8>,
    /// The fragment.
    pub fragment: Vec<u8>,
}

/// Reads a URL as Go's `url.Parse` does.
///
/// # Errors
///
/// What is wrong with it, in Go's words.
pub fn parse_url(bytes: &[u8]) -> Result<UrlParts, String> {
    let url = parse(bytes)?;
    let user_text = url.user.as_ref().map(user_text).unwrap_or_default();
    let (whole, fragment) = cut(bytes, b'#');
    let (_, rest) = scheme(whole)?;
    let (before_query, query) = cut(rest, b'?');
    let mut text = url.scheme.clone();
    if !text.is_empty() {
        text.push(b':');
    }
    if url.opaque.is_empty() {
        let mut path = before_query;
        if (!url.scheme.is_empty() || !before_query.starts_with(b"///"))
            && let Some(behind) = before_query.strip_prefix(b"//")
        {
            path = &behind[memchr::memchr(b'/', behind).unwrap_or(behind.len())..];
            if url.user.is_some() || !url.host.is_empty() || !url.path.is_empty() {
                text.extend_from_slice(b"//");
            }
            if url.user.is_some() {
                text.extend_from_slice(&user_text);
                text.push(b'@');
            }
            text.extend_from_slice(&escape(&url.host, Part::Host));
        }
        text.extend_from_slice(&kept(path, &url.path, Part::Path));
    } else {
        text.extend_from_slice(&url.opaque);
    }
    if let Some(query) = query {
        text.push(b'?');
        text.extend_from_slice(query);
    }
    if !url.fragment.is_empty() {
        text.push(b'#');
        text.extend_from_slice(&kept(fragment.unwrap_or_default(), &url.fragment, Part::Fragment));
    }
    let name = host_name(&url.host).to_vec();
    let port = port(&url.host);
    Ok(UrlParts {
        text,
        scheme: url.scheme,
        user: url.user,
        user_text,
        host_name: name,
        port,
        path: url.path,
        query: url.query,
        fragment: url.fragment,
    })
}

/// Reads a URI as Go's `url.ParseRequestURI` does: an absolute one, or an absolute path. There is no fragment, and the path
/// is as it is escaped.
///
/// # Errors
///
/// What is wrong with it, in Go's words.
pub fn parse_request_uri(bytes: &[u8]) -> Result<UrlParts, String> {
    if bytes.iter().any(|byte| *byte < b' ' || *byte == 0x7f) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    if bytes.is_empty() {
        return Err("empty url".to_owned());
    }
    if bytes == b"*" {
        return Ok(UrlParts { path: b"*".to_vec(), ..UrlParts::default() });
    }
    let (scheme, rest) = scheme(bytes)?;
    let (mut rest, query) = cut(rest, b'?');
    let mut url = Url { scheme: scheme.to_ascii_lowercase(), ..Url::default() };
    let query = query.unwrap_or_default().to_vec();
    if !rest.starts_with(b"/") {
        if url.scheme.is_empty() {
            return Err("invalid URI for request".to_owned());
        }
        return Ok(UrlParts { scheme: url.scheme, query, ..UrlParts::default() });
    }
    if !url.scheme.is_empty()
        && let Some(behind) = rest.strip_prefix(b"//")
    {
        let end = memchr::memchr(b'/', behind).unwrap_or(behind.len());
        authority(&mut url, &behind[..end])?;
        rest = &behind[end..];
    }
    let path = kept(rest, &unescape(rest, Part::Path)?, Part::Path);
    let user_text = url.user.as_ref().map(user_text).unwrap_or_default();
    let (host_name, port) = (host_name(&url.host).to_vec(), port(&url.host));
    Ok(UrlParts { scheme: url.scheme, user: url.user, user_text, host_name, port, path, query, ..UrlParts::default() })
}

/// What is escaped well stays as it was written.
fn kept(raw: &[u8], plain: &[u8], part: Part) -> Vec<u8> {
    let well = raw
        .iter()
        .all(|byte| matches!(byte, b'!' | b'\'' | b'(' | b')' | b'*' | b'[' | b']' | b'%') || !escapes(*byte, part));
    if well { raw.to_vec() } else { escape(plain, part) }
}

/// The port of a host; empty if there is none.
fn port(host: &[u8]) -> Vec<u8> {
    match memchr::memrchr(b':', host) {
        Some(colon) if is_port(&host[colon..]) => host[colon + 1..].to_vec(),
        _ => Vec::new(),
    }
}

/// A key and a value of a query.
pub type QueryPair = (Vec<u8>, Vec<u8>);

/// The pairs of a query, in their order, as Go's `url.ParseQuery` reads them.
///
/// # Errors
///
/// What is wrong with it, in Go's words.
pub fn parse_query(query: &[u8]) -> Result<Vec<QueryPair>, String> {
    let mut pairs = Vec::new();
    for pair in query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        if pair.contains(&b';') {
            return Err("invalid semicolon separator in query".to_owned());
        }
        let (key, value) = cut(pair, b'=');
        let plain = |part: &[u8]| {
            let spaced: Vec<u8> = part.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
            unescape(&spaced, Part::Query)
        };
        pairs.push((plain(key)?, plain(value.unwrap_or_default())?));
    }
    Ok(pairs)
}

fn authority(url: &mut Url, bytes: &[u8]) -> Result<(), String> {
    let Some(at) = memchr::memrchr(b'@', bytes) else {
        url.host = host(&url.scheme, bytes)?;
        return Ok(());
    };
    url.host = host(&url.scheme, &bytes[at + 1..])?;
    let user = &bytes[..at];
    if !user.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(byte)) {
        return Err("net/url: invalid userinfo".to_owned());
    }
    let (name, password) = cut(user, b':');
    let password = password.map(|password| unescape(password, Part::User)).transpose()?;
    url.user = Some((unescape(name, Part::User)?, password));
    Ok(())
}

fn is_port(bytes: &[u8]) -> bool {
    match bytes {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn host(scheme: &[u8], bytes: &[u8]) -> Result<Vec<u8>, String> {
    let bad_port = |port: &[u8]| Err(format!("invalid port {} after host", shown(port)));
    match memchr::memrchr(b'[', bytes) {
        Some(0) => {
            let Some(end) = memchr::memrchr(b']', bytes) else { return Err("missing ']' in host".to_owned()) };
            let port = &bytes[end + 1..];
            if !is_port(port) {
                return bad_port(port);
            }
            let name = &bytes[1..end];
            let name = match memchr::memmem::find(name, b"%25") {
                Some(at) => [unescape(&name[..at], Part::Host)?, unescape(&name[at..], Part::Zone)?].concat(),
                None => unescape(name, Part::Host)?,
            };
            let (address, zone) = cut(&name, b'%');
            let known = std::str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
            if !known || zone.is_some_and(<[u8]>::is_empty) {
                return Err(format!("invalid host: ParseAddr({}): unable to parse IP", shown(&name)));
            }
            return Ok([b"[", &name[..], b"]", port].concat());
        }
        Some(_) => return Err("invalid IP-literal".to_owned()),
        None => {}
    }
    // More than one colon is taken only where it cannot be a web server.
    let web = scheme == b"http" || scheme == b"https";
    let colon = if web { memchr::memchr(b':', bytes) } else { memchr::memrchr(b':', bytes) };
    if let Some(colon) = colon
        && !is_port(&bytes[colon..])
    {
        return bad_port(&bytes[colon..]);
    }
    unescape(bytes, Part::Host)
}

/// The host without its port and brackets.
fn host_name(host: &[u8]) -> &[u8] {
    let name = match memchr::memrchr(b':', host) {
        Some(colon) if is_port(&host[colon..]) => &host[..colon],
        _ => host,
    };
    name.strip_prefix(b"[").and_then(|inner| inner.strip_suffix(b"]")).unwrap_or(name)
}

fn user_text(user: &(Vec<u8>, Option<Vec<u8>>)) -> Vec<u8> {
    let mut out = escape(&user.0, Part::User);
    if let Some(password) = &user.1 {
        out.push(b':');
        out.extend_from_slice(&escape(password, Part::User));
    }
    out
}

fn parse_to_dict(exec: &mut Exec<'_>, bytes: &Bytes) -> Answer {
    let url = parse(bytes).map_err(|error| format!("unable to parse url: parse {}: {error}", shown(bytes)))?;
    let fields: [(&'static [u8], Vec<u8>); 8] = [
        (b"hostname", host_name(&url.host).to_vec()),
        (b"userinfo", url.user.as_ref().map(user_text).unwrap_or_default()),
        (b"scheme", url.scheme),
        (b"host", url.host),
        (b"path", url.path),
        (b"query", url.query),
        (b"opaque", url.opaque),
        (b"fragment", url.fragment),
    ];
    let map: BTreeMap<Bytes, Value> =
        fields.into_iter().map(|(name, value)| (Bytes::from_static(name), Value::from(value))).collect();
    Ok(exec.dict(map))
}

fn join(_: &mut Exec<'_>, args: &[Value]) -> Answer {
    let field = |name: &'static str| -> Result<Vec<u8>, String> {
        let Value::Dict(dict) = any(args, 0) else { return Ok(Vec::new()) };
        match dict.map.borrow().get(name.as_bytes()) {
            None => Ok(Vec::new()),
            Some(Value::Text(text)) => Ok(text.to_vec()),
            Some(other) => {
                let kind = other.kind_name();
                Err(format!("unable to parse {name} key, must be of type string, but {kind} found"))
            }
        }
    };
    let mut url = Url {
        scheme: field("scheme")?,
        host: field("host")?,
        path: field("path")?,
        query: field("query")?,
        opaque: field("opaque")?,
        fragment: field("fragment")?,
        user: None,
    };
    let user = field("userinfo")?;
    if !user.is_empty() {
        let with_user = parse(&[b"proto://", &user[..], b"@host"].concat());
        url.user = with_user.map_err(|error| format!("unable to parse userinfo in dict: {error}"))?.user;
    }
    Ok(Value::from(url_text(&url)))
}

fn url_text(url: &Url) -> Vec<u8> {
    let mut out = Vec::new();
    if !url.scheme.is_empty() {
        out.extend_from_slice(&url.scheme);
        out.push(b':');
    }
    if url.opaque.is_empty() {
        if !url.host.is_empty() || url.user.is_some() || !url.scheme.is_empty() && !url.path.is_empty() {
            out.extend_from_slice(b"//");
        }
        if let Some(user) = &url.user {
            out.extend_from_slice(&user_text(user));
            out.push(b'@');
        }
        out.extend_from_slice(&escape(&url.host, Part::Host));
        let path = if url.path == b"*" { b"*".to_vec() } else { escape(&url.path, Part::Path) };
        if !path.is_empty() && path[0] != b'/' && !url.host.is_empty() {
            out.push(b'/');
        }
        if out.is_empty() && cut(&path, b'/').0.contains(&b':') {
            out.extend_from_slice(b"./");
        }
        out.extend_from_slice(&path);
    } else {
        out.extend_from_slice(&url.opaque);
    }
    if !url.query.is_empty() {
        out.push(b'?');
        out.extend_from_slice(&url.query);
    }
    if !url.fragment.is_empty() {
        out.push(b'#');
        out.extend_from_slice(&escape(&url.fragment, Part::Fragment));
    }
    out
}
