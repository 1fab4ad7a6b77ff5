//! JSON from outside, read where it stands: of an object only the fields that are asked for, of a list one item at a time. What is not
//! asked for is read over without recursion, however deep it is, and nothing is built for it.

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The `names` fields of the object that `bytes` are; of a field that is there twice the last one.
pub(super) fn root<'a, const N: usize>(bytes: &'a [u8], names: &[&str; N]) -> Option<[Option<&'a RawValue>; N]> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let fields = Object(names).deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    Some(fields)
}

/// The same of a value.
pub(super) fn object<'a, const N: usize>(value: &'a RawValue, names: &[&str; N]) -> Option<[Option<&'a RawValue>; N]> {
    root(value.get().as_bytes(), names)
}

/// Shows each item of a list to `take`, until it says that it wants no more. What is no list has none.
pub(super) fn each<'a>(value: &'a RawValue, take: impl FnMut(&'a RawValue) -> bool) {
    // The text has been read over before, so it is JSON.
    let _ = serde_json::Deserializer::from_str(value.get()).deserialize_seq(Items(take));
}

/// Shows each entry of the list that the field `name` of a document is, until `take` says that it wants no more. Null is an empty list to
/// some registries; a document without the field is no list.
///
/// # Errors
/// If the document is no object, or the field no list, and what `take` says.
pub fn each_entry<'a>(
    document: &'a [u8],
    name: &str,
    mut take: impl FnMut(&'a RawValue) -> Result<bool, &'static str>,
) -> Result<(), &'static str> {
    let [list] = root(document, &[name]).ok_or("it is no JSON object")?;
    let list = list.ok_or("it has no such list")?;
    if list.get() == "null" {
        return Ok(());
    }
    if !list.get().starts_with('[') {
        return Err("its entries are no list");
    }
    let mut problem = None;
    each(list, |item| take(item).unwrap_or_else(|found| problem.replace(found).is_some()));
    problem.map_or(Ok(()), Err)
}

/// The value, if it is a text.
pub(super) fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(serde::Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|text| text.0)
}

/// The value, if it is a number that a size can be.
pub(super) fn number(value: &RawValue) -> Option<u64> {
    value.get().parse().ok()
}

struct Object<'n, const N: usize>(&'n [&'n str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Object<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Object<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = [None; N];
        while let Some(place) = map.next_key_seed(Name(self.0))? {
            match place.and_then(|place| fields.get_mut(place)) {
                Some(field) => *field = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(fields)
    }
}

/// The place of a field's name among those that are wanted.
struct Name<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|wanted| *wanted == name))
    }
}

struct Items<F>(F);

impl<'de, F: FnMut(&'de RawValue) -> bool> Visitor<'de> for Items<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element()? {
            if !(self.0)(item) {
                break;
            }
        }
        Ok(())
    }
}
