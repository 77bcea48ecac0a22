//! The house as `ARCHITECTURE.md` draws it, and what the source does against it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    paths::paths,
    source::{Source, modules},
};

/// What `ARCHITECTURE.md` says in its tables.
#[derive(Default)]
pub struct House {
    /// Every room with its floor, counted from the top; `None` for what stands beside the floors.
    pub rooms: BTreeMap<String, Option<u32>>,
    /// Arrows that are allowed although they run up or sideways.
    pub exceptions: BTreeSet<(String, String)>,
    /// Who may name what.
    pub boundaries: Vec<Boundary>,
}

/// A row of the table of boundaries.
pub struct Boundary {
    /// Rooms, or modules in them (`cli/demo`).
    pub who: Vec<String>,
    /// Whether they alone may name these things, or never may.
    pub rule: Rule,
    /// A crate, if it is one word; else a path or a part of one.
    pub names: Vec<String>,
}

/// What a boundary says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Nobody else may.
    Alone,
    /// They may not.
    Never,
}

impl House {
    /// Reads the tables.
    ///
    /// # Errors
    ///
    /// A row that cannot be read.
    pub fn read(markdown: &str) -> Result<Self, String> {
        let rooms =
            table(markdown, "floor | room | in one sentence").iter().map(|row| room(row)).collect::<Result<_, _>>()?;
        let exceptions =
            table(markdown, "from | to | why").iter().map(|row| exception(row)).collect::<Result<_, _>>()?;
        let boundaries =
            table(markdown, "who | may | name | why").iter().map(|row| boundary(row)).collect::<Result<_, _>>()?;
        Ok(Self { rooms, exceptions, boundaries })
    }

    /// What the source does against the house; nothing, if all is well.
    pub fn faults(&self, sources: &[Source]) -> Vec<String> {
        let mut faults = self.unlike_the_source(sources);
        let mut used = BTreeSet::new();
        for source in sources {
            // One path shows a fault as well as ten.
            let mut shown_by = BTreeMap::new();
            for path in paths(source) {
                let broken = self.boundaries.iter().filter(|boundary| boundary.is_broken(source, &path));
                for fault in broken.map(Boundary::sentence).chain(self.arrow_fault(source, &path, &mut used)) {
                    shown_by.entry(fault).or_insert_with(|| path.join("::"));
                }
            }
            faults.extend(shown_by.iter().map(|(fault, path)| format!("{} names {path}: {fault}", source.name())));
        }
        let idle = self.exceptions.difference(&used);
        faults.extend(idle.map(|(from, to)| format!("nobody needs the exception {from} → {to}")));
        faults
    }

    /// Rooms that are in one of both only.
    fn unlike_the_source(&self, sources: &[Source]) -> Vec<String> {
        let mut there: BTreeSet<&str> = sources.iter().map(Source::room).collect();
        let library = sources.iter().filter(|source| source.place.is_empty());
        there.extend(library.flat_map(|source| modules(&source.live)));
        let drawn: BTreeSet<&str> = self.rooms.keys().map(String::as_str).collect();
        let unnamed = there.difference(&drawn).map(|room| format!("the table of rooms does not name `{room}`"));
        let empty = drawn.difference(&there).map(|room| format!("the room `{room}` of the table is not in src"));
        unnamed.chain(empty).collect()
    }

    fn arrow_fault(&self, source: &Source, path: &[String], used: &mut BTreeSet<(String, String)>) -> Option<String> {
        let (first, rest) = path.split_first()?;
        if first != "crate" {
            return None;
        }
        let (from, to) = (source.room(), rest.first().map_or("", String::as_str));
        // A room that the table does not name was told of already.
        if from == to || !self.rooms.contains_key(from) || self.runs_down(from, to) {
            return None;
        }
        let arrow = (from.to_owned(), to.to_owned());
        if self.exceptions.contains(&arrow) {
            used.insert(arrow);
            return None;
        }
        Some(format!("{from} → {to} does not run down"))
    }

    fn runs_down(&self, from: &str, to: &str) -> bool {
        match (self.rooms.get(from), self.rooms.get(to)) {
            (Some(Some(from)), Some(Some(to))) => from < to,
            // Who may name what stands beside the floors is for the boundaries to say.
            (Some(_), Some(None)) => true,
            // What stands beside the floors knows the values at the very bottom only.
            (Some(None), Some(to)) => *to == self.rooms.values().copied().max().flatten(),
            (None, _) | (_, None) => false,
        }
    }
}

impl Boundary {
    fn sentence(&self) -> String {
        let (who, names) = (self.who.join(", "), self.names.join(", "));
        match self.rule {
            Rule::Alone => format!("only {who} may name {names}"),
            Rule::Never => format!("{who} may not name {names}"),
        }
    }

    fn is_broken(&self, source: &Source, path: &[String]) -> bool {
        let place = if source.place.is_empty() { "lib".to_owned() } else { source.place.join("/") };
        let is_meant = self
            .who
            .iter()
            .any(|who| place.strip_prefix(who).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        let applies = match self.rule {
            Rule::Alone => !is_meant,
            Rule::Never => is_meant,
        };
        applies && self.names.iter().any(|name| names(path, name) && name != &format!("crate::{}", source.room()))
    }
}

/// Whether a path names a crate (a single word), or has these words in a row.
fn names(path: &[String], name: &str) -> bool {
    let name: Vec<&str> = name.split("::").collect();
    match name.as_slice() {
        [only] => path.first().is_some_and(|first| first == only),
        several => path.windows(several.len()).any(|window| window == several),
    }
}

fn room(row: &[String]) -> Result<(String, Option<u32>), String> {
    let [floor, room, sentence] = row else { return Err(format!("a room has three cells: {row:?}")) };
    let floor = match floor.as_str() {
        "–" => None,
        number => Some(number.parse().map_err(|_| format!("no floor: {row:?}"))?),
    };
    match spans(room).as_slice() {
        [room] if !sentence.is_empty() => Ok((room.clone(), floor)),
        _ => Err(format!("a row has one room and a sentence: {row:?}")),
    }
}

fn exception(row: &[String]) -> Result<(String, String), String> {
    let cells: Vec<Vec<String>> = row.iter().map(|cell| spans(cell)).collect();
    match (cells.as_slice(), row.last().is_some_and(|why| !why.is_empty())) {
        ([from, to, _], true) if from.len() == 1 && to.len() == 1 => Ok((from.concat(), to.concat())),
        _ => Err(format!("an exception has two rooms and a reason: {row:?}")),
    }
}

fn boundary(row: &[String]) -> Result<Boundary, String> {
    let [who, rule, names, why] = row else { return Err(format!("a boundary has four cells: {row:?}")) };
    let rule = match rule.as_str() {
        "alone" => Rule::Alone,
        "never" => Rule::Never,
        _ => return Err(format!("a boundary says \"alone\" or \"never\": {row:?}")),
    };
    let (who, names) = (spans(who), spans(names));
    if who.is_empty() || names.is_empty() || why.is_empty() {
        return Err(format!("a boundary says who, what and why: {row:?}"));
    }
    Ok(Boundary { who, rule, names })
}

/// The rows of the table with this head.
fn table(markdown: &str, head: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let head: Vec<&str> = head.split(" | ").collect();
    let after_head = markdown.lines().skip_while(|line| cells(line) != head);
    after_head.skip(2).take_while(|line| line.starts_with('|')).map(cells).collect()
}

/// What stands in backticks.
pub fn spans(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
