//! Texts, and what is calculated of them.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{NO_PAD, PAD, STANDARD};
use corten_config::gofmt::{Arg as Printed, format_args};
use corten_golang::{map, to_lower, to_upper};
use corten_otlp::{Arena, Map as Pairs, Pair, Value};
use corten_signal::regex::Lossy;

use super::Kind::{Any, Anys, ConstBool, ConstText, Int, Text, TextLike, TextLikes, Texts};
use super::{Arg, Function, Got, Param, Prepared, const_str, const_text, optional, own, param, plain, regex_at};
use crate::code_pages::{self, CodePage};
use crate::error::EvalError;
use crate::hash;
use crate::item::Item;
use crate::program::{Call, Ex};
use crate::strcase;
use crate::value::{Const, Val, hex};

const TARGET: Param = param("target", Text);

/// A function of one text that gives another one.
macro_rules! of_text {
    ($name:literal, $text:ident => $result:expr) => {
        Function {
            name: $name,
            params: &[TARGET],
            prepare: plain,
            run: |call, item| {
                let value = call.text(0, item)?;
                let $text: &[u8] = value.text(item.arena).unwrap_or_default();
                Ok(Val::from($result))
            },
        }
    };
}

pub(super) const FUNCTIONS: &[Function] = &[
    of_text!("ToLowerCase", text => map(text, to_lower)),
    of_text!("ToUpperCase", text => map(text, to_upper)),
    of_text!("ToSnakeCase", text => strcase::snake(&String::from_utf8_lossy(text))),
    of_text!("ToCamelCase", text => strcase::camel(&String::from_utf8_lossy(text))),
    of_text!("MD5", text => hex(&hash::md5(text))),
    of_text!("SHA1", text => hex(&hash::sha1(text))),
    of_text!("SHA256", text => hex(&hash::sha256(text))),
    of_text!("SHA512", text => hex(&hash::sha512(text))),
    of_text!("XXH3", text => hex(&xxhash_rust::xxh3::xxh3_64(text).to_be_bytes())),
    of_text!("XXH128", text => hex(&xxhash_rust::xxh3::xxh3_128(text).to_be_bytes())),
    of_text!("Murmur3Hash", text => hex(&hash::murmur3_32(text).to_le_bytes())),
    of_text!("Murmur3Hash128", text => {
        let (low, high) = hash::murmur3_128(text);
        hex(&low.to_le_bytes()) + &hex(&high.to_le_bytes())
    }),
    Function {
        name: "FNV",
        params: &[TARGET],
        prepare: plain,
        run: |call, item| {
            let value = call.text(0, item)?;
            Ok(Val::Int(hash::fnv1a_64(value.text(item.arena).unwrap_or_default()) as i64))
        },
    },
    Function {
        name: "ConvertCase",
        params: &[TARGET, param("to_case", ConstText)],
        prepare: |args| super::editors::one_of(args, 1, &["lower", "upper", "snake", "camel"]),
        run: |call, item| {
            let value = call.text(0, item)?;
            let text = value.text(item.arena).unwrap_or_default();
            Ok(match call.const_text(1) {
                Some(b"lower") => Val::from(map(text, to_lower)),
                Some(b"upper") => Val::from(map(text, to_upper)),
                Some(b"snake") => Val::from(strcase::snake(&String::from_utf8_lossy(text))),
                _ => Val::from(strcase::camel(&String::from_utf8_lossy(text))),
            })
        },
    },
    Function {
        name: "Concat",
        params: &[param("vals", TextLikes), param("delimiter", Text)],
        prepare: plain,
        run: |call, item| {
            let delimiter = call.owned(1, item)?;
            let mut out = Vec::new();
            for (at, ex) in call.many(0).iter().enumerate() {
                if at > 0 {
                    out.extend_from_slice(&delimiter);
                }
                let value = ex.val(item)?;
                match value.text(item.arena) {
                    Some(text) => out.extend_from_slice(text),
                    None => match value.text_like(item.arena)? {
                        Some(text) => out.extend_from_slice(&text),
                        None => out.extend_from_slice(b"<nil>"),
                    },
                }
            }
            Ok(Val::from(out))
        },
    },
    Function {
        name: "HasPrefix",
        params: &[TARGET, param("prefix", Text)],
        prepare: plain,
        run: |call, item| two(call, item, |text, prefix| text.starts_with(prefix)),
    },
    Function {
        name: "HasSuffix",
        params: &[TARGET, param("suffix", Text)],
        prepare: plain,
        run: |call, item| two(call, item, |text, suffix| text.ends_with(suffix)),
    },
    Function {
        name: "IsMatch",
        params: &[param("target", TextLike), param("pattern", Text)],
        prepare: regex_at::<1>,
        run: |call, item| {
            let regex = call.pattern(1, item)?;
            let value = call.any(0, item)?;
            let mut lossy = Lossy::new();
            if let Some(text) = value.text(item.arena) {
                return Ok(Val::Bool(regex.is_match_bytes(text, &mut lossy)));
            }
            let text = value.text_like(item.arena)?;
            Ok(Val::Bool(text.is_some_and(|text| regex.is_match_bytes(&text, &mut lossy))))
        },
    },
    Function {
        name: "IsValidLuhn",
        params: &[param("target", TextLike)],
        prepare: plain,
        run: |call, item| {
            let value = call.any(0, item)?;
            let text = match value.text(item.arena) {
                Some(text) => text.to_vec(),
                None => value.text_like(item.arena)?.ok_or("invalid input: <nil>")?.into_owned(),
            };
            let digits: Vec<u8> = text.into_iter().filter(|byte| *byte != b' ').collect();
            if let Some(wrong) = digits.iter().find(|byte| !byte.is_ascii_digit()) {
                return Err(format!("parsing {:?}: invalid syntax", char::from(*wrong)).into());
            }
            let Some((check, rest)) = digits.split_last() else { return Ok(Val::Bool(false)) };
            let sum: u64 = rest
                .iter()
                .rev()
                .enumerate()
                .map(|(at, digit)| {
                    let digit = u64::from(digit - b'0');
                    match (at % 2 == 0, digit) {
                        (false, digit) => digit,
                        (true, digit) if digit * 2 > 9 => digit * 2 - 9,
                        (true, digit) => digit * 2,
                    }
                })
                .sum();
            Ok(Val::Bool((10 - sum % 10) % 10 == u64::from(check - b'0')))
        },
    },
    Function {
        name: "IsInCIDR",
        params: &[TARGET, param("networks", Texts)],
        prepare: |args| {
            let Some(Arg::Many(values)) = &args[1] else { return Ok(Prepared::Nothing) };
            let mut networks = Vec::new();
            for value in values {
                let Ex::Const(Const::Text(text)) = value else { return Ok(Prepared::Nothing) };
                networks.push(Network::new(text).map_err(|what| (1, what))?);
            }
            Ok(Prepared::Networks(networks))
        },
        run: |call, item| {
            let value = call.text(0, item)?;
            let text = std::str::from_utf8(value.text(item.arena).unwrap_or_default()).unwrap_or_default();
            let Ok(address) = text.parse::<IpAddr>() else { return Ok(Val::Bool(false)) };
            if let Prepared::Networks(networks) = &call.prepared {
                return Ok(Val::Bool(networks.iter().any(|network| network.contains(address))));
            }
            for network in call.texts(1, item)? {
                if Network::new(&network).map_err(EvalError::new)?.contains(address) {
                    return Ok(Val::Bool(true));
                }
            }
            Ok(Val::Bool(false))
        },
    },
    Function {
        name: "Split",
        params: &[TARGET, param("delimiter", Text)],
        prepare: plain,
        run: |call, item| {
            let text = call.owned(0, item)?;
            let delimiter = call.owned(1, item)?;
            let parts: Vec<Cow<'_, [u8]>> = if delimiter.is_empty() {
                let characters = text.utf8_chunks().flat_map(|chunk| {
                    let valid = chunk.valid().chars().map(|character| Cow::Owned(character.to_string().into_bytes()));
                    valid.chain(chunk.invalid().iter().map(|byte| Cow::Owned(vec![*byte]))).collect::<Vec<_>>()
                });
                characters.collect()
            } else {
                let mut parts = Vec::new();
                let mut rest = &*text;
                while let Some(at) = super::lists::find(rest, &delimiter) {
                    parts.push(Cow::Borrowed(&rest[..at]));
                    rest = &rest[at + delimiter.len()..];
                }
                parts.push(Cow::Borrowed(rest));
                parts
            };
            let values: Vec<Value> = parts.iter().map(|part| own(item.arena, part)).collect();
            Ok(Val::List(item.arena.list(&values)))
        },
    },
    Function {
        name: "Substring",
        params: &[TARGET, param("start", Int), param("length", Int), optional("utf8_safe", ConstBool)],
        prepare: plain,
        run: substring,
    },
    Function {
        name: "Trim",
        params: &[TARGET, optional("replacement", ConstText)],
        prepare: plain,
        run: |call, item| {
            let text = call.owned(0, item)?;
            let text = String::from_utf8_lossy(&text);
            let set = String::from_utf8_lossy(call.const_text(1).unwrap_or(b" "));
            Ok(Val::from(text.trim_matches(|character| set.contains(character)).to_owned()))
        },
    },
    Function {
        name: "TrimPrefix",
        params: &[TARGET, param("prefix", Text)],
        prepare: plain,
        run: |call, item| trimmed(call, item, |text, prefix| text.strip_prefix(prefix)),
    },
    Function {
        name: "TrimSuffix",
        params: &[TARGET, param("suffix", Text)],
        prepare: plain,
        run: |call, item| trimmed(call, item, |text, suffix| text.strip_suffix(suffix)),
    },
    Function {
        name: "Format",
        params: &[param("format", ConstText), param("vals", Anys)],
        prepare: plain,
        run: |call, item| {
            let format = String::from_utf8_lossy(call.const_text(0).unwrap_or_default());
            let mut args = Vec::new();
            for ex in call.many(1) {
                let value = ex.val(item)?;
                args.push(match value.byte_str(item.arena) {
                    // Bytes are a list of numbers to most verbs, and a text to `%s` and its kin.
                    Some(bytes) if !prints_texts(&format) => octets("[]uint8", bytes),
                    _ => printed(&value, item.arena),
                });
            }
            let text = format_args(&format, &args).map_err(|_| EvalError::new("the formatted text is too long"))?;
            Ok(Val::from(text))
        },
    },
    Function {
        name: "Base64Decode",
        params: &[TARGET],
        prepare: plain,
        run: |call, item| {
            let value = call.text(0, item)?;
            decode_base64(&BASE64[0].1, value.text(item.arena).unwrap_or_default())
        },
    },
    Function {
        name: "Base64Encode",
        params: &[TARGET, optional("variant", Text)],
        prepare: |args| match const_str(args, 1) {
            Some(variant) if base64_variant(variant.as_bytes()).is_none() => {
                Err((1, format!("unsupported base64 variant: {variant}")))
            }
            _ => Ok(Prepared::Nothing),
        },
        run: |call, item| {
            let value = call.text(0, item)?;
            let variant = if call.has(1) { call.owned(1, item)? } else { Cow::Borrowed(&b"base64"[..]) };
            let engine = base64_variant(&variant).ok_or_else(|| {
                EvalError::new(format!("unsupported base64 variant: {}", String::from_utf8_lossy(&variant)))
            })?;
            Ok(Val::from(engine.encode(value.text(item.arena).unwrap_or_default())))
        },
    },
    Function {
        name: "Decode",
        params: &[param("target", Any), param("encoding", Text)],
        prepare: |args| match const_text(args, 1) {
            Some(name) => encoding(name).map(|_| Prepared::Nothing).map_err(|what| (1, what)),
            None => Ok(Prepared::Nothing),
        },
        run: |call, item| {
            let value = call.any(0, item)?;
            let name = call.owned(1, item)?;
            let bytes = value.text(item.arena).or_else(|| value.byte_str(item.arena));
            let Some(bytes) = bytes else {
                return Err(format!("unsupported type provided to Decode function: {}", value.type_name()).into());
            };
            match encoding(&name).map_err(EvalError::new)? {
                Encoding::Base64(engine) => decode_base64(engine, bytes),
                Encoding::Raw => Ok(Val::from(bytes.to_vec())),
                Encoding::Page(page) => Ok(Val::from(page.decode(bytes))),
                Encoding::Charset(charset) => Ok(Val::from(charset.decode_without_bom_handling(bytes).0.into_owned())),
            }
        },
    },
    Function {
        name: "CommunityID",
        params: &[
            param("source_ip", Text),
            param("source_port", Int),
            param("destination_ip", Text),
            param("destination_port", Int),
            optional("protocol", Text),
            optional("seed", Int),
        ],
        prepare: plain,
        run: community_id,
    },
    Function {
        name: "ParseCSV",
        params: &[
            TARGET,
            param("header", Text),
            optional("delimiter", ConstText),
            optional("header_delimiter", ConstText),
            optional("mode", ConstText),
        ],
        prepare: |args| {
            let single = |at: usize| match const_str(args, at) {
                None => Ok(None),
                Some(text) if text.chars().count() == 1 => Ok(text.chars().next()),
                Some(_) => Err((at, "the delimiter must be a single character".to_owned())),
            };
            super::editors::one_of(args, 4, &["strict", "lazyQuotes", "ignoreQuotes"])?;
            let delimiter = single(2)?.unwrap_or(',');
            Ok(Prepared::Csv(Csv { delimiter, header_delimiter: single(3)?.unwrap_or(delimiter) }))
        },
        run: parse_csv,
    },
    Function { name: "UUID", params: &[], prepare: plain, run: |_, _| Ok(Val::from(uuid::Uuid::new_v4().to_string())) },
    Function {
        name: "UUIDv7",
        params: &[],
        prepare: plain,
        run: |_, _| Ok(Val::from(uuid::Uuid::now_v7().to_string())),
    },
];

