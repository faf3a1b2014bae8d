//! What Go's `regexp` does, as tables, and what must hold for any pattern.

use proptest::prelude::*;

use super::*;

/// Patterns, texts, and where Go finds the first match and its groups: `-` for a group without a match.
#[rustfmt::skip]
const MATCHES: &[(&str, &str, &str)] = &[
    (r"\d+", "٣4", "2-3"),
    (r"\w+", "éa_1", "2-5"),
    (r"\s", "\u{b}\u{a0} ", "3-4"),
    (r"[\s]", "\u{b}", "no"),
    (r"\bé", "é", "no"),
    (r"a\b", "aé", "0-1"),
    (r"\B", "éé", "0-0"),
    ("x*", "é", "0-0"),
    (r"\Qa.b*\E+", "a.b**", "0-5"),
    (r"\Qa.b", "xa.b", "1-4"),
    (r"a\Q\E*", "aaa", "0-3"),
    (r"\Q\E", "", "0-0"),
    (r"\101\07", "A\u{7}", "0-2"),
    (r"\0", "\u{0}", "0-1"),
    (r"\1234", "S4", "0-2"),
    (r"\x41\x{3b1}", "Aα", "0-3"),
    (r"\x{D800}", "x", "no"),
    (r"[\x{D7FF}-\x{E000}]", "\u{e000}", "0-3"),
    ("{", "{", "0-1"),
    ("}", "}", "0-1"),
    ("]", "]", "0-1"),
    ("a{", "a{", "0-2"),
    ("a{1", "a{1", "0-3"),
    ("a{,2}", "a{,2}", "0-5"),
    ("a{01}", "a{01}", "0-5"),
    ("a{x}", "a{x}", "0-4"),
    ("{1", "{1", "0-2"),
    ("[[]", "[", "0-1"),
    ("[]a]+", "]a", "0-2"),
    ("[^]a]", "]b", "1-2"),
    ("[a&&b]+", "a&b", "0-3"),
    ("[a-c--z]", "z", "0-1"),
    ("[~~]", "~", "0-1"),
    ("[a[b]", "[", "0-1"),
    ("[a-]+", "-a", "0-2"),
    ("[-a]", "-", "0-1"),
    (r"[\d-z]+", "5-z", "0-3"),
    (r"[\w.-]+", "a.b-c", "0-5"),
    (r"\<a\>", "<a>", "0-3"),
    (r"\_\-\@\!\~", "_-@!~", "0-5"),
    (r"\/", "/", "0-1"),
    (r"[\]]", "]", "0-1"),
    (r"[\-]", "-", "0-1"),
    ("(?P<n>a)(?<m>b)", "ab", "0-2 0-1 1-2"),
    ("(?P<n>a)(?P<n>b)", "ab", "0-2 0-1 1-2"),
    ("(?<1>a)", "a", "0-1 0-1"),
    ("(?i)k", "\u{212a}", "0-3"),
    ("(?i)S", "\u{17f}", "0-2"),
    ("(?i)ß", "ẞ", "0-3"),
    ("(?i)[a-k]", "\u{212a}", "0-3"),
    (r"(?i)\w", "\u{17f}", "0-2"),
    ("(?i)[^k]", "\u{212a}", "no"),
    ("(?i)[[:lower:]]", "Z", "0-1"),
    (r"(?i)\W", "\u{212a}", "no"),
    ("(?i)Σ", "ς", "0-2"),
    ("(?i:a)b", "AB", "no"),
    ("(?i)a(?-i)b", "Ab", "0-2"),
    ("(?i)a(?-i)b", "AB", "no"),
    ("(?i)(a|(?-i)b)c", "bC", "0-2 0-1"),
    ("((?i)a)b", "Ab", "0-2 0-1"),
    ("a(?i)*", "aaa", "0-3"),
    (r"(?i)\p{Lu}", "a", "0-1"),
    (r"(?i)\P{Lu}", "A", "no"),
    (r"(?i)\x41", "a", "0-1"),
    ("^b", "a\nb", "no"),
    ("(?m)^b$", "a\nb\nc", "2-3"),
    ("a$", "a\n", "no"),
    ("(?m)a$", "a\n", "0-1"),
    (r"a\z", "a\n", "no"),
    (r"(?m)\Ab", "a\nb", "no"),
    (".", "\n", "no"),
    ("(?s).", "\n", "0-1"),
    ("[^a]", "\n", "0-1"),
    ("(?s:.)(.)", "\na", "0-2 1-2"),
    ("(?-s).", "\n", "no"),
    ("(?s)a(?-s:.)", "a\n", "no"),
    ("(?U)a+", "aaa", "0-1"),
    ("(?U)a+?", "aaa", "0-3"),
    ("a+?", "aaa", "0-1"),
    ("a{2,3}?", "aaa", "0-2"),
    ("a??b", "ab", "0-2"),
    ("(a*?)(a*)", "aa", "0-2 0-0 0-2"),
    ("(?U)(a*)(a*?)", "aa", "0-2 0-0 0-2"),
    (r"\pL+", "aé1", "0-3"),
    (r"\pN", "٣", "0-2"),
    (r"\p{Greek}+", "αβb", "0-4"),
    (r"\P{Greek}", "αb", "2-3"),
    (r"\p{^Greek}", "αb", "2-3"),
    (r"\P{^Greek}", "bα", "1-3"),
    (r"[^\p{Greek}]", "αb", "2-3"),
    (r"\p{Letter}", "é", "0-2"),
    (r"\p{lowercase_letter}", "Aa", "1-2"),
    (r"\p{Any}", "☃", "0-3"),
    (r"\p{ASCII}", "éa", "2-3"),
    (r"\pl", "a", "0-1"),
    (r"\p{Zl}", "\u{2028}", "0-3"),
    (r"\p{Nko}", "ߊ", "0-2"),
    (r"[\pL\pN]+", "_é٣_", "1-5"),
    ("[[:alpha:]]+", "1ab", "1-3"),
    ("[[:^alpha:]]+", "a12", "1-3"),
    ("[[:word:]-]+", "!a-b_", "1-5"),
    ("[[:space:]]", "\u{b}", "0-1"),
    ("[^[:punct:]]", "!a", "1-2"),
    ("[[:alpha]", "[", "0-1"),
    ("[:alpha:]+", "alpha:", "0-6"),
    ("[a[:digit:]b]+", "a1b", "0-3"),
    ("(a)|(b)", "b", "0-1 - 0-1"),
    ("(a|ab)(c|bcd)(d*)", "abcd", "0-4 0-1 1-4 4-4"),
    ("(a*)+", "b", "0-0 0-0"),
    ("(a*)*", "b", "0-0 0-0"),
    ("(a|b)*", "abc", "0-2 1-2"),
    ("(|a)*", "aa", "0-0 0-0"),
    ("(|a)+", "aa", "0-0 0-0"),
    ("(a|)*", "aa", "0-2 1-2"),
    ("(a){0}b", "ab", "1-2 -"),
    ("(a){2}", "aaa", "0-2 1-2"),
    ("(a){0,1}(b)?", "b", "0-1 - 0-1"),
    ("((a)|b)*", "ab", "0-2 1-2 0-1"),
    ("(?:(a)|b)*", "ab", "0-2 0-1"),
    ("(a?)*?$", "aa", "0-2 1-2"),
    ("()*", "a", "0-0 0-0"),
    ("(^)*a", "a", "0-1 0-0"),
    ("$^", "", "0-0"),
    ("(?:a|b||c)d", "d", "0-1"),
    ("", "x", "0-0"),
    ("|a", "a", "0-0"),
    ("a||b", "b", "0-0"),
    ("(?)a", "a", "0-1"),
    ("(?:)", "a", "0-0"),
    ("a.c", "aéc", "0-4"),
    ("[é-ü]", "î", "0-2"),
    (r"[^\x00-\x{10FFFF}]", "a", "no"),
    ("x{0}y", "xy", "1-2"),
    ("a{1000}", "aa", "no"),
    ("(a+|b+)c", "aabbc", "2-5 2-4"),
    ("foo|foobar", "foobar", "0-3"),
    ("(?:foo|foobar)$", "foobar", "0-6"),
    ("^(?s:a)|(?:b)$", "xb", "1-2"),
    ("^(?s:(.*))$", "a\nb", "0-3 0-3"),
    ("^(?s:f|o)$", "foo", "no"),
    ("^(?s:.*o.*)$", "foo", "0-3"),
    (r"^(?s:(.+?)(\:\d+)?;(\d+))$", "10.0.0.1:80;9090", "0-16 0-8 8-11 12-16"),
    ("^(?s:(?:.+,|^)path:(/[^,]+).*)$", "a,path:/x,y", "0-11 7-9"),
    ("^(?s:^metrics$)$", "metrics", "0-7"),
    ("^(?s:(?m)^b)$", "a\nb", "no"),
    ("^(?s:(a)(.*)b)$", "axxb", "0-4 0-1 1-3"),
    ("^(?s:((.+)))$", "x", "0-1 0-1 0-1"),
    ("^(?s:(?i)true)$", "TrUe", "0-4"),
    ("^(?s:(a|(b)))$", "b", "0-1 0-1 0-1"),
    ("^(?s:ab(.*)ba)$", "aba", "no"),
];

