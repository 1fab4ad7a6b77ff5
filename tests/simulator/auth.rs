//! Who is asking, what a request needs, and the 401 that says so.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};

use super::State;
use super::clock;
use super::options::{NULL_GUID, User, UserKind};
use super::record::Credential;
use super::reply::{self, Reply, UNAUTHORIZED};
use super::route::{Route, value};

/// Actions on one resource: what a request needs, or what a token grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) actions: Vec<String>,
}

impl Access {
    fn repository(name: &str, actions: &[&str]) -> Self {
        Self::new("repository", name, actions)
    }

    pub(super) fn new(kind: &str, name: &str, actions: &[&str]) -> Self {
        Self { kind: kind.into(), name: name.into(), actions: actions.iter().map(|a| (*a).to_owned()).collect() }
    }

    /// `repository:NAME:pull,push`; the name may hold colons, so the outer two count.
    pub(super) fn parse(scope: &str) -> Option<Self> {
        let (kind, rest) = scope.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        Some(Self::new(kind, name, &actions.split(',').filter(|a| !a.is_empty()).collect::<Vec<_>>()))
    }

    fn scope(&self) -> String {
        format!("{}:{}:{}", self.kind, self.name, self.actions.join(","))
    }

    fn covers(&self, kind: &str, name: &str, action: &str) -> bool {
        let includes =
            |has: &str| has == "*" || has == action || (self.name == "*" && has == "pull" && action == "metadata_read");
        self.kind == kind && (self.name == name || self.name == "*") && self.actions.iter().any(|a| includes(a))
    }
}

/// What a request needs; empty: any valid credential.
pub(super) fn needs(state: &State, route: &Route, method: &Method, query: &[(String, String)]) -> Vec<Access> {
    let read = matches!(*method, Method::GET | Method::HEAD);
    match route {
        Route::Ping | Route::Exchange | Route::Token | Route::DistributionToken => Vec::new(),
        Route::Catalog | Route::AcrCatalog => vec![Access::new("registry", "catalog", &["*"])],
        Route::Tags { name } => vec![Access::repository(name, &[&state.knobs.read(|k| k.tags_action.clone())])],
        Route::Referrers { name, .. } => vec![Access::repository(name, &["pull"])],
        Route::Manifest { name, .. } | Route::Blob { name, .. } if read => vec![Access::repository(name, &["pull"])],
        Route::Upload { name, .. } if *method == Method::POST && value(query, "mount").is_some() => {
            let source = value(query, "from").map(|from| Access::repository(from, &["pull"]));
            [Access::repository(name, &["pull", "push"])].into_iter().chain(source).collect()
        }
        Route::Manifest { name, .. } | Route::Blob { name, .. } | Route::Upload { name, .. } => {
            let actions: &[&str] = if *method == Method::DELETE { &["delete"] } else { &["pull", "push"] };
            vec![Access::repository(name, actions)]
        }
        Route::AcrRepository { name }
        | Route::AcrTags { name }
        | Route::AcrTag { name, .. }
        | Route::AcrManifests { name }
        | Route::AcrManifest { name, .. } => {
            let action = match *method {
                Method::DELETE => "delete",
                _ if read => "metadata_read",
                _ => "metadata_write",
            };
            vec![Access::repository(name, &[action])]
        }
    }
}

/// Lets the request through, or words the 401.
pub(super) fn check(state: &State, host: &str, headers: &HeaderMap, needs: &[Access]) -> Result<(), Reply> {
    let Some(authorization) = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()) else {
        return Err(challenge(state, host, needs, None));
    };
    if let Some(token) = strip_scheme(authorization, "bearer") {
        let granted = state.tokens.access(token, clock::now()).map(|session| session.access);
        let Some(granted) = granted else { return Err(challenge(state, host, needs, Some("invalid_token"))) };
        let covered = |need: &Access| {
            need.actions.iter().all(|action| granted.iter().any(|g| g.covers(&need.kind, &need.name, action)))
        };
        return if needs.iter().all(covered) {
            Ok(())
        } else {
            Err(challenge(state, host, needs, Some("insufficient_scope")))
        };
    }
    match basic(headers) {
        Some((name, password)) => check_basic(state, host, needs, &name, &password),
        None => Err(challenge(state, host, needs, None)),
    }
}

