//! Hashes, passwords and encryption.

use aes::Aes256;
use aes::cipher::{Array, BlockCipherDecrypt as _, BlockCipherEncrypt as _, KeyInit as _};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use sha1::Digest as _;

use super::Type::{Text, Uint32};
use super::{Answer, Function, Type, function, int, text};
use crate::hex;
use crate::template::{Exec, Value};

const TWO: &[Type] = &[Text, Text];
/// What a hash that is slow on purpose counts for, in bytes that a function handles.
const SLOW_BYTES: usize = 2 << 20;

pub(super) const FUNCTIONS: &[Function] = &[
    function("adler32sum", &[Text], |_, args| {
        const BASE: u32 = 65_521;
        let (a, b) = text(args, 0).iter().fold((1u32, 0u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % BASE;
            (a, (b + a) % BASE)
        });
        Ok(Value::from((b << 16 | a).to_string()))
    }),
    function("bcrypt", &[Text], |exec, args| bcrypt(exec, text(args, 0)).map(Value::from)),
    function("decryptAES", TWO, |_, args| decrypt(text(args, 0), text(args, 1))),
    function("derivePassword", &[Uint32, Text, Text, Text, Text], derive_password),
    function("encryptAES", TWO, |_, args| encrypt(text(args, 0), text(args, 1))),
    function("htpasswd", TWO, |exec, args| {
        let name = String::from_utf8_lossy(text(args, 0));
        if name.contains(':') {
            return Ok(Value::from(format!("invalid username: {name}")));
        }
        Ok(Value::from(format!("{name}:{}", bcrypt(exec, text(args, 1))?)))
    }),
    function("sha1sum", &[Text], |_, args| Ok(Value::from(hex(&sha1::Sha1::digest(text(args, 0)))))),
    function("sha256sum", &[Text], |_, args| Ok(Value::from(hex(&sha2::Sha256::digest(text(args, 0)))))),
    function("sha512sum", &[Text], |_, args| Ok(Value::from(hex(&sha2::Sha512::digest(text(args, 0)))))),
];

/// The hash of a password, or a text that says why there is none.
fn bcrypt(exec: &mut Exec<'_>, password: &[u8]) -> Result<String, String> {
    const COST: u32 = 10;
    exec.charge(SLOW_BYTES)?;
    let failed = |why: &str| format!("failed to encrypt string with bcrypt: {why}");
    if password.len() > 72 {
        return Ok(failed("bcrypt: password length exceeds 72 bytes"));
    }
    let mut salt = [0; 16];
    super::random::fill(&mut salt)?;
    Ok(match bcrypt::hash_with_salt(password, COST, salt) {
        Ok(parts) => parts.format_for_version(bcrypt::Version::TwoA),
        Err(error) => failed(&error.to_string()),
    })
}

const BLOCK: usize = 16;

/// The cipher of a password, which is the key: cut or filled up with zeros to 32 bytes.
fn cipher(password: &[u8]) -> Aes256 {
    let mut key = [0; 32];
    let len = password.len().min(key.len());
    key[..len].copy_from_slice(&password[..len]);
    Aes256::new(&Array::from(key))
}

/// Encrypts in the mode CBC, with what it begins with before it.
fn encrypt(password: &[u8], plain: &[u8]) -> Answer {
    if plain.is_empty() {
        return Ok(Value::from(""));
    }
    let cipher = cipher(password);
    let mut before = [0; BLOCK];
    super::random::fill(&mut before)?;
    let mut out = before.to_vec();
    let fill = BLOCK - plain.len() % BLOCK;
    let padded: Vec<u8> = plain.iter().copied().chain(std::iter::repeat_n(fill as u8, fill)).collect();
    for block in padded.as_chunks::<BLOCK>().0 {
        let mut mixed = Array::from(std::array::from_fn::<u8, BLOCK, _>(|at| block[at] ^ before[at]));
        cipher.encrypt_block(&mut mixed);
        before = mixed.into();
        out.extend_from_slice(&before);
    }
    Ok(Value::from(BASE64_STANDARD.encode(out)))
}

