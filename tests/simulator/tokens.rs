//! Identities, what each may have, and the tokens that have been issued.
//!
//! Tokens are remembered rather than checked: a token that this simulator did not issue, or not for long enough, is no
//! token.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::auth::Access;
use super::options::{NULL_GUID, UserKind};
use super::{State, clock, jwt};

/// `nbf` and `iat` lie this far back.
pub(super) const BACK_DATED_S: u64 = 15 * 60;
/// Anonymous callers that ask for the same within this time get the same token.
const ANONYMOUS_SHARED_S: u64 = 5;

#[derive(Clone)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) rights: Rights,
}

#[derive(Clone)]
pub(super) enum Rights {
    All,
    Pull,
    ScopeMap(Vec<(String, Vec<String>)>),
    /// Of an access token that is used as a password.
    Token(Vec<Access>),
}

#[derive(Clone)]
pub(super) struct Session {
    pub(super) identity: Identity,
    pub(super) access: Vec<Access>,
    expires: u64,
}

#[derive(Default)]
pub(super) struct Tokens {
    refresh: Mutex<HashMap<String, Session>>,
    access: Mutex<HashMap<String, Session>>,
    anonymous: Mutex<HashMap<String, (u64, String)>>,
}

impl Tokens {
    pub(super) fn access(&self, token: &str, now: u64) -> Option<Session> {
        find(&self.access, token, now)
    }

    pub(super) fn refresh(&self, token: &str, now: u64) -> Option<Session> {
        find(&self.refresh, token, now)
    }

    pub(super) fn keep_refresh(&self, token: String, identity: Identity, expires: u64) {
        keep(&self.refresh, token, Session { identity, access: Vec::new(), expires });
    }

    fn keep_access(&self, token: String, session: Session) {
        keep(&self.access, token, session);
    }