/// Basic on the registry itself: for the admin user and service principals only.
fn check_basic(state: &State, host: &str, needs: &[Access], name: &str, password: &str) -> Result<(), Reply> {
    if name == NULL_GUID || name == "<token>" {
        state.log.violation(format!("Basic with user {name} on the registry: only the token endpoint takes it"));
        return Err(challenge(state, host, needs, None));
    }
    match state.options.users.iter().find(|user| user.name == name) {
        Some(User { kind: UserKind::ScopeMap(_), .. }) => {
            state.log.violation(format!(
                "Basic of scope-map token {name} on the registry: only the token endpoint takes it"
            ));
            let mut refused = unauthorized(needs);
            reply::set(&mut refused, "www-authenticate", "Basic realm=\"Azure Container Registry\"");
            Err(refused)
        }
        Some(user) if user.passwords.iter().any(|p| p == password) => Ok(()),
        _ => Err(challenge(state, host, needs, None)),
    }
}

/// 401 with the Bearer challenge. The realm has the host that the client asked, as ACR has one name only.
fn challenge(state: &State, host: &str, needs: &[Access], error: Option<&str>) -> Reply {
    let scopes: Vec<String> = needs.iter().map(Access::scope).collect();
    let scope = if needs.is_empty() { String::new() } else { format!(",scope=\"{}\"", scopes.join(" ")) };
    let error = error.map(|error| format!(",error=\"{error}\"")).unwrap_or_default();
    let (scheme, service) = (state.scheme(), state.registry());
    let challenge = format!("Bearer realm=\"{scheme}://{host}/oauth2/token\",service=\"{service}\"{scope}{error}");
    let mut refused = unauthorized(needs);
    reply::set(&mut refused, "www-authenticate", &challenge);
    refused
}

fn unauthorized(needs: &[Access]) -> Reply {
    let entries: Vec<String> = needs
        .iter()
        .flat_map(|need| need.actions.iter().map(move |action| (need, action)))
        .map(|(need, action)| {
            format!(
                "{{\"Type\":{},\"Name\":{},\"Action\":{}}}",
                reply::quoted(&need.kind),
                reply::quoted(&need.name),
                reply::quoted(action)
            )
        })
        .collect();
    let detail = if entries.is_empty() { "null".to_owned() } else { format!("[{}]", entries.join(",")) };
    reply::error(401, "UNAUTHORIZED", UNAUTHORIZED, Some(&detail))
}

/// The identity whose quota a request uses up; whoever is not known is anonymous.
pub(super) fn quota_owner(state: &State, headers: &HeaderMap) -> String {
    let authorization = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    strip_scheme(authorization, "bearer")
        .and_then(|token| state.tokens.access(token, clock::now()))
        .map(|session| session.identity.name)
        .or_else(|| basic(headers).map(|(name, _)| name))
        .unwrap_or_else(|| "anonymous".to_owned())
}

/// User and password of a Basic header.
pub(super) fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let encoded = strip_scheme(headers.get(AUTHORIZATION)?.to_str().ok()?, "basic")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    decoded.split_once(':').map(|(name, password)| (name.to_owned(), password.to_owned()))
}

pub(super) fn credential_kind(headers: &HeaderMap) -> Credential {
    match headers.get(AUTHORIZATION) {
        None => Credential::None,
        Some(value) if value.to_str().is_ok_and(|v| strip_scheme(v, "bearer").is_some()) => Credential::Bearer,
        Some(_) => basic(headers).map_or(Credential::Other, |(user, _)| Credential::Basic { user }),
    }
}

fn strip_scheme<'a>(authorization: &'a str, scheme: &str) -> Option<&'a str> {
    let (has, rest) = authorization.split_once(' ')?;
    has.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}
