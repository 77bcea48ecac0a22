//! The tables of `docs/performance.md`. What stands between marks there is written here; the rest is for people to write.

use std::{collections::BTreeSet, fs, path::PathBuf};

use crate::{
    bench::Bench,
    error::{Error, cannot, failed},
    machine,
    row::{Beside, Figure, Goal, Row},
};

/// A table in Markdown.
pub fn table(rows: &[Row]) -> String {
    let head = "| what | bearerd | beside it | ratio | goal | met |\n|--|--|--|--|--|--|";
    [head.to_owned()].into_iter().chain(rows.iter().map(line)).collect::<Vec<_>>().join("\n")
}

fn line(row: &Row) -> String {
    let Row { what, ours, beside, goal, doubt } = row;
    let (theirs, ratio) = match beside {
        Some(Beside { name, figure: theirs, ratio }) => (format!("{name}: {}", figure(theirs)), figure(ratio)),
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
    let Figure { median, min, max, unit, .. } = *figure;
    let value = |value: f64| if unit.is_empty() { format!("{value:.2}") } else { grouped(value) };
    let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
    if !has_ends(figure) {
        return format!("{}{unit}", value(median));
    }
    format!("{}{unit} ({}–{})", value(median), value(min), value(max))
}

fn has_ends(figure: &Figure) -> bool {
    figure.min != figure.max
}

/// How many rounds the figures of a table are of, where that makes a difference.
fn rounds(rows: &[Row]) -> String {
    let figures = rows.iter().flat_map(Row::figures).filter(|figure| has_ends(figure));
    let numbers: BTreeSet<usize> = figures.map(|figure| figure.of).collect();
    let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
    if numbers.is_empty() {
        return String::new();
    }
    format!(";\na figure with its ends is of {} rounds", numbers.join(" or "))
}

/// A number with its thousands apart; small ones keep one place after the point.
fn grouped(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { in_thousands(&format!("{value:.0}")) }
}

/// A whole number with its thousands apart.
pub fn whole(number: usize) -> String {
    in_thousands(&number.to_string())
}

fn in_thousands(digits: &str) -> String {
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Puts a chapter's table into the document, with what was measured when and the commands of this run; the machine is that
/// of the whole document.
pub fn write(bench: &Bench, chapter: &str, rows: &[Row]) -> Result<(), Error> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/performance.md");
    let text = fs::read_to_string(&file).map_err(cannot("read docs/performance.md"))?;
    let (commands, rounds) = (bench.take_commands().join("\n"), rounds(rows));
    let (today, bearerd, cores) = (machine::today(), machine::bearerd(), bench.cores.describe());
    let when = format!("{today}, {bearerd}: {cores}{rounds}.");
    let lines = format!("{}\n\n{when}\n\n```sh\n{commands}\n```", table(rows));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_for_people() {
        for (figure, text) in [
            (Figure::exactly(74_960.4, "instructions"), "74,960 instructions"),
            (Figure::exactly(1_234_567.0, ""), "1234567.00"),
            (Figure::of(vec![120.0, 9.0, 12.34], "µs"), "12.3 µs (9.0–120)"),
            (Figure::of(vec![0.954, 0.9, 1.0], ""), "0.95 (0.90–1.00)"),
        ] {
            assert_eq!(super::figure(&figure), text);
        }
    }

    #[test]
    fn a_goal_that_is_missed_is_shown_as_missed() {
        let one = Figure::exactly(1.0, "");
        let row = Row { beside: Some(Beside { name: String::new(), figure: one, ratio: one }), ..Row::alone("", one) };
        let met = |row: Row| line(&row).trim_end_matches(" |").rsplit("| ").next().unwrap().to_owned();
        assert_eq!(met(row.clone()), "–");
        assert_eq!(met(row.clone().with_goal(Goal::AtMost(1.0))), "yes");
        assert_eq!(met(row.clone().with_goal(Goal::AtLeast(1.01))), "**no**");
        assert_eq!(met(row.with_goal(Goal::AtMost(1.0)).doubted(Some("not known"))), "not known");
    }

    #[test]
    fn a_table_says_of_how_many_rounds_its_figures_are() {
        let row = |times: &[f64]| Row::alone("", Figure::of(times.to_vec(), "ms"));
        for (rows, text) in [
            (vec![], ""),
            (vec![row(&[1.0]), row(&[2.0, 2.0])], ""),
            (vec![row(&[1.0]), row(&[1.0, 2.0, 3.0])], ";\na figure with its ends is of 3 rounds"),
            (
                vec![row(&[1.0, 2.0]), row(&[1.0; 12]), row(&[1.0, 2.0, 3.0])],
                ";\na figure with its ends is of 2 or 3 rounds",
            ),
        ] {
            assert_eq!(rounds(&rows), text);
        }
    }

    #[test]
    fn only_what_stands_between_its_marks_is_replaced() {
        let text = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb";
        assert_eq!(replaced(text, "x", "new").unwrap(), "a\n<!-- x: begin -->\nnew\n<!-- x: end -->\nb");
        assert!(replaced(text, "y", "new").is_err());
    }

    #[test]
    fn the_document_has_marks_for_every_chapter() {
        let text = include_str!("../../../docs/performance.md");
        for name in crate::chapters::ALL.iter().map(|chapter| chapter.name).chain(["machine"]) {
            assert!(replaced(text, name, "").is_ok(), "{name}");
        }
    }
}
