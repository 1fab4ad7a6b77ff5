use super::*;
use crate::config::Right;
use crate::oci::Repository;
use http::Method;

fn routes() -> Routes {
    let mut routes = Routes::default();
    routes.add(&Registry::new("myacr.azurecr.io"), ["acr"], true);
    routes.add(&Registry::new("other.azurecr.io"), ["other"], false);
    routes.add(&Registry::new("registry.local:5000"), ["local"], false);
    routes
}

/// `registry repository naming-path` of a manifest request.
fn manifest(url: &str, host: Option<&str>) -> Result<(String, String, String), RequestError> {
    let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
    let resolved = routes().resolve(path, query, host)?;
    let Target::Manifest(repository, _) = resolved.target else { panic!("{resolved:?}") };
    let path = resolved.naming.path(&format!("{}/x", repository.name));
    Ok((repository.registry.to_string(), repository.name.to_string(), path))
}

#[test]
fn every_way_of_naming_leads_to_the_same_repository() {
    for (url, host, path) in [
        ("/v2/samples/config/manifests/v1", None, "/v2/samples/config/x"),
        ("/v2/myacr.azurecr.io/samples/config/manifests/v1", None, "/v2/myacr.azurecr.io/samples/config/x"),
        ("/v2/acr/samples/config/manifests/v1", None, "/v2/acr/samples/config/x"),
        ("/myacr.azurecr.io/v2/samples/config/manifests/v1", None, "/myacr.azurecr.io/v2/samples/config/x"),
        ("/v2/samples/config/manifests/v1?ns=myacr.azurecr.io", None, "/v2/samples/config/x"),
        (
            "/v2/myacr.azurecr.io/samples/config/manifests/v1?ns=myacr.azurecr.io",
            None,
            "/v2/myacr.azurecr.io/samples/config/x",
        ),
        ("/acr/v2/samples/config/manifests/v1?ns=myacr.azurecr.io", None, "/acr/v2/samples/config/x"),
        ("/v2/samples/config/manifests/v1", Some("MyACR.azurecr.io:443"), "/v2/samples/config/x"),
    ] {
        let want = ("myacr.azurecr.io".into(), "samples/config".into(), path.to_owned());
        assert_eq!(manifest(url, host), Ok(want), "{url}");
    }
    let (registry, ..) = manifest("/v2/a/manifests/v1?ns=registry.local%3A5000", None).unwrap();
    assert_eq!(registry, "registry.local:5000");
    let (registry, ..) = manifest("/v2/a/manifests/v1?n=1&ns=other.azurecr.io", Some("localhost:5000")).unwrap();
    assert_eq!(registry, "other.azurecr.io");
}

#[test]
fn a_fixed_upstream_keeps_foreign_components_in_the_name() {
    let (registry, name, _) = manifest("/v2/other/a/manifests/v1?ns=myacr.azurecr.io", None).unwrap();
    assert_eq!((registry.as_str(), name.as_str()), ("myacr.azurecr.io", "other/a"));
    let (registry, name, _) = manifest("/v2/other/manifests/v1", None).unwrap();
    assert_eq!((registry.as_str(), name.as_str()), ("myacr.azurecr.io", "other"), "a lone component is a repository");
    let (registry, name, _) = manifest("/acr/v2/other/a/manifests/v1", None).unwrap();
    assert_eq!((registry.as_str(), name.as_str()), ("myacr.azurecr.io", "other/a"));
}

#[test]
fn an_unknown_upstream_is_never_dialled() {
    for url in ["/v2/a/manifests/v1?ns=evil.example", "/evil.example/v2/a/manifests/v1"] {
        assert!(matches!(manifest(url, None), Err(RequestError::UnknownUpstream { .. })), "{url}");
    }
    let two = manifest("/acr/v2/a/manifests/v1?ns=other.azurecr.io", None).unwrap_err().to_string();
    assert!(two.contains("other.azurecr.io by ns or Host and 'acr' before /v2"), "{two}");
    let (registry, ..) = manifest("/v2/a/manifests/v1", Some("evil.example")).unwrap();
    assert_eq!(registry, "myacr.azurecr.io", "an unknown Host falls through");
}

