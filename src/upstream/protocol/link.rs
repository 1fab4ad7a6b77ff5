use crate::upstream::transport::location;
use crate::upstream::transport::origin::{self, Origin};
use http::header::LINK;
use http::{HeaderMap, Uri};

/// A `Link` to the next page.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Next {
    /// There is none: this was the last page.
    None,
    /// Path and query on the same host.
    Page(String),
    /// It leads elsewhere, or nowhere; its query, if it has one.
    Astray(Option<String>),
}

/// The `rel="next"` of the answer to `base` (RFC 8288), which registries write relative or with a host of their own; behind a
/// proxy that ends TLS, with the wrong scheme and port. Clients follow one that says no `rel` as well, and fail at what is no link.
pub(in crate::upstream) fn next(headers: &HeaderMap, base: &Uri) -> Next {
    let lines = || headers.get_all(LINK).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    let target = lines().find_map(|line| {
        let next = links(&line).into_iter().find(|(_, is_next)| *is_next);
        next.map(|(target, _)| location::of(target.as_bytes()).unwrap_or_default())
    });
    let Some(target) = target else {
        let is_no_link = lines().any(|line| !line.trim().is_empty() && links(&line).is_empty());
        return if is_no_link { Next::Astray(None) } else { Next::None };
    };
    let url = origin::resolve(base, &target);
    let same = |url: &Uri| Some(Origin::of(url)?.host == Origin::of(base)?.host);
    match url {
        Some(url) if same(&url) == Some(true) => {
            // A URL without a path may still have a query: `Uri::path` knows the slash that is missing.
            let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
            Next::Page(format!("{}{query}", url.path()))
        }
        _ => Next::Astray(target.split('#').next().and_then(|target| Some(target.split_once('?')?.1.to_owned()))),
    }
}

/// Targets with whether they are the next page.
fn links(line: &str) -> Vec<(&str, bool)> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some((_, after)) = rest.split_once('<') {
        let Some((target, after)) = after.split_once('>') else { break };
        let end = after.find('<').unwrap_or(after.len());
        let mut relations = after[..end].split([';', ',']).filter_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("rel").then_some(value)
        });
        let is_next = relations.next().is_none_or(|relation| {
            relation.trim().trim_matches('"').split_whitespace().any(|rel| rel.eq_ignore_ascii_case("next"))
        });
        found.push((target.trim(), is_next));
        rest = &after[end..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Next {
        let base: Uri = "https://myacr.azurecr.io/v2/a/tags/list?n=2".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.append(LINK, "</x>; rel=\"prev\"".parse().unwrap());
        headers.append(LINK, line.parse().unwrap());
        next(&headers, &base)
    }

    #[test]
    fn finds_the_next_page_on_the_same_host_only() {
        let page = |text: &str| Next::Page(text.to_owned());
        assert_eq!(
            read("</v2/a/tags/list?last=v1&n=2&orderby=>; rel=\"next\""),
            page("/v2/a/tags/list?last=v1&n=2&orderby=")
        );
        assert_eq!(
            read("<http://myacr.azurecr.io:80/v2/_catalog?last=a%2Fb>; rel=next"),
            page("/v2/_catalog?last=a%2Fb")
        );
        assert_eq!(read("<?last=v1>; title=\"x\"; rel=\"next\""), page("/v2/a/tags/list?last=v1"));
        assert_eq!(read("</1>; rel=\"first\", </2>; rel=\"next last\""), page("/2"));
        assert_eq!(read("<https://myacr.azurecr.io?last=v1>; rel=\"next\""), page("/?last=v1"));
        assert_eq!(read("</1>; rel=\"last\""), Next::None);
        assert_eq!(read("</v2/a/tags/list?last=v1>"), page("/v2/a/tags/list?last=v1"));
        assert_eq!(read(" "), Next::None);
        for no_link in ["nonsense", "<x", "</v2/a/tags/list?last=v1"] {
            assert_eq!(read(no_link), Next::Astray(None), "{no_link}");
        }
        assert_eq!(read("<https://evil.io/v2/a/tags/list>; rel=\"next\""), Next::Astray(None));
        assert_eq!(read("<https://evil.io/x?last=a b#c>; rel=\"next\""), Next::Astray(Some("last=a%20b".into())));
        assert_eq!(read("<ht\"tp://>; rel=\"next\""), page("/v2/a/tags/ht%22tp://"));
    }
}
