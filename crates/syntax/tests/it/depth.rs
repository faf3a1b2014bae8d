//! Texts that nest deeply.

use std::time::{Duration, Instant};

use corten_syntax::{CHAIN_MAX, DEPTH_MAX, Expr, Stmt, expression_text, format, parse, parse_expression};

/// Texts that nest to a depth, one for each way that the grammar has.
fn nested(depth: usize) -> Vec<(&'static str, String)> {
    let around = |open: &str, close: &str| format!("a = {}1{}\n", open.repeat(depth), close.repeat(depth));
    vec![
        ("parentheses", around("(", ")")),
        ("arrays", around("[", "]")),
        ("objects", around("{a = ", "}")),
        ("calls", around("f(", ")")),
        ("indexes", around("a[", "]")),
        ("signs", around("-", "")),
        ("powers", around("1 ^ ", "")),
        ("mixed", around("-[1 || 1 && 1 == 1 + 1 * {a = f(", ")}]")),
        ("blocks", format!("{}{}\n", "a {\n".repeat(depth), "}\n".repeat(depth))),
        ("blocks as values", format!("{}{}\n", "a = b {\n".repeat(depth), "}\n".repeat(depth))),
    ]
}

#[test]
fn what_is_too_deep_is_one_diagnostic_and_no_overflow() {
    for (name, text) in nested(100_000) {
        let parsed = parse("f", &text);
        let messages: Vec<String> = parsed.diagnostics.iter().map(|one| one.message.clone()).collect();
        assert_eq!(messages, [format!("nesting is deeper than {DEPTH_MAX} levels")], "{name}");
        assert!(format("f", &text).is_err(), "{name}");
    }
}

/// Texts with a row of a length, one for each way that the grammar has.
fn rows(length: usize) -> Vec<(&'static str, String)> {
    let row = |first: &str, link: &str| format!("a = {first}{}\n", link.repeat(length));
    vec![
        ("sums", row("1", " + 1")),
        ("sums of products", row("1", " + 2 * 1")),
        ("comparisons", row("1", " == 1")),
        ("alternatives", row("true", " || true")),
        ("accesses", row("b", ".b")),
        ("indexes", row("b", "[0]")),
        ("calls of calls", row("b", "(1)")),
        ("lines", row("1", " +\n1")),
    ]
}

#[test]
fn a_row_is_not_deep_however_long_it_is() {
    // Less than half of what worker threads have.
    let worker = std::thread::Builder::new().stack_size(768 * 1024);
    let work = || {
        for (name, text) in rows(CHAIN_MAX) {
            let parsed = parse("f", &text);
            assert!(parsed.diagnostics.is_empty(), "{name}: {}", parsed.diagnostics);
            let again = parse("f", &text);
            assert!(parsed.file.body[0].same_text(&again.file.body[0]), "{name}");
            // The tree is freed in parts, the last of them on another thread.
            let shared = again.file.body.clone();
            drop(again);
            assert!(parsed.file.body[0].same_text(&shared[0]), "{name}");
            std::thread::Builder::new().stack_size(256 * 1024).spawn(|| drop(shared)).unwrap().join().unwrap();
            let Stmt::Attr(attr) = &parsed.file.body[0] else { panic!("{name}: no attribute") };
            assert!(expression_text(&parsed.file.source, &attr.value).len() > CHAIN_MAX, "{name}");
            assert!(format("f", &text).is_ok_and(|out| out.len() > CHAIN_MAX), "{name}");
            assert!(!format!("{parsed:?}").is_empty(), "{name}");
        }
    };
    worker.spawn(work).expect("a thread starts").join().expect("the stack suffices");
}

#[test]
fn a_row_has_a_limit() {
    for (name, text) in rows(CHAIN_MAX + 1) {
        let messages: Vec<String> = parse("f", &text).diagnostics.into_iter().map(|one| one.message).collect();
        assert_eq!(messages, [format!("expression has more than {CHAIN_MAX} operators in a row")], "{name}");
    }
}

#[test]
fn open_brackets_without_an_end_do_not_overflow() {
    for text in ["(", "[", "{a = ", "a {\n", "f(", "a[", "a = b {\n", "-", "!", "1^", "a = [", "a = {a = "] {
        for start in ["", "a = "] {
            assert!(parse("f", &(start.to_owned() + &text.repeat(100_000))).diagnostics.has_errors(), "{start}{text}");
        }
    }
}

#[test]
fn what_is_just_not_too_deep_can_be_used_on_a_thread_with_a_small_stack() {
    // Two mebibytes is what worker threads have.
    let worker = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
    let work = || {
        for (name, text) in nested(DEPTH_MAX - 3) {
            if ["mixed", "blocks as values"].contains(&name) {
                continue;
            }
            let parsed = parse("f", &text);
            assert!(parsed.diagnostics.is_empty(), "{name}: {}", parsed.diagnostics);
            assert!(parsed.file.body[0].same_text(&parsed.file.body[0].clone()));
            if let Stmt::Attr(attr) = &parsed.file.body[0] {
                assert!(expression_text(&parsed.file.source, &attr.value).len() > DEPTH_MAX - 5, "{name}");
            }
            let formatted = format("f", &text).expect("the text is valid");
            assert!(!formatted.is_empty() && !format!("{parsed:?}").is_empty(), "{name}");
        }
    };
    worker.spawn(work).expect("a thread starts").join().expect("the stack suffices");
}

#[test]
fn an_expression_alone_has_the_same_limit() {
    let parsed = parse_expression("", &"(".repeat(DEPTH_MAX + 1));
    assert_eq!(
        parsed.diagnostics.to_string(),
        format!("1:{}: nesting is deeper than {DEPTH_MAX} levels", DEPTH_MAX + 1)
    );
    assert!(matches!(parsed.expr, Expr::Paren(_)));
}

#[test]
fn time_grows_with_the_size_of_the_text_only() {
    // Generous for a debug build on a busy machine; a quadratic step would take minutes.
    let limit = Duration::from_secs(30);
    let long = [
        "a = 1\n".repeat(50_000),
        "a = 1 /* c */ /* c */ // t\n".repeat(20_000),
        format!("a = 1 {}\n", "/* c */ ".repeat(50_000)),
        format!("a = [{}]\n", "1, // t\n".repeat(50_000)),
        format!("a = {{{}}}\n", "\"k\" = `r\n`, ".repeat(20_000)),
        "b \"l\" {\n// c\n\n\n}\n".repeat(20_000),
        "@ ".repeat(50_000),
        "a = )\n".repeat(50_000),
    ];
    for text in long {
        let start = Instant::now();
        let _ = format("f", &text);
        let rendered = parse("f", &text).diagnostics.render(false);
        assert!(start.elapsed() < limit, "{} bytes, {} of diagnostics", text.len(), rendered.len());
    }
}