fn two<'p>(call: &'p Call, item: &mut Item<'_>, holds: fn(&[u8], &[u8]) -> bool) -> Got<'p> {
    let text = call.text(0, item)?;
    let other = call.text(1, item)?;
    Ok(Val::Bool(holds(text.text(item.arena).unwrap_or_default(), other.text(item.arena).unwrap_or_default())))
}

fn trimmed<'p>(call: &'p Call, item: &mut Item<'_>, trim: for<'a> fn(&'a [u8], &[u8]) -> Option<&'a [u8]>) -> Got<'p> {
    let text = call.text(0, item)?;
    let other = call.text(1, item)?;
    let trimmed = trim(text.text(item.arena).unwrap_or_default(), other.text(item.arena).unwrap_or_default());
    let trimmed = trimmed.map(<[u8]>::to_vec);
    Ok(trimmed.map_or(text, Val::from))
}

fn substring<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let start = call.int(1, item)?;
    if start < 0 {
        return Err(format!("invalid start for substring function, {start} cannot be negative").into());
    }
    let length = call.int(2, item)?;
    if length <= 0 {
        return Err(format!("invalid length for substring function, {length} cannot be negative or zero").into());
    }
    let value = call.text(0, item)?;
    let text = value.text(item.arena).unwrap_or_default();
    let len = text.len() as i64;
    if start > len || length > len - start {
        let what = format!(
            "invalid range for substring function, start({start})+length({length}) cannot be greater than the length of \
             target string({len})"
        );
        return Err(what.into());
    }
    let (mut from, mut to) = (start as usize, (start + length) as usize);
    if call.const_bool(3) == Some(true) {
        let within = |at: usize| text.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
        while within(from) {
            from += 1;
        }
        while from < to && within(to) {
            to -= 1;
        }
        to = to.max(from);
    }
    Ok(match value {
        Val::Text(text) => Val::Text(item.arena.part(text, from..to)),
        _ => Val::from(text[from..to].to_vec()),
    })
}