#[test]
fn the_last_marker_counts_and_paths_are_decoded() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let target = |path: &str| routes().resolve(path, None, None).map(|r| r.target);
    let blob = target(&format!("/v2/a/blobs/b/blobs/{}", digest.replace(':', "%3A"))).unwrap();
    assert!(matches!(&blob, Target::Blob(r, d) if r.name.as_str() == "a/blobs/b" && d.to_string() == digest));
    assert!(matches!(target("/v2/a/tags/list"), Ok(Target::Tags(_))));
    assert!(matches!(target(&format!("/v2/a/referrers/{digest}")), Ok(Target::Referrers(..))));
    assert!(matches!(target("/v2/a/manifests/v1"), Ok(Target::Manifest(..))));
    assert_eq!(target("/v2/_catalog"), Ok(Target::Catalogues));
    assert_eq!(target("/v2/acr/_catalog"), Ok(Target::Catalogue(Registry::new("myacr.azurecr.io"))));
    assert_eq!(target("/v2/other/_catalog"), Ok(Target::Catalogue(Registry::new("other.azurecr.io"))));
    for ping in ["/v2", "/v2/", "/v2/acr/", "/v2/acr", "/acr/v2/", "/acr/v2"] {
        assert_eq!(target(ping), Ok(Target::Ping), "{ping}");
    }
}

#[test]
fn nonsense_has_its_own_error_each() {
    let error = |path: &str| routes().resolve(path, None, None).unwrap_err();
    for path in [
        "/",
        "",
        "/v1/",
        "/v2/a/b/c",
        "/v2/unknown/",
        "/v2/a/_catalog",
        "/v2/%ff/manifests/v1",
        "/x/y/v2/a/manifests/v1",
    ] {
        assert_eq!(error(path), RequestError::NoRoute, "{path}");
    }
    assert!(matches!(error("/v2/UPPER/manifests/v1"), RequestError::Name(_)));
    assert!(matches!(error("/v2/a//b/manifests/v1"), RequestError::Name(_)));
    assert!(matches!(error("/v2/a/../b/manifests/v1"), RequestError::Name(_)));
    assert!(matches!(error("/v2/a/manifests/.bad"), RequestError::Tag(_)));
    assert!(matches!(error("/v2/a/manifests/sha256:xyz"), RequestError::Digest(_)));
    assert!(matches!(error("/v2/a/blobs/latest"), RequestError::Digest(_)));
    let mut none = Routes::default();
    none.add(&Registry::new("r"), [], false);
    assert!(matches!(none.resolve("/v2/a/manifests/v1", None, None), Err(RequestError::NoDefault { .. })));
}

#[test]
fn ports_are_cut_from_hosts() {
    for (host, bare) in
        [("a:1", "a"), ("a", "a"), ("[::1]:5000", "[::1]"), ("[::1]", "[::1]"), ("::1", "::1"), ("a:b", "a:b")]
    {
        assert_eq!(without_port(host), bare, "{host}");
    }
}

#[test]
fn uploads_begin_with_and_without_the_final_slash() {
    let target = |path: &str| routes().resolve(path, None, None).map(|resolved| resolved.target);
    let repository = Repository { registry: Registry::new("myacr.azurecr.io"), name: "a/b".parse().unwrap() };
    for path in
        ["/v2/a/b/blobs/uploads/", "/v2/a/b/blobs/uploads", "/v2/acr/a/b/blobs/uploads/", "/acr/v2/a/b/blobs/uploads"]
    {
        assert_eq!(target(path), Ok(Target::Uploads(repository.clone())), "{path}");
    }
    let session = target("/v2/a/b/blobs/uploads/x-Y_1").unwrap();
    assert_eq!(session, Target::Upload(repository, "x-Y_1".to_owned()));
    assert_eq!(target("/v2/blobs/uploads/x"), Err(RequestError::NoRoute), "no repository");
}

