//! Every kind of login, from its file or program to bytes at the client, and what is said when it fails.

use crate::harness::simulator::{Credential, Listener, NULL_GUID, Options, User};
use crate::harness::{Acr, Larder, Logs, Process, Setup, UPSTREAM};
use crate::pull::{REPOSITORY, blob, manifest, seed};
use base64::Engine as _;
use larder::config::{CredentialSettings, DockerLogins, RefreshTokenFile};
use std::time::Duration;

/// Passwords of this file; whatever is logged, none of them may be.
const PASSWORD: &str = "s3cret-pa55word";

/// Pulls, and looks at what upstream saw of the login.
async fn pulls(acr: &Acr, larder: &Larder) {
    let answer = larder.get(&manifest(REPOSITORY, "v1")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let layer = answer.json()["layers"][0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(larder.get(&blob(REPOSITORY, &layer)).await.status, 200);
    let log = acr.log();
    let storage: Vec<_> = log.iter().filter(|seen| seen.listener == Listener::Storage).collect();
    assert!(!storage.is_empty() && storage.iter().all(|seen| seen.authorization == Credential::None));
    let basic = log.iter().filter(|seen| matches!(seen.authorization, Credential::Basic { .. }));
    assert!(basic.into_iter().all(|seen| seen.path().starts_with("/oauth2/")), "Basic goes to the token service only");
    nothing_secret(&format!("{:?}", larder.requests()));
}

/// Every level of every crate: no password, no token, no signed address.
fn nothing_secret(requests: &str) {
    let events = Logs::events();
    for (text, name) in [(events.as_str(), "events"), (requests, "request lines")] {
        for secret in [PASSWORD, "eyJ", "sig=", "aad-access-token", "the-refresh-token"] {
            if let Some(at) = text.find(secret) {
                let start = text[..at].rfind('\n').map_or(0, |at| at + 1);
                panic!("{secret} in the {name}: {}", text[start..].lines().next().unwrap());
            }
        }
    }
}

fn docker(setup: &Setup, content: &str) -> CredentialSettings {
    setup.file("docker/config.json", content);
    CredentialSettings::DockerConfig(DockerLogins { config_file: None })
}

/// A setup whose environment has a folder for programs and one for Docker.
fn surroundings(acr: &Acr) -> Setup {
    let setup = Setup::of(acr);
    let (programs, docker) = (setup.folder.path().join("bin"), setup.folder.path().join("docker"));
    let path = format!("{}:/usr/bin:/bin", programs.display());
    setup.variable("PATH", path).variable("DOCKER_CONFIG", docker)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_user() {
    let acr = Acr::start(Options::private("ci", PASSWORD)).await;
    seed(&acr);
    pulls(&acr, &Setup::of(&acr).password("ci", PASSWORD).start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_principal_in_the_data_endpoint_form() {
    use crate::harness::simulator::Redirect;
    let user = User::service_principal("00000000-1111-2222-3333-444444444444", PASSWORD);
    let acr = Acr::start(Options::default().user(user).redirect(Redirect::DataEndpoint)).await;
    seed(&acr);
    pulls(&acr, &Setup::of(&acr).password("00000000-1111-2222-3333-444444444444", PASSWORD).start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_map_token_reads_what_it_may_and_the_refusal_of_the_rest_names_it() {
    let user = User::scope_map("token1", PASSWORD, &[(REPOSITORY, &["content/read", "metadata/read"])]);
    let acr = Acr::start(Options::default().user(user)).await;
    seed(&acr);
    acr.push_blob("team/secret", "x");
    let larder = Setup::of(&acr).password("token1", PASSWORD).start().await;
    pulls(&acr, &larder).await;
    let (status, code, message) = larder.get(&manifest("team/secret", "v1")).await.error();
    assert_eq!((status, &*code), (403, "DENIED"));
    assert!(message.contains(UPSTREAM) && message.contains("token1") && message.contains("grant"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_from_a_file() {
    let options = Options { refresh_tokens: vec!["the-refresh-token".into()], ..Options::default() };
    let acr = Acr::start(options).await;
    seed(&acr);
    let setup = Setup::of(&acr);
    let token_file = setup.file("token", "the-refresh-token\n");
    pulls(&acr, &setup.credential(CredentialSettings::RefreshToken(RefreshTokenFile { token_file })).start().await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dockers_config_with_an_identity_token_as_az_acr_login_writes_it() {
    let options = Options { refresh_tokens: vec!["the-refresh-token".into()], ..Options::default() };
    let acr = Acr::start(options).await;
    seed(&acr);
    let setup = surroundings(&acr);
    let user = base64::engine::general_purpose::STANDARD.encode(format!("{NULL_GUID}:"));
    let config =
        format!("{{\"auths\":{{\"{UPSTREAM}\":{{\"auth\":\"{user}\",\"identitytoken\":\"the-refresh-token\"}}}}}}");
    let credential = docker(&setup, &config);
    pulls(&acr, &setup.credential(credential).start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dockers_config_with_a_password_read_again_when_it_is_refused() {
    let acr = Acr::start(Options::private("ci", PASSWORD)).await;
    seed(&acr);
    let setup = surroundings(&acr);
    let config = |password: &str| {
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("ci:{password}"));
        format!("{{\"auths\":{{\"https://{UPSTREAM}\":{{\"auth\":\"{auth}\"}}}}}}")
    };
    let credential = docker(&setup, &config("outdated"));
    let larder = setup.credential(credential).start().await;
    assert_eq!(larder.get(&manifest(REPOSITORY, "v1")).await.error().0, 403);
    docker(&larder.setup, &config(PASSWORD));
    pulls(&acr, &larder).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn dockers_config_with_a_credential_helper() {
    let acr = Acr::start(Options::private("ci", PASSWORD)).await;
    seed(&acr);
    let setup = surroundings(&acr);
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = get ] || exit 2\nread server\n\
         [ \"$server\" = {UPSTREAM} ] || {{ echo 'credentials not found in native keychain'; exit 1; }}\n\
         echo '{{\"ServerURL\":\"{UPSTREAM}\",\"Username\":\"ci\",\"Secret\":\"{PASSWORD}\"}}'\n"
    );
    setup.program("bin/docker-credential-vault", &script);
    let credential = docker(&setup, &format!("{{\"credHelpers\":{{\"{UPSTREAM}\":\"vault\"}}}}"));
    pulls(&acr, &setup.credential(credential).start().await).await;
}

#[cfg(unix)]
fn az(setup: &Setup) {
    let script = "#!/bin/sh\n\
        [ \"$1 $2\" = 'account get-access-token' ] || exit 2\n\
        echo '{\"accessToken\":\"aad-access-token\",\"expires_on\":4102444800,\"tenant\":\"72f988bf-0000-0000-0000-2d7cd011db47\",\"tokenType\":\"Bearer\"}'\n";
    setup.program("bin/az", script);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_azure_cli() {
    let acr = Acr::start(Options { aad_tokens: vec!["aad-access-token".into()], ..Options::default() }).await;
    seed(&acr);
    let setup = surroundings(&acr);
    az(&setup);
    pulls(&acr, &setup.credential(CredentialSettings::AzureCli).start().await).await;
    assert!(acr.count(|seen| seen.path() == "/oauth2/exchange" && seen.status == 200) > 0);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn auto_takes_dockers_login_and_none_without_it_and_shows_no_azure_token_to_a_host_that_is_no_acr() {
    let acr = Acr::start(Options::private("ci", PASSWORD)).await;
    seed(&acr);
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("ci:{PASSWORD}"));
    let setup = surroundings(&acr);
    az(&setup);
    docker(&setup, &format!("{{\"auths\":{{\"{UPSTREAM}\":{{\"auth\":\"{auth}\"}}}}}}"));
    pulls(&acr, &setup.credential(CredentialSettings::Auto).start().await).await;
    assert_eq!(acr.count(|seen| seen.path() == "/oauth2/exchange"), 0, "it is dialled as 127.0.0.1");

    let larder = Setup::of(&acr).credential(CredentialSettings::Auto).start().await;
    let (status, code, message) = larder.get(&manifest(REPOSITORY, "v1")).await.error();
    assert_eq!((status, &*code), (403, "DENIED"));
    assert!(message.contains(UPSTREAM) && message.contains("docker login"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_20_a_refused_secret_is_403_with_upstream_identity_and_remedy_and_never_a_challenge() {
    let acr = Acr::start(Options::private("ci", "the right one")).await;
    let (artifact, _) = seed(&acr);
    let larder = Setup::of(&acr).password("ci", PASSWORD).start().await;
    for target in
        [manifest(REPOSITORY, "v1"), blob(REPOSITORY, &artifact.layers[0]), format!("/v2/{REPOSITORY}/tags/list")]
    {
        for method in ["GET", "HEAD"] {
            let answer = larder.call(method, &target).send().await;
            assert_eq!(answer.status, 403, "{method} {target}");
            assert_eq!(answer.header("www-authenticate"), None, "trap 4");
        }
        let (_, code, message) = larder.get(&target).await.error();
        assert_eq!(code, "DENIED");
        for part in [UPSTREAM, "ci", "password_file"] {
            assert!(message.contains(part), "{part} is missing: {message}");
        }
        assert!(!message.contains(PASSWORD), "{message}");
    }
    nothing_secret(&format!("{:?}", larder.requests()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_dies_leaves_what_is_stored_and_one_that_is_rotated_works_without_a_restart() {
    let acr = Acr::start(Options::private("ci", PASSWORD)).await;
    let (artifact, content) = seed(&acr);
    let setup = Setup::of(&acr).password("ci", PASSWORD).tag_ttl(Duration::ZERO);
    let larder = setup.start().await;
    pulls(&acr, &larder).await;
    crate::harness::until("the blob is stored", || larder.stores(&artifact.layers[0])).await;
    let setup = larder.stop().await;
    setup.file("password", "no more");
    let larder = setup.start().await;
    let stale = larder.get(&manifest(REPOSITORY, "v1")).await;
    assert_eq!(stale.status, 200);
    assert!(stale.cache_status().contains("detail=stale"), "{}", stale.cache_status());
    assert!(stale.header("warning").unwrap().contains("password_file"), "{:?}", stale.header("warning"));
    assert_eq!(larder.get(&blob(REPOSITORY, &artifact.layers[0])).await.body, content);
    assert_eq!(larder.get(&manifest(REPOSITORY, "v2")).await.error().0, 403);
    setup.file("password", PASSWORD);
    let later = artifact.manifest.to_vec();
    acr.push_manifest(REPOSITORY, Some("v3"), crate::harness::simulator::OCI_MANIFEST, later.clone());
    assert_eq!(larder.get(&manifest(REPOSITORY, "v3")).await.body, later);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_at_the_start_costs_one_token() {
    let acr = Acr::start(Options::private("ci", PASSWORD)).await;
    let (artifact, content) = seed(&acr);
    acr.knobs().turn(|k| k.login.delay_ms = 50);
    let larder = Setup::of(&acr).password("ci", PASSWORD).start().await;
    let target = blob(REPOSITORY, &artifact.layers[0]);
    let asking: Vec<_> = (0..50).map(|_| tokio::spawn(larder.call("GET", &target).send())).collect();
    for answer in asking {
        assert_eq!(answer.await.unwrap().body, content);
    }
    assert_eq!(acr.count(|seen| seen.path() == "/oauth2/token"), 1);
    assert_eq!(acr.downloads(), 1);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_program_itself_says_as_whom_it_asks_and_keeps_the_secret_to_itself() {
    let acr = Acr::start(Options { aad_tokens: vec!["aad-access-token".into()], ..Options::default() }).await;
    let (artifact, _) = seed(&acr);
    let setup = surroundings(&acr);
    az(&setup);
    let path = format!("{}:/usr/bin:/bin", setup.folder.path().join("bin").display());
    let arguments = ["--upstream", &acr.url(), "--login", "az"];
    let mut process = Process::start_with(&setup, &arguments, |command| {
        command.env("PATH", path).env("LARDER_LOG", "trace");
    })
    .await;
    let answer = process.client().call("GET", &manifest(REPOSITORY, "v1")).send().await;
    assert_eq!(answer.body, artifact.manifest);
    crate::harness::until("the first lines are said", || process.stderr().contains("az (Azure CLI)")).await;
    process.signal(rustix::process::Signal::TERM);
    let status = process.ended(Duration::from_secs(10)).await.expect("it ends");
    assert_eq!(status.code(), Some(0));
    let said = process.stderr();
    for part in ["every user of this machine", &*acr.host(), &*process.address.to_string(), "store "] {
        assert!(said.contains(part), "{part} is missing");
    }
    for secret in ["aad-access-token", "eyJ", "sig="] {
        assert!(!said.contains(secret), "{secret} in the log of trace level");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_sends_as_its_own_login_is_ignored_and_goes_nowhere() {
    let acr = Acr::start(Options::private("ci", PASSWORD)).await;
    seed(&acr);
    let larder = Setup::of(&acr).password("ci", PASSWORD).start().await;
    for authorization in ["Bearer of-the-client", "Basic b2YtdGhlOmNsaWVudA==", "nonsense"] {
        let call = larder.call("GET", &manifest(REPOSITORY, "v1")).line("Authorization", authorization);
        assert_eq!(call.line("Cookie", "of=the-client").send().await.status, 200, "{authorization}");
    }
    for seen in acr.log() {
        assert!(!seen.headers.contains_key("cookie"));
        assert!(!matches!(&seen.authorization, Credential::Basic { user } if user != "ci"), "{seen:?}");
    }
    let said = format!("{} {:?}", Logs::events(), larder.requests());
    assert!(!said.contains("of-the-client") && !said.contains("b2YtdGhl"));
}
