//! Character classes by name: Perl's, those of POSIX, and Unicode's categories and scripts.

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

/// A range of characters, ends included.
pub(super) fn range(low: char, high: char) -> ClassUnicodeRange {
    ClassUnicodeRange::new(low, high)
}

/// The class with everything that is the same but for case.
pub(super) fn folded(mut class: ClassUnicode) -> ClassUnicode {
    // Fails only when the tables of Unicode are left out of the build; then there is nothing to fold by.
    if class.try_case_fold_simple().is_err() {
        class.case_fold_simple();
    }
    class
}

/// Whether there is a character that differs from this one only in case.
pub(super) fn folds(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphabetic();
    }
    let class = folded(ClassUnicode::new([range(c, c)]));
    class.ranges() != [range(c, c)]
}

type Ranges = &'static [(char, char)];

const DIGIT: Ranges = &[('0', '9')];
const SPACE: Ranges = &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')];
const WORD: Ranges = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];

/// The classes of POSIX by name, sorted.
const POSIX: &[(&str, Ranges)] = &[
    ("alnum", &[('0', '9'), ('A', 'Z'), ('a', 'z')]),
    ("alpha", &[('A', 'Z'), ('a', 'z')]),
    ("ascii", &[('\0', '\x7f')]),
    ("blank", &[('\t', '\t'), (' ', ' ')]),
    ("cntrl", &[('\0', '\x1f'), ('\x7f', '\x7f')]),
    ("digit", DIGIT),
    ("graph", &[('!', '~')]),
    ("lower", &[('a', 'z')]),
    ("print", &[(' ', '~')]),
    ("punct", &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]),
    ("space", &[('\t', '\r'), (' ', ' ')]),
    ("upper", &[('A', 'Z')]),
    ("word", WORD),
    ("xdigit", &[('0', '9'), ('A', 'F'), ('a', 'f')]),
];

fn ascii(ranges: Ranges, fold: bool, negated: bool) -> ClassUnicode {
    let mut class = ClassUnicode::new(ranges.iter().map(|&(low, high)| range(low, high)));
    if fold {
        class = folded(class);
    }
    if negated {
        class.negate();
    }
    class
}

/// The class of `\d`, `\s`, `\w` and their complements. All are ASCII; `\s` is without the vertical tab.
pub(super) fn perl(letter: u8, fold: bool) -> Option<ClassUnicode> {
    let ranges = match letter.to_ascii_lowercase() {
        b'd' => DIGIT,
        b's' => SPACE,
        b'w' => WORD,
        _ => return None,
    };
    Some(ascii(ranges, fold, letter.is_ascii_uppercase()))
}

/// The class of `[:alpha:]`, given what stands between the colons.
pub(super) fn posix(name: &str, fold: bool) -> Option<ClassUnicode> {
    let (name, negated) = match name.strip_prefix('^') {
        Some(rest) => (rest, true),
        None => (name, false),
    };
    let place = POSIX.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
    Some(ascii(POSIX[place].1, fold, negated))
}

/// The general categories of Unicode and their other names, in lower case and without separators, sorted.
const CATEGORIES: &[(&str, &str)] = &[
    ("c", "C"),
    ("casedletter", "LC"),
    ("cc", "Cc"),
    ("cf", "Cf"),
    ("closepunctuation", "Pe"),
    ("cn", "Cn"),
    ("cntrl", "Cc"),
    ("co", "Co"),
    ("combiningmark", "M"),
    ("connectorpunctuation", "Pc"),
    ("control", "Cc"),
    ("cs", "Cs"),
    ("currencysymbol", "Sc"),
    ("dashpunctuation", "Pd"),
    ("decimalnumber", "Nd"),
    ("digit", "Nd"),
    ("enclosingmark", "Me"),
    ("finalpunctuation", "Pf"),
    ("format", "Cf"),
    ("initialpunctuation", "Pi"),
    ("l", "L"),
    ("lc", "LC"),
    ("letter", "L"),
    ("letternumber", "Nl"),
    ("lineseparator", "Zl"),
    ("ll", "Ll"),
    ("lm", "Lm"),
    ("lo", "Lo"),
    ("lowercaseletter", "Ll"),
    ("lt", "Lt"),
    ("lu", "Lu"),
    ("m", "M"),
    ("mark", "M"),
    ("mathsymbol", "Sm"),
    ("mc", "Mc"),
    ("me", "Me"),
    ("mn", "Mn"),
    ("modifierletter", "Lm"),
    ("modifiersymbol", "Sk"),
    ("n", "N"),
    ("nd", "Nd"),
    ("nl", "Nl"),
    ("no", "No"),
    ("nonspacingmark", "Mn"),
    ("number", "N"),
    ("openpunctuation", "Ps"),
    ("other", "C"),
    ("otherletter", "Lo"),
    ("othernumber", "No"),
    ("otherpunctuation", "Po"),
    ("othersymbol", "So"),
    ("p", "P"),
    ("paragraphseparator", "Zp"),
    ("pc", "Pc"),
    ("pd", "Pd"),
    ("pe", "Pe"),
    ("pf", "Pf"),
    ("pi", "Pi"),
    ("po", "Po"),
    ("privateuse", "Co"),
    ("ps", "Ps"),
    ("punct", "P"),
    ("punctuation", "P"),
    ("s", "S"),
    ("sc", "Sc"),
    ("separator", "Z"),
    ("sk", "Sk"),
    ("sm", "Sm"),
    ("so", "So"),
    ("spaceseparator", "Zs"),
    ("spacingmark", "Mc"),
    ("surrogate", "Cs"),
    ("symbol", "S"),
    ("titlecaseletter", "Lt"),
    ("unassigned", "Cn"),
    ("uppercaseletter", "Lu"),
    ("z", "Z"),
    ("zl", "Zl"),
    ("zp", "Zp"),
    ("zs", "Zs"),
];