/// Whether a format has verbs for texts, and none that shows bytes as numbers.
fn prints_texts(format: &str) -> bool {
    let verb = |text: &str| text.chars().find(|c| !"+-# .*[]".contains(*c) && !c.is_ascii_digit());
    let verbs = || format.split('%').skip(1).filter_map(verb);
    verbs().any(|verb| "sqxX".contains(verb)) && !verbs().any(|verb| verb == 'v')
}

fn octets(type_name: &'static str, bytes: &[u8]) -> Printed {
    Printed::Slice(type_name, bytes.iter().map(|byte| Printed::TypedInt("uint8", i64::from(*byte))).collect())
}

fn printed_id(type_name: &'static str, id: &[u8]) -> Printed {
    Printed::Stringer(type_name, hex(id).into(), Box::new(octets(type_name, id)))
}

/// A value as Go's `fmt` prints it.
fn printed(value: &Val<'_>, arena: &Arena) -> Printed {
    match value {
        Val::Nil => Printed::Nil,
        Val::Bool(value) => Printed::Bool(*value),
        Val::Int(value) => Printed::TypedInt("int64", *value),
        Val::Double(value) => Printed::Float(*value),
        Val::Duration(value) => Printed::Stringer(
            "time.Duration",
            super::times::duration_text(*value).into(),
            Box::new(Printed::TypedInt("time.Duration", *value)),
        ),
        Val::Time(time) => {
            let text: Arc<str> = super::times::time_text(time).into();
            Printed::Stringer("time.Time", text.clone(), Box::new(Printed::Text(text)))
        }
        Val::TraceId(id) => printed_id("pcommon.TraceID", id),
        Val::ProfileId(id) => printed_id("pprofile.ProfileID", id),
        Val::SpanId(id) => printed_id("pcommon.SpanID", id),
        Val::List(list) => {
            let values = arena.values(*list).iter().map(|value| printed(&Val::from(*value), arena)).collect();
            Printed::Slice("[]interface {}", values)
        }
        Val::Map(map) => {
            let fields = arena
                .pairs(*map)
                .iter()
                .map(|pair| (arena.text(pair.key).into(), printed(&Val::from(pair.value), arena)));
            Printed::Map("map[string]interface {}", fields.collect())
        }
        Val::Parts(name, _) => Printed::Text((*name).into()),
        value => {
            let text = value.text(arena).or_else(|| value.byte_str(arena)).unwrap_or_default();
            Printed::Text(String::from_utf8_lossy(text).into())
        }
    }
}