#[test]
fn acrs_own_api_is_named_in_every_way() {
    let target = |path: &str, query: Option<&str>, host: Option<&str>| {
        routes().resolve(path, query, host).map(|resolved| (resolved.target, resolved.naming.acr_path("x")))
    };
    let of = |registry: &str| Repository { registry: Registry::new(registry), name: "a/b".parse().unwrap() };
    let tags = |registry| Target::Acr(AcrResource::Tags(of(registry)));
    for (path, query, host, registry, found) in [
        ("/acr/v1/a/b/_tags", None, None, "myacr.azurecr.io", "/acr/v1/x"),
        ("/acr/v1/other/a/b/_tags", None, None, "other.azurecr.io", "/acr/v1/other/x"),
        ("/other/acr/v1/a/b/_tags", None, None, "other.azurecr.io", "/other/acr/v1/x"),
        ("/acr/acr/v1/a/b/_tags", None, None, "myacr.azurecr.io", "/acr/acr/v1/x"),
        ("/acr/v1/a/b/_tags", Some("ns=other.azurecr.io"), None, "other.azurecr.io", "/acr/v1/x"),
        ("/acr/v1/a/b/_tags", None, Some("other.azurecr.io"), "other.azurecr.io", "/acr/v1/x"),
    ] {
        assert_eq!(target(path, query, host), Ok((tags(registry), found.to_owned())), "{path}");
    }
    let digest: crate::oci::Digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
    let mine = of("myacr.azurecr.io");
    for (tail, resource) in [
        ("_catalog".to_owned(), AcrResource::Catalogue(mine.registry.clone())),
        ("a/b".to_owned(), AcrResource::Repository(mine.clone())),
        ("a/b/_tags/v1".to_owned(), AcrResource::Tag(mine.clone(), "v1".parse().unwrap())),
        ("a/b/_manifests".to_owned(), AcrResource::Manifests(mine.clone())),
        (format!("a/b/_manifests/{digest}"), AcrResource::Manifest(mine.clone(), digest)),
    ] {
        assert_eq!(target(&format!("/acr/v1/{tail}"), None, None).unwrap().0, Target::Acr(resource), "{tail}");
    }
    for path in ["/acr/v1", "/acr/v1/a/_other", "/acr/v1/a/_tags/v1/x/_y", "/acr/v1/a/_catalog"] {
        assert!(target(path, None, None).is_err(), "{path}");
    }
}

#[test]
fn each_method_needs_its_right() {
    let right = |path: &str, method: Method| routes().resolve(path, None, None).unwrap().target.right(&method);
    assert_eq!(right("/v2/a/manifests/v1", Method::HEAD), Right::Pull);
    assert_eq!(right("/v2/a/manifests/v1", Method::PUT), Right::Push);
    assert_eq!(right("/v2/a/manifests/v1", Method::DELETE), Right::Delete);
    assert_eq!(right("/v2/a/blobs/uploads/", Method::POST), Right::Push);
    assert_eq!(right("/v2/a/blobs/uploads/x", Method::GET), Right::Push);
    assert_eq!(
        right("/v2/a/blobs/uploads/x", Method::DELETE),
        Right::Push,
        "one's own upload is ended, nothing is deleted"
    );
    assert_eq!(right("/acr/v1/a", Method::GET), Right::Pull);
    assert_eq!(right("/acr/v1/a", Method::PATCH), Right::Push);
    assert_eq!(right("/acr/v1/a/_tags/v1", Method::DELETE), Right::Delete);
}

proptest::proptest! {
    #[test]
    fn no_path_makes_it_panic(path in ".{0,80}", query in ".{0,40}") {
        let _ = routes().resolve(&path, Some(&query), Some(&query));
        let _ = routes().resolve(&format!("/v2/{path}"), None, None);
    }
}

