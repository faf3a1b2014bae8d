//! Files of users and passwords, as the web server Apache has them.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use ring::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512};
use subtle::ConstantTimeEq;

use crate::auth::same_text;

/// Users, each with what is stored of a password.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Users(HashMap<String, Stored>);

/// What is stored of a password.
#[derive(Clone, PartialEq)]
pub(super) enum Stored {
    Plain(String),
    /// `{SHA}`.
    Sha(Vec<u8>),
    /// `{SSHA}`: the digest and the salt.
    SaltedSha(Vec<u8>, Vec<u8>),
    /// `$2y$` and its like.
    Bcrypt(String),
    /// `$apr1$` and `$1$`.
    Md5 {
        magic: &'static str,
        salt: String,
        hash: String,
    },
    /// `$5$` and `$6$`.
    ShaCrypt {
        long: bool,
        rounds: u32,
        salt: String,
        hash: String,
    },
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stored(…)")
    }
}

impl Users {
    /// Reads lines of `user:password`. Of several lines for a user the last counts. What cannot be read is passed over, as
    /// in the reference.
    pub(super) fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| line.trim().split_once(':'));
        Users(lines.filter_map(|(user, stored)| Some((user.to_owned(), Stored::parse(stored)?))).collect())
    }

    pub(super) fn get(&self, user: &str) -> Option<&Stored> {
        self.0.get(user)
    }
}

/// The rounds of `$5$` and `$6$` when they are not given, and their limits.
const ROUNDS_DEFAULT: u32 = 5_000;
const ROUNDS_MIN: u32 = 1_000;
const ROUNDS_MAX: u32 = 999_999_999;

/// The longest password that a slow digest is computed of. The programs that make such digests take 512 bytes at most.
const SLOW_BYTES_MAX: usize = 1 << 10;

impl Stored {
    /// `None` for what looks like a known form and is not.
    fn parse(text: &str) -> Option<Self> {
        for magic in ["$apr1$", "$1$"] {
            if let Some(rest) = text.strip_prefix(magic) {
                let (salt, hash) = rest.split_once('$')?;
                let salt = salt.get(..salt.len().min(8))?.to_owned();
                return Some(Stored::Md5 { magic, salt, hash: hash.to_owned() });
            }
        }
        if let Some(encoded) = text.strip_prefix("{SHA}") {
            return STANDARD.decode(encoded).ok().filter(|digest| digest.len() == 20).map(Stored::Sha);
        }
        if let Some(encoded) = text.strip_prefix("{SSHA}") {
            let mut digest = STANDARD.decode(encoded).ok().filter(|digest| digest.len() >= 20)?;
            let salt = digest.split_off(20);
            return Some(Stored::SaltedSha(digest, salt));
        }
        if ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|magic| text.starts_with(magic)) {
            return Some(Stored::Bcrypt(text.to_owned()));
        }
        for (magic, long) in [("$5$", false), ("$6$", true)] {
            if let Some(rest) = text.strip_prefix(magic) {
                let (rounds, rest) = match rest.strip_prefix("rounds=") {
                    Some(rest) => {
                        let (rounds, rest) = rest.split_once('$')?;
                        let rounds: u64 = rounds.parse().ok()?;
                        (rounds.clamp(ROUNDS_MIN.into(), ROUNDS_MAX.into()) as u32, rest)
                    }
                    None => (ROUNDS_DEFAULT, rest),
                };
                let (salt, hash) = rest.split_once('$')?;
                let salt = salt.get(..salt.len().min(16))?.to_owned();
                return Some(Stored::ShaCrypt { long, rounds, salt, hash: hash.to_owned() });
            }
        }
        Some(Stored::Plain(text.to_owned()))
    }

    /// Whether finding out takes so long that no thread that serves connections may do it.
    pub(super) fn is_slow(&self) -> bool {
        matches!(self, Stored::Bcrypt(_) | Stored::Md5 { .. } | Stored::ShaCrypt { .. })
    }

    /// Whether this is the password.
    pub(super) fn matches(&self, password: &str) -> bool {
        // The work for some digests grows with the square of the length, and anybody may send a password.
        if self.is_slow() && password.len() > SLOW_BYTES_MAX {
            return false;
        }
        match self {
            Stored::Plain(stored) => same_text(stored, password),
            Stored::Sha(stored) => same(stored, sha1([password.as_bytes()]).as_ref()),
            Stored::SaltedSha(stored, salt) => same(stored, sha1([password.as_bytes(), salt]).as_ref()),
            Stored::Bcrypt(stored) => bcrypt::verify(password, stored).unwrap_or(false),
            Stored::Md5 { magic, salt, hash } => {
                same(hash.as_bytes(), md5_crypt(magic, salt.as_bytes(), password.as_bytes()).as_bytes())
            }
            Stored::ShaCrypt { long, rounds, salt, hash } => {
                same(hash.as_bytes(), sha_crypt(*long, *rounds, salt.as_bytes(), password.as_bytes()).as_bytes())
            }
        }
    }
}