type Base64 = base64::engine::GeneralPurpose;

/// The variants. Bits behind the last byte need not be zero.
static BASE64: [(&[u8], Base64); 4] = [
    (b"base64", Base64::new(&alphabet::STANDARD, PAD.with_decode_allow_trailing_bits(true))),
    (b"base64-raw", Base64::new(&alphabet::STANDARD, NO_PAD.with_decode_allow_trailing_bits(true))),
    (b"base64-url", Base64::new(&alphabet::URL_SAFE, PAD.with_decode_allow_trailing_bits(true))),
    (b"base64-raw-url", Base64::new(&alphabet::URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true))),
];

fn base64_variant(name: &[u8]) -> Option<&'static Base64> {
    BASE64.iter().find(|(known, _)| *known == name).map(|(_, engine)| engine)
}

fn decode_base64<'p>(engine: &Base64, text: &[u8]) -> Got<'p> {
    // Line breaks are skipped.
    let text: Vec<u8> = text.iter().copied().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect();
    engine.decode(text).map(Val::from).map_err(|error| EvalError::new(format!("illegal base64 data: {error}")))
}

enum Encoding {
    Base64(&'static Base64),
    /// Bytes are what they are.
    Raw,
    Charset(&'static encoding_rs::Encoding),
    Page(&'static CodePage),
}

fn encoding(name: &[u8]) -> Result<Encoding, String> {
    if let Some(engine) = base64_variant(name) {
        return Ok(Encoding::Base64(engine));
    }
    let lower = name.to_ascii_lowercase();
    match &*lower {
        b"" | b"utf-8" | b"utf8" | b"ascii" | b"us-ascii" => return Ok(Encoding::Charset(encoding_rs::UTF_8)),
        b"utf-8-raw" | b"utf8-raw" | b"nop" => return Ok(Encoding::Raw),
        b"utf-16" | b"utf16" => return Ok(Encoding::Charset(encoding_rs::UTF_16LE)),
        _ => {}
    }
    if let Some(page) = code_pages::find(&lower) {
        return Ok(Encoding::Page(page));
    }
    let found = encoding_rs::Encoding::for_label_no_replacement(name);
    found.map(Encoding::Charset).ok_or_else(|| format!("unsupported encoding '{}'", String::from_utf8_lossy(name)))
}

/// A network of addresses.
#[derive(Debug)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn new(text: &[u8]) -> Result<Self, String> {
        let text = String::from_utf8_lossy(text);
        let wrong = || format!("invalid CIDR address: {text}");
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let digits = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits = bits.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        if bits > bits_max { Err(wrong()) } else { Ok(Network { address, bits }) }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let shifted = |bits: u128, width: u32| bits.checked_shr(width - self.bits).unwrap_or(0);
        match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) if self.bits <= 32 => {
                shifted(u32::from(network).into(), 32) == shifted(u32::from(address).into(), 32)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => shifted(network.into(), 128) == shifted(address.into(), 128),
            _ => false,
        }
    }
}

