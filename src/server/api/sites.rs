//! Requests of web pages. A browser says which site a page is of; a page of another one may read nothing here, since no answer allows
//! it to, and must not write either. Clients of registries send neither header.

use super::error::Problem;
use crate::oci::Code;
use http::header::ORIGIN;
use http::{HeaderMap, Method, StatusCode};

/// Refuses what a page of another site would change.
pub(in crate::server) fn refuse_foreign(
    method: &Method,
    headers: &HeaderMap,
    host: Option<&str>,
) -> Result<(), Problem> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let own = |origin: &str| {
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.zip(host).is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host))
    };
    let is_own = |origin: &http::HeaderValue| origin.to_str().is_ok_and(own);
    let is_near = |site: &http::HeaderValue| site == "same-origin" || site == "none";
    let near = headers.get_all("sec-fetch-site").iter().all(is_near) && headers.get_all(ORIGIN).iter().all(is_own);
    if near {
        return Ok(());
    }
    let message = "a web page of another site must not change anything here: use a registry client, which sends neither Origin nor \
                   Sec-Fetch-Site";
    Err(Problem::new(StatusCode::FORBIDDEN, Code::Denied, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn let_in(method: &Method, headers: &[(&'static str, &str)]) -> bool {
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap()));
        refuse_foreign(method, &headers.collect(), Some("localhost:5000")).is_ok()
    }

    #[test]
    fn pages_of_other_sites_write_nothing() {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert!(let_in(&method, &[]), "a client of registries");
            assert!(let_in(&method, &[("origin", "http://LOCALHOST:5000"), ("sec-fetch-site", "same-origin")]));
            assert!(let_in(&method, &[("sec-fetch-site", "none")]));
            for foreign in [
                &[("origin", "https://evil.example")][..],
                &[("origin", "null")],
                &[("origin", "http://localhost:5001")],
                &[("origin", "http://localhost:5000.evil.example")],
                &[("origin", "localhost:5000")],
                &[("sec-fetch-site", "cross-site")],
                &[("sec-fetch-site", "same-site")],
                &[("sec-fetch-site", "cross-site"), ("origin", "http://localhost:5000")],
                &[("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")],
            ] {
                assert!(!let_in(&method, foreign), "{foreign:?}");
            }
        }
        assert!(let_in(&Method::GET, &[("origin", "https://evil.example")]), "what is read is not shown to the page");
    }
}
