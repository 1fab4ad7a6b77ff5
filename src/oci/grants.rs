//! What a token allows, and what a request needs, in the words of Docker's token protocol: `repository:samples/config:pull,push`.

use serde::{Deserialize, Serialize};

/// Grants of one token are no more, nor actions of one of them.
const MOST: usize = 256;

/// What a token allows, or a request needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(Vec<Grant>);

/// Actions on one thing. ACR writes the keys with capitals, others do not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Grant {
    #[serde(rename = "type", alias = "Type")]
    kind: String,
    #[serde(alias = "Name")]
    name: String,
    #[serde(alias = "Actions", default, deserialize_with = "or_nothing")]
    actions: Vec<String>,
}

/// Some services write `null` for an empty list.
fn or_nothing<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The one claim that is looked at.
#[derive(Deserialize)]
struct Claims {
    #[serde(default, deserialize_with = "present")]
    access: Option<Vec<Grant>>,
}

/// A claim that is there; `null` is an empty list, where leaving it out says nothing.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Grant>>, D::Error> {
    or_nothing(deserializer).map(Some)
}

impl Grants {
    /// Reads a scope: `type:name:action,action`, several of them separated by blanks. What is none is left out.
    #[must_use]
    pub fn of_scope(scope: &str) -> Self {
        let read = |one: &str| {
            let (kind, rest) = one.split_once(':')?;
            // A name may hold the port of a host.
            let (name, actions) = rest.rsplit_once(':')?;
            let actions =
                actions.split(',').filter(|action| !action.is_empty()).take(MOST).map(str::to_owned).collect();
            Some(Grant { kind: kind.to_owned(), name: name.to_owned(), actions })
        };
        Self(scope.split_whitespace().filter_map(read).take(MOST).collect())
    }

    /// Reads the claims of a JSON web token. `None`: they do not say what it allows.
    #[must_use]
    pub fn of_claims(claims: &[u8]) -> Option<Self> {
        let access = serde_json::from_slice::<Claims>(claims).ok()?.access?;
        Some(Self(access.into_iter().take(MOST).collect()))
    }

    /// Whether all that is `needed` is allowed.
    #[must_use]
    pub fn cover(&self, needed: &Self) -> bool {
        needed.0.iter().all(|need| need.actions.iter().all(|action| self.allow(need, action)))
    }

    fn allow(&self, need: &Grant, action: &str) -> bool {
        let fits = |own: &&Grant| own.kind == need.kind && (own.name == need.name || own.name == "*");
        self.0.iter().filter(fits).any(|own| own.actions.iter().any(|allowed| allowed == action || allowed == "*"))
    }

    /// The part of what is `asked` that is allowed.
    #[must_use]
    pub fn part_of(&self, asked: &Self) -> Self {
        let part = asked.0.iter().filter_map(|one| {
            let actions: Vec<_> = one.actions.iter().filter(|action| self.allow(one, action)).cloned().collect();
            (!actions.is_empty()).then(|| Grant { actions, ..one.clone() })
        });
        Self(part.collect())
    }

    /// Adds what another one allows.
    pub fn add(&mut self, other: &Self) {
        for grant in &other.0 {
            if !self.0.contains(grant) && self.0.len() < MOST {
                self.0.push(grant.clone());
            }
        }
    }

    /// Puts what is `granted` in the place of what was known about the things that were `asked` for.
    pub fn renew(&mut self, asked: &Self, granted: &Self) {
        self.0.retain(|known| !asked.0.iter().any(|one| one.kind == known.kind && one.name == known.name));
        self.add(granted);
    }

    /// The value of the claim `access`.
    #[must_use]
    pub fn to_claim(&self) -> serde_json::Value {
        serde_json::to_value(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scope(text: &str) -> Grants {
        Grants::of_scope(text)
    }

    #[test]
    fn a_token_covers_what_it_names_and_nothing_else() {
        let acr = br#"{"exp":1,"access":[{"Type":"repository","Name":"a/b","Actions":["pull","metadata_read"]}]}"#;
        let held = Grants::of_claims(acr).unwrap();
        for covered in ["repository:a/b:pull", "repository:a/b:metadata_read,pull", "", "repository:a/b:"] {
            assert!(held.cover(&scope(covered)), "{covered}");
        }
        for other in [
            "repository:a/b:push",
            "repository:a/b:pull,push",
            "repository:a/b/c:pull",
            "repository:a:pull",
            "registry:catalog:*",
            "repository:a/b:pull repository:c:pull",
            "Repository:a/b:pull",
            "repository:*:pull",
        ] {
            assert!(!held.cover(&scope(other)), "{other}");
        }
        let docker = br#"{"access":[{"type":"repository","name":"*","actions":["pull"]},{"type":"registry","name":"catalog","actions":["*"]}]}"#;
        let held = Grants::of_claims(docker).unwrap();
        assert!(
            held.cover(&scope("repository:any:pull registry:catalog:*")) && !held.cover(&scope("repository:any:push"))
        );
    }

    #[test]
    fn nothing_said_is_not_nothing_allowed() {
        assert_eq!(Grants::of_claims(br#"{"exp":1}"#), None);
        for empty in
            [&br#"{"access":null}"#[..], br#"{"access":[]}"#, br#"{"access":[{"type":"a","name":"b","actions":null}]}"#]
        {
            assert!(!Grants::of_claims(empty).unwrap().cover(&scope("a:b:pull")));
        }
        assert_eq!(Grants::of_claims(b"x"), None);
        assert_eq!(Grants::of_claims(br#"{"access":5}"#), None);
    }

    #[test]
    fn parts_and_sums() {
        let mut held = scope("repository:a:pull");
        assert_eq!(held.part_of(&scope("repository:a:pull,push repository:b:pull")), scope("repository:a:pull"));
        held.add(&scope("repository:b:pull,push"));
        held.add(&scope("repository:b:pull,push"));
        assert_eq!(held.0.len(), 2);
        let mut renewed = held.clone();
        renewed.renew(&scope("repository:b:pull,push"), &scope("repository:b:pull"));
        assert_eq!(renewed, scope("repository:a:pull repository:b:pull"), "a right that was taken does not stay");
        let claim = serde_json::json!({ "access": held.to_claim() }).to_string();
        assert_eq!(Grants::of_claims(claim.as_bytes()), Some(held));
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,120}") {
            let grants = Grants::of_scope(&text);
            let _ = Grants::of_claims(text.as_bytes());
            prop_assert!(grants.cover(&grants));
        }
    }
}
