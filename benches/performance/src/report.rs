//! The tables of `docs/performance.md`. What stands between marks there is written here; the rest is for people to write.

use std::{fs, path::PathBuf};

use crate::{
    bench::Bench,
    error::{Error, cannot, failed},
    machine,
    row::{Figure, Goal, Row},
};

/// A table in Markdown.
pub fn table(rows: &[Row]) -> String {
    let head = "| what | bearerd | beside it | ratio | goal | met |\n|--|--|--|--|--|--|";
    [head.to_owned()].into_iter().chain(rows.iter().map(line)).collect::<Vec<_>>().join("\n")
}

fn line(row: &Row) -> String {
    let Row { what, ours, beside, goal, doubt } = row;
    let (theirs, ratio) = match beside {
        Some((name, theirs, ratio)) => (format!("{name}: {}", figure(theirs)), figure(ratio)),
        None => ("–".to_owned(), "–".to_owned()),
    };
    let goal = match goal {
        Some(Goal::AtLeast(least)) => format!("≥ {least:.2}"),
        Some(Goal::AtMost(most)) => format!("≤ {most:.2}"),
        None => "–".to_owned(),
    };
    let met = match (doubt, row.is_met()) {
        (Some(why), _) => why,
        (None, Some(true)) => "yes",
        (None, Some(false)) => "**no**",
        (None, None) => "–",
    };
    format!("| {what} | {} | {theirs} | {ratio} | {goal} | {met} |", figure(ours))
}

/// The median, and the ends where they differ.
fn figure(figure: &Figure) -> String {
    let Figure { median, min, max, unit } = *figure;
    let value = |value: f64| if unit.is_empty() { format!("{value:.2}") } else { grouped(value) };
    let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
    if min == max {
        return format!("{}{unit}", value(median));
    }
    format!("{}{unit} ({}–{})", value(median), value(min), value(max))
}

/// A number with its thousands apart; small ones keep one place after the point.
fn grouped(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Puts a chapter's table into the document, with the machine and the commands of this run.
pub fn write(bench: &Bench, chapter: &str, table: &str) -> Result<(), Error> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/performance.md");
    let text = fs::read_to_string(&file).map_err(cannot("read docs/performance.md"))?;
    let (commands, rounds) = (bench.take_commands().join("\n"), bench.rounds);
    let when = format!("{}, {rounds} rounds. {}.", machine::today(), bench.cores.describe());
    let lines = format!("{table}\n\n{when}\n\n```sh\n{commands}\n```");
    let text = replaced(&text, chapter, &lines)?;
    let list = machine::describe().iter().map(|line| format!("- {line}")).collect::<Vec<_>>().join("\n");
    fs::write(file, replaced(&text, "machine", &list)?).map_err(cannot("write docs/performance.md"))
}

/// The text with something else between the marks of this name.
fn replaced(text: &str, name: &str, content: &str) -> Result<String, Error> {
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("\n<!-- {name}: end -->"));
    let parts = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let (before, after) = parts.ok_or_else(|| failed(format!("docs/performance.md has no marks for {name}")))?;
    Ok(format!("{before}{begin}{content}{end}{after}"))
}
