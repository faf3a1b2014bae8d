//! Messages of RFC 3164, the older BSD syslog, and what Cisco's devices make of it.
//!
//! The format is ambiguous: what follows the time may be a host's name, a tag or the text. The reference's parser looks at
//! all readings at once, and remembers one place for all of them where a field began. So that the outcome is the same also
//! where that mixes fields up, this reader does as it does: see [`Readings`].

use std::ops::Range;

use super::stamp::month;
use super::{Message, MessageError, Stamp, not_nil, priority};

const PRIORITY: &str = "expecting a priority value in the range 1-191 or equal to 0";
const TIMESTAMP: &str = "expecting a Stamp timestamp";
const HOSTNAME: &str = "expecting an hostname (from 1 to max 255 US-ASCII characters)";
const TAG: &str = "expecting an alphanumeric tag (max 32 characters)";

/// What to expect of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// A number and a colon before the time, as `237: `.
    pub message_counter: bool,
    /// A further number and a colon before the time, as `000104: `.
    pub sequence_number: bool,
    /// The name of the host and a colon before the time.
    pub hostname: bool,
    /// Fractions of seconds.
    pub second_fractions: bool,
    /// Whether line ends may stand in the text, because something else says where the message ends.
    pub line_ends: bool,
}

impl Options {
    fn is_cisco(&self) -> bool {
        self.message_counter || self.sequence_number || self.hostname
    }
}

/// Reads a message. One whose text is not readable may have none. The year of its time is 0.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse<'a>(input: &'a [u8], options: &Options) -> Result<Message<'a>, MessageError> {
    let mut fields = Fields::default();
    match read(input, options, &mut fields) {
        Ok(()) => Ok(fields.message(input)),
        Err((offset, what)) => Err(MessageError { offset, what }),
    }
}

/// What is known of a message: places of its text.
#[derive(Debug, Default)]
struct Fields {
    priority: Option<u8>,
    timestamp: Option<Stamp>,
    message_counter: Option<u32>,
    sequence: Option<u32>,
    hostname: Range<usize>,
    tag: Range<usize>,
    content: Range<usize>,
    text: Range<usize>,
}

impl Fields {
    fn message<'a>(&self, input: &'a [u8]) -> Message<'a> {
        let field = |range: &Range<usize>| input.get(range.clone()).and_then(not_nil);
        Message {
            priority: self.priority,
            timestamp: self.timestamp,
            hostname: field(&self.hostname),
            app_name: field(&self.tag),
            proc_id: field(&self.content),
            message_counter: self.message_counter,
            sequence: self.sequence,
            text: input.get(self.text.clone()).filter(|text| !text.is_empty()),
            ..Message::default()
        }
    }
}

/// What ends without an error may be incomplete.
fn read(input: &[u8], options: &Options, fields: &mut Fields) -> Result<(), (usize, &'static str)> {
    let (value, mut at) = priority(input).map_err(|at| (at, PRIORITY))?;
    fields.priority = Some(value);
    let byte = |at: usize| input.get(at).copied();
    let skip_spaces = |at: &mut usize| {
        while byte(*at) == Some(b' ') {
            *at += 1;
        }
    };
    skip_spaces(&mut at);
    let digits = |at: usize| input[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    if options.message_counter && matches!(byte(at), Some(b'0'..=b'9' | b':')) {
        let end = at + digits(at);
        if byte(end) != Some(b':') {
            return Ok(());
        }
        fields.message_counter = Some(number(&input[at..end]));
        at = end + 1;
        skip_spaces(&mut at);
    }
    if options.sequence_number && matches!(byte(at), Some(b'0'..=b'9')) {
        let end = at + digits(at);
        if byte(end) != Some(b':') {
            return Ok(());
        }
        fields.sequence = Some(number(&input[at..end]));
        at = end + 1;
        skip_spaces(&mut at);
    }
    if options.hostname {
        let len = input[at..].iter().take_while(|byte| byte.is_ascii_graphic() && **byte != b':').count();
        if (1..=255).contains(&len) && byte(at + len) == Some(b':') {
            fields.hostname = at..at + len;
            at += len + 1;
            skip_spaces(&mut at);
        }
    }
    if options.is_cisco() && byte(at) == Some(b'*') {
        at += 1;
    }
    let (stamp, behind) = stamp(input, at, options).map_err(|at| (at, TIMESTAMP))?;
    let mark = at;
    at = behind;
    let goes_on = byte(at) == Some(b' ') || (options.is_cisco() && byte(at) == Some(b':'));
    if !goes_on {
        return Ok(());
    }
    if !stamp.is_a_day() {
        return Err((at, TIMESTAMP));
    }
    fields.timestamp = Some(stamp);
    at += usize::from(byte(at) == Some(b':'));
    if byte(at) != Some(b' ') {
        return Ok(());
    }
    rest(input, at + 1, mark, options, fields)
}

/// A number of any length, as the reference counts it: the low bits of it.
fn number(digits: &[u8]) -> u32 {
    digits.iter().fold(0u64, |value, digit| value.wrapping_mul(10).wrapping_add(u64::from(*digit).wrapping_sub(48)))
        as u32
}

/// A time without a year: what it is, and where it ends.
fn stamp(input: &[u8], at: usize, options: &Options) -> Result<(Stamp, usize), usize> {
    let byte = |at: usize| input.get(at).copied().unwrap_or_default();
    let month = input.get(at..at + 3).and_then(month).ok_or(at)?;
    if byte(at + 3) != b' ' {
        return Err(at + 3);
    }
    let digit = |at: usize| byte(at).wrapping_sub(b'0');
    let day = match (byte(at + 4), byte(at + 5)) {
        (b' ', b'1'..=b'9') => digit(at + 5),
        (b'1' | b'2', b'0'..=b'9') | (b'3', b'0' | b'1') => digit(at + 4) * 10 + digit(at + 5),
        _ => return Err(at + 4),
    };
    let mut at = at + 6;
    let mut time = [0; 3];
    for (part, (before, tens_max)) in time.iter_mut().zip([(b' ', 2), (b':', 5), (b':', 5)]) {
        let (tens, ones) = (digit(at + 1), digit(at + 2));
        if byte(at) != before || tens > tens_max || ones > 9 || (tens_max == 2 && tens == 2 && ones > 3) {
            return Err(at);
        }
        *part = tens * 10 + ones;
        at += 3;
    }
    let mut nanos = 0;
    if options.second_fractions && byte(at) == b'.' {
        let digits = input[at + 1..].iter().take(6).take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return Err(at + 1);
        }
        nanos = number(&input[at + 1..at + 1 + digits]) * 10u32.pow(9 - digits as u32);
        at += 1 + digits;
    }
    Ok((Stamp { year: 0, month, day, time, nanos, offset_minutes: 0 }, at))
}

