//! Reads typed values out of the tree, collecting every error instead of stopping at the first, and noting for each value where
//! it came from: that is what `larder check` prints.

use super::origin::{ConfigError, Origin};
use super::tree::{Node, Table, Value};
use std::collections::BTreeMap;

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

/// A type that can stand in the file.
pub(super) trait Setting: Sized {
    /// Reads the value, or says what is wrong and what to write.
    fn read(node: &Node, errors: &mut Vec<(Origin, String)>) -> Option<Self>;
    /// The value in TOML.
    fn show(&self) -> String;
}

/// What reading has found so far.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) errors: Vec<ConfigError>,
    pub(super) warnings: Vec<String>,
    pub(super) effective: Vec<Effective>,
}

impl Reader {
    /// Where the value of a key that has been read came from.
    pub(super) fn origin_of(&self, table: &str, key: &str) -> Origin {
        let entry = self.effective.iter().find(|entry| entry.table == table && entry.key == key);
        entry.map_or(Origin::Default, |entry| entry.origin.clone())
    }

    pub(super) fn error(&mut self, origin: Origin, key: &str, message: impl Into<String>) {
        self.errors.push(ConfigError { origin, key: key.to_owned(), message: message.into() });
    }
}

/// One table being read. Keys that nobody asked for are unknown: `finish` reports them.
pub(super) struct Section<'r> {
    pub(super) reader: &'r mut Reader,
    pub(super) path: String,
    pub(super) origin: Origin,
    table: Table,
    known: Vec<&'static str>,
    origins: BTreeMap<&'static str, Origin>,
}

impl<'r> Section<'r> {
    pub(super) fn new(reader: &'r mut Reader, path: &str, table: Table, origin: Origin) -> Self {
        Self { reader, path: path.to_owned(), origin, table, known: Vec::new(), origins: BTreeMap::new() }
    }

    fn take(&mut self, key: &'static str) -> Option<(Origin, Node)> {
        self.known.push(key);
        self.table.0.remove(key)
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Where the value of `key` came from, once it has been read.
    pub(super) fn origin_of(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// Reports what is wrong with the value of `key`.
    pub(super) fn error(&mut self, key: &str, message: impl Into<String>) {
        let origin = self.origins.get(key).unwrap_or(&self.origin).clone();
        let path = self.path_of(key);
        self.reader.error(origin, &path, message);
    }

    fn note(&mut self, key: &'static str, value: Result<String, &'static str>, origin: Origin) {
        self.reader.effective.push(Effective { table: self.path.clone(), key, value, origin });
    }

    /// The value of `key`, if it is there and right.
    fn read<T: Setting>(&mut self, key: &'static str) -> (Option<T>, bool) {
        let Some((_, node)) = self.take(key) else { return (None, false) };
        self.origins.insert(key, node.origin.clone());
        let mut wrong = Vec::new();
        let value = T::read(&node, &mut wrong);
        let path = self.path_of(key);
        for (origin, message) in wrong {
            self.reader.error(origin, &path, message);
        }
        (value, true)
    }

    /// The value of a key that may be left out; `absent` says what holds then.
    pub(super) fn optional<T: Setting>(&mut self, key: &'static str, absent: &'static str) -> Option<T> {
        let (value, _) = self.read::<T>(key);
        let origin = self.origin_of(key);
        self.note(key, value.as_ref().map(T::show).ok_or(absent), origin);
        value
    }

    /// The value of a key, or its default; a wrong value is reported and replaced, so that reading can go on.
    pub(super) fn or<T: Setting>(&mut self, key: &'static str, default: T) -> T {
        self.or_from(key, default, Origin::Default)
    }

    /// As [`Self::or`], with a default that comes from somewhere else than larder itself.
    pub(super) fn or_from<T: Setting>(&mut self, key: &'static str, default: T, from: Origin) -> T {
        let (value, present) = self.read::<T>(key);
        let origin = if present { self.origin_of(key) } else { from };
        let value = value.unwrap_or(default);
        self.note(key, Ok(value.show()), origin);
        value
    }

    /// Replaces what `larder check` shows for a key that has been read: a path as it was found, say.
    pub(super) fn show_as<T: Setting>(&mut self, key: &str, value: &T) {
        let path = &self.path;
        let mut entries = self.reader.effective.iter_mut().rev();
        if let Some(entry) = entries.find(|entry| entry.key == key && entry.table == *path) {
            entry.value = Ok(value.show());
        }
    }

    /// The string at `key`, which is still to be read.
    pub(super) fn peek(&self, key: &str) -> Option<&str> {
        self.table.str(key)
    }

    /// Whether there is anything at `key`, which is still to be read.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.0.contains_key(key)
    }

    /// Whether something stood at `key`, which has been read.
    pub(super) fn was_read(&self, key: &str) -> bool {
        self.origins.contains_key(key)
    }

    /// Gives a text to a key that is not there, as if it had been written at `origin`.
    pub(super) fn preset(&mut self, key: &str, text: &str, origin: &Origin) {
        self.table.set(key, Node::string(text, origin));
    }

    /// The table at `key`, empty if it is not there.
    pub(super) fn section<'s>(&'s mut self, key: &'static str) -> Section<'s> {
        let path = self.path_of(key);
        let (table, origin) = match self.take(key) {
            None => (Table::default(), self.origin.clone()),
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
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<(Table, Origin)> {
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
