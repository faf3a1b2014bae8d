//! What Heroku's Logplex sends to drains: messages after RFC 5424 without structured data, each with its length before it.

use std::fmt;

use crate::syslog::Stamp;

/// The longest message with its length before it, in bytes.
pub const FRAME_BYTES_MAX: usize = 10_240;

/// Why a body was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogplexError {
    /// What should be the length of a message is none.
    Length,
    /// A message ends before its length says so.
    Truncated,
    /// A message is longer than [`FRAME_BYTES_MAX`].
    TooLong,
    /// A message has no priority and version.
    Priority,
    /// A message has no time.
    Timestamp,
    /// A message has too few fields.
    Fields,
}

impl fmt::Display for LogplexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogplexError::Length => "couldnt parse frame length: bad frame",
            LogplexError::Truncated => "message boundary not respected: bad frame",
            LogplexError::TooLong => "bufio.Scanner: token too long",
            LogplexError::Priority => "invalid pri-val",
            LogplexError::Timestamp => "the time of a message is none",
            LogplexError::Fields => "EOF",
        })
    }
}

impl std::error::Error for LogplexError {}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// When it was written.
    pub timestamp: Stamp,
    /// The host, which is the drain's token or `host`.
    pub hostname: &'a [u8],
    /// `app`, or `heroku` for what the platform writes.
    pub application: &'a [u8],
    /// The process, as in `web.1`.
    pub process: &'a [u8],
    /// The kind of message.
    pub id: &'a [u8],
    /// The text, with its line end if there is one.
    pub text: &'a [u8],
}

/// The messages of a body. Nothing comes after an error.
pub fn messages(body: &[u8]) -> impl Iterator<Item = Result<Message<'_>, LogplexError>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let frame = match frame(rest) {
            Ok((frame, behind)) => {
                rest = behind;
                message(frame)
            }
            Err(error) => Err(error),
        };
        if frame.is_err() {
            rest = &[];
        }
        Some(frame)
    })
}

/// The first message of a body, and what follows it.
fn frame(body: &[u8]) -> Result<(&[u8], &[u8]), LogplexError> {
    let head = &body[..body.len().min(FRAME_BYTES_MAX)];
    let Some(digits) = memchr::memchr(b' ', head) else {
        return Err(if head.len() < body.len() { LogplexError::TooLong } else { LogplexError::Length });
    };
    let len = std::str::from_utf8(&body[..digits]).ok().and_then(|digits| digits.parse::<usize>().ok());
    let len = len.ok_or(LogplexError::Length)?;
    if digits.saturating_add(1).saturating_add(len) > FRAME_BYTES_MAX {
        return Err(if body.len() < FRAME_BYTES_MAX { LogplexError::Truncated } else { LogplexError::TooLong });
    }
    let start = digits + 1;
    match body.get(start..start + len) {
        Some(frame) => Ok((frame, &body[start + len..])),
        None => Err(LogplexError::Truncated),
    }
}

fn message(frame: &[u8]) -> Result<Message<'_>, LogplexError> {
    let mut rest = frame;
    let mut field = || {
        let end = memchr::memchr(b' ', rest).ok_or(LogplexError::Fields)?;
        let field = &rest[..end];
        rest = &rest[end + 1..];
        Ok(field)
    };
    if !is_priority(field()?) {
        return Err(LogplexError::Priority);
    }
    let timestamp = Stamp::parse_rfc3339(field()?).ok_or(LogplexError::Timestamp)?;
    let (hostname, application, process, id) = (field()?, field()?, field()?, field()?);
    Ok(Message { timestamp, hostname, application, process, id, text: rest })
}

