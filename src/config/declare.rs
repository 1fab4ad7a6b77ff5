//! Settings are declared once: key, type, parser, default and help. The reader, the check for unknown keys,
//! `docs/configuration.md` and `config/larder.toml` derive from the declaration; tests hold both files to it.
//!
//! A field says how it is read:
//!
//! | declaration | meaning |
//! |---|---|
//! | `[= default]` | read as the field's own type |
//! | `[Parser = default]` | read by a parser, whose value the field holds |
//! | `[Parser, unset "words"]` | may be left out; the words say what holds then |
//! | `[Parser, required "advice"]` | leaving it out is an error with this advice |
//! | `[table]`, `[tables]`, `[by function]` | a table of its own, an array of them, or read by a function |
//!
//! For the documentation, `example` is a value for a line that is commented out, `write` a value for a line that is not, and `shown`
//! replaces the default where that depends on something else.

use super::origin::Origin;
use super::reader::{Reader, Section};
use super::tree::Table;

/// A table of the file, as it was declared.
#[derive(Clone, Debug)]
pub struct TableDoc {
    /// Its dotted path, without positions.
    pub path: &'static str,
    /// The `kind` that its keys belong to; `None`: all of them.
    pub kind: Option<&'static str>,
    /// What it is about.
    pub intro: String,
    /// Its keys, in the order of the declaration.
    pub keys: Vec<KeyDoc>,
}

/// A key of a table, as it was declared.
#[derive(Clone, Debug)]
pub struct KeyDoc {
    /// Its name.
    pub key: &'static str,
    /// The default in TOML, or in words what holds without a value.
    pub default: Result<String, &'static str>,
    /// What it means.
    pub help: String,
    /// Values for the documentation: (`example`, `write` or `shown`, text).
    pub notes: Vec<(&'static str, &'static str)>,
}

impl KeyDoc {
    /// The text of a note.
    #[must_use]
    pub fn note(&self, name: &str) -> Option<&'static str> {
        self.notes.iter().find(|(note, _)| *note == name).map(|(_, text)| *text)
    }
}

/// A type that is one table of the file.
pub(super) trait Declared: Sized {
    fn read(section: &mut Section<'_>) -> Self;
    fn doc() -> TableDoc;

    /// What a table without any key means.
    fn of_nothing() -> Self {
        Self::read(&mut Section::new(&mut Reader::default(), "", Table::default(), Origin::Default))
    }
}

macro_rules! settings {
    ($path:literal $(for $kind:literal)?;
     $(#[doc = $intro:literal])+ $(#[derive($($derive:ident),+)])? $visible:vis struct $Name:ident {
        $($(#[doc = $help:literal])+ $key:ident: $type:ty [$($how:tt)+];)+
     }) => {
        $(#[doc = $intro])+
        #[derive(Clone, Debug $(, $($derive),+)?)]
        #[allow(clippy::struct_field_names, reason = "fields are called as the keys of the file")]
        $visible struct $Name {
            $($(#[doc = $help])+ $visible $key: $type,)+
        }

        impl $crate::config::declare::Declared for $Name {
            fn read(section: &mut $crate::config::reader::Section<'_>) -> Self {
                $(let $key = $crate::config::declare::how!(read section, stringify!($key), $type; $($how)+);)+
                Self { $($key),+ }
            }

            fn doc() -> $crate::config::declare::TableDoc {
                let keys = [$($crate::config::declare::how!(doc stringify!($key), concat!($($help),+), $type; $($how)+)),+];
                $crate::config::declare::TableDoc {
                    path: $path,
                    kind: None $(.or(Some($kind)))?,
                    intro: concat!($($intro),+).trim().to_owned(),
                    keys: keys.into_iter().flatten().collect(),
                }
            }
        }

        impl Default for $Name {
            fn default() -> Self {
                $crate::config::declare::Declared::of_nothing()
            }
        }
    };
}

/// How one field is read, and what the documentation says about it.
macro_rules! how {
    (read $section:ident, $key:expr, $type:ty; table) => { $section.table::<$type>($key) };
    (read $section:ident, $key:expr, $type:ty; tables) => { $section.tables($key) };
    (read $section:ident, $key:expr, $type:ty; by $function:path) => { $function($section) };
    (read $section:ident, $key:expr, $type:ty; = $default:expr $(, $note:ident $text:literal)*) => {
        $section.or::<$type>($key, $default)
    };
    (read $section:ident, $key:expr, $type:ty; $parser:ty, unset $words:literal $(, $note:ident $text:literal)*) => {
        $section.optional::<$parser>($key, $words)
    };
    (read $section:ident, $key:expr, $type:ty; $parser:ty, required $advice:literal $(, $note:ident $text:literal)*) => {
        $section.required::<$parser>($key, $advice)
    };
    (read $section:ident, $key:expr, $type:ty; $parser:ty = $default:expr $(, $note:ident $text:literal)*) => {
        $section.or::<$parser>($key, $default)
    };
    (doc $key:expr, $help:expr, $type:ty; table) => { None };
    (doc $key:expr, $help:expr, $type:ty; tables) => { None };
    (doc $key:expr, $help:expr, $type:ty; by $function:path) => { None };
    (doc $key:expr, $help:expr, $type:ty; = $default:expr $(, $note:ident $text:literal)*) => {
        $crate::config::declare::how!(doc $key, $help, $type; $type = $default $(, $note $text)*)
    };
    (doc $key:expr, $help:expr, $type:ty; $parser:ty, unset $words:literal $(, $note:ident $text:literal)*) => {
        $crate::config::declare::how!(key $key, $help, Err($words), $($note $text),*)
    };
    (doc $key:expr, $help:expr, $type:ty; $parser:ty, required $advice:literal $(, $note:ident $text:literal)*) => {
        $crate::config::declare::how!(key $key, $help, Err("none: it must be written"), $($note $text),*)
    };
    (doc $key:expr, $help:expr, $type:ty; $parser:ty = $default:expr $(, $note:ident $text:literal)*) => {
        $crate::config::declare::how!(
            key $key, $help, Ok(<$parser as $crate::config::reader::Setting>::show(&$default)), $($note $text),*
        )
    };
    (key $key:expr, $help:expr, $default:expr, $($note:ident $text:literal),*) => {
        Some($crate::config::declare::KeyDoc {
            key: $key,
            default: $default,
            help: $help.trim().to_owned(),
            notes: vec![$((stringify!($note), $text)),*],
        })
    };
}

pub(in crate::config) use {how, settings};