fn community_id<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let mut end = |at: usize, name: &str| {
        let text = call.owned(at, item)?;
        let port = call.int(at + 1, item)?;
        let port = u16::try_from(port)
            .map_err(|_| EvalError::new(format!("{name} port must be between 0 and 65535, got {port}")))?;
        let text = String::from_utf8_lossy(&text);
        let address: IpAddr = text.parse().map_err(|_| EvalError::new(format!("invalid {name} IP: {text}")))?;
        let address = match address.to_canonical() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        Ok::<_, EvalError>((address.len(), address, port))
    };
    let (source, destination) = (end(0, "source")?, end(2, "destination")?);
    let protocol = if call.has(4) { call.owned(4, item)? } else { Cow::Borrowed(&b"TCP"[..]) };
    let protocol: u8 = match &*protocol {
        b"ICMP" => 1,
        b"TCP" => 6,
        b"UDP" => 17,
        b"RSVP" => 46,
        b"ICMP6" => 58,
        b"SCTP" => 132,
        other => return Err(format!("unsupported protocol: {}", String::from_utf8_lossy(other)).into()),
    };
    let seed = if call.has(5) { call.int(5, item)? } else { 0 };
    let seed =
        u16::try_from(seed).map_err(|_| EvalError::new(format!("seed must be between 0 and 65535, got {seed}")))?;
    // The smaller end comes first, so that both directions are the same.
    let (first, second) = if source > destination { (destination, source) } else { (source, destination) };
    let tuple =
        [&seed.to_be_bytes()[..], &first.1, &second.1, &[protocol, 0], &first.2.to_be_bytes(), &second.2.to_be_bytes()]
            .concat();
    Ok(Val::from(format!("1:{}", STANDARD.encode(hash::sha1(&tuple)))))
}