/// Whether there is `<digits>digit` somewhere, once, with a number of eight bits.
fn is_priority(field: &[u8]) -> bool {
    let mut found = field.iter().enumerate().filter(|(_, byte)| **byte == b'<').filter_map(|(at, _)| {
        let rest = &field[at + 1..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let is_one =
            digits > 0 && rest.get(digits) == Some(&b'>') && rest.get(digits + 1).is_some_and(u8::is_ascii_digit);
        is_one.then(|| &rest[..digits])
    });
    let (first, second) = (found.next(), found.next());
    let number = first.filter(|_| second.is_none()).and_then(|digits| std::str::from_utf8(digits).ok());
    number.is_some_and(|digits| digits.parse::<u8>().is_ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(message: &str) -> String {
        format!("{} {message}", message.len())
    }

    #[test]
    fn the_messages_of_a_drain_are_read() {
        let body = [
            "<40>1 2012-11-30T06:45:29+00:00 host app web.3 - State changed from starting to up\n",
            "<190>1 2019-07-20T17:50:10.879238Z shuttle token shuttle - - 99\n",
            "<1>2 2022-06-13T14:52:23.621815+02:00  a  id \n",
        ]
        .map(framed)
        .concat();
        let messages: Vec<_> = messages(body.as_bytes()).map(Result::unwrap).collect();
        let shown: Vec<String> = messages
            .iter()
            .map(|message| {
                let fields = [message.hostname, message.application, message.process, message.id, message.text];
                let fields = fields.map(|field| String::from_utf8_lossy(field).into_owned());
                format!("{} {}", message.timestamp, fields.join("|"))
            })
            .collect();
        assert_eq!(
            shown,
            [
                "2012-11-30T06:45:29Z host|app|web.3|-|State changed from starting to up\n",
                "2019-07-20T17:50:10.879238Z shuttle|token|shuttle|-|- 99\n",
                "2022-06-13T14:52:23.621815+02:00 |a||id|\n",
            ]
        );
    }

    #[test]
    fn what_is_no_drain_is_refused() {
        let good = framed("<40>1 2012-11-30T06:45:29Z h a p i x");
        let long = format!("10239 {}", "x".repeat(20_000));
        for (body, error) in [
            (format!("{good}\n"), LogplexError::Length),
            (format!("{good}7 <1>1"), LogplexError::Truncated),
            (format!("{good} 5 <1>1"), LogplexError::Length),
            ("x <1>1".to_owned(), LogplexError::Length),
            ("-1 <1>1".to_owned(), LogplexError::Length),
            ("0 ".to_owned(), LogplexError::Fields),
            (long, LogplexError::TooLong),
            ("9".repeat(20_000), LogplexError::TooLong),
            (framed("1 2012-11-30T06:45:29Z h a p i x"), LogplexError::Priority),
            (framed("<256>1 2012-11-30T06:45:29Z h a p i x"), LogplexError::Priority),
            (framed("<1>1 2012-11-30 h a p i x"), LogplexError::Timestamp),
            (framed("<1>1 2012-11-30T06:45:29Z h a p i"), LogplexError::Fields),
        ] {
            let last = messages(body.as_bytes()).last().unwrap();
            assert_eq!(last, Err(error), "{}", &body[..body.len().min(60)]);
        }
        assert_eq!(messages(b"").count(), 0);
    }

    proptest! {
        #[test]
        fn texts_come_back(texts in proptest::collection::vec("\\PC{0,50}\n?", 0..9)) {
            let body: String =
                texts.iter().map(|text| framed(&format!("<40>1 2012-11-30T06:45:29Z h a p i {text}"))).collect();
            let got: Vec<_> = messages(body.as_bytes()).map(|message| message.unwrap().text.to_vec()).collect();
            prop_assert_eq!(got, texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>());
        }

        #[test]
        fn no_body_makes_it_panic(body: Vec<u8>, likely in "([0-9]{1,5} )?(<[0-9]{1,3}>1 )?(2012-11-30T0?6:45:29[.,Z0-9+:-]{0,12} )?[a-z ]{0,20}") {
            messages(&body).for_each(drop);
            messages(likely.as_bytes()).for_each(drop);
            messages(framed(&likely).as_bytes()).for_each(drop);
        }
    }
}
