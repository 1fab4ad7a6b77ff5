use super::location;
use http::Uri;
use std::fmt;

/// Scheme, host and port: what a connection, a credential and a limit belong to.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(in crate::upstream) struct Origin {
    pub(in crate::upstream) https: bool,
    /// In lower case; an IPv6 address without its brackets.
    pub(in crate::upstream) host: String,
    pub(in crate::upstream) port: u16,
}

impl Origin {
    /// The origin of an absolute URL. `None` for other schemes, and for a URL that carries a user: no honest server sends one.
    pub(in crate::upstream) fn of(url: &Uri) -> Option<Self> {
        let https = match url.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = url.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => port.parse().ok()?,
            _ => default_port(https),
        };
        (!host.is_empty() && port != 0).then_some(Self { https, host, port })
    }

    /// As in a `Host` header: the port only where it is not the scheme's own.
    pub(in crate::upstream) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.https) { host } else { format!("{host}:{}", self.port) }
    }

    pub(in crate::upstream) fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// Whether a secret of the upstream `self` may be sent to `realm`: the upstream's own host, Docker Hub's token service, or
    /// what the operator named; never over a weaker scheme.
    pub(in crate::upstream) fn trusts(&self, realm: &Self, named: &[String]) -> bool {
        if self.https && !realm.https {
            return false;
        }
        let own = self.host == realm.host && (realm.port == self.port || realm.https && realm.port == 443);
        let hub =
            crate::oci::DOCKER_HUB.contains(&self.host.as_str()) && realm.host == "auth.docker.io" && realm.port == 443;
        own || hub || realm.is_named_in(named)
    }

    /// Whether one of these names is this host's.
    pub(in crate::upstream) fn is_named_in(&self, names: &[String]) -> bool {
        names.iter().any(|name| self.is_named(name))
    }

    /// `host` means every port of it, `host:port` just that one.
    fn is_named(&self, name: &str) -> bool {
        let plain = self.host.clone();
        let bracketed = format!("[{}]", self.host);
        [&plain, &bracketed]
            .into_iter()
            .any(|host| name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(&format!("{host}:{}", self.port)))
    }
}

fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority())
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority())
    }
}

/// Where a `Location` of an answer to `base` leads, byte for byte as it was written: `//` and percent-encoding are part of
/// what storage has signed.
pub(in crate::upstream) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    if location.is_empty() {
        return Some(base.clone());
    }
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    let is_scheme =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if let Some((scheme, rest)) = location.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
        let start = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(start);
        return format!("{scheme}://{authority}{}", location::without_dots(path)).parse().ok();
    }
    let path = if location.starts_with("//") {
        return resolve(base, &format!("{scheme}:{location}"));
    } else if location.starts_with('/') {
        location.to_owned()
    } else if location.starts_with('?') {
        format!("{}{location}", base.path())
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{folder}/{location}")
    };
    format!("{scheme}://{authority}{}", location::without_dots(&path)).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Origin {
        Origin::of(&url.parse().unwrap()).unwrap()
    }

    #[test]
    fn ports_and_addresses() {
        assert_eq!(origin("https://MyAcr.azurecr.io/x").authority(), "myacr.azurecr.io");
        assert_eq!(origin("http://h:5000").authority(), "h:5000");
        assert_eq!(origin("https://h:443"), origin("https://h"));
        assert_eq!(origin("http://[::1]:5000/").authority(), "[::1]:5000");
        assert_eq!(origin("http://[::1]/").port, 80);
        for bad in ["ftp://h/", "/path", "https://user@h/", "http://h:0/"] {
            assert!(Origin::of(&bad.parse().unwrap()).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_credential_goes_to_the_own_realm_only() {
        let acr = origin("https://myacr.azurecr.io");
        assert!(acr.trusts(&origin("https://myacr.azurecr.io/oauth2/token"), &[]));
        assert!(!acr.trusts(&origin("http://myacr.azurecr.io/oauth2/token"), &[]), "weaker scheme");
        assert!(!acr.trusts(&origin("https://myacr.azurecr.io:8443/"), &[]), "another port");
        assert!(!acr.trusts(&origin("https://evil.azurecr.io/"), &[]));
        assert!(!acr.trusts(&origin("https://myacr.azurecr.io.evil.com/"), &[]));
        assert!(acr.trusts(&origin("https://auth.contoso.com/"), &["Auth.contoso.com".into()]));
        assert!(!acr.trusts(&origin("http://auth.contoso.com/"), &["auth.contoso.com".into()]), "weaker scheme");
        assert!(!acr.trusts(&origin("https://auth.contoso.com:1/"), &["auth.contoso.com:2".into()]));
        let hub = origin("https://registry-1.docker.io");
        assert!(hub.trusts(&origin("https://auth.docker.io/token"), &[]));
        assert!(!acr.trusts(&origin("https://auth.docker.io/token"), &[]));
        let plain = origin("http://localhost:5000");
        assert!(plain.trusts(&origin("http://localhost:5000/token"), &[]));
        assert!(plain.trusts(&origin("https://localhost/token"), &[]));
        assert!(!plain.trusts(&origin("http://localhost:5001/token"), &[]));
        assert!(plain.trusts(&origin("http://127.0.0.1:5001/token"), &["127.0.0.1:5001".into()]));
    }

    #[test]
    fn locations_keep_their_bytes() {
        let base: Uri = "https://r.io/v2/a/blobs/sha256:ab?x=1".parse().unwrap();
        for (location, want) in [
            (
                "https://s.net/id//docker/x%3Ay/data?se=1%3A2&sig=a%2Bb",
                "https://s.net/id//docker/x%3Ay/data?se=1%3A2&sig=a%2Bb",
            ),
            ("/blob//x?y=%2F", "https://r.io/blob//x?y=%2F"),
            ("//s.net//x", "https://s.net//x"),
            ("other", "https://r.io/v2/a/blobs/other"),
            ("?n=2", "https://r.io/v2/a/blobs/sha256:ab?n=2"),
            ("/x?next=https://y/", "https://r.io/x?next=https://y/"),
            ("https://h.net?t=1", "https://h.net/?t=1"),
            ("../../x/./y", "https://r.io/v2/x/y"),
            ("https://h.net/a/../b?../c", "https://h.net/b?../c"),
        ] {
            assert_eq!(resolve(&base, location).unwrap().to_string(), want);
        }
    }
}