/// The class of `\p{Greek}`, given what stands between the braces. Case, spaces, `_` and `-` do not count.
///
/// A script is known under its long name only, as in Go; short names and properties are refused.
pub(super) fn unicode(name: &str) -> Option<ClassUnicode> {
    let name: String = name.chars().filter(|c| !matches!(c, ' ' | '_' | '-')).map(|c| c.to_ascii_lowercase()).collect();
    match name.as_str() {
        "any" => return Some(ClassUnicode::new([range('\0', char::MAX)])),
        "ascii" => return Some(ClassUnicode::new([range('\0', '\x7f')])),
        "assigned" => {
            let mut class = query("gc", "Cn")?;
            class.negate();
            return Some(class);
        }
        _ => {}
    }
    if let Ok(place) = CATEGORIES.binary_search_by(|(known, _)| (*known).cmp(name.as_str())) {
        return match CATEGORIES[place].1 {
            // Surrogates are in no text.
            "Cs" => Some(ClassUnicode::empty()),
            code => query("gc", code),
        };
    }
    // The short names of scripts have four letters, and of the long ones that have four, each is known.
    const FOUR_LETTERS: &[&str] = &["ahom", "cham", "kawi", "lisu", "miao", "modi", "newa", "thai", "toto"];
    if !name.bytes().all(|byte| byte.is_ascii_lowercase())
        || (name.len() == 4 && !FOUR_LETTERS.contains(&name.as_str()))
    {
        return None;
    }
    query("sc", &name)
}

/// Asks the tables of `regex-syntax` for a property.
fn query(property: &str, value: &str) -> Option<ClassUnicode> {
    let hir = regex_syntax::Parser::new().parse(&format!("\\p{{{property}={value}}}")).ok()?;
    match hir.kind() {
        HirKind::Class(Class::Unicode(class)) => Some(class.clone()),
        // A class of one character.
        HirKind::Literal(literal) => {
            let c = std::str::from_utf8(&literal.0).ok()?.chars().next()?;
            Some(ClassUnicode::new([range(c, c)]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_names_are_sorted() {
        assert!(CATEGORIES.is_sorted_by(|a, b| a.0 < b.0));
        assert!(POSIX.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn every_category_is_known_to_the_tables() {
        for (name, _) in CATEGORIES {
            assert!(unicode(name).is_some(), "{name}");
        }
    }

    #[test]
    fn scripts_are_known_by_their_long_names_only() {
        for name in ["Greek", "greek", " Gre ek", "Old_Italic", "OldItalic", "Nko", "Thai", "Yi", "Han"] {
            assert!(unicode(name).is_some_and(|class| !class.ranges().is_empty()), "{name}");
        }
        for name in ["Grek", "Arab", "Alphabetic", "White_Space", "", "sc=Greek", "L}", "Nope", "Qaai", "Zyyy"] {
            assert!(unicode(name).is_none(), "{name}");
        }
    }

    #[test]
    fn folding_reaches_beyond_ascii() {
        for (c, there) in [('k', true), ('\u{212a}', true), ('ſ', true), ('ß', true), ('1', false), ('漢', false)] {
            assert_eq!(folds(c), there, "{c}");
        }
        assert_eq!(perl(b'w', true).map(|class| class.ranges().len()), Some(6));
    }
}