/// How columns are parted.
#[derive(Debug)]
pub(crate) struct Csv {
    delimiter: char,
    header_delimiter: char,
}

fn parse_csv<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let Prepared::Csv(csv) = &call.prepared else { return Err("there is no delimiter".into()) };
    let row = call.owned(0, item)?;
    let header = call.owned(1, item)?;
    if header.is_empty() {
        return Err("headers must not be an empty string".into());
    }
    let (row, header) = (String::from_utf8_lossy(&row), String::from_utf8_lossy(&header));
    let names: Vec<&str> = header.split(csv.header_delimiter).collect();
    let fields = match call.const_text(4) {
        Some(b"ignoreQuotes") => row.split(csv.delimiter).map(str::to_owned).collect(),
        mode => corten_golang::csv_row(&row, csv.delimiter, mode == Some(b"lazyQuotes")).map_err(EvalError::new)?,
    };
    if fields.len() != names.len() {
        let (expected, found) = (names.len(), fields.len());
        return Err(format!("map csv headers: wrong number of fields: expected {expected}, found {found}").into());
    }
    let mut pairs: Vec<Pair> = Vec::with_capacity(names.len());
    let mut map = Pairs::default();
    let distinct = names.iter().collect::<std::collections::HashSet<_>>().len() == names.len();
    for (name, field) in names.iter().zip(&fields) {
        let value = item.arena.own_str(field);
        if distinct {
            pairs.push(Pair { key: item.arena.own(name.as_bytes()), value });
        } else {
            item.arena.put(&mut map, name.as_bytes(), value);
        }
    }
    Ok(Val::Map(if distinct { item.arena.map(&pairs) } else { map }))
}
