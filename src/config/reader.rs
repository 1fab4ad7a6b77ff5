//! Reads typed values out of the tree, collecting every error instead of stopping at the first, and noting for each value where
//! it came from: that is what `larder check` prints.

use super::declare::Declared;
use super::environment::Environment;
use super::origin::{ConfigError, Origin};
use super::tree::{Node, Table, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A value as it holds, for people to read.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The table, as a dotted path with positions: `upstream.0.freshness`.
    pub table: String,
    /// The key within it.
    pub key: &'static str,
    /// The value in TOML; where nothing is set, what that means, in words.
    pub value: Result<String, &'static str>,
    /// Where it came from.
    pub origin: Origin,
}

/// A parser of values in the file.
pub(super) trait Setting {
    /// What it reads.
    type Value;
    /// Reads the value, or says what is wrong and what to write.
    fn read(node: &Node, at: &mut Reading<'_>) -> Option<Self::Value>;
    /// The value in TOML.
    fn show(value: &Self::Value) -> String;
}

/// What a parser knows besides the value, and what it finds wrong.
pub(super) struct Reading<'r> {
    pub(super) places: &'r Places,
    pub(super) wrong: Vec<(Origin, String)>,
}

impl Reading<'_> {
    pub(super) fn wrong(&mut self, node: &Node, message: String) {
        self.wrong.push((node.origin.clone(), message));
    }
}

/// What relative paths are resolved with.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    pub(super) environment: Environment,
    /// The current folder.
    pub(super) here: PathBuf,
}

/// What reading has found so far.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<String>,
    pub(super) effective: Vec<Effective>,
    pub(super) places: Places,
    /// The places of tables and keys that are not defaults.
    origins: BTreeMap<String, Origin>,
}

fn path_of(table: &str, key: &str) -> String {
    if table.is_empty() || key.is_empty() { format!("{table}{key}") } else { format!("{table}.{key}") }
}

impl Reader {
    pub(super) fn new(places: Places) -> Self {
        Self { places, ..Self::default() }
    }

    fn note_origin(&mut self, path: String, origin: &Origin) {
        if *origin != Origin::Default {
            self.origins.insert(path, origin.clone());
        }
    }

    /// Whether the table or the key, which has been read, is written somewhere.
    pub(super) fn was_written(&self, table: &str, key: &str) -> bool {
        self.origins.contains_key(&path_of(table, key))
    }

    /// Where the value of a key that has been read came from.
    pub(super) fn origin_of(&self, table: &str, key: &str) -> Origin {
        self.origins.get(&path_of(table, key)).cloned().unwrap_or(Origin::Default)
    }

    pub(super) fn error(&mut self, origin: Origin, key: &str, message: impl Into<String>) {
        self.errors.push(ConfigError { origin, key: key.to_owned(), message: message.into() });
    }

    /// Reports what is wrong with the value of a key that has been read; its place is that of the key, else of its table.
    pub(super) fn error_at(&mut self, table: &str, key: &str, message: impl Into<String>) {
        let path = path_of(table, key);
        let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len(), 0]);
        let mut paths: Vec<&str> = ends.map(|end| &path[..end]).collect();
        paths.sort_by_key(|path| std::cmp::Reverse(path.len()));
        let origin = paths.iter().find_map(|path| self.origins.get(*path)).cloned().unwrap_or(Origin::Default);
        self.error(origin, &path, message);
    }

    /// Replaces what `larder check` shows for a key that has been read.
    pub(super) fn show_as(&mut self, table: &str, key: &str, value: String) {
        let mut entries = self.effective.iter_mut().rev();
        if let Some(entry) = entries.find(|entry| entry.key == key && entry.table == table) {
            entry.value = Ok(value);
        }
    }

    /// As [`Self::show_as`], with the place that the value came from.
    pub(super) fn show_from(&mut self, table: &str, key: &str, value: String, origin: Origin) {
        self.show_as(table, key, value);
        let mut entries = self.effective.iter_mut().rev();
        if let Some(entry) = entries.find(|entry| entry.key == key && entry.table == table) {
            entry.origin = origin;
        }
    }
}

/// One table being read. `finish` reports the keys that were not read as unknown.
pub(super) struct Section<'r> {
    pub(super) reader: &'r mut Reader,
    pub(super) path: String,
    origin: Origin,
    table: Table,
    known: Vec<&'static str>,
}

impl<'r> Section<'r> {
    pub(super) fn new(reader: &'r mut Reader, path: &str, table: Table, origin: Origin) -> Self {
        reader.note_origin(path.to_owned(), &origin);
        Self { reader, path: path.to_owned(), origin, table, known: Vec::new() }
    }

    fn take(&mut self, key: &'static str) -> Option<(Origin, Node)> {
        self.known.push(key);
        self.table.0.remove(key)
    }

    fn path_of(&self, key: &str) -> String {
        path_of(&self.path, key)
    }

    fn note(&mut self, key: &'static str, value: Result<String, &'static str>) {
        let origin = self.reader.origin_of(&self.path, key);
        self.reader.effective.push(Effective { table: self.path.clone(), key, value, origin });
    }

