//! Whoever reads what larder writes finds no secret in it: logs at their loudest, metrics, errors, `check`, `status`, the store.

use crate::harness::simulator::{Options, User};
use crate::harness::{Acr, Client, Process, Setup, UPSTREAM, walk};
use base64::Engine as _;
use bytes::Bytes;
use std::fmt::Write as _;
use std::process::Command;

const SECRETS: [&str; 7] = [
    "secret-of-larder",
    "secret-of-a-reader",
    "wrong-secret-of-a-reader",
    "secret-of-ann",
    "wrong-secret-of-ann",
    "secret-entra-token",
    "secret-bearer-token",
];

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// Fails if `text` holds a secret, or one as it goes over the wire.
fn search(place: &str, text: &str, more: &[String]) {
    let encoded = SECRETS.iter().flat_map(|secret| {
        // Behind a user's name, base64 begins at any of three places.
        (0..3).map(move |shift| {
            let text = format!("{}{secret}", "x".repeat(shift));
            let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(text);
            encoded[4..encoded.len() - 2].to_owned()
        })
    });
    for secret in SECRETS.iter().map(ToString::to_string).chain(encoded).chain(more.iter().cloned()) {
        if let Some(at) = text.find(&secret) {
            let from = text[..at].rfind('\n').map_or(0, |line| line + 1);
            panic!("{place} holds '{secret}': {}", text[from..].lines().next().unwrap_or_default());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_anything_that_larder_says_or_keeps() {
    let options = Options::private("ci", SECRETS[0]).user(User::scope_map(
        "reader",
        SECRETS[1],
        &[("samples/*", &["content/read", "metadata/read"])],
    ));
    let acr = Acr::start(Options { aad_tokens: vec![SECRETS[5].to_owned()], ..options }).await;
    acr.forgive();
    acr.push_artifact("samples/config", "v1", &[("f", "text/plain", Bytes::from_static(b"x"))]);
    let setup = Setup::of(&acr);
    setup.file("password", SECRETS[0]);
    let hash = bcrypt::hash(SECRETS[3], 4).unwrap();
    setup.file("htpasswd", &format!("ann:{hash}\n"));
    let config = setup.file(
        "larder.toml",
        &format!(
            "[access]\nask_upstream = true\nusers_file = \"htpasswd\"\n[[upstream]]\nname = \"{UPSTREAM}\"\nurl = \"{}\"\n\
             credential = {{ kind = \"password\", username = \"ci\", password_file = \"password\" }}\n",
            acr.url()
        ),
    );
    let file = config.to_str().unwrap().to_owned();
    let larder = Process::start_with(&setup, &["--config", &file], |command| {
        command.env("LARDER_LOG", "trace");
    })
    .await;
    let client = larder.client();
    let mut said = String::new();
    let mut tokens = Vec::new();
    let form = |text: String| client.call("POST", "/oauth2/token").host(UPSTREAM).body(text);
    let exchange = client.call("POST", "/oauth2/exchange").host(UPSTREAM);
    let exchanged = exchange.body(format!("grant_type=access_token&access_token={}", SECRETS[5])).send().await;
    tokens.push(exchanged.json()["refresh_token"].as_str().unwrap().to_owned());
    let scope = "scope=repository:samples/config:pull";
    let refreshed = form(format!("grant_type=refresh_token&{scope}&refresh_token={}", tokens[0])).send().await;
    tokens.push(refreshed.json()["access_token"].as_str().unwrap().to_owned());
    let local = form(format!("grant_type=password&{scope}&username=ann&password={}", SECRETS[3])).send().await;
    tokens.push(local.json()["access_token"].as_str().unwrap().to_owned());
    for refused in [
        format!("grant_type=password&{scope}&username=reader&password={}", SECRETS[2]),
        format!("grant_type=password&{scope}&username={}&password=x", SECRETS[2]),
        format!("grant_type=refresh_token&{scope}&refresh_token={}", SECRETS[6]),
    ] {
        said.push_str(form(refused).send().await.text());
    }
    let logins = [
        basic("ann", SECRETS[3]),
        basic("ann", SECRETS[4]),
        basic("reader", SECRETS[1]),
        basic("reader", SECRETS[2]),
        basic(SECRETS[1], "typed in the wrong place"),
        format!("Bearer {}", SECRETS[6]),
        format!("Bearer {}", tokens[1]),
        format!("Negotiate {}", SECRETS[6]),
    ];
    for login in &logins {
        for (method, target) in [
            ("GET", "/v2/"),
            ("GET", "/v2/samples/config/manifests/v1"),
            ("PUT", "/v2/samples/config/manifests/v2"),
            ("GET", "/v2/_catalog"),
        ] {
            let answer = client.call(method, target).line("Authorization", login).send().await;
            write!(said, "{:?}\n{}\n", answer.headers, String::from_utf8_lossy(&answer.body)).unwrap();
        }
    }
    acr.stop_listening();
    for login in &logins {
        let answer = client.call("GET", "/v2/samples/other/manifests/v1").line("Authorization", login).send().await;
        said.push_str(&String::from_utf8_lossy(&answer.body));
    }
    tokens.push(hash);
    search("an answer", &said, &tokens);
    search("the metrics", &larder.metrics().await, &tokens);
    search("the log", &larder.stderr(), &tokens);
    assert!(larder.stderr().contains("asked upstream"), "the log was not at its loudest");
    for path in ["/", "/healthz", "/readyz"] {
        let page = Client::new(larder.admin).call("GET", path).send().await;
        search(path, &String::from_utf8_lossy(&page.body), &tokens);
    }
    for arguments in [
        &["check", "--json", "--config"][..],
        &["check", "--config"],
        &["status", "--json", "--config"],
        &["user", "list", "--config"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command.env_clear().env("HOME", setup.folder.path()).args(arguments).arg(&file);
        let output = command.output().unwrap();
        search(arguments[0], &String::from_utf8_lossy(&output.stdout), &tokens);
        search(arguments[0], &String::from_utf8_lossy(&output.stderr), &tokens);
    }
    // The command line and the environment, which other processes of the machine may see.
    #[cfg(target_os = "linux")]
    for place in ["cmdline", "environ"] {
        let text = std::fs::read(format!("/proc/{}/{place}", larder.child.id())).unwrap();
        search(place, &String::from_utf8_lossy(&text), &tokens);
    }
    walk(setup.store(), &mut |path| {
        let content = std::fs::read(path).unwrap_or_default();
        search(&path.display().to_string(), &String::from_utf8_lossy(&content), &tokens);
    });
}
