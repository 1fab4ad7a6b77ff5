//! Holds the simulator to the evidence: literal headers and bodies of the real service, as recorded or documented. Each test
//! names the section of the notes on ACR's wire format that it follows. Requests go over plain sockets, so that what is
//! compared is what is on the wire.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "every function here is a test's")]

use crate::harness::simulator;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde_json::Value;
use simulator::{
    Answers, Damage, DamageKind, Fault, FaultAnswer, Limits, Listener, MAX_MANIFEST, Mount, NULL_GUID, OCI_ARTIFACT,
    OCI_INDEX, OCI_MANIFEST, Options, PathClass, Redirect, Replication, Simulator, User, samples,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const UNKNOWN: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
const MESSAGE: &str = "authentication required, visit https://aka.ms/acr/authorization for more information.";

/// An answer as it came.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// Without `Date`.
    lines: Vec<String>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    fn all(&self, name: &str) -> Vec<&str> {
        let pairs = self.lines.iter().filter_map(|line| line.split_once(": "));
        pairs.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Sends one request and reads until the server closes.
async fn ask(host: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> std::io::Result<Answer> {
    let mut all: Vec<(&str, &str)> = headers.to_vec();
    all.push(("Connection", "close"));
    let mut stream = send(host, method, target, &all, body).await?;
    let mut raw = Vec::new();
    let ended = stream.read_to_end(&mut raw).await;
    if raw.is_empty() {
        ended?;
    }
    Ok(parse(&raw))
}

async fn send(
    host: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(host).await?;
    let length = body.len().to_string();
    let form = [("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", length.as_str())];
    let typed = headers.iter().any(|(name, _)| *name == "Content-Type");
    let form = if body.is_empty() { &[][..] } else { &form[usize::from(typed)..] };
    let lines = headers.iter().chain(form).map(|(name, value)| format!("{name}: {value}\r\n"));
    let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{}\r\n", lines.collect::<String>());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    Ok(stream)
}

fn parse(raw: &[u8]) -> Answer {
    let end = raw.windows(4).position(|w| w == b"\r\n\r\n").expect("a complete head");
    let head = std::str::from_utf8(&raw[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let lines = lines.filter(|line| !line.to_lowercase().starts_with("date:")).map(str::to_owned).collect();
    Answer { status, lines, body: raw[end + 4..].to_vec() }
}

async fn get(registry: &Simulator, target: &str) -> Answer {
    ask(&registry.host(), "GET", target, &[], "").await.unwrap()
}

async fn get_as(registry: &Simulator, token: &str, target: &str) -> Answer {
    call_as(registry, token, "GET", target).await
}

async fn call_as(registry: &Simulator, token: &str, method: &str, target: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Accept", OCI_MANIFEST), ("Accept", OCI_INDEX)];
    ask(&registry.host(), method, target, &headers, "").await.unwrap()
}

/// A request with a body of this type, as the bearer of a token.
async fn write_as(registry: &Simulator, token: &str, call: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers: Vec<(&str, &str)> = [("Authorization", bearer.as_str())].iter().chain(headers).copied().collect();
    let (method, target) = call.split_once(' ').unwrap();
    ask(&registry.host(), method, target, &headers, body).await.unwrap()
}

/// Begins an upload and returns its location.
async fn begin(registry: &Simulator, token: &str, repository: &str) -> String {
    let begun = write_as(registry, token, &format!("POST /v2/{repository}/blobs/uploads/"), &[], "").await;
    assert_eq!(begun.status, 202, "{begun:?}");
    begun.header("location").unwrap().to_owned()
}

async fn put_manifest(registry: &Simulator, token: &str, target: &str, media_type: &str, body: &str) -> Answer {
    write_as(registry, token, &format!("PUT {target}"), &[("Content-Type", media_type)], body).await
}

fn errors(error: &str) -> String {
    format!("{{\"errors\":[{error}]}}\n")
}

const WRITES: &str = "repository:n:pull,push,delete,metadata_read,metadata_write";
const OCTETS: [(&str, &str); 1] = [("Content-Type", "application/octet-stream")];
/// Of `hello`.
const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
const HELLO_512: &str = "sha512:9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca72323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043";

async fn post(registry: &Simulator, target: &str, form: &str) -> Answer {
    ask(&registry.host(), "POST", target, &[], form).await.unwrap()
}

/// The admin's token for a scope.
async fn token(registry: &Simulator, scope: &str) -> String {
    let form = format!("grant_type=password&service=r&scope={scope}&username=admin&password=pw");
    access_token(&post(registry, "/oauth2/token", &form).await)
}

fn access_token(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

async fn private() -> Simulator {
    Simulator::start(Options::private("admin", "pw")).await
}

fn claims(token: &str) -> Value {
    part(token, 1)
}

fn part(token: &str, index: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap()).unwrap()
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// Compares header lines as a multiset, the correlation id aside.
fn assert_lines(answer: &Answer, expected: &str) {
    let normal = |line: &str| match line.split_once(": ") {
        Some(("X-Ms-Correlation-Request-Id", _)) => "X-Ms-Correlation-Request-Id: GUID".to_owned(),
        _ => line.to_owned(),
    };
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    let has = sorted(answer.lines.iter().map(|line| normal(line)).collect());
    let wants = sorted(expected.trim().lines().map(|line| normal(line.trim())).collect());
    assert_eq!(has, wants);
}

#[tokio::test]
async fn section_1_1_the_challenge() {
    let registry = private().await;
    let host = registry.host();
    let mut stream = send(&host, "GET", "/v2/", &[], "").await.unwrap();
    let mut raw = vec![0; 4096];
    let mut read = 0;
    while !raw[..read].ends_with(b"}]}\n") {
        read += stream.read(&mut raw[read..]).await.unwrap();
    }
    let answer = parse(&raw[..read]);
    assert_eq!(answer.status, 401);
    assert_lines(
        &answer,
        &format!(
            "Server: openresty
            Content-Type: application/json; charset=utf-8
            Content-Length: 149
            Connection: keep-alive
            Access-Control-Expose-Headers: Docker-Content-Digest
            Access-Control-Expose-Headers: WWW-Authenticate
            Access-Control-Expose-Headers: Link
            Access-Control-Expose-Headers: X-Ms-Correlation-Request-Id
            Docker-Distribution-Api-Version: registry/2.0
            Strict-Transport-Security: max-age=31536000; includeSubDomains
            Strict-Transport-Security: max-age=31536000; includeSubDomains
            Www-Authenticate: Bearer realm=\"http://{host}/oauth2/token\",service=\"{host}\"
            X-Content-Type-Options: nosniff
            X-Ms-Correlation-Request-Id: 00000000-aaaa-bbbb-cccc-000000000000"
        ),
    );
    assert_eq!(
        answer.text(),
        format!("{{\"errors\":[{{\"code\":\"UNAUTHORIZED\",\"message\":\"{MESSAGE}\",\"detail\":null}}]}}\n")
    );
}

#[tokio::test]
async fn section_1_1_scoped_challenges() {
    let registry = private().await;
    let blob = format!("/v2/a/b/blobs/{UNKNOWN}");
    let mount = format!("/v2/a/b/blobs/uploads/?mount={UNKNOWN}&from=c");
    let cases = [
        ("GET", "/v2/a/b/manifests/v1", "repository:a/b:pull"),
        ("HEAD", "/v2/a/b/manifests/v1", "repository:a/b:pull"),
        ("GET", blob.as_str(), "repository:a/b:pull"),
        ("HEAD", blob.as_str(), "repository:a/b:pull"),
        ("POST", "/v2/a/b/blobs/uploads/", "repository:a/b:pull,push"),
        ("PUT", "/v2/a/b/manifests/v1", "repository:a/b:pull,push"),
        ("DELETE", blob.as_str(), "repository:a/b:delete"),
        ("POST", mount.as_str(), "repository:a/b:pull,push repository:c:pull"),
        ("GET", "/acr/v1/a%2Fb/_tags", "repository:a/b:metadata_read"),
        ("PATCH", "/acr/v1/a%2Fb", "repository:a/b:metadata_write"),
        ("GET", "/v2/_catalog", "registry:catalog:*"),
        ("GET", "/acr/v1/_catalog", "registry:catalog:*"),
    ];
    for (method, target, scope) in cases {
        let answer = ask(&registry.host(), method, target, &[], "").await.unwrap();
        let host = registry.host();
        let challenge = format!("Bearer realm=\"http://{host}/oauth2/token\",service=\"{host}\",scope=\"{scope}\"");
        assert_eq!(
            (answer.status, answer.all("www-authenticate")),
            (401, vec![challenge.as_str()]),
            "{method} {target}"
        );
    }
}

#[tokio::test]
async fn section_1_1_a_head_keeps_the_length_and_a_detail_names_each_action() {
    let registry = private().await;
    let got = ask(&registry.host(), "POST", "/v2/n/blobs/uploads/", &[], "").await.unwrap();
    let entry = |action| format!("{{\"Type\":\"repository\",\"Name\":\"n\",\"Action\":\"{action}\"}}");
    let detail = format!("\"detail\":[{},{}]}}]}}\n", entry("pull"), entry("push"));
    assert!(got.text().ends_with(&detail), "{}", got.text());

    let got = get(&registry, "/v2/n/manifests/v1").await;
    let head = ask(&registry.host(), "HEAD", "/v2/n/manifests/v1", &[], "").await.unwrap();
    assert_eq!(head.header("content-length"), Some(got.body.len().to_string().as_str()));
    assert!(head.body.is_empty());
}

#[tokio::test]
async fn section_1_1_insufficient_scope_is_a_401() {
    let registry = Simulator::start(Options::public()).await;
    let anonymous = access_token(
        &post(&registry, "/oauth2/token", "grant_type=password&service=r&scope=repository:n:delete").await,
    );
    let answer = call_as(&registry, &anonymous, "DELETE", &format!("/v2/n/manifests/{UNKNOWN}")).await;
    let host = registry.host();
    assert_eq!(answer.status, 401);
    assert_eq!(
        answer.header("www-authenticate").unwrap(),
        format!(
            "Bearer realm=\"http://{host}/oauth2/token\",service=\"{host}\",scope=\"repository:n:delete\",error=\"insufficient_scope\""
        )
    );
    assert_eq!(
        answer.text(),
        format!(
            "{{\"errors\":[{{\"code\":\"UNAUTHORIZED\",\"message\":\"{MESSAGE}\",\
             \"detail\":[{{\"Type\":\"repository\",\"Name\":\"n\",\"Action\":\"delete\"}}]}}]}}\n"
        )
    );
    let garbage = get_as(&registry, "garbage", "/v2/").await;
    assert!(garbage.header("www-authenticate").unwrap().ends_with(",error=\"invalid_token\""));
}

#[tokio::test]
async fn section_1_1_order_of_checks() {
    let registry = private().await;
    for target in ["/v2/Upper/manifests/v1", "/v2/n/blobs/sha256:short", "/v2/n/nothing", "/"] {
        let answer = get(&registry, target).await;
        assert_eq!((answer.status, answer.text()), (404, "404 page not found\n"), "{target}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.header("content-length"), Some("19"));
    }
    registry.knobs().turn(|k| k.firewall = true);
    assert_eq!(get(&registry, "/v2/Upper/manifests/v1").await.status, 404);
    assert_eq!(get(&registry, "/v2/n/manifests/v1").await.status, 403);
    registry.knobs().reset();
    registry.push_blob("known", "x");
    let unknown = get(&registry, "/v2/absent/manifests/v1").await;
    let known = get(&registry, "/v2/known/manifests/v1").await;
    assert_eq!((unknown.status, known.status), (401, 401));
}

/// The notes on identities, section 4: what the token endpoint and a machine's metadata service answer and refuse.
#[tokio::test]
async fn identities_section_4() {
    use simulator::entra::{Application, AssignedIdentity, Entra};
    let entra = Entra::start().await;
    entra.turn(|k| {
        k.applications = vec![Application::with_secret("app", "s")];
        k.identities = vec![AssignedIdentity { client_id: "mi".into(), system: true, ..AssignedIdentity::default() }];
    });
    let host = entra.url().strip_prefix("http://").unwrap().to_owned();
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let body = "grant_type=client_credentials&client_id=app&client_secret=s&scope=https%3A%2F%2Fcontainerregistry.azure.net%2F.default";
    let good = ask(&host, "POST", "/contoso/oauth2/v2.0/token", &form, body).await.unwrap().json();
    assert_eq!(
        (&good["token_type"], &good["expires_in"], &good["ext_expires_in"]),
        (&"Bearer".into(), &3599.into(), &3599.into())
    );
    let bad = ask(&host, "POST", "/contoso/oauth2/v2.0/token", &form, &body.replace("=s&", "=x&")).await.unwrap();
    assert_eq!(
        (bad.status, &bad.json()["error"], &bad.json()["error_codes"][0]),
        (401, &"invalid_client".into(), &7_000_215.into())
    );
    assert!(bad.json()["error_description"].as_str().unwrap().starts_with("AADSTS7000215: "));

    let target =
        "/metadata/identity/oauth2/token?api-version=2019-08-01&resource=https%3A%2F%2Fcontainerregistry.azure.net";
    let metadata = [("Metadata", "true")];
    let good = ask(&host, "GET", target, &metadata, "").await.unwrap().json();
    assert!(good["expires_on"].as_str().unwrap().parse::<u64>().is_ok() && good["token_type"] == "Bearer");
    for (target, headers) in [
        (target.to_owned(), &[][..]),
        (target.to_owned(), &[("Metadata", "false")]),
        (target.replace("api-version=2019-08-01&", ""), &metadata),
        (target.replace("containerregistry", "storage"), &metadata),
        (target.replace("resource=", "scope="), &metadata),
        (format!("{target}&client_id=other"), &metadata),
    ] {
        let answer = ask(&host, "GET", &target, headers, "").await.unwrap();
        assert_eq!(answer.status, 400, "{target} {headers:?}");
    }
}

#[tokio::test]
async fn section_1_2_exchange() {
    let options = Options { aad_tokens: vec!["aad".into()], ..Options::default() };
    let registry = Simulator::start(options).await;
    let good = post(&registry, "/oauth2/exchange", "grant_type=access_token&service=r&tenant=t&access_token=aad").await;
    assert_eq!(good.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(good.all("strict-transport-security").len(), 1, "once on /oauth2");
    assert!(good.header("x-ms-ratelimit-remaining-calls-per-second").unwrap().starts_with("166."));
    let keys: Vec<String> = good.json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["refresh_token"]);

    let bad = post(&registry, "/oauth2/exchange", "grant_type=access_token&service=r&access_token=other").await;
    assert_eq!((bad.status, bad.header("content-length"), bad.header("www-authenticate")), (401, Some("0"), None));
    assert_eq!(get(&registry, "/oauth2/exchange").await.status, 404);

    let refresh = good.json()["refresh_token"].as_str().unwrap().to_owned();
    let legacy = "grant_type=access_token_refresh_token&access_token=aad&refresh_token=aad";
    assert_eq!(post(&registry, "/oauth2/exchange", legacy).await.status, 200);
    let claims = claims(&refresh);
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["nbf"].as_u64().unwrap(), 11_700);
    assert_eq!(claims["iss"], "Azure Container Registry");
    assert_eq!((&claims["aud"], &claims["grant_type"]), (&Value::from(registry.host()), &Value::from("refresh_token")));
    assert_eq!((&claims["version"], claims["permissions"]["NotActions"].is_null()), (&Value::from("1.0"), true));

    let form = format!("grant_type=refresh_token&service=r&scope=repository:n:pull&refresh_token={refresh}");
    let access = access_token(&post(&registry, "/oauth2/token", &form).await);
    assert_eq!(get_as(&registry, &access, "/v2/n/manifests/v1").await.status, 404, "authorised, and not there");
}

#[tokio::test]
async fn section_1_3_token_forms() {
    let registry = private().await;
    let form =
        "grant_type=password&service=r&scope=repository:a:pull+repository:b:pull,push&username=admin&password=pw";
    let answer = post(&registry, "/oauth2/token?api-version=2021-07-01", form).await;
    let keys: Vec<String> = answer.json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["access_token"]);
    let access = &claims(&access_token(&answer))["access"];
    assert_eq!(
        access.to_string(),
        r#"[{"Actions":["pull"],"Name":"a","Type":"repository"},{"Actions":["pull","push"],"Name":"b","Type":"repository"}]"#
    );

    let basic = |user: &str, password: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    let target = "/oauth2/token?service=r&scope=repository:a:pull&scope=repository:b:pull";
    let mut statuses = Vec::new();
    for credential in [basic("admin", "pw"), basic("admin", "wrong"), basic("admin\n", "pw")] {
        statuses.push(ask(&registry.host(), "GET", target, &[("Authorization", &credential)], "").await.unwrap());
    }
    assert_eq!(statuses.iter().map(|a| a.status).collect::<Vec<_>>(), [200, 401, 500]);
    assert_eq!(claims(&access_token(&statuses[0]))["access"].as_array().unwrap().len(), 2);
    assert_eq!(statuses[1].header("content-length"), Some("0"));

    let stale = post(&registry, "/oauth2/token", "grant_type=refresh_token&service=r&refresh_token=no").await;
    assert_eq!((stale.status, stale.body.len()), (401, 0));
}

#[tokio::test]
async fn section_1_3_the_token_endpoint_never_refuses_a_scope() {
    let user = User::scope_map("robot", "pw", &[("samples/*", &["content/read", "metadata/read"])]);
    let registry = Simulator::start(Options::default().user(user)).await;
    let form = "grant_type=password&service=r&scope=repository:samples/x:pull,push+repository:other:pull+registry:catalog:*\
                &username=robot&password=pw";
    let token = access_token(&post(&registry, "/oauth2/token", form).await);
    let access = claims(&token)["access"].to_string();
    assert_eq!(access, r#"[{"Actions":["pull"],"Name":"samples/x","Type":"repository"}]"#);
    let refused = get_as(&registry, &token, "/v2/other/manifests/v1").await;
    assert!(refused.header("www-authenticate").unwrap().ends_with("error=\"insufficient_scope\""));
}

#[tokio::test]
async fn section_1_4_lifetimes_and_the_clock_knob() {
    let mut options = Options::private("admin", "pw");
    options.anonymous = true;
    let registry = Simulator::start(options).await;
    let admin = token(&registry, "repository:n:pull").await;
    let header = part(&admin, 0);
    assert_eq!((&header["alg"], &header["typ"]), (&Value::from("RS256"), &Value::from("JWT")));
    let groups: Vec<&str> = header["kid"].as_str().unwrap().split(':').collect();
    assert!(groups.len() == 12 && groups.iter().all(|g| g.len() == 4), "{header}");
    let admin = claims(&admin);
    assert_eq!(admin["exp"].as_u64().unwrap() - admin["nbf"].as_u64().unwrap(), 4500);
    assert_eq!(admin["iat"], admin["nbf"]);
    assert!(now().abs_diff(admin["nbf"].as_u64().unwrap()).abs_diff(900) <= 2, "back-dated by 15 minutes");

    let form = "grant_type=password&service=r&scope=repository:n:delete";
    let first = access_token(&post(&registry, "/oauth2/token", form).await);
    let anonymous = claims(&first);
    assert_eq!(anonymous["exp"].as_u64().unwrap() - anonymous["nbf"].as_u64().unwrap(), 1200);
    assert_eq!(anonymous["sub"], "acr_anon_pull");
    assert_eq!(anonymous["access"].to_string(), r#"[{"Actions":["pull"],"Name":"*","Type":"repository"}]"#);
    let second = access_token(&post(&registry, "/oauth2/token", form).await);
    assert_eq!(claims(&second)["jti"], anonymous["jti"], "shared for seconds");

    registry.knobs().turn(|k| k.access_life_s = 1);
    let short = token(&registry, "repository:n:pull").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let expired = get_as(&registry, &short, "/v2/n/manifests/v1").await;
    assert!(expired.header("www-authenticate").unwrap().ends_with("error=\"invalid_token\""));
}

#[tokio::test]
async fn section_1_5_where_basic_is_welcome() {
    let options = Options::private("admin", "pw")
        .user(User::service_principal("app-id", "secret"))
        .user(User::scope_map("robot", "pw", &[("*", &["content/read"])]));
    let registry = Simulator::start(Options { refresh_tokens: vec!["refresh".into()], ..options }).await;
    let mut answers = Vec::new();
    for (user, password) in
        [("admin", "pw"), ("app-id", "secret"), ("admin", "wrong"), ("robot", "pw"), (NULL_GUID, "refresh")]
    {
        let credential = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        answers.push(ask(&registry.host(), "GET", "/v2/", &[("Authorization", &credential)], "").await.unwrap());
    }
    assert_eq!(answers.iter().map(|a| a.status).collect::<Vec<_>>(), [200, 200, 401, 401, 401]);
    assert_eq!(answers[0].text(), "{}");
    assert_eq!(answers[3].all("www-authenticate"), ["Basic realm=\"Azure Container Registry\""]);
    assert!(answers[4].header("www-authenticate").unwrap().starts_with("Bearer realm="));
    let violations = registry.violations();
    assert_eq!(violations.len(), 2, "{violations:?}");
    assert!(violations[0].contains("scope-map token robot") && violations[1].contains(NULL_GUID));

    let credential = format!("Basic {}", STANDARD.encode(format!("{NULL_GUID}:refresh")));
    let target = "/oauth2/token?service=r&scope=repository:n:pull";
    let answer = ask(&registry.host(), "GET", target, &[("Authorization", &credential)], "").await.unwrap();
    assert_eq!(answer.status, 200, "there it is welcome");
}

#[tokio::test]
async fn section_2_1_the_redirect() {
    let registry = private().await;
    let digest = registry.push_blob("a/b", "content");
    let hex = digest.strip_prefix("sha256:").unwrap();
    let bearer = token(&registry, "repository:a/b:pull").await;
    let answer = get_as(&registry, &bearer, &format!("/v2/a/b/blobs/{}", digest.replace(':', "%3A"))).await;
    assert_eq!(answer.status, 307);
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
    assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"));
    assert_eq!(answer.all("strict-transport-security").len(), 2);
    assert_eq!(answer.header("cache-control"), None);
    let location = answer.header("location").unwrap();
    let html = format!("<a href=\"{}\">Temporary Redirect</a>.\n\n", location.replace('&', "&amp;"));
    assert_eq!(answer.text(), html);
    assert_eq!(answer.header("content-length"), Some(html.len().to_string().as_str()));

    let rest = location.strip_prefix(&format!("http://{}/", registry.storage_host())).unwrap();
    let (path, query) = rest.split_once('?').unwrap();
    let (container, path) = path.split_once("//").expect("a literal double slash");
    let (id, ten) = container.split_once('-').unwrap();
    assert_eq!((id.len(), ten.len()), (32, 10));
    assert_eq!(path, format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]));
    let names: Vec<&str> = query.split('&').map(|pair| pair.split('=').next().unwrap()).collect();
    assert_eq!(names, ["se", "sig", "sp", "spr", "sr", "sv", "regid"]);
    assert!(query.ends_with(&format!("&sp=r&spr=https&sr=b&sv=2016-05-31&regid={id}")));
    let se = query.strip_prefix("se=").unwrap().split('&').next().unwrap();
    assert!(se.len() == 24 && se.matches("%3A").count() == 2 && se.ends_with('Z'), "{se}");
}

#[tokio::test]
async fn section_2_1_a_data_endpoint_hides_its_expiry() {
    let registry = Simulator::start(Options::private("admin", "pw").redirect(Redirect::DataEndpoint)).await;
    let digest = registry.push_blob("a/b", "content");
    let bearer = token(&registry, "repository:a/b:pull").await;
    let answer = get_as(&registry, &bearer, &format!("/v2/a/b/blobs/{digest}")).await;
    let target =
        answer.header("location").unwrap().strip_prefix(&format!("http://{}", registry.storage_host())).unwrap();
    let query = target.strip_prefix("/?").unwrap();
    let names: Vec<&str> = query.split('&').map(|pair| pair.split('=').next().unwrap()).collect();
    assert_eq!(names, ["t", "h", "c", "r", "d", "p", "s", "v", "l"]);
    assert!(query.contains(&format!("&r=a/b&d={digest}&p=")) && query.ends_with("&v=1&l=false"));
    let ticket = query.strip_prefix("t=").unwrap().split('&').next().unwrap();
    assert!(ticket.len() == 40 && ticket.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)));
    let body = ask(&registry.storage_host(), "GET", target, &[], "").await.unwrap();
    assert_eq!((body.status, body.text()), (200, "content"));
    let altered = ask(&registry.storage_host(), "GET", &target.replace("sha256:", "sha256%3A"), &[], "").await.unwrap();
    assert_eq!(altered.status, 403);
}

/// Path and query at storage of a blob's signed URL.
async fn signed(registry: &Simulator, repository: &str, digest: &str) -> String {
    let bearer = token(registry, &format!("repository:{repository}:pull")).await;
    let answer = get_as(registry, &bearer, &format!("/v2/{repository}/blobs/{digest}")).await;
    let location = answer.header("location").unwrap();
    location.strip_prefix(&format!("http://{}", registry.storage_host())).unwrap().to_owned()
}

#[tokio::test]
async fn section_2_1_storage_answers() {
    let registry = private().await;
    let content: Vec<u8> = (0..1024_u32).map(|n| n.to_le_bytes()[0]).collect();
    let digest = registry.push_blob("n", content.clone());
    let target = signed(&registry, "n", &digest).await;
    let storage = registry.storage_host();
    let whole = ask(&storage, "GET", &target, &[], "").await.unwrap();
    assert_eq!((whole.status, &whole.body), (200, &content));
    let part = ask(&storage, "GET", &target, &[("Range", "bytes=256-511")], "").await.unwrap();
    assert_eq!((part.status, part.header("content-range")), (206, Some("bytes 256-511/1024")));
    assert_eq!(part.body, content[256..512]);
    for answer in [&whole, &part] {
        assert_eq!(answer.header("accept-ranges"), Some("bytes"));
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        assert_eq!(answer.header("server"), Some("Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0"));
        assert_eq!(answer.header("x-ms-blob-type"), Some("AppendBlob"));
        assert!(answer.header("etag").unwrap().starts_with("\"0x8"));
        assert!(answer.header("last-modified").unwrap().ends_with(" GMT"));
        assert_eq!(answer.header("docker-content-digest"), None);
    }
    let clamped = ask(&storage, "GET", &target, &[("Range", "bytes=1000-5000")], "").await.unwrap();
    assert_eq!(clamped.header("content-range"), Some("bytes 1000-1023/1024"));
    let beyond = ask(&storage, "GET", &target, &[("Range", "bytes=1024-")], "").await.unwrap();
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */1024")));
    assert_eq!(registry.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn section_2_1_storage_refuses_credentials_and_altered_or_expired_urls() {
    let registry = private().await;
    let digest = registry.push_blob("n", "content");
    let target = signed(&registry, "n", &digest).await;
    let storage = registry.storage_host();
    let credential = [("Authorization", "Bearer x")];
    let answer = ask(&storage, "GET", &target, &credential, "").await.unwrap();
    assert_eq!(answer.status, 400);
    assert!(answer.text().starts_with(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>InvalidAuthenticationInfo</Code><Message>Authentication \
         information is not given in the correct format. Check the value of Authorization header.\nRequestId:"
    ));
    assert!(answer.text().ends_with("Z</Message></Error>"));
    for altered in [target.replacen("//docker", "/docker", 1), target.replace("%3A", ":")] {
        assert_eq!(ask(&storage, "GET", &altered, &[], "").await.unwrap().status, 403, "{altered}");
    }
    assert_eq!(registry.violations().len(), 3, "{:?}", registry.violations());

    registry.knobs().turn(|k| k.sas_life_s = 0);
    let expired = signed(&registry, "n", &digest).await;
    let answer = ask(&storage, "GET", &expired, &[], "").await.unwrap();
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("<Code>AuthenticationFailed</Code>"));
    assert_eq!(registry.violations().len(), 3, "coming late is no violation");
}

#[tokio::test]
async fn section_2_1_a_registry_with_its_own_keys_may_answer_directly() {
    let registry = Simulator::start(Options::private("admin", "pw").redirect(Redirect::Direct)).await;
    let digest = registry.push_blob_as("n", "content", "sha512");
    let bearer = format!("Bearer {}", token(&registry, "repository:n:pull").await);
    let target = format!("/v2/n/blobs/{digest}");
    let headers = [("Authorization", bearer.as_str()), ("Range", "bytes=-4")];
    let answer = ask(&registry.host(), "GET", &target, &headers, "").await.unwrap();
    assert_eq!((answer.status, answer.text()), (206, "tent"));
    assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
}

#[tokio::test]
async fn section_2_2_a_blob_head_is_answered_by_the_login_server() {
    let registry = private().await;
    let digest = registry.push_blob("n", "content");
    let bearer = format!("Bearer {}", token(&registry, "repository:n:pull").await);
    let headers = [("Authorization", bearer.as_str()), ("Range", "bytes=0-1")];
    let answer = ask(&registry.host(), "HEAD", &format!("/v2/n/blobs/{digest}"), &headers, "").await.unwrap();
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("7")));
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
    assert_eq!((answer.header("location"), answer.header("accept-ranges")), (None, None));
    let unknown = ask(&registry.host(), "HEAD", &format!("/v2/n/blobs/{UNKNOWN}"), &headers, "").await.unwrap();
    assert_eq!((unknown.status, unknown.body.len()), (404, 0));
}

#[tokio::test]
async fn section_2_3_manifests() {
    let registry = private().await;
    let content = "{ \"schemaVersion\": 2 }";
    let digest = registry.push_manifest("n", Some("v1"), OCI_MANIFEST, content);
    let bearer = token(&registry, "repository:n:pull").await;
    for (method, reference, body) in [("GET", "v1", content), ("GET", digest.as_str(), content), ("HEAD", "v1", "")] {
        let answer = call_as(&registry, &bearer, method, &format!("/v2/n/manifests/{reference}")).await;
        assert_eq!((answer.status, answer.text()), (200, body));
        assert_eq!(answer.header("content-type"), Some(OCI_MANIFEST));
        assert_eq!(answer.header("content-length"), Some("22"));
        assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
        assert_eq!(answer.header("etag"), Some(format!("\"{digest}\"").as_str()));
        assert_eq!(answer.header("cache-control"), None);
        assert!(answer.header("x-ms-request-id").is_some());
    }
    let authorization = format!("Bearer {bearer}");
    let headers =
        [("Authorization", authorization.as_str()), ("Accept", OCI_MANIFEST), ("If-None-Match", digest.as_str())];
    let unchanged = ask(&registry.host(), "GET", "/v2/n/manifests/v1", &headers, "").await.unwrap();
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    registry.knobs().turn(|k| k.not_modified = false);
    assert_eq!(ask(&registry.host(), "GET", "/v2/n/manifests/v1", &headers, "").await.unwrap().status, 200);
}

#[tokio::test]
async fn section_2_3_accept_is_enforced_with_404() {
    let registry = private().await;
    let bearer = format!("Bearer {}", token(&registry, "repository:n:pull").await);
    for (tag, media_type, refusal) in [
        ("manifest", OCI_MANIFEST, "OCI manifest found, but accept header does not support OCI manifests"),
        ("index", OCI_INDEX, "OCI index found, but accept header does not support OCI indexes"),
        ("artifact", OCI_ARTIFACT, "OCI artifact found, but accept header does not support OCI artifacts"),
    ] {
        registry.push_manifest("n", Some(tag), media_type, "{}");
        let target = format!("/v2/n/manifests/{tag}");
        let headers = [("Authorization", bearer.as_str()), ("Accept", "*/*")];
        let answer = ask(&registry.host(), "GET", &target, &headers, "").await.unwrap();
        let body = format!("{{\"errors\":[{{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"{refusal}\"}}]}}\n");
        assert_eq!((answer.status, answer.text()), (404, body.as_str()));
        let accept = format!("text/plain, {media_type};q=0.1");
        let headers = [("Authorization", bearer.as_str()), ("Accept", accept.as_str())];
        assert_eq!(ask(&registry.host(), "GET", &target, &headers, "").await.unwrap().status, 200);
    }
    assert_eq!(registry.violations().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn section_3_1_quotas_by_identity_and_registry() {
    let registry = private().await;
    let bearer = token(&registry, "repository:n:pull").await;
    registry.knobs().turn(|k| k.throttle = Some(Limits { read: (100, 2), oauth: 1, ..Limits::STANDARD }));
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(get_as(&registry, &bearer, "/v2/n/manifests/v1").await.status);
    }
    assert_eq!(statuses, [404, 404, 429]);
    assert_eq!(get(&registry, "/v2/").await.status, 401, "another identity has a quota of its own");
    assert_eq!(get(&registry, "/oauth2/token").await.status, 401);
    assert_eq!(get(&registry, "/oauth2/token").await.status, 429, "the registry has one for all");
    tokio::time::advance(Duration::from_secs(10)).await;
    let later = get_as(&registry, &bearer, "/v2/n/manifests/v1").await;
    assert_eq!((later.status, later.header("retry-after")), (429, Some("50")));
    tokio::time::advance(Duration::from_secs(50)).await;
    assert_eq!(get_as(&registry, &bearer, "/v2/n/manifests/v1").await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn section_3_2_429_counts_down() {
    let registry = private().await;
    registry.knobs().fail(PathClass::Ping, FaultAnswer::throttled(60));
    let first = get(&registry, "/v2/").await;
    assert_eq!((first.status, first.header("retry-after")), (429, Some("60")));
    assert_eq!(
        first.text(),
        "{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"Too many requests. Please visit \
         https://aka.ms/acr/skus#sku-feature-matrix to view limits of all service tiers.\"}]}\n"
    );
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(get(&registry, "/v2/").await.header("retry-after"), Some("50"));
    tokio::time::advance(Duration::from_secs(50)).await;
    assert_eq!(get(&registry, "/v2/").await.status, 401, "over");

    registry.knobs().fail(
        PathClass::Ping,
        FaultAnswer::TooManyRequests { retry_after_s: None, counts_down: false, front_door: true },
    );
    let front_door = get(&registry, "/v2/").await;
    assert!(front_door.text().starts_with("Ref A: ") && front_door.header("retry-after").is_none());
}

#[tokio::test]
async fn section_3_3_error_bodies() {
    let registry = private().await;
    registry.push_manifest("n", Some("v1"), OCI_MANIFEST, "{}");
    let pull = token(&registry, "repository:n:pull").await;
    let metadata = token(&registry, "repository:n:metadata_read+repository:absent:metadata_read").await;
    let cases = [
        (
            &pull,
            "/v2/n/manifests/no".to_owned(),
            r#"{"code":"MANIFEST_UNKNOWN","message":"manifest tagged by \"no\" is not found","detail":{"Tag":"no"}}"#
                .to_owned(),
        ),
        (
            &pull,
            format!("/v2/n/manifests/{UNKNOWN}"),
            format!(
                r#"{{"code":"MANIFEST_UNKNOWN","message":"manifest {UNKNOWN} is not found","detail":{{"Name":"n","Revision":"{UNKNOWN}"}}}}"#
            ),
        ),
        (
            &pull,
            format!("/v2/n/blobs/{UNKNOWN}"),
            format!(r#"{{"code":"BLOB_UNKNOWN","message":"blob unknown to registry","detail":"{UNKNOWN}"}}"#),
        ),
        (
            &metadata,
            "/acr/v1/absent".to_owned(),
            r#"{"code":"NAME_UNKNOWN","message":"repository \"absent\" is not found"}"#.to_owned(),
        ),
        (
            &metadata,
            "/acr/v1/n/_tags/no".to_owned(),
            r#"{"code":"TAG_UNKNOWN","message":"the specified tag does not exist"}"#.to_owned(),
        ),
    ];
    for (token, target, error) in cases {
        let answer = get_as(&registry, token, &target).await;
        assert_eq!((answer.status, answer.text()), (404, format!("{{\"errors\":[{error}]}}\n").as_str()), "{target}");
        assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    }
}

#[tokio::test]
async fn section_3_3_the_firewall_is_on_every_path() {
    let registry = private().await;
    registry.knobs().turn(|k| k.firewall = true);
    let denied = "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"client with IP \\u0027127.0.0.1\\u0027 is not allowed access. \
                  Refer https://aka.ms/acr/firewall to grant access.\"}]}\n";
    for answer in [get(&registry, "/v2/").await, post(&registry, "/oauth2/exchange", "grant_type=access_token").await] {
        assert_eq!((answer.status, answer.text()), (403, denied));
    }
}

#[tokio::test]
async fn section_3_3_outages_and_portals() {
    let registry = private().await;
    let portal = FaultAnswer::Portal { status: 200 };
    let foreign = FaultAnswer::ForeignRedirect { location: "http://portal.invalid/".into() };
    for (fault, status) in [(FaultAnswer::empty(503), 503), (portal, 200), (foreign, 302)] {
        registry.knobs().turn(|k| k.faults.push(simulator::Fault::times(PathClass::Login, fault, 1)));
        let answer = get(&registry, "/v2/").await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("docker-distribution-api-version"), None);
    }
    assert_eq!(get(&registry, "/v2/").await.status, 401, "once each");
}

#[tokio::test]
async fn section_4_3_lists_and_links() {
    let registry = private().await;
    for repository in ["alpine", "busybox", "contoso-marketing", "hello-world", "library/busybox"] {
        registry.push_manifest(repository, Some("v2"), OCI_MANIFEST, "{}");
        registry.push_manifest(repository, Some("v1"), OCI_MANIFEST, "{ }");
    }
    let catalog = token(&registry, "registry:catalog:*").await;
    let page = get_as(&registry, &catalog, "/v2/_catalog?n=2&last=alpine").await;
    assert_eq!(page.text(), "{\"repositories\":[\"busybox\",\"contoso-marketing\"]}\n");
    assert_eq!(page.header("link"), Some("</v2/_catalog?last=contoso-marketing&n=2&orderby=>; rel=\"next\""));
    let page = get_as(&registry, &catalog, "/acr/v1/_catalog?n=1").await;
    assert_eq!(page.header("link"), Some("</acr/v1/_catalog?last=alpine&n=1&orderby=>; rel=\"next\""));
    let last = get_as(&registry, &catalog, "/v2/_catalog?n=2&last=contoso-marketing").await;
    assert_eq!((last.json()["repositories"].as_array().unwrap().len(), last.header("link")), (2, None));

    let metadata =
        token(&registry, "repository:hello-world:metadata_read+repository:library/busybox:metadata_read").await;
    let tags = get_as(&registry, &metadata, "/v2/hello-world/tags/list?n=1").await;
    assert_eq!(tags.text(), "{\"name\":\"hello-world\",\"tags\":[\"v1\"]}\n");
    assert_eq!(tags.header("link"), Some("</v2/hello-world/tags/list?last=v1&n=1&orderby=>; rel=\"next\""));
    let manifests = get_as(&registry, &metadata, "/acr/v1/library%2Fbusybox/_manifests?n=1").await;
    let link = manifests.header("link").unwrap();
    assert!(link.starts_with("</acr/v1/library%2Fbusybox/_manifests?last=sha256%3A"), "{link}");
    assert!(link.ends_with("&n=1&orderby=>; rel=\"next\""), "{link}");
}

#[tokio::test]
async fn section_4_3_n_is_capped_silently() {
    let registry = private().await;
    for number in 0..1001 {
        registry.push_manifest("n", Some(&format!("t{number:04}")), OCI_MANIFEST, "{}");
    }
    let bearer = token(&registry, "repository:n:metadata_read").await;
    let page = get_as(&registry, &bearer, "/v2/n/tags/list?n=5000").await;
    assert_eq!(page.json()["tags"].as_array().unwrap().len(), 1000);
    assert_eq!(page.header("link"), Some("</v2/n/tags/list?last=t0999&n=1000&orderby=>; rel=\"next\""));
    let default = get_as(&registry, &bearer, "/v2/n/tags/list").await;
    assert_eq!(default.json()["tags"].as_array().unwrap().len(), 100);
}

#[tokio::test]
async fn section_4_4_referrers() {
    let registry = private().await;
    let subject = registry.push_manifest("n", Some("v1"), OCI_MANIFEST, "{}");
    let refers = |kind: &str| {
        format!(
            "{{\"subject\":{{\"digest\":\"{subject}\"}},\"config\":{{\"mediaType\":\"{kind}\"}},\"annotations\":{{\"k\":\"v\"}}}}"
        )
    };
    registry.push_manifest("n", None, OCI_MANIFEST, refers("text/sbom"));
    registry.push_manifest("n", None, OCI_MANIFEST, refers("text/signature"));
    let bearer = token(&registry, "repository:n:pull").await;
    let all = get_as(&registry, &bearer, &format!("/v2/n/referrers/{subject}")).await;
    assert_eq!((all.status, all.header("content-type")), (200, Some(OCI_INDEX)));
    let descriptors = all.json()["manifests"].as_array().unwrap().clone();
    assert_eq!(descriptors.len(), 2);
    assert!(descriptors.iter().any(|d| d["artifactType"] == "text/sbom" && d["annotations"]["k"] == "v"));
    let none = get_as(&registry, &bearer, &format!("/v2/n/referrers/{UNKNOWN}")).await;
    assert_eq!(none.text(), format!("{{\"schemaVersion\":2,\"mediaType\":\"{OCI_INDEX}\",\"manifests\":[]}}"));

    registry.knobs().turn(|k| (k.referrers_page, k.referrers_filter) = (Some(1), true));
    let page = get_as(&registry, &bearer, &format!("/v2/n/referrers/{subject}")).await;
    let next = page.header("link").unwrap().strip_prefix('<').unwrap().split('>').next().unwrap().to_owned();
    let second = get_as(&registry, &bearer, &next).await;
    assert_eq!((second.json()["manifests"].as_array().unwrap().len(), second.header("link")), (1, None));
    let filtered = get_as(&registry, &bearer, &format!("/v2/n/referrers/{subject}?artifactType=text/sbom")).await;
    assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));

    registry.knobs().turn(|k| k.referrers = false);
    let absent = get_as(&registry, &bearer, &format!("/v2/n/referrers/{subject}")).await;
    assert_eq!((absent.status, absent.text()), (404, "404 page not found\n"));
}

#[tokio::test]
async fn section_4_6_tag_and_manifest_attributes() {
    let registry = private().await;
    let artifact = registry.push_artifact("a/b", "v1", &[("f", "text/plain", Bytes::from_static(b"12345"))]);
    let bearer = token(&registry, "repository:a/b:metadata_read").await;
    let tag = get_as(&registry, &bearer, "/acr/v1/a%2Fb/_tags/v1").await.json();
    assert_eq!((&tag["registry"], &tag["imageName"]), (&Value::from(registry.host()), &Value::from("a/b")));
    assert_eq!(
        (&tag["tag"]["name"], &tag["tag"]["digest"]),
        (&Value::from("v1"), &Value::from(artifact.digest.clone()))
    );
    assert_eq!(tag["tag"]["signed"], false);
    let target = format!("/acr/v1/a/b/_manifests/{}", artifact.digest);
    let manifest = get_as(&registry, &bearer, &target).await.json()["manifest"].clone();
    assert_eq!((&manifest["imageSize"], &manifest["mediaType"]), (&Value::from(7), &Value::from(OCI_MANIFEST)));
    assert_eq!(manifest["tags"][0], "v1");
    assert_eq!(manifest["changeableAttributes"]["quarantineState"], "Passed");
}

#[tokio::test]
async fn section_6_damage_to_bodies() {
    let registry = private().await;
    let content = samples::incompressible(7, 1_000_000);
    let digest = registry.push_blob("n", content.clone());
    let target = signed(&registry, "n", &digest).await;
    let storage = registry.storage_host();
    let mut flipped = content.to_vec();
    flipped[10] ^= 1;
    let mut long = content.to_vec();
    long.extend_from_slice(&[0; 3]);
    for (kind, at, promised, body) in [
        (DamageKind::Cut, 500_000, 1_000_000, content[..500_000].to_vec()),
        (DamageKind::Flip, 10, 1_000_000, flipped),
        (DamageKind::Short, 5, 5, content[..5].to_vec()),
        (DamageKind::Long, 3, 1_000_003, long),
    ] {
        registry.knobs().damage(Damage::once(kind, at));
        let answer = ask(&storage, "GET", &target, &[], "").await.unwrap();
        assert_eq!(answer.header("content-length"), Some(promised.to_string().as_str()), "{kind:?}");
        assert!(answer.body == body, "{kind:?}: {} bytes", answer.body.len());
    }
    registry.knobs().turn(|k| k.chunked = true);
    let whole = ask(&storage, "GET", &target, &[], "").await.unwrap();
    assert_eq!((whole.header("content-length"), whole.header("transfer-encoding")), (None, Some("chunked")));
    registry.knobs().turn(|k| (k.chunked, k.ranges) = (false, false));
    let ranges_ignored = ask(&storage, "GET", &target, &[("Range", "bytes=1-2")], "").await.unwrap();
    assert_eq!((ranges_ignored.status, ranges_ignored.body.len()), (200, 1_000_000));
    let seen = registry.log().into_iter().rfind(|seen| seen.listener == Listener::Storage).unwrap();
    assert_eq!((seen.status, seen.sent, seen.range.as_deref()), (200, 1_000_000, Some("bytes=1-2")));
}

#[tokio::test]
async fn section_6_a_stalled_body_stays_open_and_damage_can_be_aimed() {
    let registry = private().await;
    let digest = registry.push_blob("n", "content");
    let spared = registry.push_blob("n", "spared");
    let target = signed(&registry, "n", &digest).await;
    registry.knobs().damage(Damage::times(DamageKind::Stall, 3, 1).of(&digest));
    let other = signed(&registry, "n", &spared).await;
    assert_eq!(ask(&registry.storage_host(), "GET", &other, &[], "").await.unwrap().text(), "spared");
    let mut stream = send(&registry.storage_host(), "GET", &target, &[], "").await.unwrap();
    let mut raw = Vec::new();
    let ended = tokio::time::timeout(Duration::from_millis(300), stream.read_to_end(&mut raw)).await;
    assert!(ended.is_err(), "the connection stays open");
    assert_eq!(parse(&raw).text(), "con");
    assert_eq!(ask(&registry.storage_host(), "GET", &target, &[], "").await.unwrap().text(), "content", "once");
}

#[tokio::test]
async fn section_6_what_is_deleted_or_revoked_is_gone() {
    let registry = private().await;
    let one = registry.push_artifact("n", "v1", &[("f", "text/plain", Bytes::from_static(b"12345"))]);
    registry.push_manifest("n", Some("v2"), OCI_MANIFEST, one.manifest.clone());
    let bearer = token(&registry, "repository:n:pull,metadata_read").await;
    registry.delete_tag("n", "v2");
    assert_eq!(get_as(&registry, &bearer, "/v2/n/manifests/v2").await.status, 404);
    assert_eq!(get_as(&registry, &bearer, "/v2/n/manifests/v1").await.status, 200);
    let url = signed(&registry, "n", &one.layers[0]).await;
    registry.delete_blob("n", &one.layers[0]);
    assert_eq!(get_as(&registry, &bearer, &format!("/v2/n/blobs/{}", one.layers[0])).await.status, 404);
    assert_eq!(ask(&registry.storage_host(), "GET", &url, &[], "").await.unwrap().status, 404);
    registry.delete_manifest("n", &one.digest);
    assert_eq!(get_as(&registry, &bearer, "/v2/n/tags/list").await.json()["tags"], Value::Array(Vec::new()));
    registry.revoke_tokens();
    assert_eq!(get_as(&registry, &bearer, "/v2/").await.status, 401);
}

#[tokio::test]
async fn section_1_5_a_wildcard_scope_is_a_violation() {
    let registry = private().await;
    token(&registry, "repository:*:*").await;
    assert_eq!(registry.violations().len(), 1);
    registry.clear_log();
    assert_eq!((registry.violations().len(), registry.log().len()), (0, 0));
}

#[tokio::test]
async fn section_6_resets_hangs_and_refusals() {
    let registry = private().await;
    let reset = |registry: &Simulator, on| registry.knobs().turn(|k| k.login.reset = on);
    reset(&registry, true);
    let refused = ask(&registry.host(), "GET", "/v2/", &[], "").await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionReset);
    reset(&registry, false);

    registry.knobs().turn(|k| k.login.hang = true);
    let host = registry.host();
    let silent = tokio::time::timeout(Duration::from_millis(200), ask(&host, "GET", "/v2/", &[], "")).await;
    assert!(silent.is_err(), "no answer while it hangs");
    registry.knobs().turn(|k| k.login.hang = false);

    let digest = registry.push_blob("n", samples::incompressible(7, 4_000_000));
    let target = signed(&registry, "n", &digest).await;
    registry.knobs().damage(Damage::once(DamageKind::Reset, 1_000_000));
    let mut stream = send(&registry.storage_host(), "GET", &target, &[], "").await.unwrap();
    let ended = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset);

    let mut idle = TcpStream::connect(registry.host()).await.unwrap();
    registry.stop_listening();
    let refused = TcpStream::connect(registry.host()).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0, "open connections end, too");
    registry.resume_listening();
    assert_eq!(get(&registry, "/v2/").await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn section_6_slow_bodies_keep_their_rate() {
    let registry = private().await;
    let digest = registry.push_blob("n", samples::incompressible(7, 1_000_000));
    let target = signed(&registry, "n", &digest).await;
    let storage = registry.storage_host();
    registry.knobs().turn(|k| k.connection_rate = Some(100_000));
    let start = tokio::time::Instant::now();
    ask(&storage, "GET", &target, &[], "").await.unwrap();
    let one = start.elapsed().as_secs_f64();
    assert!((9.0..11.0).contains(&one), "{one} s for 10 s of bytes");

    registry.knobs().turn(|k| (k.connection_rate, k.total_rate) = (None, Some(100_000)));
    let start = tokio::time::Instant::now();
    let (first, second) = tokio::join!(ask(&storage, "GET", &target, &[], ""), ask(&storage, "GET", &target, &[], ""));
    assert_eq!((first.unwrap().body.len(), second.unwrap().body.len()), (1_000_000, 1_000_000));
    let both = start.elapsed().as_secs_f64();
    assert!((19.0..21.0).contains(&both), "{both} s for 20 s of bytes");
}

#[tokio::test]
async fn the_control_port_turns_knobs() {
    let registry = Simulator::start(Options { control_port: Some(0), ..Options::private("admin", "pw") }).await;
    let control = registry.control_url().unwrap().strip_prefix("http://").unwrap().to_owned();
    let patch = r#"{"storage":{"delay_ms":5},"faults":[{"on":"ping","answer":{"oci":{"status":500,"code":"UNKNOWN","message":"m"}}}]}"#;
    let turned = ask(&control, "POST", "/_sim/knobs", &[], patch).await.unwrap();
    assert_eq!((turned.status, &turned.json()["storage"]["delay_ms"]), (200, &Value::from(5)));
    assert_eq!(get(&registry, "/v2/").await.status, 500);
    let unknown = ask(&control, "POST", "/_sim/knobs", &[], r#"{"frewall":true}"#).await.unwrap();
    assert!(unknown.status == 400 && unknown.text().contains("frewall"), "{}", unknown.text());
    let log = ask(&control, "GET", "/_sim/log", &[], "").await.unwrap().json();
    assert_eq!((&log[0]["target"], &log[0]["status"]), (&Value::from("/v2/"), &Value::from(500)));
}

#[tokio::test]
async fn tls_has_an_authority_of_its_own() {
    use std::sync::Arc;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

    let registry = Simulator::start(Options { tls: true, ..Options::private("admin", "pw") }).await;
    assert_eq!(registry.url(), format!("https://{}", registry.host()));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(registry.ca_pem().unwrap().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    for host in [registry.host(), registry.storage_host()] {
        let name = ServerName::try_from(host.split(':').next().unwrap().to_owned()).unwrap();
        let mut stream = connector.connect(name, TcpStream::connect(&host).await.unwrap()).await.unwrap();
        stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut raw = Vec::new();
        let _ = stream.read_to_end(&mut raw).await;
        assert!([401, 404].contains(&parse(&raw).status));
    }
}

#[tokio::test]
async fn a_token_for_distribution_has_its_claims_and_certificate() {
    let registry = private().await;
    let form = "grant_type=password&service=dist&scope=repository:n:pull,push&username=admin&password=pw";
    let answer = post(&registry, "/distribution/token", form).await.json();
    let token = answer["token"].as_str().unwrap();
    assert_eq!(answer["access_token"], answer["token"]);
    let (header, claims) = (part(token, 0), claims(token));
    assert_eq!((&claims["iss"], &claims["aud"]), (&Value::from(simulator::DISTRIBUTION_ISSUER), &Value::from("dist")));
    assert_eq!(claims["access"].to_string(), r#"[{"actions":["pull","push"],"name":"n","type":"repository"}]"#);
    let path = std::env::temp_dir().join(format!("acr-sim-token-{}.pem", std::process::id()));
    registry.write_token_certificate(&path).unwrap();
    let pem = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    assert_eq!(header["x5c"][0], der);
}

#[tokio::test]
async fn section_4_1_an_upload_moves_its_location() {
    let registry = private().await;
    let bearer = token(&registry, WRITES).await;
    let begun = write_as(&registry, &bearer, "POST /v2/n/blobs/uploads/", &[], "").await;
    assert_eq!((begun.status, begun.header("range"), begun.header("content-length")), (202, Some("0-0"), Some("0")));
    assert_eq!(begun.header("oci-chunk-min-length"), None);
    let uuid = begun.header("docker-upload-uuid").unwrap().to_owned();
    let first = begun.header("location").unwrap().to_owned();
    let start = format!("/v2/n/blobs/uploads/{uuid}?_nouploadcache=false&_state=");
    let sealed = first.strip_prefix(&start).expect(&first).replace("%3D", "=");
    let state = String::from_utf8(URL_SAFE.decode(sealed).unwrap()[32..].to_vec()).unwrap();
    assert!(
        state.starts_with(&format!("{{\"Name\":\"n\",\"UUID\":\"{uuid}\",\"Offset\":0,\"StartedAt\":\"")),
        "{state}"
    );

    let content = "x".repeat(171);
    let patched = write_as(&registry, &bearer, &format!("PATCH {first}"), &OCTETS, &content).await;
    assert_eq!((patched.status, patched.header("range")), (202, Some("0-170")));
    let second = patched.header("location").unwrap().to_owned();
    assert!(second.starts_with(&start) && second != first, "{second}");
    let status = write_as(&registry, &bearer, &format!("GET {second}"), &[], "").await;
    assert_eq!((status.status, status.header("range")), (204, Some("0-170")));
    assert_eq!(status.header("location"), Some(second.as_str()));

    for stale in [format!("PATCH {first}"), format!("PUT {first}&digest={HELLO}")] {
        let refused = write_as(&registry, &bearer, &stale, &OCTETS, "more").await;
        let body = errors(r#"{"code":"BLOB_UPLOAD_INVALID","message":"blob upload invalid"}"#);
        assert_eq!((refused.status, refused.text()), (404, body.as_str()), "{stale}");
    }
    let status = write_as(&registry, &bearer, &format!("GET {first}"), &[], "").await;
    assert_eq!((status.status, status.header("range")), (204, Some("0-170")), "the way back after a lost answer");

    let digest = registry.push_blob("other", content);
    let put = write_as(&registry, &bearer, &format!("PUT {second}&digest={digest}"), &[], "").await;
    assert_eq!((put.status, put.header("location")), (201, Some(format!("/v2/n/blobs/{digest}").as_str())));
    assert_eq!(put.header("docker-content-digest"), Some(digest.as_str()));
    assert_eq!(call_as(&registry, &bearer, "HEAD", &format!("/v2/n/blobs/{digest}")).await.status, 200);
    let over = write_as(&registry, &bearer, &format!("GET {second}"), &[], "").await;
    assert!(over.status == 404 && over.text().contains("BLOB_UPLOAD_UNKNOWN"), "{over:?}");
    assert_eq!(registry.open_uploads(), 0);
}

#[tokio::test]
async fn section_4_1_an_altered_location_is_no_session() {
    let registry = private().await;
    let bearer = token(&registry, "repository:n:pull,push,delete+repository:m:pull,push").await;
    let location = begin(&registry, &bearer, "n").await;
    let another = begin(&registry, &bearer, "n").await;
    let state = another.split("_state=").nth(1).unwrap();
    for altered in [
        location.split('?').next().unwrap().to_owned(),
        location.replace("/n/", "/m/"),
        format!("{}_state={state}", location.split("_state=").next().unwrap()),
        location.replacen("_state=", "_state=A", 1),
    ] {
        let refused = write_as(&registry, &bearer, &format!("PATCH {altered}"), &OCTETS, "hello").await;
        assert!(refused.status == 404 && refused.text().contains("BLOB_UPLOAD_INVALID"), "{altered}: {refused:?}");
    }
    let cancelled = write_as(&registry, &bearer, &format!("DELETE {location}"), &[], "").await;
    assert_eq!((cancelled.status, registry.open_uploads()), (204, 1));
    let refused = write_as(&registry, &bearer, &format!("PATCH {location}"), &OCTETS, "hello").await;
    assert!(refused.text().contains("BLOB_UPLOAD_UNKNOWN"), "{refused:?}");
}

#[tokio::test]
async fn section_3_3_a_chunk_must_continue_the_upload() {
    let registry = private().await;
    let bearer = token(&registry, WRITES).await;
    let location = begin(&registry, &bearer, "n").await;
    let patch = format!("PATCH {location}");
    for format in ["bytes 0-4", "bytes=0-4", "0-", "-4", "0-4/5", ""] {
        let headers = [OCTETS[0], ("Content-Range", format)];
        let refused = write_as(&registry, &bearer, &patch, &headers, "hello").await;
        let body = r#"{"code":"BLOB_UPLOAD_RANGE_INVALID","message":"blob upload range invalid","detail":{"Range":"-1--1","Reason":"the Content-Range header format is invalid"}}"#;
        assert_eq!((refused.status, refused.text()), (416, errors(body).as_str()), "{format:?}");
    }
    let put = format!("PUT {location}&digest={HELLO}");
    for call in [&patch, &put] {
        let refused = write_as(&registry, &bearer, call, &[OCTETS[0], ("Content-Range", "5-9")], "hello").await;
        assert!(refused.status == 416 && refused.text().contains("\"Range\":\"5-9\""), "{refused:?}");
    }
    let refused = write_as(&registry, &bearer, &patch, &[OCTETS[0], ("Content-Range", "0-5")], "hello").await;
    assert!(refused.status == 400 && refused.text().contains("SIZE_INVALID"), "{refused:?}");

    let next = write_as(&registry, &bearer, &patch, &[OCTETS[0], ("Content-Range", "0-3")], "hell").await;
    assert_eq!((next.status, next.header("range")), (202, Some("0-3")));
    let put = format!("PUT {}&digest={HELLO}", next.header("location").unwrap());
    let put = write_as(&registry, &bearer, &put, &[OCTETS[0], ("Content-Range", "4-4")], "o").await;
    assert_eq!(put.status, 201, "{put:?}");
}

#[tokio::test]
async fn section_4_1_a_blob_in_one_request() {
    let registry = private().await;
    let bearer = token(&registry, WRITES).await;
    for digest in [HELLO, HELLO_512] {
        let location = begin(&registry, &bearer, "n").await;
        let put = write_as(&registry, &bearer, &format!("PUT {location}&digest={digest}"), &OCTETS, "hello").await;
        assert_eq!((put.status, put.header("docker-content-digest")), (201, Some(digest)));
        registry.delete_blob("n", digest);
        let post = format!("POST /v2/n/blobs/uploads/?digest={digest}");
        let post = write_as(&registry, &bearer, &post, &OCTETS, "hello").await;
        assert_eq!((post.status, post.header("location")), (201, Some(format!("/v2/n/blobs/{digest}").as_str())));
        assert_eq!(call_as(&registry, &bearer, "HEAD", &format!("/v2/n/blobs/{digest}")).await.status, 200);
        registry.delete_blob("n", digest);
    }
    registry.knobs().turn(|k| k.single_post = false);
    let post =
        write_as(&registry, &bearer, &format!("POST /v2/n/blobs/uploads/?digest={HELLO}"), &OCTETS, "hello").await;
    assert_eq!((post.status, post.header("range")), (202, Some("0-0")), "a session like any other");
    let put = format!("PUT {}&digest={HELLO}", post.header("location").unwrap());
    assert_eq!(write_as(&registry, &bearer, &put, &OCTETS, "hello").await.status, 201);
    let received: Vec<u64> = registry.log().iter().filter(|s| s.is_upload_body()).map(|s| s.received).collect();
    assert_eq!(received, [5; 6]);
}

#[tokio::test]
async fn section_3_3_a_wrong_digest_ends_the_upload() {
    let registry = private().await;
    let bearer = token(&registry, WRITES).await;
    let body = errors(
        r#"{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content","detail":"digest parsing failed"}"#,
    );
    for digest in [HELLO, HELLO_512, "sha256:short", ""] {
        let location = begin(&registry, &bearer, "n").await;
        let put = format!("PUT {location}&digest={digest}");
        let refused = write_as(&registry, &bearer, &put, &OCTETS, "other").await;
        assert_eq!((refused.status, refused.text()), (400, body.as_str()), "{digest}");
    }
    let post = format!("POST /v2/n/blobs/uploads/?digest={HELLO}");
    let refused = write_as(&registry, &bearer, &post, &OCTETS, "other").await;
    assert_eq!((refused.status, refused.text()), (400, body.as_str()));
    assert_eq!(registry.open_uploads(), 0);
    assert_eq!(call_as(&registry, &bearer, "HEAD", &format!("/v2/n/blobs/{HELLO}")).await.status, 404);
}

#[tokio::test]
async fn section_4_1_a_stream_without_a_length() {
    let registry = private().await;
    let bearer = token(&registry, WRITES).await;
    let location = begin(&registry, &bearer, "n").await;
    let authorization = format!("Bearer {bearer}");
    let headers =
        [("Authorization", authorization.as_str()), ("Transfer-Encoding", "chunked"), ("Connection", "close")];
    let mut stream = send(&registry.host(), "PATCH", &location, &headers, "").await.unwrap();
    for chunk in ["3\r\nhel\r\n", "2\r\nlo\r\n", "0\r\n\r\n"] {
        stream.write_all(chunk.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).await.unwrap();
    let patched = parse(&raw);
    assert_eq!((patched.status, patched.header("range")), (202, Some("0-4")));
    let put = format!("PUT {}&digest={HELLO}", patched.header("location").unwrap());
    assert_eq!(write_as(&registry, &bearer, &put, &[], "").await.status, 201);
}

#[tokio::test]
async fn section_4_1_a_mount_or_a_session_instead() {
    let registry = private().await;
    let digest = registry.push_blob("source", "hello");
    let bearer = token(&registry, "repository:n:pull,push+repository:source:pull+repository:empty:pull").await;
    let from = |source: &str| format!("POST /v2/n/blobs/uploads/?mount={digest}&from={source}");
    let mounted = write_as(&registry, &bearer, &from("source"), &[], "").await;
    assert_eq!((mounted.status, mounted.header("location")), (201, Some(format!("/v2/n/blobs/{digest}").as_str())));
    assert_eq!(mounted.header("docker-content-digest"), Some(digest.as_str()));
    assert_eq!(call_as(&registry, &bearer, "HEAD", &format!("/v2/n/blobs/{digest}")).await.status, 200);

    let anonymous = format!("POST /v2/n/blobs/uploads/?mount={digest}");
    let mut statuses = Vec::new();
    for mount in [Mount::Anywhere, Mount::From, Mount::Never] {
        registry.knobs().turn(|k| k.mount = mount);
        for call in [&from("source"), &from("empty"), &anonymous] {
            let answer = write_as(&registry, &bearer, call, &[], "").await;
            let session = answer.header("location").unwrap().contains("_state=");
            assert_eq!(session, answer.status == 202, "{answer:?}");
            statuses.push(answer.status);
        }
    }
    assert_eq!(statuses, [201, 202, 201, 201, 202, 202, 202, 202, 202]);

    let narrow = token(&registry, "repository:n:pull,push").await;
    let refused = write_as(&registry, &narrow, &from("source"), &[], "").await;
    assert_eq!(refused.status, 401);
    let challenge = refused.header("www-authenticate").unwrap();
    let scope = "scope=\"repository:n:pull,push repository:source:pull\",error=\"insufficient_scope\"";
    assert!(challenge.ends_with(scope), "{challenge}");
}

#[tokio::test]
async fn section_1_1_each_write_has_its_scope() {
    let registry = private().await;
    let location = begin(&registry, &token(&registry, WRITES).await, "n").await;
    let pull = token(&registry, "repository:n:pull,metadata_read").await;
    let tag = "/acr/v1/n/_tags/v1";
    let cases = [
        (format!("PATCH {location}"), "pull,push"),
        (format!("PUT {location}&digest={HELLO}"), "pull,push"),
        (format!("DELETE {location}"), "delete"),
        ("PUT /v2/n/manifests/v1".to_owned(), "pull,push"),
        (format!("DELETE /v2/n/manifests/{UNKNOWN}"), "delete"),
        (format!("DELETE /v2/n/blobs/{UNKNOWN}"), "delete"),
        (format!("DELETE {tag}"), "delete"),
        (format!("PATCH {tag}"), "metadata_write"),
        ("DELETE /acr/v1/n".to_owned(), "delete"),
    ];
    for (call, actions) in cases {
        let refused = write_as(&registry, &pull, &call, &OCTETS, "hello").await;
        let scope = format!("scope=\"repository:n:{actions}\",error=\"insufficient_scope\"");
        assert_eq!(refused.status, 401, "{call}");
        assert!(refused.header("www-authenticate").unwrap().ends_with(&scope), "{call}: {refused:?}");
    }
    assert_eq!(registry.open_uploads(), 1);
}

#[tokio::test]
async fn section_4_1_a_manifest_is_kept_as_it_is() {
    let registry = private().await;
    let bearer = token(&registry, WRITES).await;
    registry.push_blob("n", "hello");
    let manifest = format!("{{ \"config\":{{\"digest\":\"{HELLO}\"}},\n\t\"layers\": [] }}\n");
    let put = put_manifest(&registry, &bearer, "/v2/n/manifests/v1", OCI_MANIFEST, &manifest).await;
    assert_eq!((put.status, put.header("content-length"), put.header("oci-subject")), (201, Some("0"), None));
    let digest = put.header("docker-content-digest").unwrap().to_owned();
    assert_eq!(put.header("location"), Some(format!("/v2/n/manifests/{digest}").as_str()));
    for reference in ["v1", &digest] {
        let got = get_as(&registry, &bearer, &format!("/v2/n/manifests/{reference}")).await;
        assert_eq!((got.text(), got.header("content-type")), (manifest.as_str(), Some(OCI_MANIFEST)));
    }
    // Any type is kept, and by a digest of either algorithm.
    let odd = "application/vnd.example.thing+json";
    let sha512 = registry.push_manifest_as("other", None, odd, "{\"a\":1}", "sha512");
    let put = put_manifest(&registry, &bearer, &format!("/v2/n/manifests/{sha512}"), odd, "{\"a\":1}").await;
    assert_eq!((put.status, put.header("docker-content-digest")), (201, Some(sha512.as_str())));
    let put = put_manifest(&registry, &bearer, &format!("/v2/n/manifests/{UNKNOWN}"), odd, "{}").await;
    assert!(put.status == 400 && put.text().contains("DIGEST_INVALID"), "{put:?}");
    let put = put_manifest(&registry, &bearer, "/v2/n/manifests/sha256:short", odd, "{}").await;
    assert!(put.status == 400 && put.text().contains("DIGEST_INVALID"), "{put:?}");
    for (media_type, body) in [(OCI_MANIFEST, "no"), (OCI_INDEX, "[]"), (OCI_INDEX, "{\"mediaType\":\"text/x\"}")] {
        let put = put_manifest(&registry, &bearer, "/v2/n/manifests/v1", media_type, body).await;
        assert!(put.status == 400 && put.text().contains("MANIFEST_INVALID"), "{body}: {put:?}");
    }
}

#[tokio::test]
async fn section_3_1_a_manifest_has_a_largest_size() {
    let registry = private().await;
    let bearer = token(&registry, WRITES).await;
    let frame = "{\"a\":\"\"}".len();
    let manifest = |size: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(size - frame));
    let largest = put_manifest(&registry, &bearer, "/v2/n/manifests/v1", OCI_INDEX, &manifest(MAX_MANIFEST)).await;
    assert_eq!(largest.status, 201);
    let larger = put_manifest(&registry, &bearer, "/v2/n/manifests/v2", OCI_INDEX, &manifest(MAX_MANIFEST + 1)).await;
    assert_eq!((larger.status, larger.json()["errors"][0]["code"].as_str()), (413, Some("SIZE_INVALID")));
}

#[tokio::test]
async fn section_3_3_a_manifest_needs_its_parts_but_not_its_subject() {
    let registry = private().await;
    let bearer = token(&registry, WRITES).await;
    let child = format!("{{\"manifests\":[{{\"digest\":\"{UNKNOWN}\"}}]}}");
    let descriptor = format!("{{\"digest\":\"{UNKNOWN}\"}}");
    for lacking in [format!("{{\"config\":{descriptor}}}"), format!("{{\"layers\":[{descriptor}]}}"), child.clone()] {
        let put = put_manifest(&registry, &bearer, "/v2/n/manifests/v1", OCI_MANIFEST, &lacking).await;
        let body = errors(&format!(
            r#"{{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry","detail":"{UNKNOWN}"}}"#
        ));
        assert_eq!((put.status, put.text()), (400, body.as_str()), "{lacking}");
    }
    let foreign = format!(
        "{{\"layers\":[{{\"digest\":\"{UNKNOWN}\",\"mediaType\":\"application/vnd.oci.image.layer.nondistributable.v1.tar\"}}]}}"
    );
    assert_eq!(put_manifest(&registry, &bearer, "/v2/n/manifests/v1", OCI_MANIFEST, &foreign).await.status, 201);
    registry.knobs().turn(|k| k.sparse = true);
    assert_eq!(put_manifest(&registry, &bearer, "/v2/n/manifests/v1", OCI_INDEX, &child).await.status, 201);

    let refers = format!("{{\"artifactType\":\"text/sbom\",\"subject\":{descriptor}}}");
    let put = put_manifest(&registry, &bearer, "/v2/n/manifests/v2", OCI_MANIFEST, &refers).await;
    assert_eq!((put.status, put.header("oci-subject")), (201, Some(UNKNOWN)));
    let list = get_as(&registry, &bearer, &format!("/v2/n/referrers/{UNKNOWN}")).await;
    assert_eq!(list.json()["manifests"][0]["digest"].as_str(), put.header("docker-content-digest"));
    registry.knobs().turn(|k| k.oci_subject = false);
    let put = put_manifest(&registry, &bearer, "/v2/n/manifests/v2", OCI_MANIFEST, &refers).await;
    assert_eq!((put.status, put.header("oci-subject")), (201, None));
}

#[tokio::test]
async fn section_4_2_deletes() {
    let registry = private().await;
    let bearer = token(&registry, WRITES).await;
    let digest = registry.push_manifest("n", Some("v1"), OCI_MANIFEST, "{}");
    registry.push_manifest("n", Some("v2"), OCI_MANIFEST, "{}");
    registry.push_manifest("n", Some("other"), OCI_MANIFEST, "{ }");
    let blob = registry.push_blob("n", "hello");
    let delete = async |target: &str| write_as(&registry, &bearer, &format!("DELETE {target}"), &[], "").await;

    for tag in ["/acr/v1/n/_tags/v1", "/v2/n/manifests/v2"] {
        let untagged = delete(tag).await;
        assert_eq!((untagged.status, untagged.header("content-length")), (202, Some("0")), "{tag}");
        assert!(untagged.header("x-ms-ratelimit-remaining-calls-per-second").unwrap().starts_with("8.0"));
        let again = delete(tag).await;
        let body = errors(r#"{"code":"TAG_UNKNOWN","message":"the specified tag does not exist"}"#);
        assert_eq!((again.status, again.text()), (404, body.as_str()));
    }
    assert_eq!(registry.contents(), [("n".to_owned(), vec!["other".to_owned()])]);
    assert_eq!(get_as(&registry, &bearer, &format!("/v2/n/manifests/{digest}")).await.status, 200, "untagged only");
    registry.knobs().turn(|k| k.delete_by_tag = false);
    assert_eq!(delete("/v2/n/manifests/other").await.status, 405);

    registry.push_manifest("n", Some("v1"), OCI_MANIFEST, "{}");
    assert_eq!(delete(&format!("/v2/n/manifests/{digest}")).await.status, 202);
    assert_eq!(registry.contents(), [("n".to_owned(), vec!["other".to_owned()])], "its tags go with it");
    let again = delete(&format!("/v2/n/manifests/{digest}")).await;
    let body = errors(&format!(r#"{{"code":"MANIFEST_UNKNOWN","message":"manifest {digest} is not found"}}"#));
    assert_eq!((again.status, again.text()), (404, body.as_str()));

    assert_eq!(delete(&format!("/v2/n/blobs/{blob}")).await.status, 202);
    assert_eq!(delete(&format!("/v2/n/blobs/{blob}")).await.status, 404);

    let left = registry.push_manifest("n", Some("other"), OCI_MANIFEST, "{ }");
    let gone = delete("/acr/v1/n").await;
    let body = format!("{{\"manifestsDeleted\":[\"{left}\"],\"tagsDeleted\":[\"other\"]}}\n");
    assert_eq!((gone.status, gone.text()), (202, body.as_str()));
    assert_eq!(registry.contents(), []);
    assert_eq!(delete("/acr/v1/n").await.status, 404);
}

#[tokio::test]
async fn section_4_6_locks() {
    let registry = private().await;
    let bearer = token(&registry, WRITES).await;
    let digest = registry.push_manifest("n", Some("v1"), OCI_MANIFEST, "{}");
    let patch = async |target: &str, body: &str| {
        write_as(&registry, &bearer, &format!("PATCH {target}"), &[("Content-Type", "application/json")], body).await
    };
    let locked = patch("/acr/v1/n/_tags/v1", "{\"writeEnabled\":false}").await;
    let attributes = &locked.json()["tag"]["changeableAttributes"];
    assert_eq!(
        attributes.to_string(),
        r#"{"deleteEnabled":true,"listEnabled":true,"readEnabled":true,"writeEnabled":false}"#
    );
    let by_digest = format!("/v2/n/manifests/{digest}");
    for call in [
        "PUT /v2/n/manifests/v1".to_owned(),
        "DELETE /v2/n/manifests/v1".to_owned(),
        "DELETE /acr/v1/n/_tags/v1".to_owned(),
        "DELETE /acr/v1/n".to_owned(),
        format!("DELETE {by_digest}"),
    ] {
        let refused = write_as(&registry, &bearer, &call, &[("Content-Type", OCI_MANIFEST)], "{}").await;
        let error = &refused.json()["errors"][0];
        assert_eq!((refused.status, error["code"].as_str()), (405, Some("REGISTRY_DISALLOWED_OPERATION")), "{call}");
        assert_eq!((refused.header("content-length"), error["detail"].to_string()), (Some("263"), "{}".to_owned()));
    }
    assert_eq!(put_manifest(&registry, &bearer, "/v2/n/manifests/v2", OCI_MANIFEST, "{}").await.status, 201);

    let manifest = format!("/acr/v1/n/_manifests/{digest}");
    assert_eq!(patch(&manifest, "{\"readEnabled\":false}").await.status, 200);
    assert_eq!(get_as(&registry, &bearer, "/v2/n/manifests/v2").await.status, 405);
    assert_eq!(patch(&manifest, "{\"readEnabled\":true}").await.status, 200);
    assert_eq!(patch("/acr/v1/n/_tags/v1", "{\"listEnabled\":false}").await.status, 200);
    assert_eq!(get_as(&registry, &bearer, "/v2/n/tags/list").await.text(), "{\"name\":\"n\",\"tags\":[\"v2\"]}\n");

    let whole = patch("/acr/v1/n", "{\"deleteEnabled\":false}").await;
    assert_eq!(whole.json()["changeableAttributes"]["deleteEnabled"], false);
    assert_eq!(call_as(&registry, &bearer, "DELETE", "/v2/n/manifests/v2").await.status, 405);
    assert_eq!(patch("/acr/v1/n/_tags/no", "{}").await.status, 404);
    assert_eq!(patch("/acr/v1/n", "no").await.status, 400);
}

#[tokio::test]
async fn section_4_6_an_index_lists_its_references() {
    let registry = private().await;
    let bearer = token(&registry, WRITES).await;
    let child = registry.push_manifest("n", None, OCI_MANIFEST, "{}");
    let index = format!(
        "{{\"manifests\":[{{\"digest\":\"{child}\",\"platform\":{{\"architecture\":\"arm64\",\"os\":\"linux\"}}}}]}}"
    );
    let digest = registry.push_manifest("n", Some("v1"), OCI_INDEX, index);
    let got = get_as(&registry, &bearer, &format!("/acr/v1/n/_manifests/{digest}")).await;
    let references =
        format!("\"references\":[{{\"digest\":\"{child}\",\"architecture\":\"arm64\",\"os\":\"linux\"}}]}}}}\n");
    assert!(got.text().ends_with(&references), "{}", got.text());
}

#[tokio::test]
async fn section_4_7_replicas_agree_after_a_while() {
    let registry = private().await;
    let bearer = token(&registry, WRITES).await;
    let answers = |answers| {
        let replication = Some(Replication { delay_ms: 400, answers });
        registry.knobs().turn(|k| k.replication = replication);
    };
    answers(Answers::First);
    let blob = format!("POST /v2/n/blobs/uploads/?digest={HELLO}");
    assert_eq!(write_as(&registry, &bearer, &blob, &OCTETS, "hello").await.status, 201);
    let manifest = format!("{{\"config\":{{\"digest\":\"{HELLO}\"}}}}");
    let put = async || put_manifest(&registry, &bearer, "/v2/n/manifests/v1", OCI_MANIFEST, &manifest).await;
    let location = begin(&registry, &bearer, "n").await;

    answers(Answers::Second);
    let elsewhere = put().await;
    assert!(elsewhere.status == 400 && elsewhere.text().contains("MANIFEST_BLOB_UNKNOWN"), "{elsewhere:?}");
    let elsewhere = write_as(&registry, &bearer, &format!("PATCH {location}"), &OCTETS, "hello").await;
    assert!(elsewhere.status == 404 && elsewhere.text().contains("BLOB_UPLOAD_UNKNOWN"), "{elsewhere:?}");

    answers(Answers::First);
    assert_eq!(put().await.status, 201);
    let get = async || get_as(&registry, &bearer, "/v2/n/manifests/v1").await;
    // Each request here has a connection of its own, so both ways take turns.
    for turns in [Answers::Alternating, Answers::Connection] {
        answers(turns);
        let (one, other) = (get().await, get().await);
        let mut statuses = [one.status, other.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 404], "{turns:?}");
        let missing = if one.status == 404 { one } else { other };
        assert!(missing.text().contains("MANIFEST_UNKNOWN"), "{missing:?}");
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((get().await.status, get().await.status), (200, 200));
    registry.delete_tag("n", "v1");
    assert_eq!((get().await.status, get().await.status), (404, 404), "what a test does is everywhere at once");
}

#[tokio::test]
async fn section_6_an_upload_at_its_pace_and_cut_off() {
    let registry = private().await;
    let bearer = token(&registry, WRITES).await;
    registry.knobs().turn(|k| {
        k.upload_rate = Some(64 * 1024);
        k.chunk_min_length = Some(1024);
    });
    let location = begin(&registry, &bearer, "n").await;
    let content = "x".repeat(32 * 1024);
    let began = tokio::time::Instant::now();
    let patched = write_as(&registry, &bearer, &format!("PATCH {location}"), &OCTETS, &content).await;
    assert_eq!((patched.status, patched.header("oci-chunk-min-length")), (202, Some("1024")));
    assert!(began.elapsed() > Duration::from_millis(300), "{:?}", began.elapsed());

    registry.knobs().turn(|k| (k.upload_rate, k.upload_cut_at) = (None, Some(1000)));
    let bearer_header = format!("Bearer {bearer}");
    let headers = [("Authorization", bearer_header.as_str())];
    let location = patched.header("location").unwrap();
    assert!(ask(&registry.host(), "PATCH", location, &headers, &content).await.is_err(), "reset");
    let again = write_as(&registry, &bearer, &format!("GET {location}"), &[], "").await;
    assert_eq!((again.status, again.header("range")), (204, Some("0-33767")), "once only, and what came is kept");
    let put = format!("PUT {}&digest={HELLO}", again.header("location").unwrap());
    assert_eq!(write_as(&registry, &bearer, &put, &OCTETS, "hello").await.status, 400);
}

#[tokio::test]
async fn section_6_a_refusal_before_or_after_the_body() {
    let registry = private().await;
    let host = registry.host();
    let refused = async |headers: &[(&str, &str)]| {
        let length = [("Content-Length", "1000000"), ("Connection", "close")];
        let headers: Vec<_> = headers.iter().chain(&length).copied().collect();
        let mut stream = send(&host, "PUT", "/v2/n/manifests/v1", &headers, "").await.unwrap();
        let mut raw = [0; 4096];
        let read = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut raw)).await;
        read.ok().map(|read| parse(&raw[..read.unwrap()]).status)
    };
    assert_eq!(refused(&[]).await, None, "first the body");
    assert_eq!(refused(&[("Expect", "100-continue")]).await, Some(401), "no leave to send it");
    registry.knobs().turn(|k| k.refuse_early = true);
    assert_eq!(refused(&[]).await, Some(401));
}

#[tokio::test]
async fn section_6_faults_of_one_method() {
    let registry = private().await;
    let bearer = token(&registry, WRITES).await;
    registry.knobs().turn(|k| {
        k.faults.push(Fault::times(PathClass::Manifests, FaultAnswer::empty(503), 1).of("PUT"));
        k.faults.push(Fault::always(PathClass::Uploads, FaultAnswer::throttled(60)));
    });
    assert_eq!(get_as(&registry, &bearer, "/v2/n/manifests/v1").await.status, 404);
    assert_eq!(put_manifest(&registry, &bearer, "/v2/n/manifests/v1", OCI_MANIFEST, "{}").await.status, 503);
    assert_eq!(put_manifest(&registry, &bearer, "/v2/n/manifests/v1", OCI_MANIFEST, "{}").await.status, 201);
    let throttled = write_as(&registry, &bearer, "POST /v2/n/blobs/uploads/", &[], "").await;
    assert_eq!((throttled.status, throttled.header("retry-after")), (429, Some("60")));
}

#[tokio::test]
async fn methods_that_a_path_does_not_have_are_405() {
    let registry = private().await;
    let bearer = token(&registry, "registry:catalog:*+repository:n:pull,push,metadata_write,metadata_read").await;
    for call in ["PUT /v2/n/blobs/uploads/", "GET /v2/n/blobs/uploads/", "POST /v2/n/manifests/v1", "PUT /acr/v1/n"] {
        let refused = write_as(&registry, &bearer, call, &[], "").await;
        assert_eq!(
            (refused.status, refused.json()["errors"][0]["code"].as_str()),
            (405, Some("UNSUPPORTED")),
            "{call}"
        );
    }
}
