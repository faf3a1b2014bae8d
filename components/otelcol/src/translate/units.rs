//! Units: those of UCUM, which OpenTelemetry has, and the words that Prometheus has for them.

/// Units that are counted, and their words.
const MAIN: [(&str, &str); 26] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("%", "percent"),
    ("1", ""),
];

/// Units that something is counted by, and their words.
const PER: [(&str, &str); 7] =
    [("s", "second"), ("m", "minute"), ("h", "hour"), ("d", "day"), ("w", "week"), ("mo", "month"), ("y", "year")];

fn find<'a>(pairs: &[(&'a str, &'a str)], unit: &'a str, ucum_to_word: bool) -> &'a str {
    let side = |pair: &(&'a str, &'a str)| if ucum_to_word { *pair } else { (pair.1, pair.0) };
    pairs.iter().map(side).find(|(from, _)| *from == unit).map_or(unit, |(_, to)| to)
}

/// The words of a unit of UCUM: of what is counted, and of what it is counted by. Either may be empty. Units that are not
/// known are their own words.
pub(super) fn words(unit: &str) -> (String, String) {
    let (main, per) = match unit.split_once('/') {
        Some((main, per)) => (main, per),
        None => (unit, ""),
    };
    let word = |unit: &str, known: &[(&'static str, &'static str)]| {
        let unit = unit.trim();
        // What stands in braces is a remark.
        if unit.contains(['{', '}']) { String::new() } else { joined(find(known, unit, true)) }
    };
    (word(main, &MAIN), word(per, &PER))
}

/// What is a letter or a digit of a text, with one underscore for what stands between.
fn joined(text: &str) -> String {
    let parts = text.split(|char| !super::is_letter_or_digit(char)).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("_")
}

/// The unit of UCUM that has these words. Words that are not known are their own unit.
pub(crate) fn ucum(words: &str) -> String {
    let main = |word| match word {
        // Nothing has no unit, while the unit of a ratio is 1.
        "" => "",
        "ratio" => "1",
        word => find(&MAIN, word, false),
    };
    match words.split_once("_per_") {
        Some((word, per)) if !per.is_empty() => format!("{}/{}", main(word), find(&PER, per, false)),
        Some((word, _)) => main(word).to_owned(),
        None => main(words).to_owned(),
    }
}