    /// Every token issued so far is refused from now on.
    pub(super) fn revoke(&self) {
        for map in [&self.refresh, &self.access] {
            map.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        self.anonymous.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn find(map: &Mutex<HashMap<String, Session>>, token: &str, now: u64) -> Option<Session> {
    map.lock().unwrap_or_else(PoisonError::into_inner).get(token).filter(|s| s.expires > now).cloned()
}

fn keep(map: &Mutex<HashMap<String, Session>>, token: String, session: Session) {
    let now = clock::now();
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    map.retain(|_, session| session.expires > now);
    map.insert(token, session);
}

impl Identity {
    pub(super) fn anonymous() -> Self {
        Self { name: "acr_anon_pull".into(), rights: Rights::Pull }
    }

    pub(super) fn everything(name: &str) -> Self {
        Self { name: name.into(), rights: Rights::All }
    }

    /// Who has this user name and password; a refresh or access token may be the password of the null GUID.
    pub(super) fn by_password(state: &State, name: &str, password: &str) -> Option<Self> {
        let now = clock::now();
        if name == NULL_GUID || name == "<token>" {
            let of_access = |s: Session| Self { name: s.identity.name, rights: Rights::Token(s.access) };
            return state
                .tokens
                .refresh(password, now)
                .map(|s| s.identity)
                .or_else(|| state.tokens.access(password, now).map(of_access));
        }
        let user = state.options.users.iter().find(|u| u.name == name && u.passwords.iter().any(|p| p == password))?;
        let rights = match &user.kind {
            UserKind::Admin | UserKind::ServicePrincipal => Rights::All,
            UserKind::ScopeMap(grants) => Rights::ScopeMap(grants.clone()),
        };
        Some(Self { name: user.name.clone(), rights })
    }

    /// The part of what is asked for that this identity may have.
    pub(super) fn grant(&self, asked: &[Access]) -> Vec<Access> {
        let mut granted: Vec<Access> = asked.iter().filter_map(|access| self.grant_one(access)).collect();
        granted.dedup();
        granted
    }

    fn grant_one(&self, asked: &Access) -> Option<Access> {
        let only = |may: &dyn Fn(&str) -> bool| {
            let actions: Vec<String> = asked.actions.iter().filter(|a| may(a)).cloned().collect();
            (!actions.is_empty()).then(|| Access { actions, ..asked.clone() })
        };
        match &self.rights {
            Rights::All => Some(asked.clone()),
            Rights::Pull => (asked.kind == "repository").then(|| Access::new("repository", "*", &["pull"])),
            Rights::ScopeMap(grants) if asked.kind == "repository" => {
                let actions = grants.iter().filter(|(p, _)| matches(p, &asked.name)).flat_map(|(_, actions)| actions);
                let actions: Vec<&str> = actions.map(|a| scope_map_action(a)).collect();
                only(&|action| actions.contains(&action))
            }
            Rights::ScopeMap(_) => None,
            Rights::Token(access) => {
                let own = access.iter().find(|a| a.kind == asked.kind && (a.name == asked.name || a.name == "*"))?;
                only(&|action| own.actions.iter().any(|a| a == action || a == "*"))
            }
        }
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |prefix| name.starts_with(prefix))
}

/// A scope map's word in a token's words.
fn scope_map_action(action: &str) -> &str {
    match action {
        "content/read" => "pull",
        "content/write" => "push",
        "content/delete" => "delete",
        "metadata/read" => "metadata_read",
        "metadata/write" => "metadata_write",
        other => other,
    }
}

/// A refresh token for somebody whom Entra knows.
pub(super) fn issue_refresh(state: &State, identity: Identity) -> String {
    let now = clock::now();
    let expires = now + state.knobs.read(|k| k.refresh_life_s);
    let claims = format!(
        "{{\"jti\":\"{}\",\"sub\":{},\"nbf\":{nbf},\"exp\":{expires},\"iat\":{nbf},\"iss\":\"Azure Container Registry\",\
         \"aud\":{},\"version\":\"1.0\",\"rid\":\"{}\",\"grant_type\":\"refresh_token\",\"appid\":\"{}\",\
         \"permissions\":{{\"Actions\":[\"read\",\"write\",\"delete\"],\"NotActions\":null}},\"roles\":[]}}",
        state.guid(),
        super::reply::quoted(&identity.name),
        super::reply::quoted(&state.registry()),
        state.registry_id(),
        NULL_GUID,
        nbf = now - BACK_DATED_S,
    );
    let token = jwt::sign(&claims);
    state.tokens.keep_refresh(token.clone(), identity, expires);
    token
}

/// An access token with the granted part of what is asked for.
pub(super) fn issue_access(state: &State, identity: &Identity, asked: &[Access]) -> String {
    let now = clock::now();
    let anonymous = matches!(identity.rights, Rights::Pull);
    let life = state.knobs.read(|k| if anonymous { k.anonymous_life_s } else { k.access_life_s });
    let access = identity.grant(asked);
    let entries = access_json(&access, ["Type", "Name", "Actions"]);
    let mut shared = state.tokens.anonymous.lock().unwrap_or_else(PoisonError::into_inner);
    if anonymous
        && life > 2 * ANONYMOUS_SHARED_S
        && let Some((issued, token)) = shared.get(&entries)
        && now - issued < ANONYMOUS_SHARED_S
    {
        return token.clone();
    }
    let claims = format!(
        "{{\"jti\":\"{}\",\"sub\":{},\"nbf\":{nbf},\"exp\":{exp},\"iat\":{nbf},\"iss\":\"Azure Container Registry\",\
         \"aud\":{},\"version\":\"1.0\",\"rid\":\"{}\",\"access\":{entries},\"roles\":[],\"grant_type\":\"access_token\"}}",
        state.guid(),
        super::reply::quoted(&identity.name),
        super::reply::quoted(&state.registry()),
        state.registry_id(),
        nbf = now - BACK_DATED_S,
        exp = now + life,
    );
    let token = jwt::sign(&claims);
    if anonymous {
        shared.insert(entries, (now, token.clone()));
    }
    drop(shared);
    state.tokens.keep_access(token.clone(), Session { identity: identity.clone(), access, expires: now + life });
    token
}

/// A token that Distribution accepts: issuer and audience as configured there, `access` in lower case.
pub(super) fn issue_for_distribution(
    state: &State,
    identity: &Identity,
    service: &str,
    asked: &[Access],
) -> (String, u64) {
    let now = clock::now();
    let life = state.knobs.read(|k| k.access_life_s);
    let mut access = identity.grant(asked);
    if matches!(identity.rights, Rights::Pull) {
        // Distribution compares names literally.
        access = asked.iter().filter(|a| a.kind == "repository").cloned().collect();
        for one in &mut access {
            one.actions.retain(|action| action == "pull");
        }
    }
    let claims = format!(
        "{{\"iss\":\"{}\",\"sub\":{},\"aud\":{},\"exp\":{},\"nbf\":{now},\"iat\":{now},\"jti\":\"{}\",\"access\":{}}}",
        super::DISTRIBUTION_ISSUER,
        super::reply::quoted(&identity.name),
        super::reply::quoted(service),
        now + life,
        state.guid(),
        access_json(&access, ["type", "name", "actions"]),
    );
    (jwt::sign_with_certificate(&claims), life)
}

fn access_json(access: &[Access], [kind, name, actions]: [&str; 3]) -> String {
    let entries: Vec<String> = access
        .iter()
        .map(|a| {
            let list: Vec<String> = a.actions.iter().map(|action| super::reply::quoted(action)).collect();
            format!(
                "{{\"{kind}\":{},\"{name}\":{},\"{actions}\":[{}]}}",
                super::reply::quoted(&a.kind),
                super::reply::quoted(&a.name),
                list.join(",")
            )
        })
        .collect();
    format!("[{}]", entries.join(","))
}
