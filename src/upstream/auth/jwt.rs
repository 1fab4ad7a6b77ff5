use base64::Engine as _;
use std::time::{Duration, SystemTime};

/// What larder reads out of a token that it was given; the signature is the registry's business.
#[derive(Debug, Default, serde::Deserialize)]
pub(in crate::upstream) struct Claims {
    exp: Option<f64>,
    upn: Option<String>,
    unique_name: Option<String>,
    preferred_username: Option<String>,
    appid: Option<String>,
    oid: Option<String>,
}

impl Claims {
    /// Reads the middle part. `None` for what is no JSON web token.
    pub(in crate::upstream) fn of(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
        let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        serde_json::from_slice(&engine.decode(payload.trim_end_matches('=')).ok()?).ok()
    }

    /// When the token dies.
    pub(in crate::upstream) fn expires(&self) -> Option<SystemTime> {
        let seconds = Duration::try_from_secs_f64(self.exp?).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    }

    /// Whom the token names, as an operator would say it.
    pub(in crate::upstream) fn subject(&self) -> Option<&str> {
        let names = [&self.upn, &self.preferred_username, &self.unique_name, &self.appid, &self.oid];
        names.into_iter().find_map(|name| name.as_deref())
    }
}

/// When a token dies, if it says so.
pub(in crate::upstream) fn expires(token: &str) -> Option<SystemTime> {
    Claims::of(token)?.expires()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_exp_and_who() {
        let token = crate::upstream::testing::jwt(r#"{"exp":1700000000,"upn":"ann@contoso.com","aud":["a"]}"#);
        let claims = Claims::of(&token).unwrap();
        assert_eq!(claims.expires(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
        assert_eq!(claims.subject(), Some("ann@contoso.com"));
        for nonsense in ["", "a.b", "a.b.c", "a.e30.c"] {
            assert_eq!(expires(nonsense), None, "{nonsense}");
        }
        assert_eq!(expires(&crate::upstream::testing::jwt(r#"{"exp":-1}"#)), None);
        assert_eq!(expires(&crate::upstream::testing::jwt(r#"{"exp":1e300}"#)), None);
    }
}