/// What the bytes after the time may be, all at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Readings {
    /// Spaces after the time.
    spaces: bool,
    /// A host's name of so many bytes; 0 for none.
    hostname: usize,
    /// Spaces after a host's name.
    spaces_after_hostname: bool,
    /// A tag of so many bytes; 0 for none.
    tag: usize,
    /// Behind the bracket that opens the content.
    bracket: bool,
    /// In the content.
    content: bool,
    /// Behind the bracket that closes the content.
    bracket_closed: bool,
    /// Behind the colon after the tag and its content.
    colon: bool,
    /// Behind the space after the colon.
    text_begins: bool,
    /// In the text.
    text: bool,
    /// Behind the line end after the text.
    line_end: bool,
}

impl Readings {
    /// What is wrong where no reading goes on. Where this says nothing, what was read so far counts.
    fn error(&self) -> Option<&'static str> {
        if self.spaces || self.hostname > 0 {
            return Some(HOSTNAME);
        }
        (self.spaces_after_hostname || self.bracket || self.content).then_some(TAG)
    }
}

/// Reads what follows the first space after the time. `mark` is where a field began last.
fn rest(
    input: &[u8],
    start: usize,
    mut mark: usize,
    options: &Options,
    fields: &mut Fields,
) -> Result<(), (usize, &'static str)> {
    let mut now = Readings { spaces: true, ..Readings::default() };
    let mut at = start;
    while at < input.len() {
        if now == (Readings { text: true, ..Readings::default() }) {
            // Nothing else can come of what follows.
            let is_text = |byte: &u8| matches!(byte, b'\t' | b'\r' | b' '..=b'~' | 0x80..);
            let len = input[at..].iter().take_while(|byte| is_text(byte)).count();
            if len > 0 {
                at += len;
                continue;
            }
        }
        let byte = input[at];
        // The reference's parser takes a line end for text as well where it has seen no text yet.
        let is_line_end = byte == b'\n' && (options.line_ends || !now.text);
        let is_text = matches!(byte, b'\t' | b'\r' | b' '..=b'~' | 0x80..) || is_line_end;
        let is_name = byte.is_ascii_graphic() && byte != b':';
        let is_tag = is_name && byte != b'[';
        let mut next = Readings::default();
        let begins = now.spaces || now.spaces_after_hostname;
        if byte == b' ' {
            next.spaces = now.spaces;
            next.spaces_after_hostname = now.spaces_after_hostname || now.hostname > 0;
        }
        if is_name {
            next.hostname = match now.hostname {
                0 => usize::from(now.spaces),
                len if len < 255 => len + 1,
                _ => 0,
            };
        }
        if is_tag {
            next.tag = match now.tag {
                0 => usize::from(begins),
                len if len < 48 => len + 1,
                _ => 0,
            };
        }
        next.bracket = now.tag > 0 && byte == b'[';
        next.content = (now.bracket || now.content) && is_text && !matches!(byte, b'[' | b']');
        next.bracket_closed = (now.bracket || now.content) && byte == b']';
        next.colon = (now.tag > 0 || now.bracket_closed) && byte == b':';
        next.text_begins = now.colon && byte == b' ';
        next.text = (begins || now.text_begins || now.text) && is_text;
        next.line_end = now.text && byte == b'\n';
        if next == Readings::default() {
            return now.error().map_or(Ok(()), |what| Err((at, what)));
        }
        // In this order, because a field may begin where another ends.
        if now.hostname > 0 && byte == b' ' {
            fields.hostname = mark..at;
        }
        if next.hostname == 1
            || next.tag == 1
            || (now.bracket && (next.content || next.bracket_closed))
            || ((begins || now.text_begins) && next.text)
        {
            mark = at;
        }
        if next.bracket || (now.tag > 0 && byte == b':') {
            fields.tag = mark..at;
        }
        if next.bracket_closed {
            fields.content = mark..at;
        }
        if next.line_end {
            fields.text = mark..at;
        }
        now = next;
        at += 1;
    }
    if now.text {
        fields.text = mark..at;
    }
    if now.text || now.line_end { Ok(()) } else { now.error().map_or(Ok(()), |what| Err((at, what))) }
}