fn decrypt(password: &[u8], encrypted: &[u8]) -> Answer {
    if encrypted.is_empty() {
        return Ok(Value::from(""));
    }
    let bytes =
        super::encoding::base64(encrypted).map_err(|place| format!("illegal base64 data at input byte {place}"))?;
    let out_of_range = || "runtime error: slice bounds out of range".to_owned();
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    let [before, blocks @ ..] = blocks else { return Err(out_of_range()) };
    if !rest.is_empty() {
        return Err("crypto/cipher: input not full blocks".to_owned());
    }
    let cipher = cipher(password);
    let mut out = Vec::with_capacity(bytes.len());
    let mut before = before;
    for block in blocks {
        let mut mixed = Array::from(*block);
        cipher.decrypt_block(&mut mixed);
        out.extend(mixed.iter().zip(before).map(|(byte, before)| byte ^ before));
        before = block;
    }
    let fill = usize::from(*out.last().ok_or_else(out_of_range)?);
    let len = out.len().checked_sub(fill).ok_or_else(out_of_range)?;
    out.truncate(len);
    Ok(Value::from(out))
}

/// The passwords that there are, by kind: each letter stands for a set of characters.
const KINDS: &[(&str, &[&[u8]])] = &[
    ("basic", &[b"aaanaaan", b"aannaaan", b"aaannaaa"]),
    (
        "long",
        &[
            b"CvcvnoCvcvCvcv",
            b"CvcvCvcvnoCvcv",
            b"CvcvCvcvCvcvno",
            b"CvccnoCvcvCvcv",
            b"CvccCvcvnoCvcv",
            b"CvccCvcvCvcvno",
            b"CvcvnoCvccCvcv",
            b"CvcvCvccnoCvcv",
            b"CvcvCvccCvcvno",
            b"CvcvnoCvcvCvcc",
            b"CvcvCvcvnoCvcc",
            b"CvcvCvcvCvccno",
            b"CvccnoCvccCvcv",
            b"CvccCvccnoCvcv",
            b"CvccCvccCvcvno",
            b"CvcvnoCvccCvcc",
            b"CvcvCvccnoCvcc",
            b"CvcvCvccCvccno",
            b"CvccnoCvcvCvcc",
            b"CvccCvcvnoCvcc",
            b"CvccCvcvCvccno",
        ],
    ),
    ("maximum", &[b"anoxxxxxxxxxxxxxxxxx", b"axxxxxxxxxxxxxxxxxno"]),
    ("medium", &[b"CvcnoCvc", b"CvcCvcno"]),
    ("pin", &[b"nnnn"]),
    ("short", &[b"Cvcn"]),
];

fn characters(letter: u8) -> &'static [u8] {
    match letter {
        b'C' => b"BCDFGHJKLMNPQRSTVWXYZ",
        b'v' => b"aeiou",
        b'c' => b"bcdfghjklmnpqrstvwxyz",
        b'a' => b"AEIOUaeiouBCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz",
        b'n' => b"0123456789",
        b'o' => b"@&%?,=[]_:-+*$#!'^~;()/.",
        _ => b"AEIOUaeiouBCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz0123456789!@#$%^&*()",
    }
}

/// The password of a site, made of the user's one password: the algorithm of Master Password.
fn derive_password(exec: &mut Exec<'_>, args: &[Value]) -> Answer {
    const NAMESPACE: &[u8] = b"com.lyndir.masterpassword";
    let (kind, password, user, site) = (text(args, 1), text(args, 2), text(args, 3), text(args, 4));
    let Some((_, kinds)) = KINDS.iter().find(|(name, _)| kind == name) else {
        return Ok(Value::from(format!("cannot find password template {}", String::from_utf8_lossy(kind))));
    };
    exec.charge(2 * SLOW_BYTES)?;
    let with_len = |text: &[u8]| [NAMESPACE, &(text.len() as u32).to_be_bytes(), text].concat();
    let failed = |why: &dyn std::fmt::Display| format!("failed to derive password: {why}");
    let mut key = [0; 64];
    let parameters = scrypt::Params::new(15, 8, 2).map_err(|error| failed(&error))?;
    scrypt::scrypt(password, &with_len(user), &parameters, &mut key).map_err(|error| failed(&error))?;
    let mut message = with_len(site);
    message.extend_from_slice(&(int(args, 0) as u32).to_be_bytes());
    let seed = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &message);
    let [first, seed @ ..] = seed.as_ref() else { return Err(failed(&"no seed")) };
    let letters = kinds[usize::from(*first) % kinds.len()];
    let chosen = letters.iter().zip(seed).map(|(letter, byte)| {
        let set = characters(*letter);
        set[usize::from(*byte) % set.len()]
    });
    Ok(Value::from(chosen.collect::<Vec<u8>>()))
}