/// What each pair of ways of naming comes to, as `docs/naming.md` has it: one says the default upstream, the other the same or
/// another one, by name or by alias.
#[test]
fn every_two_ways_of_naming_have_one_outcome() {
    const MINE: [&str; 2] = ["myacr.azurecr.io", "acr"];
    const OTHERS: [&str; 2] = ["other.azurecr.io", "other"];
    let resolve = |prefix: &str, component: &str, ns: &str, host: &str| {
        let part = |part: &str| if part.is_empty() { String::new() } else { format!("/{part}") };
        let path = format!("{}/v2{}/a/b/manifests/v1", part(prefix), part(component));
        let query = (!ns.is_empty()).then(|| format!("ns={ns}"));
        let resolved = routes().resolve(&path, query.as_deref(), (!host.is_empty()).then_some(host));
        resolved.map(|resolved| resolved.target.repository().unwrap().to_string())
    };
    let is = |outcome: Result<String, RequestError>, expected: &str, what: &str| {
        let outcome = outcome.unwrap_or_else(|error| {
            let is_404 = matches!(error, RequestError::UnknownUpstream { .. } | RequestError::TwoUpstreams { .. });
            assert!(is_404, "{what}: {error}");
            "404".to_owned()
        });
        assert_eq!(outcome, expected, "{what}");
    };
    let mine = "myacr.azurecr.io/a/b";
    for first in MINE {
        // Each alone.
        is(resolve("", "", first, ""), mine, first);
        is(resolve(first, "", "", ""), mine, first);
        is(resolve("", first, "", ""), mine, first);
        for second in MINE {
            is(resolve(second, "", first, ""), mine, "ns, and the same before /v2");
            is(resolve("", second, first, ""), mine, "ns, and the same behind /v2");
            is(resolve(first, second, "", ""), &format!("myacr.azurecr.io/{second}/a/b"), "before and behind /v2");
            is(resolve("", second, "", MINE[0]), mine, "Host, and the same behind /v2");
            is(resolve(second, "", "", MINE[0]), mine, "Host, and the same before /v2");
            is(resolve("", second, first, OTHERS[0]), mine, "ns wins over Host");
        }
        for second in OTHERS {
            is(resolve(second, "", first, ""), "404", "ns, and another before /v2");
            is(resolve("", second, first, ""), &format!("myacr.azurecr.io/{second}/a/b"), "ns, and another behind /v2");
            is(resolve(first, second, "", ""), &format!("myacr.azurecr.io/{second}/a/b"), "before, another behind /v2");
            is(resolve("", second, "", MINE[0]), &format!("myacr.azurecr.io/{second}/a/b"), "Host, another behind /v2");
            is(resolve(second, "", "", MINE[0]), "404", "Host, and another before /v2");
        }
        is(resolve("", "", first, OTHERS[0]), mine, "ns wins over Host");
    }
    for second in OTHERS {
        is(resolve("", second, "", ""), "other.azurecr.io/a/b", "a name behind /v2 wins over the default upstream");
        is(
            resolve("", "", "", second),
            if second == "other" { mine } else { "other.azurecr.io/a/b" },
            "no alias as Host",
        );
    }
    is(resolve("", "unknown", "", "unknown"), "myacr.azurecr.io/unknown/a/b", "what names no upstream is none");
    is(resolve("unknown", "", "", ""), "404", "but before /v2 nothing else can stand");
    is(resolve("", "", "unknown", ""), "404", "nor in ns");
}

#[test]
fn docker_hubs_official_images_are_found_without_library_in_every_way_of_naming() {
    let mut routes = Routes::default();
    routes.add(&Registry::new("docker.io"), ["hub"], true);
    routes.add(&Registry::new("myacr.azurecr.io"), ["acr"], false);
    let resolve = |url: &str, host: Option<&str>| {
        let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
        let resolved = routes.resolve(path, query, host).unwrap();
        let repository = resolved.target.repository().unwrap().clone();
        let named = (resolved.naming.name(&repository.name), resolved.naming.path(&format!("{}/x", repository.name)));
        (repository.to_string(), named.0, named.1)
    };
    for (url, host, name, path) in [
        ("/v2/alpine/manifests/v1", None, "alpine", "/v2/alpine/x"),
        ("/v2/library/alpine/manifests/v1", None, "library/alpine", "/v2/library/alpine/x"),
        ("/v2/docker.io/alpine/manifests/v1", None, "docker.io/alpine", "/v2/docker.io/alpine/x"),
        ("/v2/index.docker.io/alpine/manifests/v1", None, "index.docker.io/alpine", "/v2/index.docker.io/alpine/x"),
        ("/v2/hub/alpine/tags/list", None, "hub/alpine", "/v2/hub/alpine/x"),
        ("/v2/alpine/manifests/v1?ns=docker.io", None, "alpine", "/v2/alpine/x"),
        ("/v2/library/alpine/manifests/v1?ns=docker.io", None, "library/alpine", "/v2/library/alpine/x"),
        ("/v2/alpine/manifests/v1?ns=registry-1.docker.io", None, "alpine", "/v2/alpine/x"),
        ("/docker.io/v2/alpine/manifests/v1", None, "alpine", "/docker.io/v2/alpine/x"),
        ("/v2/alpine/manifests/v1", Some("registry-1.docker.io"), "alpine", "/v2/alpine/x"),
        ("/v2/alpine/manifests/v1", Some("index.docker.io:443"), "alpine", "/v2/alpine/x"),
    ] {
        let expected = ("docker.io/library/alpine".to_owned(), name.to_owned(), path.to_owned());
        assert_eq!(resolve(url, host), expected, "{url} {host:?}");
    }
    assert_eq!(resolve("/v2/grafana/grafana/tags/list", None).0, "docker.io/grafana/grafana");
    assert_eq!(
        resolve("/v2/acr/alpine/tags/list", None).0,
        "myacr.azurecr.io/alpine",
        "other upstreams have no library"
    );
    assert_eq!(resolve("/v2/library/tags/list", None).0, "docker.io/library/library");
}