/// Compares digests, in a time that does not tell where they differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

fn sha1<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> digest::Digest {
    let mut context = digest::Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    parts.into_iter().for_each(|part| context.update(part));
    context.finish()
}

/// The alphabet of the digests of `crypt`.
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Appends three bytes as characters, the lowest bits first.
fn encode(out: &mut String, [high, middle, low]: [u8; 3], characters: usize) {
    let mut bits = u32::from(high) << 16 | u32::from(middle) << 8 | u32::from(low);
    for _ in 0..characters {
        out.push(char::from(ALPHABET[(bits & 63) as usize]));
        bits >>= 6;
    }
}

/// The digest of `$1$` and of `$apr1$`, which differ in nothing else than that text.
fn md5_crypt(magic: &str, salt: &[u8], password: &[u8]) -> String {
    let alternate = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut context = Md5::new().chain_update(password).chain_update(magic).chain_update(salt);
    let mut left = password.len();
    while left > 0 {
        context.update(&alternate[..left.min(16)]);
        left = left.saturating_sub(16);
    }
    let mut bits = password.len();
    while bits > 0 {
        context.update(if bits & 1 == 1 { &[0][..] } else { password.get(..1).unwrap_or_default() });
        bits >>= 1;
    }
    let mut digest = context.finalize();
    for round in 0..1_000 {
        let odd = round % 2 == 1;
        let mut context = Md5::new();
        context.update(if odd { password } else { &digest[..] });
        if round % 3 != 0 {
            context.update(salt);
        }
        if round % 7 != 0 {
            context.update(password);
        }
        context.update(if odd { &digest[..] } else { password });
        digest = context.finalize();
    }
    let mut out = String::with_capacity(22);
    for [a, b, c] in [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]] {
        encode(&mut out, [digest[a], digest[b], digest[c]], 4);
    }
    encode(&mut out, [0, 0, digest[11]], 2);
    out
}