    /// The value of `key`, if it is there and right; and whether it is there.
    fn read<P: Setting>(&mut self, key: &'static str) -> (Option<P::Value>, bool) {
        let Some((_, node)) = self.take(key) else { return (None, false) };
        let path = self.path_of(key);
        self.reader.note_origin(path.clone(), &node.origin);
        let mut at = Reading { places: &self.reader.places, wrong: Vec::new() };
        let value = P::read(&node, &mut at);
        for (origin, message) in at.wrong {
            // A default that follows from another key of the table is at fault with it.
            let origin = if origin == Origin::Default { self.origin.clone() } else { origin };
            self.reader.error(origin, &path, message);
        }
        (value, true)
    }

    /// The value of a key that may be left out; `absent` says what holds then.
    pub(super) fn optional<P: Setting>(&mut self, key: &'static str, absent: &'static str) -> Option<P::Value> {
        let (value, _) = self.read::<P>(key);
        self.note(key, value.as_ref().map(P::show).ok_or(absent));
        value
    }

    /// The value of a key that must be there; `advice` says what to write.
    pub(super) fn required<P: Setting<Value: Default>>(&mut self, key: &'static str, advice: &str) -> P::Value {
        let (value, present) = self.read::<P>(key);
        self.note(key, value.as_ref().map(P::show).ok_or("missing"));
        if !present {
            self.reader.error(self.origin.clone(), &path_of(&self.path, key), advice);
        }
        value.unwrap_or_default()
    }

    /// The value of a key, or its default; a wrong value is reported and replaced, so that reading can go on.
    pub(super) fn or<P: Setting>(&mut self, key: &'static str, default: P::Value) -> P::Value {
        let (value, _) = self.read::<P>(key);
        let value = value.unwrap_or(default);
        self.note(key, Ok(P::show(&value)));
        value
    }

    /// Whether there is anything at `key`, which is still to be read.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.0.contains_key(key)
    }

    /// Gives the value of an environment variable to a key that is not there.
    pub(super) fn preset(&mut self, key: &str, variable: &str) {
        if let (false, Some(text)) = (self.has(key), self.reader.places.environment.get(variable)) {
            self.table.set(key, Node::string(text, &Origin::Environment(variable.to_owned())));
        }
    }

    /// The declared table at `key`; its defaults if it is not there.
    pub(super) fn table<T: Declared>(&mut self, key: &'static str) -> T {
        let mut section = self.section(key);
        let value = T::read(&mut section);
        section.finish();
        value
    }

    /// The declared tables of the array at `key`.
    pub(super) fn tables<T: Declared>(&mut self, key: &'static str) -> Vec<T> {
        let (path, tables) = (self.path_of(key), self.raw_tables(key));
        let read = |(index, (table, origin))| {
            let mut section = Section::new(self.reader, &format!("{path}.{index}"), table, origin);
            let value = T::read(&mut section);
            section.finish();
            value
        };
        tables.into_iter().enumerate().map(read).collect()
    }

    /// The table at `key`, empty if it is not there.
    pub(super) fn section<'s>(&'s mut self, key: &'static str) -> Section<'s> {
        let path = self.path_of(key);
        let (table, origin) = match self.take(key) {
            None => (Table::default(), Origin::Default),
            Some((_, Node { value: Value::Table(table), origin, .. })) => (table, origin),
            Some((_, node)) => {
                let message = format!("expected a table with keys of its own: write [{path}]");
                self.reader.error(node.origin.clone(), &path, message);
                (Table::default(), node.origin)
            }
        };
        Section::new(self.reader, &path, table, origin)
    }

    /// The tables of the array at `key`, with their places.
    pub(super) fn raw_tables(&mut self, key: &'static str) -> Vec<(Table, Origin)> {
        let path = self.path_of(key);
        let Some((_, node)) = self.take(key) else { return Vec::new() };
        let Value::Array(items) = node.value else {
            let message = format!("expected tables, found {}: write [[{path}]] with two brackets", node.found());
            self.reader.error(node.origin, &path, message);
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items {
            match item.value {
                Value::Table(table) => tables.push((table, item.origin)),
                _ => self.reader.error(item.origin.clone(), &path, format!("expected a table, found {}", item.found())),
            }
        }
        tables
    }

    /// Ends the section: what is left is unknown.
    pub(super) fn finish(self) {
        let place = if self.path.is_empty() { "at the top level".to_owned() } else { format!("in [{}]", self.path) };
        for (key, (origin, _)) in &self.table.0 {
            let hint = match nearest(key, &self.known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            let path = self.path_of(key);
            self.reader.error(origin.clone(), &path, format!("unknown key `{key}` {place}: {hint}"));
        }
    }
}

/// The known key that was probably meant.
pub(super) fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let limit = (key.len() / 3).max(2);
    let best = known.iter().map(|name| (distance(key, name), *name)).min()?;
    (best.0 <= limit).then_some(best.1)
}

/// Levenshtein's distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substitution = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substitution.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}
