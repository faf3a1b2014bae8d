use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use serde_json::Value as Json;

use super::{Data, Template};

/// A map of texts.
#[derive(Default)]
struct Texts {
    map: BTreeMap<Vec<u8>, Vec<u8>>,
    is_texts: bool,
}

impl Data for Texts {
    fn get(&self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        self.map.get(name).map(|text| Cow::Borrowed(text.as_slice()))
    }

    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for (name, text) in &self.map {
            visit(name, text);
        }
    }

    fn is_texts(&self) -> bool {
        self.is_texts
    }
}

fn data(json: &Json) -> Texts {
    let fields = json.as_object().unwrap().iter();
    let texts = fields.map(|(name, text)| (name.clone().into_bytes(), text.as_str().unwrap().as_bytes().to_vec()));
    Texts { map: texts.collect(), is_texts: false }
}

fn render(text: &str, data: &Texts) -> Result<String, String> {
    let template = Template::parse("pipeline_template", text).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    template.execute(data, &mut out).map_err(|error| error.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

/// Recorded with Go's `text/template` and sprig 3.3.0, in UTC, as `[template, kind, text, data]`: the kind is `out`, `b64`
/// for output that is no text, `parse` for an error of parsing, or `exec` for one of execution, whose text does not count.
#[test]
fn templates_do_what_go_does() {
    let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/template.json")).unwrap();
    let file: Json = serde_json::from_slice(&file).unwrap();
    let usual = data(&file["data"]);
    let is_utc = crate::time::Zone::load("Local").unwrap().at(1_709_164_800).0 == 0;
    let (mut wrong, mut count) = (Vec::new(), 0);
    for case in file["cases"].as_array().unwrap() {
        let own = case.get(3).map(data);
        let data = own.as_ref().unwrap_or(&usual);
        let (text, kind, want) = (case[0].as_str().unwrap(), case[1].as_str().unwrap(), case[2].as_str().unwrap());
        if text.contains("ate ") && !is_utc {
            // What is shown depends on the zone of the machine.
            continue;
        }
        count += 1;
        let found = match Template::parse("pipeline_template", text) {
            Err(error) => ("parse", error.to_string().into_bytes()),
            Ok(template) => {
                let mut out = Vec::new();
                match template.execute(data, &mut out) {
                    Err(error) => ("exec", error.to_string().into_bytes()),
                    Ok(()) => ("out", out),
                }
            }
        };
        let same = match kind {
            "exec" => found.0 == "exec",
            "b64" => found.0 == "out" && BASE64_STANDARD.encode(&found.1) == want,
            kind => found.0 == kind && found.1 == want.as_bytes(),
        };
        if !same {
            let found_text = String::from_utf8_lossy(&found.1);
            wrong.push(format!("{text:?}\n   wanted {kind} {want:?}\n   found  {} {found_text:?}", found.0));
        }
    }
    assert!(count > 6_000, "{count} cases");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_is_not_supported_is_a_parse_error_that_says_so() {
    let error = render("a\n{{ genCA \"a\" 1 }}", &Texts::default()).unwrap_err();
    assert_eq!(error, "template: pipeline_template:2: function \"genCA\" is not supported");
}

#[test]
fn endless_templates_end() {
    let texts = Texts::default();
    let wanted = [
        ("{{ define \"r\" }}{{ template \"r\" . }}{{ end }}{{ template \"r\" }}", "exceeded maximum template depth"),
        ("{{ range 1000000 }}x{{ end }}", "loops take more than"),
        ("{{ range until 10000 }}{{ range until 10000 }}{{ end }}{{ end }}", "loops take more than"),
        ("{{ until 1000000000 }}", "more than 10000 numbers"),
        ("{{ repeat 1000000000 \"x\" }}", "larger than"),
        ("{{ $x := \"x\" }}{{ range until 40 }}{{ $x = cat $x $x }}{{ end }}", "larger than"),
        ("{{ range until 9000 }}{{ $_ := repeat 100000 \"x\" }}{{ end }}", "handles more than"),
        ("{{ $l := list }}{{ range until 9000 }}{{ $l = list $l }}{{ end }}", "nested more than"),
        ("{{ $d := dict }}{{ $_ := set $d \"d\" $d }}{{ $d }}", "nested more than"),
        ("{{ $d := dict }}{{ $_ := set $d \"d\" $d }}{{ toJson $d | len }}{{ deepCopy $d }}", "nested more than"),
        (
            "{{ define \"a\" }}{{ template \"b\" . }}{{ template \"b\" . }}{{ end }}{{ define \"b\" }}{{ range until 9 }}\
             {{ template \"a\" }}{{ end }}{{ end }}{{ template \"a\" }}",
            "exceeded maximum template depth",
        ),
    ];
    for (text, part) in wanted {
        let error = render(text, &texts).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    let chain = "{{ $d := dict }}{{ range until 9000 }}{{ $n := dict \"d\" $d }}{{ $d = $n }}{{ end }}ok";
    assert_eq!(render(chain, &texts).as_deref(), Ok("ok"));
    let deep = format!("{}{}", "{{ if 1 }}".repeat(101), "{{ end }}".repeat(101));
    assert!(render(&deep, &texts).unwrap_err().ends_with("blocks are nested too deeply"));
    let chain = format!("{{{{ if 0 }}}}{}{{{{ end }}}}", "{{ else if 0 }}".repeat(5000));
    assert_eq!(render(&chain, &texts).as_deref(), Ok(""));
}

#[test]
fn a_long_text_has_its_template_carried_out() {
    let long = |len: usize| Texts { map: BTreeMap::from([(b"line".to_vec(), vec![b'a'; len])]), is_texts: false };
    let text = "{{ $l := .line }}{{ range until 5 }}{{ $l = Replace (ToUpper $l) \"A\" \"a\" -1 }}{{ end }}{{ $l }}";
    assert_eq!(render(text, &long(2 << 20)).map(|out| out.len()), Ok(2 << 20));
    let masked = render("{{ regexReplaceAll \"a+\" .line \"***\" }}", &long(10 << 20));
    assert_eq!(masked.as_deref(), Ok("***"));
    assert_eq!(render("{{ .line }}", &long(16 << 20)).map(|out| out.len()), Ok(16 << 20));
    assert!(render("{{ .line }}{{ .line }}", &long(10 << 20)).unwrap_err().contains("larger than"));
    // A short one does not grow without end.
    assert!(render("{{ repeat 2000000 .line }}", &long(1)).unwrap_err().contains("larger than"));
    assert!(
        render("{{ range until 9000 }}{{ $_ := repeat 9000 $.line }}{{ end }}", &long(1))
            .unwrap_err()
            .contains("handles")
    );
    let all = "{{ range $k, $v := . }}{{ $v | ToUpper | len }}{{ end }}";
    assert_eq!(render(all, &long(5 << 20)).as_deref(), Ok("5242880"));
}

#[test]
fn the_deepest_template_fits_a_small_stack() {
    let run = || {
        let blocks = format!("{}{}", "{{ with 1 }}".repeat(99), "{{ end }}".repeat(99));
        assert_eq!(render(&blocks, &Texts::default()).as_deref(), Ok(""));
        let parens = format!("{{{{ {}1{} }}}}", "(".repeat(100), ")".repeat(100));
        assert_eq!(render(&parens, &Texts::default()).as_deref(), Ok("1"));
        let (open, close) = ("{{ if 1 }}".repeat(99), "{{ end }}".repeat(99));
        let both = format!("{open}{{{{ {}1{} }}}}{close}", "(print ".repeat(100), ")".repeat(100));
        assert!(render(&both, &Texts::default()).unwrap_err().contains("max expression depth exceeded"));
        let (open, close) = ("{{ if 1 }}".repeat(40), "{{ end }}".repeat(40));
        let both = format!("{open}{{{{ {}1{} }}}}{close}", "(print ".repeat(59), ")".repeat(59));
        assert_eq!(render(&both, &Texts::default()).as_deref(), Ok("1"));
        let list = "{{ $l := list }}{{ range until 99 }}{{ $l = list $l }}{{ end }}";
        assert!(render(&format!("{list}{{{{ toJson $l | len }}}}{{{{ $l }}}}"), &Texts::default()).is_ok());
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn a_map_of_texts_is_no_map_of_anything() {
    let texts = Texts { map: BTreeMap::from([(b"a".to_vec(), b"1".to_vec())]), is_texts: true };
    assert_eq!(render("{{ .a }}{{ .b }}{{ typeOf . }}", &texts).as_deref(), Ok("1<no value>map[string]string"));
    assert_eq!(render("{{ index . \"b\" }}|", &texts).as_deref(), Ok("|"));
    assert!(render("{{ get . \"a\" }}", &texts).unwrap_err().contains("wrong type for value"));
}

#[test]
fn names_that_are_read_are_known() {
    let names = |text: &str| {
        let template = Template::parse("t", text).unwrap();
        template.names().map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let some = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!(names("x {{ .b | upper }}{{ if $.a.c }}{{ (print .d).e }}{{ end }}"), some(&["a", "b", "d", "e"]));
    assert_eq!(names("{{ $x := .a }}{{ $x }}{{ with .b }}{{ end }}"), some(&["a", "b"]));
    assert_eq!(names("{{ index . \"a\" }}"), None);
    assert_eq!(names("{{ range . }}{{ end }}"), None);
    assert_eq!(names("{{ toJson $ }}"), None);
}

#[test]
fn bytes_that_are_no_text_pass() {
    let texts = Texts { map: BTreeMap::from([(b"v".to_vec(), b"a\xffb".to_vec())]), is_texts: false };
    for text in
        ["{{ .v }}", "{{ printf \"%s\" .v }}", "{{ .v | trim }}", "{{ Replace .v \"x\" \"y\" -1 }}", "{{ print .v }}"]
    {
        let mut out = Vec::new();
        Template::parse("t", text).unwrap().execute(&texts, &mut out).unwrap();
        assert_eq!(out, b"a\xffb", "{text}");
    }
}

/// Pieces of templates.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "{{",
            "}}",
            "{{-",
            "-}}",
            " ",
            "|",
            "(",
            ")",
            ".",
            "$",
            "$x",
            ":=",
            "=",
            ",",
            "\"a\"",
            "`b`",
            "'c'",
            "1",
            "-1",
            "0x1f",
            "2.5",
            "nil",
            "true",
            ".Value",
            ".a.b",
            "if",
            "else",
            "end",
            "range",
            "with",
            "define",
            "template",
            "block",
            "break",
            "continue",
            "/*",
            "*/",
            "\n",
            "list",
            "dict",
            "set",
            "until",
            "printf",
            "\"%5.2f\"",
            "\"%v\"",
            "index",
            "slice",
            "regexFindAll",
            "splitList",
            "toJson",
            "fromJson",
            "trunc",
            "substr",
            "wrap",
            "chunk",
            "round",
            "divf",
            "seq",
            "urlParse",
            "semver",
            "semverCompare",
            "date",
            "toDate",
            "abbrev",
            "repeat",
            "snakecase",
            "camelcase",
            "b64dec",
            "b32dec",
            "merge",
            "deepCopy",
            "sortAlpha",
            "now",
            "é"
        ])
        .prop_map(str::to_owned),
        ".{0,4}",
    ]
}

/// Templates that can be parsed more often than not.
fn call() -> impl Strategy<Value = String> {
    let operand = prop::sample::select(vec![
        "1",
        "-3",
        "0",
        "\"\"",
        "\"a,b\"",
        "\"[\"",
        "nil",
        "2.5",
        "true",
        ".Value",
        ".missing",
        ".",
        "(list 1 \"a\" nil)",
        "(dict \"a\" (list 1))",
        "(now)",
        "(until 3)",
        "\"%d %s\"",
        "\"ž日\"",
        "\"{\\\"a\\\":[1]}\"",
        "'x'",
        "9223372036854775807",
        "\"1.2.3\"",
        "(semver \"1.2.3\")",
        "\"\\xff\"",
    ]);
    let names: Vec<&'static str> = crate::functions::names().collect();
    (prop::sample::select(names), prop::collection::vec(operand, 0..4))
        .prop_map(|(name, operands)| format!("{{{{ {name} {} }}}}", operands.join(" ")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_text_is_parsed_and_executed_without_a_panic(
        pieces in prop::collection::vec(piece(), 0..24),
        value in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let texts = Texts { map: BTreeMap::from([(b"Value".to_vec(), value)]), is_texts: false };
        let text = pieces.join(" ");
        for text in [pieces.concat(), format!("{{{{ {text} }}}}"), text] {
            if let Ok(template) = Template::parse("t", &text) {
                let _ = template.execute(&texts, &mut Vec::new());
            }
        }
    }

    #[test]
    fn any_call_of_any_function_ends_without_a_panic(
        calls in prop::collection::vec(call(), 1..8),
        value in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let texts = Texts { map: BTreeMap::from([(b"Value".to_vec(), value)]), is_texts: false };
        for text in calls {
            if let Ok(template) = Template::parse("t", &text) {
                let _ = template.execute(&texts, &mut Vec::new());
            }
        }
    }
}