/// The digest of `$5$` and of `$6$`: Unix crypt with SHA-256 and SHA-512, by Ulrich Drepper.
fn sha_crypt(long: bool, rounds: u32, salt: &[u8], password: &[u8]) -> String {
    let (algorithm, size) = if long { (&SHA512, 64) } else { (&SHA256, 32) };
    let hash = |parts: &[&[u8]]| {
        let mut context = digest::Context::new(algorithm);
        parts.iter().for_each(|part| context.update(part));
        context.finish()
    };
    // A digest over and over, up to a length.
    let stretched = |digest: &[u8], len: usize| digest.iter().copied().cycle().take(len).collect::<Vec<u8>>();

    let alternate = hash(&[password, salt, password]);
    let mut context = digest::Context::new(algorithm);
    context.update(password);
    context.update(salt);
    context.update(&stretched(alternate.as_ref(), password.len()));
    let mut bits = password.len();
    while bits > 0 {
        context.update(if bits & 1 == 1 { alternate.as_ref() } else { password });
        bits >>= 1;
    }
    let mut last = context.finish();

    let mut context = digest::Context::new(algorithm);
    password.iter().for_each(|_| context.update(password));
    let p = stretched(context.finish().as_ref(), password.len());
    let mut context = digest::Context::new(algorithm);
    (0..16 + usize::from(last.as_ref()[0])).for_each(|_| context.update(salt));
    let s = stretched(context.finish().as_ref(), salt.len());

    for round in 0..rounds {
        let odd = round % 2 == 1;
        let mut context = digest::Context::new(algorithm);
        context.update(if odd { &p } else { last.as_ref() });
        if round % 3 != 0 {
            context.update(&s);
        }
        if round % 7 != 0 {
            context.update(&p);
        }
        context.update(if odd { last.as_ref() } else { &p });
        last = context.finish();
    }

    let last = last.as_ref();
    let mut out = String::with_capacity(86);
    let third = size / 3;
    for group in 0..third {
        let turned = |by: usize| {
            let at = group + third * ((by + group * if long { 1 } else { 2 }) % 3);
            last[at]
        };
        encode(&mut out, [turned(0), turned(1), turned(2)], 4);
    }
    if long {
        encode(&mut out, [0, 0, last[63]], 2);
    } else {
        encode(&mut out, [0, last[31], last[30]], 3);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_stored_password_knows_its_password_and_no_other() {
        for (stored, password) in [
            ("secret", "secret"),
            ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "password"),
            ("{SSHA}yI6cZwQadOA1e+/f+T+H3eCQQhRzYWx0", "password"),
            ("$apr1$xxxxxxxx$dxHfLAsjHkDRmG83UXe8K0", "password"),
            ("$1$xxxxxxxx$UYCIxa628.9qXjpQCjM4a.", "password"),
            ("$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", "Hello world!"),
            ("$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA", "Hello world!"),
            (
                "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
                "Hello world!",
            ),
            (
                "$6$rounds=1400$anotherlongsalts$POfYwTEok97VWcjxIiSOjiykti.o/pQs.wPvMxQ6Fm7I6IoYN3CmLs66x9t0oSwbtEW7o7UmJEiDwGqd8p4ur1",
                "a very much longer text to encrypt.  This one even stretches over morethan one line.",
            ),
        ] {
            let parsed = Stored::parse(stored).unwrap();
            assert!(parsed.matches(password), "{stored}");
            assert!(
                !parsed.matches("Password") && !parsed.matches("") && !parsed.matches(stored) || stored == "secret"
            );
        }
    }

    #[test]
    fn a_password_that_is_longer_than_any_costs_no_time() {
        let long = "x".repeat(1 << 20);
        for magic in ["$apr1$", "$1$", "$5$", "$6$"] {
            let parsed = Stored::parse(&format!("{magic}salt$hash")).unwrap();
            let begun = std::time::Instant::now();
            assert!(!parsed.matches(&long));
            assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{magic}");
        }
    }

    #[test]
    fn bcrypt_is_known_by_its_first_letters() {
        let parsed = Stored::parse(&bcrypt::hash("password", 4).unwrap()).unwrap();
        assert!(parsed.is_slow() && parsed.matches("password") && !parsed.matches("passwor"));
    }

    #[test]
    fn what_cannot_be_read_is_passed_over_and_the_last_line_of_a_user_counts() {
        let users = Users::parse("\n a:one \r\nnocolon\nb:{SHA}short\nc:$apr1$x\na:two\nd::x\n");
        let matches = |user: &str, password: &str| users.get(user).is_some_and(|stored| stored.matches(password));
        assert!(matches("a", "two") && !matches("a", "one") && matches("d", ":x"));
        assert_eq!(users.0.len(), 2);
        assert!(!format!("{users:?}").contains("two"));
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_it_panic(line in r"u:(\$apr1\$|\$1\$|\$2y\$|\$5\$|\{SSHA\})?.{0,40}", password in ".{0,20}") {
            if let Some(stored) = Users::parse(&line).get("u") && !matches!(stored, Stored::Bcrypt(_)) {
                stored.matches(&password);
            }
        }
    }
}