/// Patterns that Go refuses, and how it words that behind `error parsing regexp: `.
#[rustfmt::skip]
const REFUSED: &[(&str, &str)] = &[
    ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
    ("(?!a)", "invalid or unsupported Perl syntax: `(?!`"),
    ("(?<=a)b", "invalid named capture: `(?<=a)b`"),
    ("(?<!a)", "invalid named capture: `(?<!a)`"),
    ("(?>a)", "invalid or unsupported Perl syntax: `(?>`"),
    ("(?#x)", "invalid or unsupported Perl syntax: `(?#`"),
    ("(?'n'a)", "invalid or unsupported Perl syntax: `(?'`"),
    ("(?P=n)", "invalid or unsupported Perl syntax: `(?P`"),
    ("(?P<n", "invalid named capture: `(?P<n`"),
    ("(?P<>a)", "invalid named capture: `(?P<>`"),
    ("(?P<a-b>x)", "invalid named capture: `(?P<a-b>`"),
    ("(?<n", "invalid named capture: `(?<n`"),
    ("(?P>n)", "invalid or unsupported Perl syntax: `(?P`"),
    ("(?i", "invalid or unsupported Perl syntax: `(?i`"),
    ("(?", "invalid or unsupported Perl syntax: `(?`"),
    ("(?z)", "invalid or unsupported Perl syntax: `(?z`"),
    ("(?i-)", "invalid or unsupported Perl syntax: `(?i-)`"),
    ("(?-)", "invalid or unsupported Perl syntax: `(?-)`"),
    ("(?i-s--)", "invalid or unsupported Perl syntax: `(?i-s-`"),
    ("(?|a)", "invalid or unsupported Perl syntax: `(?|`"),
    (r"\1", r"invalid escape sequence: `\1`"),
    (r"\8", r"invalid escape sequence: `\8`"),
    (r"\C", r"invalid escape sequence: `\C`"),
    (r"\Z", r"invalid escape sequence: `\Z`"),
    (r"\G", r"invalid escape sequence: `\G`"),
    (r"\K", r"invalid escape sequence: `\K`"),
    (r"\R", r"invalid escape sequence: `\R`"),
    (r"\X", r"invalid escape sequence: `\X`"),
    (r"\h", r"invalid escape sequence: `\h`"),
    (r"\q", r"invalid escape sequence: `\q`"),
    (r"\cA", r"invalid escape sequence: `\c`"),
    (r"\e", r"invalid escape sequence: `\e`"),
    (r"\u0041", r"invalid escape sequence: `\u`"),
    (r"\N{x}", r"invalid escape sequence: `\N`"),
    (r"\x", r"invalid escape sequence: `\x`"),
    (r"\x4", r"invalid escape sequence: `\x4`"),
    (r"\xzz", r"invalid escape sequence: `\xzz`"),
    (r"\x{}", r"invalid escape sequence: `\x{}`"),
    (r"\x{110000}", r"invalid escape sequence: `\x{110000`"),
    (r"\x{g}", r"invalid escape sequence: `\x{g`"),
    (r"\x{41", r"invalid escape sequence: `\x{41`"),
    (r"\", "trailing backslash at end of expression: ``"),
    (r"a\", "trailing backslash at end of expression: ``"),
    ("a**", "invalid nested repetition operator: `**`"),
    ("a*+", "invalid nested repetition operator: `*+`"),
    ("a++", "invalid nested repetition operator: `++`"),
    ("a{2}{3}", "invalid nested repetition operator: `{2}{3}`"),
    ("a??+", "invalid nested repetition operator: `??+`"),
    ("a*??", "invalid nested repetition operator: `*??`"),
    ("*a", "missing argument to repetition operator: `*`"),
    ("+", "missing argument to repetition operator: `+`"),
    ("?", "missing argument to repetition operator: `?`"),
    ("^*|*", "missing argument to repetition operator: `*`"),
    ("(*FAIL)", "missing argument to repetition operator: `*`"),
    ("(|*)", "missing argument to repetition operator: `*`"),
    ("a{1001}", "invalid repeat count: `{1001}`"),
    ("a{2,1}", "invalid repeat count: `{2,1}`"),
    ("a{99999999999}", "invalid repeat count: `{99999999999}`"),
    ("a{1,1001}", "invalid repeat count: `{1,1001}`"),
    ("(a{100}){100}", "invalid repeat count: `{100}`"),
    ("((a{10}){10}){11}", "invalid repeat count: `{11}`"),
    ("(a{0,500}){3}", "invalid repeat count: `{3}`"),
    ("(", "missing closing ): `(`"),
    (")", "unexpected ): `)`"),
    ("(a", "missing closing ): `(a`"),
    ("a)", "unexpected ): `a)`"),
    ("(a))", "unexpected ): `(a))`"),
    ("((a)", "missing closing ): `((a)`"),
    ("(?:", "missing closing ): `(?:`"),
    ("[", "missing closing ]: `[`"),
    ("[a", "missing closing ]: `[a`"),
    ("[^", "missing closing ]: `[^`"),
    ("[]", "missing closing ]: `[]`"),
    ("[^]", "missing closing ]: `[^]`"),
    ("[b-a]", "invalid character class range: `b-a`"),
    (r"[a-\d]", r"invalid escape sequence: `\d`"),
    (r"[\b]", r"invalid escape sequence: `\b`"),
    (r"[\q]", r"invalid escape sequence: `\q`"),
    (r"[\", "trailing backslash at end of expression: ``"),
    ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
    ("[[:alpha:", "missing closing ]: `[[:alpha:`"),
    ("[z-a", "invalid character class range: `z-a`"),
    (r"\pX", r"invalid character class range: `\pX`"),
    (r"\p", r"invalid character class range: `\p`"),
    (r"\p{", r"invalid character class range: `\p{`"),
    (r"\p{}", r"invalid character class range: `\p{}`"),
    (r"\p{Foo}", r"invalid character class range: `\p{Foo}`"),
    (r"\p{Greek", r"invalid character class range: `\p{Greek`"),
    (r"\P{^Nope}", r"invalid character class range: `\P{^Nope}`"),
    (r"[\p{Foo}]", r"invalid character class range: `\p{Foo}`"),
    (r"\p{Alphabetic}", r"invalid character class range: `\p{Alphabetic}`"),
    (r"\p{Grek}", r"invalid character class range: `\p{Grek}`"),
    ("^(?s:a))$", "unexpected ): `^(?s:a))$`"),
    ("^(?s:(a)$", "missing closing ): `^(?s:(a)$`"),
    ("^(?s:[a)$", "missing closing ]: `[a)$`"),
];

/// Patterns, texts, replacements, and what Go's `ReplaceAllString` makes of them.
#[rustfmt::skip]
const REPLACED: &[(&str, &str, &str, &str)] = &[
    ("a*", "baac", "<$0>", "<>b<aa>c<>"),
    ("a*", "", "x", "x"),
    ("a|", "ab", "<$0>", "<a>b<>"),
    ("", "é☃", "-", "-é-☃-"),
    ("(a)(b)?", "abaa", "[$1|$2]", "[a|b][a|][a|]"),
    ("b|", "abc", "_", "_a_c_"),
    (r"\b", "a bc", "|", "|a| |bc|"),
    ("(?P<n>a)|(?P<n>b)", "ab", "${n}!", "a!b!"),
    ("x", "ab", "$0", "ab"),
    ("a", "aaa", "", ""),
    ("^", "ab", "x", "xab"),
    ("$", "ab", "x", "abx"),
    ("(?m)^", "a\nb", "> ", "> a\n> b"),
    (r"\B", "éa", ".", ".éa"),
    ("é", "aéa", "$0$0", "aééa"),
    ("^(?s:a)|(b)$", "ab", "<$1>", "<><b>"),
];

/// Replacements, and what Go's `ExpandString` makes of them where `(a)(?P<n>b)(?P<01>c)?(?P<x>d)?|(?P<x>e)` matches
/// `ab`.
#[rustfmt::skip]
const EXPANDED: &[(&str, &str)] = &[
    ("$1", "a"),
    ("${1}", "a"),
    ("$1x", ""),
    ("${1}x", "ax"),
    ("$1$2", "ab"),
    ("$$", "$"),
    ("$$1", "$1"),
    ("$$$1", "$a"),
    ("$", "$"),
    ("a$", "a$"),
    ("$-", "$-"),
    ("$ 1", "$ 1"),
    ("${", "${"),
    ("${1", "${1"),
    ("${1x", "${1x"),
    ("${}", "${}"),
    ("${1 }", "${1 }"),
    ("$n", "b"),
    ("${n}", "b"),
    ("$nn", ""),
    ("${n}n", "bn"),
    ("$n-", "b-"),
    ("$é", ""),
    ("${é}x", "x"),
    ("$_", ""),
    ("$3", ""),
    ("$9", ""),
    ("$10", ""),
    ("$01", ""),
    ("${01}", ""),
    ("$00", ""),
    ("$0", "ab"),
    ("$1234567890", ""),
    ("$123456789", ""),
    ("$x$1", "a"),
    ("a${n}b$1c$0d", "abb"),
    ("$1é", ""),
    ("$1٣", ""),
    ("$1²", "a²"),
    ("$１", ""),
    ("{$1}", "{a}"),
    ("$${1}", "${1}"),
    ("$\n", "$\n"),
    ("%1", "%1"),
    (r"\1", r"\1"),
];

fn shown(regex: &GoRegex, text: &str) -> String {
    let mut groups = Groups::new();
    if !regex.captures(text, &mut groups) {
        return "no".to_owned();
    }
    let group = |index| groups.get(index).map_or("-".to_owned(), |range| format!("{}-{}", range.start, range.end));
    (0..=regex.group_count()).map(group).collect::<Vec<_>>().join(" ")
}

/// The pattern without a way around the engine.
fn slow(pattern: &str) -> Result<GoRegex, RegexError> {
    GoRegex::build(pattern, |_| None)
}

#[test]
fn matches_and_groups_are_those_of_go() {
    for (pattern, text, expected) in MATCHES {
        let regex = GoRegex::new(pattern).unwrap();
        assert_eq!(shown(&regex, text), *expected, "{pattern} on {text:?}");
        assert_eq!(regex.is_match(text), *expected != "no", "{pattern} on {text:?}");
        assert_eq!(shown(&slow(pattern).unwrap(), text), *expected, "{pattern} on {text:?}, with the engine");
    }
}

#[test]
fn what_go_refuses_is_refused_in_its_words() {
    for (pattern, expected) in REFUSED {
        let error = GoRegex::new(pattern).unwrap_err();
        assert_eq!(error.to_string(), format!("error parsing regexp: {expected}"), "{pattern}");
        assert!(pattern.get(error.offset()..).is_some(), "{pattern}: {}", error.offset());
    }
}

#[test]
fn an_error_says_where_it_is() {
    for (pattern, offset) in [("ab[c", 2), ("a(b", 3), ("ab**", 2), (r"a\q", 1), ("a{2000}", 1), ("[b-a]", 1)] {
        assert_eq!(GoRegex::new(pattern).unwrap_err().offset(), offset, "{pattern}");
        assert_eq!(GoRegex::check_anchored(pattern).unwrap_err().offset(), offset, "{pattern}");
    }
}

#[test]
fn all_matches_are_replaced_as_go_replaces_them() {
    let mut groups = Groups::new();
    for (pattern, text, template, expected) in REPLACED {
        let regex = GoRegex::new(pattern).unwrap();
        let template = Template::new(template, &regex);
        let mut out = String::new();
        regex.replace_all(text, &template, &mut groups, &mut out);
        assert_eq!(out, *expected, "{pattern} on {text:?}");
        out.clear();
        assert!(regex.replace_within(text, &template, &mut groups, &mut out, expected.len()));
        assert_eq!(out, *expected);
        assert!(
            expected.is_empty() || !regex.replace_within(text, &template, &mut groups, &mut out, expected.len() - 1)
        );
    }
}

#[test]
fn templates_are_expanded_as_go_expands_them() {
    let regex = GoRegex::new("(a)(?P<n>b)(?P<01>c)?(?P<x>d)?|(?P<x>e)").unwrap();
    let mut groups = Groups::new();
    assert!(regex.captures("ab", &mut groups));
    for (text, expected) in EXPANDED {
        let template = Template::new(text, &regex);
        let mut out = String::new();
        template.expand("ab", &groups, &mut out);
        assert_eq!(out, *expected, "{text}");
        assert_eq!(template.expanded_len(&groups), expected.len(), "{text}");
        assert!(template.as_text().is_none_or(|text| text == *expected), "{text}");
    }
    // Of several groups of one name, the first that took part counts.
    assert!(regex.captures("e", &mut groups));
    let mut out = String::new();
    Template::new("<$x>", &regex).expand("e", &groups, &mut out);
    assert_eq!(out, "<e>");
}

#[test]
fn groups_have_numbers_and_names() {
    let regex = GoRegex::new("(?P<a>x)(y)(?:z)(?<a>w)").unwrap();
    assert_eq!(regex.group_count(), 3);
    assert_eq!(regex.group_names().collect::<Vec<_>>(), [Some("a"), None, Some("a")]);
    assert_eq!(regex.groups_named("a").collect::<Vec<_>>(), [1, 3]);
    assert_eq!(regex.as_str(), "(?P<a>x)(y)(?:z)(?<a>w)");
}

#[test]
fn common_patterns_need_no_engine() {
    for pattern in [
        "",
        "(.*)",
        ".*",
        "(.+)",
        "foo",
        "^foo$",
        "a|b|c",
        "(a|b)",
        "foo.*",
        "foo(.+)",
        ".*foo",
        "(.*?)foo",
        ".*foo.*",
        "a(.*)b",
        "https?",
        "(https?)",
        "(?i)true",
        "[ab]c",
        r"\d",
        "(?:foo|bar)-(?:a|b)",
        r"__meta_\.(.+)",
    ] {
        let regex = GoRegex::anchored(pattern).unwrap();
        assert!(regex.engine.is_none(), "{pattern}");
    }
    for pattern in ["f(o+)", "(a)|b", ".*a.*b", "(?-s)(.*)", "a.c", r"(\d+)", "(?i)kubernetes", "a)|(b", "..*"] {
        let regex = GoRegex::anchored(pattern).unwrap();
        assert!(regex.engine.is_some(), "{pattern}");
    }
    assert!(GoRegex::new("foo").unwrap().engine.is_some());
}

#[test]
fn a_long_list_of_literals_is_looked_up() {
    let names: Vec<String> = (0..10_000).map(|n| format!("host-{n}")).collect();
    let regex = GoRegex::anchored(&names.join("|")).unwrap();
    assert!(regex.engine.is_none());
    assert!(regex.is_match("host-9999") && !regex.is_match("host-10000") && !regex.is_match(""));
}

#[test]
fn what_is_too_large_is_refused() {
    let deep = |n: usize| format!("{}a{}", "(?:a|".repeat(n), ")".repeat(n));
    let cases = [
        ("a".repeat(PATTERN_BYTES_MAX + 1), parse::TOO_LARGE),
        (deep(300), "expression nests too deeply"),
        ("(".repeat(100_000), "expression nests too deeply"),
        (format!("{}a{}", "(".repeat(251), ")".repeat(251)), "expression nests too deeply"),
        (r"[\pL\pN]".repeat(1000), parse::TOO_LARGE),
        (r"\pL{1000}\pL{1000}\pL{1000}".to_owned(), parse::TOO_LARGE),
    ];
    for (pattern, expected) in cases {
        assert_eq!(GoRegex::new(&pattern).unwrap_err().what(), expected, "{}", &pattern[..20]);
    }
    assert!(GoRegex::new("").is_ok());
    assert!(GoRegex::new(&"a".repeat(100_000)).is_ok());
}

#[test]
fn the_deepest_pattern_fits_on_a_small_stack() {
    let shapes = [("(", ")"), ("(?:a|", ")"), ("(a|b", "c)?"), ("(?:a", "b)*"), ("(?i:a", "b|[cd])+")];
    let thread = std::thread::Builder::new().stack_size(512 << 10).spawn(move || {
        shapes.map(|(open, close)| {
            let nested = |n: usize| format!("{}z{}", open.repeat(n), close.repeat(n));
            let deepest = (1..=HEIGHT_MAX).rev().find_map(|n| GoRegex::new(&nested(n)).ok()).unwrap();
            deepest.captures("abz", &mut Groups::new())
        })
    });
    assert_eq!(thread.unwrap().join().unwrap().len(), shapes.len());
}

/// Patterns that have something to do with what `text` makes.
fn pattern() -> impl Strategy<Value = String> {
    let atom = proptest::sample::select(vec![
        "a",
        "b",
        "ab",
        "",
        ".",
        "[ab]",
        "[^a]",
        "\\w",
        "(?i)a",
        "é",
        "\n",
        "^",
        "$",
        "\\b",
        ".*",
        ".+",
        ".*?",
        "(.*)",
        "(.+)",
        "(?-s:.)",
        "a?",
        "b*",
        "(a)",
        "(?P<n>b)",
        "\\Qa.\\E",
        "{",
        "[^\\x00-\\x{10ffff}]",
    ])
    .prop_map(str::to_owned);
    atom.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            3 => proptest::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            2 => proptest::collection::vec(inner.clone(), 2..4).prop_map(|parts| format!("(?:{})", parts.join("|"))),
            2 => inner.clone().prop_map(|part| format!("({part})")),
            1 => (inner, proptest::sample::select(vec!["*", "+", "?", "{2}", "{0}", "{1,2}?"]))
                .prop_map(|(part, times)| format!("(?:{part}){times}")),
        ]
    })
}

fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(vec!["a", "b", "A", "é", "\n", "{", ".", " "]), 0..8)
        .prop_map(|parts| parts.concat())
}

#[test]
fn a_group_that_is_never_matched_keeps_its_number() {
    for pattern in ["(?:(.*)){0}(.*)", "(a){0}((b.*))", "((x){0}(.*))", "(x){0}a(.*)b", "(a){0}(b|c)", "((a){0}b)"] {
        let (fast, slow) = (GoRegex::anchored(pattern).unwrap(), slow(&wrap(pattern)).unwrap());
        for text in ["", "a", "b", "ab", "acb", "bc"] {
            assert_eq!(shown(&fast, text), shown(&slow, text), "{pattern} on {text:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_ways_around_the_engine_give_what_the_engine_gives(
        pattern in pattern(),
        texts in proptest::collection::vec(text(), 1..8),
        template in "[$a1-3{}n]{0,8}",
    ) {
        let (fast, slow) = (GoRegex::anchored(&pattern)?, slow(&wrap(&pattern))?);
        let (mut groups, mut fast_out, mut slow_out) = (Groups::new(), String::new(), String::new());
        let templates = (Template::new(&template, &fast), Template::new(&template, &slow));
        for text in texts.iter().chain([&pattern, &String::new()]) {
            let expected = shown(&slow, text);
            prop_assert_eq!(shown(&fast, text), expected.as_str(), "{} on {:?}", pattern, text);
            prop_assert_eq!(fast.is_match(text), expected != "no", "{} on {:?}", pattern, text);
            prop_assert_eq!(fast.find(text), slow.find(text), "{} on {:?}", pattern, text);
            if fast.is_whole(templates.0.last_group()) && fast.captures_whole(text, &mut groups) {
                fast_out.clear();
                templates.0.expand(text, &groups, &mut fast_out);
                slow_out.clear();
                prop_assert!(slow.captures(text, &mut groups));
                templates.1.expand(text, &groups, &mut slow_out);
                prop_assert_eq!(&fast_out, &slow_out, "{} on {:?} with {}", pattern, text, template);
            }
            fast_out.clear();
            slow_out.clear();
            fast.replace_all(text, &templates.0, &mut groups, &mut fast_out);
            slow.replace_all(text, &templates.1, &mut groups, &mut slow_out);
            prop_assert_eq!(&fast_out, &slow_out, "{} on {:?} with {}", pattern, text, template);
        }
    }

    #[test]
    fn any_text_is_read_as_a_pattern_or_refused(pattern in "\\PC{0,40}", text in "\\PC{0,20}", at in 0usize..20) {
        if let Ok(regex) = GoRegex::new(&pattern) {
            let mut groups = Groups::new();
            if text.is_char_boundary(at) && regex.captures_at(&text, at, &mut groups) {
                let found = groups.get(0).unwrap();
                prop_assert!(at <= found.start && text.get(found).is_some());
            }
        }
    }

    #[test]
    fn any_text_of_the_syntax_is_read_as_a_pattern_or_refused(
        pattern in "[-a-c0-3\\[\\](){}?*+|^$.\\\\,:<>PpLQEdwxbBAzismU&~é \n]{0,24}",
        text in text(),
    ) {
        for regex in [GoRegex::new(&pattern), GoRegex::anchored(&pattern)].into_iter().flatten() {
            let mut groups = Groups::new();
            let found = regex.captures(&text, &mut groups);
            prop_assert_eq!(found, regex.is_match(&text));
            for index in 0..=regex.group_count() {
                prop_assert!(groups.get(index).is_none_or(|range| found && text.get(range).is_some()));
            }
        }
    }

    #[test]
    fn any_text_is_a_template(template in "\\PC{0,30}", text in text()) {
        let regex = GoRegex::new("(?s)(.)(?P<n>.)?").unwrap();
        let template = Template::new(&template, &regex);
        let mut groups = Groups::new();
        if regex.captures(&text, &mut groups) {
            let mut out = String::new();
            template.expand(&text, &groups, &mut out);
            prop_assert_eq!(out.len(), template.expanded_len(&groups));
        }
    }
}
