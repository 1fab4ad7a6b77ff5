//! A TOML document as a tree in which every key and value remembers where it came from.
//!
//! The file, the environment and the flags are laid over one another in this form, so that whatever is found wrong later can
//! name its place. It knows nothing of what the keys mean.

use super::origin::{ConfigError, Origin};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
    /// The text of an environment variable: where a string is expected, `true` and `5` need no quotes.
    pub(super) text: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Boolean(bool),
    /// Floats and dates, which no setting takes.
    Other(String),
    Array(Vec<Node>),
    Table(Table),
}

/// A table; each key with the place of its name.
#[derive(Clone, Debug, Default)]
pub(super) struct Table(pub(super) BTreeMap<String, (Origin, Node)>);

/// A step of a path through the tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Position(usize),
    Key(String),
}

impl Node {
    pub(super) fn string(text: &str, origin: &Origin) -> Self {
        Self { value: Value::String(text.to_owned()), origin: origin.clone(), text: None }
    }

    pub(super) fn strings(texts: &[String], origin: &Origin) -> Self {
        let items = texts.iter().map(|text| Self::string(text, origin)).collect();
        Self { value: Value::Array(items), origin: origin.clone(), text: None }
    }

    pub(super) fn table(table: Table, origin: &Origin) -> Self {
        Self { value: Value::Table(table), origin: origin.clone(), text: None }
    }

    /// What the value is, for "expected …, found …".
    pub(super) fn found(&self) -> String {
        match &self.value {
            Value::String(text) => format!("\"{text}\""),
            Value::Integer(number) => number.to_string(),
            Value::Boolean(value) => value.to_string(),
            Value::Other(text) => text.clone(),
            Value::Array(_) => "an array".to_owned(),
            Value::Table(_) => "a table".to_owned(),
        }
    }
}

impl Table {
    pub(super) fn set(&mut self, key: &str, node: Node) {
        self.0.insert(key.to_owned(), (node.origin.clone(), node));
    }

    /// The string at `key`, if there is one.
    pub(super) fn str(&self, key: &str) -> Option<&str> {
        match &self.0.get(key)?.1.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Puts `node` at the end of `path`, making the tables and positions that lead there.
    pub(super) fn set_path(&mut self, path: &[Step], node: Node) -> Result<(), String> {
        let [Step::Key(key), rest @ ..] = path else {
            return Err("a position stands where a key belongs".to_owned());
        };
        if rest.is_empty() {
            self.set(key, node);
            return Ok(());
        }
        let empty = match rest[0] {
            Step::Key(_) => Value::Table(Self::default()),
            Step::Position(_) => Value::Array(Vec::new()),
        };
        let origin = node.origin.clone();
        let entry = self.0.entry(key.clone());
        let child = entry.or_insert_with(|| (origin.clone(), Node { value: empty, origin, text: None }));
        child.1.set_path(rest, node).map_err(|message| format!("`{key}` {message}"))
    }
}

impl Node {
    fn set_path(&mut self, path: &[Step], node: Node) -> Result<(), String> {
        match (&mut self.value, path) {
            (Value::Table(table), [Step::Key(_), ..]) => table.set_path(path, node),
            (Value::Array(items), [Step::Position(position), rest @ ..]) => {
                if *position > items.len() {
                    return Err(format!("has {} entries, so the next position is {}", items.len(), items.len()));
                }
                if *position == items.len() {
                    let empty = match rest.first() {
                        Some(Step::Position(_)) => Value::Array(Vec::new()),
                        _ => Value::Table(Table::default()),
                    };
                    items.push(Self { value: empty, origin: node.origin.clone(), text: None });
                }
                match rest {
                    [] => items[*position] = node,
                    _ => items[*position].set_path(rest, node)?,
                }
                Ok(())
            }
            (Value::Array(_), _) => Err("is a list: its name is followed by a position such as 0".to_owned()),
            (Value::Table(_), _) => Err("is a table: its name is followed by a key".to_owned()),
            _ => Err("is a single value: nothing can follow its name".to_owned()),
        }
    }
}

/// Parses a file; every syntax error in it is reported.
pub(super) fn parse_file(text: &str, file: &Arc<Path>) -> Result<Table, Vec<ConfigError>> {
    let place = |span: Range<usize>| {
        let (line, column) = line_and_column(text, span.start);
        Origin::File { file: Arc::clone(file), line, column }
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(convert_table(table.get_ref(), &place));
    }
    Err(errors
        .into_iter()
        .map(|error| {
            let span = error.span().unwrap_or(0..0);
            let problem = error.message().trim().replace('\n', ", ");
            let message = format!("not TOML at '{}': {problem}", without_value(line_at(text, span.start)));
            ConfigError { origin: place(span), key: String::new(), message }
        })
        .collect())
}

/// Parses the text of an environment variable as a TOML value; what is none is a string.
pub(super) fn parse_value(text: &str, origin: &Origin) -> Node {
    let document = format!("value = {text}");
    let parsed = DeTable::parse(&document).ok().filter(|table| table.get_ref().len() == 1);
    let value = parsed.and_then(|table| {
        let (_, value) = table.get_ref().iter().next()?;
        Some(convert(value.get_ref(), &|_| origin.clone()))
    });
    Node {
        value: value.unwrap_or_else(|| Value::String(text.to_owned())),
        origin: origin.clone(),
        text: Some(text.to_owned()),
    }
}

fn convert_table(table: &DeTable<'_>, place: &dyn Fn(Range<usize>) -> Origin) -> Table {
    let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let node = Node { value: convert(value.get_ref(), place), origin: place(value.span()), text: None };
        let key: &toml::Spanned<toml::de::DeString<'_>> = key;
        (key.get_ref().to_string(), (place(key.span()), node))
    };
    Table(table.iter().map(entry).collect())
}

fn convert(value: &DeValue<'_>, place: &dyn Fn(Range<usize>) -> Origin) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other(number.to_string()),
        },
        DeValue::Float(number) => Value::Other(number.as_str().to_owned()),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(time) => Value::Other(time.to_string()),
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| Node { value: convert(item.get_ref(), place), origin: place(item.span()), text: None })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(convert_table(table, place)),
    }
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn line_at(text: &str, offset: usize) -> &str {
    let start = text.get(..offset).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
    text[start..].lines().next().unwrap_or("").trim()
}

/// A line without what is assigned in it, which may be a secret that lost its quotes.
fn without_value(line: &str) -> String {
    let key = line.split('=').next().unwrap_or(line).trim_end();
    let shown: String = key.chars().take(60).collect();
    if shown.len() == line.len() { shown } else { format!("{shown} …") }
}
