//! The configuration as an operator meets it: files, variables and flags in; settings, or every error, out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use larder::config::{
    CredentialSettings, DockerLogins, Environment, Flags, Handed, Listen, Loaded, Login, Origin, PasswordLogin, Right,
    Sources, Tier, load,
};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const MINIMAL: &str = "[[upstream]]\nname = \"myacr.azurecr.io\"\n";

/// A folder with a `larder.toml`, and the sources that read it.
fn sources(text: &str) -> (TempDir, Sources) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("larder.toml");
    std::fs::write(&file, text).unwrap();
    let sources = Sources { file: Some(file), ..without_file(folder.path()) };
    (folder, sources)
}

fn without_file(folder: &Path) -> Sources {
    let home = folder.to_str().unwrap();
    Sources {
        environment: [("HOME", home), ("USERPROFILE", home), ("LOCALAPPDATA", home)].into_iter().collect(),
        current_folder: folder.to_owned(),
        system_file: folder.join("system.toml"),
        ..Sources::default()
    }
}

fn with_variables(sources: &Sources, variables: &[(&str, &str)]) -> Sources {
    let own = sources.environment.iter().chain(variables.iter().copied());
    Sources { environment: own.collect::<Environment>(), ..sources.clone() }
}

fn loaded(text: &str) -> Loaded {
    load(&sources(text).1).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The errors of a file, without the folder's name.
fn errors(text: &str) -> Vec<String> {
    let (folder, sources) = sources(text);
    errors_of(&sources).iter().map(|error| error.replace(&format!("{}/", folder.path().display()), "")).collect()
}

fn errors_of(sources: &Sources) -> Vec<String> {
    match load(sources) {
        Ok(_) => panic!("accepted"),
        Err(errors) => errors.errors.iter().map(ToString::to_string).collect(),
    }
}

/// The one error that the lines cause below a minimal upstream.
fn error(lines: &str) -> String {
    let found = errors(&format!("{lines}\n{MINIMAL}"));
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// The one error that the lines cause within an upstream.
fn upstream_error(lines: &str) -> String {
    let found = errors(&format!("{MINIMAL}{lines}\n"));
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let (folder, sources) = sources(MINIMAL);
    let loaded = load(&sources).unwrap();
    let settings = loaded.settings;
    let tcp = |text: &str| Listen::Tcp(text.parse().unwrap());
    assert_eq!(settings.server.listen, [tcp("127.0.0.1:5000"), tcp("[::1]:5000")]);
    assert_eq!(settings.server.drain, Duration::from_secs(30));
    assert_eq!(settings.admin.listen, "127.0.0.1:5001".parse().unwrap());
    assert!(settings.store.path.starts_with(folder.path()) && settings.store.path.ends_with("larder"));
    assert_eq!(settings.store.min_free, 5 << 30);
    assert_eq!(settings.store.max_size, None);
    assert_eq!(settings.access.open_to.len(), 2);
    let upstream = &settings.upstreams[0];
    assert_eq!(upstream.url, "https://myacr.azurecr.io");
    assert!(upstream.default, "the only upstream is the default one");
    assert_eq!(upstream.credential, CredentialSettings::Anonymous);
    assert_eq!(upstream.connect_timeout, Duration::from_secs(10));
    assert_eq!(upstream.first_byte_timeout, Duration::from_secs(30));
    assert_eq!(upstream.stall_timeout, Duration::from_secs(30));
    assert_eq!(upstream.freshness.tag_ttl, Duration::from_secs(60));
    assert!(loaded.warnings.is_empty());
}

#[test]
fn all_errors_are_found_in_one_go_each_with_its_place() {
    let found = errors(
        "[server]\nlisten = [\"127.0.0.1\"]\ndrian = \"5m\"\n[store]\nmax_size = 100\nmin_free = \"ten\"\nsync = \"always\"\n\
         [[upstream]]\nname = \"my acr\"\nurl = \"ftp://x\"\n[upstream.freshness]\ntag_ttl = 60\n[upstream.credential]\nkind = \"pasword\"\n",
    );
    let starts = [
        "larder.toml:2:11: server.listen: '127.0.0.1' is not a listen address",
        "larder.toml:3:1: server.drian: unknown key `drian` in [server]: did you mean `drain`?",
        "larder.toml:5:12: store.max_size: size 100 has no unit: write \"100B\" or \"100GiB\"",
        "larder.toml:6:12: store.min_free: size 'ten' is not understood",
        "larder.toml:7:8: store.sync: 'always' is no way to sync: write \"commit\" or \"none\"",
        "larder.toml:9:8: upstream.0.name: 'my acr' is not a host",
        "larder.toml:10:7: upstream.0.url: url 'ftp://x' has the scheme ftp",
        "larder.toml:14:8: upstream.0.credential.kind: kind 'pasword' is unknown: did you mean \"password\"?",
        "larder.toml:12:11: upstream.0.freshness.tag_ttl: duration 60 has no unit: write \"60s\" or \"60m\"",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for start in starts {
        assert!(found.iter().any(|error| error.starts_with(start)), "{start}\nnot in\n{found:#?}");
    }
}

#[test]
fn broken_toml_names_its_place() {
    let found = errors("[server]\ndrain = = 5\n");
    assert!(found[0].starts_with("larder.toml:2:9: not TOML"), "{found:?}");
    let found = errors("[server]\ndrain = \"5m\"\ndrain = \"6m\"\n");
    assert!(found[0].starts_with("larder.toml:3:1: not TOML at 'drain …': duplicate key"), "{found:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let (folder, sources) = sources("");
    let missing = Sources { file: Some(folder.path().join("none.toml")), ..sources };
    assert!(errors_of(&missing)[0].contains("none.toml:1:1: cannot read the configuration"));
}

#[test]
fn an_upstream_can_be_sealed_slowed_and_held_to_an_age() {
    let upstream = |lines: &str| loaded(&format!("{MINIMAL}{lines}")).settings.upstreams[0].clone();
    let plain = upstream("");
    assert!(!plain.sealed && !plain.isolate && plain.max_rate.is_none() && plain.freshness.max_stale.is_none());
    let set = upstream(
        "sealed = true\nisolate = true\nmax_rate = \"50MiB\"\nfreshness = { max_stale = \"7d\", negative_ttl = \"1s\" }\n",
    );
    assert_eq!(plain.tier, Tier::Unknown);
    for (text, tier) in [("basic", Tier::Basic), ("standard", Tier::Standard), ("premium", Tier::Premium)] {
        assert_eq!(upstream(&format!("tier = \"{text}\"\n")).tier, tier);
    }
    assert!(upstream_error("tier = \"gold\"").contains("no service tier: write \"basic\""));
    assert!(set.sealed && set.isolate);
    assert_eq!(set.max_rate, Some(50 << 20));
    assert_eq!(set.freshness.max_stale, Some(Duration::from_secs(7 * 86400)));
    assert_eq!(set.freshness.negative_ttl, Duration::from_secs(1));
    for none in ["\"0\"", "0", "\"0B\""] {
        assert_eq!(upstream(&format!("max_rate = {none}\n")).max_rate, None, "{none}");
    }
    assert!(upstream_error("max_rate = 5").contains("has no unit"));
    assert!(upstream_error("max_rate = \"fast\"").contains("such as \"10GiB\""));

    let (_folder, sources) = sources(&format!("{MINIMAL}sealed = false\n[[upstream]]\nname = \"b.io\"\n"));
    let flags = Flags { sealed: true, upstreams: vec!["c.io".to_owned()], ..Flags::default() };
    let sealed = load(&Sources { flags, ..sources }).unwrap().settings.upstreams;
    assert_eq!(sealed.iter().map(|upstream| upstream.sealed).collect::<Vec<_>>(), [true; 3]);
}

#[test]
fn each_rule_between_values_has_its_own_error() {
    for (lines, text) in [
        ("[server]\nlisten = []", "the list is empty"),
        ("[store]\npin = [\"a.io/x:v1\"]", "names a tag or a digest"),
        ("[store]\npin = [\"a.io\"]", "matches no repository"),
        ("[server]\nlisten = [\"127.0.0.1:5000\", \"127.0.0.1:5000\"]", "clash"),
        ("[server]\nlisten = [\"127.0.0.1:5000\", \"0.0.0.0:5000\"]", "clash"),
        ("[server]\nlisten = \"127.0.0.1:5000\"", "write a list in square brackets, [\"127.0.0.1:5000\"]"),
        ("[server]\nlisten = [\"unix:larder.sock\"]", "needs an absolute path"),
        ("[server]\nnames = [\"build.lan:5000\"]", "has a port"),
        ("[server]\ndrain = true", "found true: write a duration"),
        ("[server.limits]\nfills = 0", "write a whole number from 1"),
        ("[server.limits]\nheader_bytes = \"1KiB\"", "from \"8KiB\""),
        ("[server.limits]\nheader_timeout = \"0s\"", "time limit of zero"),
        ("[admin]\nlisten = \"127.0.0.1:5000\"", "is taken by [server] listen"),
        ("[store]\nmax_size = \"0B\"", "keeps nothing"),
        ("[access]\nopen_to = []", "nobody is let in"),
        ("[access]\nopen_to = [\"10.0.0.1/8\"]", "write \"10.0.0.0/8\""),
        ("[access]\nopen_to = [\"everybody\"]", "\"0.0.0.0/0\""),
        ("[server]\nlisten = [\"0.0.0.0:5000\"]", "only loopback is let in: write the clients' networks"),
        (
            "[server]\nlisten = [\"127.0.0.1:5000\", \"10.1.2.3:5000\"]",
            "listens on 10.1.2.3:5000 but only loopback is let in",
        ),
        ("store = 5", "write [store]"),
    ] {
        let error = error(lines);
        assert!(error.starts_with("larder.toml:") && error.contains(text), "{lines}\n{error}");
    }
}

#[test]
fn each_rule_within_an_upstream_has_its_own_error() {
    for (lines, text) in [
        ("aliases = [\"a:b\"]", "has a colon or slash"),
        ("aliases = [\"a/b\"]", "has a colon or slash"),
        ("aliases = [\"myacr.azurecr.io\"]", "belongs to upstream myacr.azurecr.io already"),
        ("url = \"https://myacr.azurecr.io/v2\"", "write https://myacr.azurecr.io"),
        ("connect_timeout = \"0s\"", "time limit of zero"),
        ("token_realms = [\"https://x\"]", "is not a host"),
        ("mirrors = [\"mirror.lan\"]", "'mirror.lan' is not a url"),
        ("mirrors = [\"https://mirror.lan/v2\"]", "has a path"),
        ("ca_file = \"none.pem\"", "none.pem"),
        ("credential = { kind = \"password\", password_file = \"larder.toml\" }", "needs a username"),
        ("credential = { kind = \"password\", username = \"a:b\", password_file = \"larder.toml\" }", "no colon"),
        ("credential = { kind = \"password\", username = \"a\" }", "needs password_file"),
        ("credential = { kind = \"password\", username = \"a\", password_file = \"none\" }", "none does not exist"),
        ("credential = { kind = \"auto\", username = \"a\" }", "unknown key `username`"),
        ("freshness = { immutable_tags = [\"v[0-9]\"] }", "is not a pattern of tags"),
        ("[[upstream]]\nname = \"MYACR.azurecr.io\"", "belongs to upstream myacr.azurecr.io already"),
        ("default = true\n[[upstream]]\nname = \"b.io\"\ndefault = true", "are both the default"),
        ("[[upstream]]\naliases = []", "has no name"),
        ("[[upstream]]\nname = \"localhost\"", "would be meant by every request to larder at localhost"),
        ("[[upstream]]\nname = \"127.0.0.1\"", "url = \"http://127.0.0.1\""),
        ("[[upstream]]\nurl = \"http://[::1]\"", "write another name, such as name = \"registry.local\""),
        ("[[upstream]]\nname = \"a.localhost\"", "would be meant by every request"),
    ] {
        let error = upstream_error(lines);
        assert!(error.starts_with("larder.toml:") && error.contains(text), "{lines}\n{error}");
    }
    assert!(errors("[upstream]\nname = \"a\"")[0].contains("[[upstream]] with two brackets"));
    assert!(errors("[server]\n")[0].contains("there is no upstream"));
}

#[test]
fn no_error_repeats_a_secret() {
    for lines in [
        "url = \"https://ci:hunter2@myacr.azurecr.io\"",
        "password = \"hunter2\"",
        "credential = { kind = \"password\", username = \"ci\", password = \"hunter2\", password_file = \"larder.toml\" }",
        "credential = \"hunter2\"",
        "token_realms = [\"ci:hunter2@realm\"]",
    ] {
        let error = upstream_error(lines);
        assert!(!error.contains("hunter2"), "{error}");
    }
    let found = errors(&format!("{MINIMAL}password = hunter2\n"));
    assert!(found[0].starts_with("larder.toml:3:12: not TOML at 'password …'") && !found.concat().contains("hunter2"));
    let folder = tempfile::tempdir().unwrap();
    let flags = Flags { upstreams: vec!["https://ci:hunter2@myacr.azurecr.io".to_owned()], ..Flags::default() };
    let found = errors_of(&Sources { flags, ..without_file(folder.path()) });
    assert!(
        found.len() == 1 && found[0].starts_with("flag --upstream: ") && !found.concat().contains("hunter2"),
        "{found:?}"
    );
}

#[test]
fn a_secret_path_is_relative_to_the_file_and_shown_in_full() {
    let text = format!("{MINIMAL}credential = {{ kind = \"password\", username = \"ci\", password_file = \"pw\" }}\n");
    let (folder, sources) = sources(&text);
    std::fs::write(folder.path().join("pw"), "hunter2\n").unwrap();
    let expected = |path: &Path| {
        CredentialSettings::Password(PasswordLogin { username: "ci".to_owned(), password_file: path.to_owned() })
    };
    let loaded = load(&sources).unwrap();
    assert_eq!(loaded.settings.upstreams[0].credential, expected(&folder.path().join("pw")));
    let shown = loaded.effective.iter().find(|entry| entry.key == "password_file").unwrap();
    assert!(shown.value.as_ref().unwrap().contains(folder.path().to_str().unwrap()));
    let credentials = tempfile::tempdir().unwrap();
    std::fs::write(credentials.path().join("pw"), "x").unwrap();
    let sources = with_variables(&sources, &[("CREDENTIALS_DIRECTORY", credentials.path().to_str().unwrap())]);
    assert_eq!(load(&sources).unwrap().settings.upstreams[0].credential, expected(&credentials.path().join("pw")));
}

#[test]
fn variables_override_every_level_and_are_the_origin() {
    let (_folder, sources) = sources(&format!("[server]\ndrain = \"1m\"\n{MINIMAL}"));
    let sources = with_variables(
        &sources,
        &[
            ("LARDER_SERVER__DRAIN", "5m"),
            ("LARDER_SERVER__LISTEN", "[\"127.0.0.1:6000\"]"),
            ("LARDER_SERVER__LIMITS__FILLS", "7"),
            ("LARDER_UPSTREAM__0__URL", "http://127.0.0.1:5555"),
            ("LARDER_UPSTREAM__0__FRESHNESS__TAG_TTL", "\"2m\""),
            ("LARDER_UPSTREAM__0__ALIASES__0", "acr"),
            ("LARDER_UPSTREAM__1__NAME", "b.io"),
            ("LARDER_LOG", "debug"),
            ("LARDER_LOG_FORMAT", "json"),
            ("LARDER_TEST_X", "y"),
        ],
    );
    let loaded = load(&sources).unwrap_or_else(|errors| panic!("{errors}"));
    let settings = &loaded.settings;
    assert_eq!(settings.server.drain, Duration::from_secs(300));
    assert_eq!(settings.server.listen, [Listen::Tcp("127.0.0.1:6000".parse().unwrap())]);
    assert_eq!(settings.server.limits.fills, 7);
    assert_eq!(settings.upstreams[0].url, "http://127.0.0.1:5555");
    assert_eq!(settings.upstreams[0].freshness.tag_ttl, Duration::from_secs(120));
    assert_eq!(settings.upstreams[0].aliases, ["acr"]);
    assert_eq!(settings.upstreams[1].name.as_str(), "b.io");
    let drain = loaded.effective.iter().find(|entry| entry.key == "drain").unwrap();
    assert_eq!(drain.origin, Origin::Environment("LARDER_SERVER__DRAIN".to_owned()));
}

#[test]
fn a_bare_word_in_a_variable_is_a_string_where_one_belongs() {
    let text = format!("{MINIMAL}credential = {{ kind = \"password\", password_file = \"larder.toml\" }}\n");
    let (_folder, sources) = sources(&text);
    for name in ["true", "12345", "ci", "\"ci\""] {
        let sources = with_variables(&sources, &[("LARDER_UPSTREAM__0__CREDENTIAL__USERNAME", name)]);
        let CredentialSettings::Password(PasswordLogin { username, .. }) =
            load(&sources).unwrap().settings.upstreams[0].credential.clone()
        else {
            panic!("not a password")
        };
        assert_eq!(username, name.trim_matches('"'));
    }
}

#[test]
fn a_wrong_variable_is_named() {
    let (_folder, sources) = sources(MINIMAL);
    for (variable, value, text) in [
        ("LARDER_SERVER__DRIAN", "5m", "did you mean `drain`?"),
        ("LARDER_NONSENSE", "1", "unknown key `nonsense`"),
        ("LARDER_SERVER__DRAIN", "5", "has no unit"),
        ("LARDER_UPSTREAM__5__URL", "https://a.io", "the next position is 1"),
        ("LARDER_UPSTREAM__URL", "https://a.io", "followed by a position"),
        ("LARDER_SERVER__0", "x", "a table with keys of its own"),
    ] {
        let found = errors_of(&with_variables(&sources, &[(variable, value)]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with(&format!("environment variable {variable}: ")) && found[0].contains(text),
            "{found:?}"
        );
    }
}

#[test]
fn flags_alone_make_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let flags = Flags {
        upstreams: vec!["http://127.0.0.1:5555".to_owned(), "B.io".to_owned()],
        listen: vec!["127.0.0.1:6000".to_owned()],
        admin: Some("127.0.0.1:6001".to_owned()),
        store: Some("cache".to_owned()),
        max_size: Some("10GiB".to_owned()),
        ..Flags::default()
    };
    let sources = Sources { flags, ..without_file(folder.path()) };
    let settings = load(&sources).unwrap_or_else(|errors| panic!("{errors}")).settings;
    let [first, second] = &settings.upstreams[..] else { panic!("{settings:?}") };
    assert_eq!((first.name.as_str(), first.default), ("127.0.0.1:5555", true));
    assert_eq!(first.url, "http://127.0.0.1:5555");
    assert_eq!(first.credential, CredentialSettings::Auto);
    assert_eq!((second.name.as_str(), second.default), ("b.io", false));
    assert_eq!(second.url, "https://b.io");
    assert_eq!(second.credential, CredentialSettings::Anonymous);
    assert_eq!(settings.store.path, folder.path().join("cache"));
    assert_eq!(settings.store.max_size, Some(10 << 30));
}

#[test]
fn flags_join_a_file_by_name_or_alias() {
    let text = "[[upstream]]\nname = \"a.io\"\ndefault = true\n[[upstream]]\nname = \"b.io\"\naliases = [\"bee\"]\n\
                credential = { kind = \"docker-config\" }\n";
    let (_folder, sources) = sources(text);
    let with = |upstreams: &[&str], login| {
        let flags = Flags { upstreams: upstreams.iter().map(ToString::to_string).collect(), login, ..Flags::default() };
        load(&Sources { flags, ..sources.clone() }).unwrap_or_else(|errors| panic!("{errors}")).settings.upstreams
    };
    let upstreams = with(&["bee"], None);
    assert_eq!(upstreams.len(), 2);
    assert!(!upstreams[0].default && upstreams[1].default);
    assert_eq!(
        upstreams[1].credential,
        CredentialSettings::DockerConfig(DockerLogins { config_file: None }),
        "the file's login stays"
    );
    let upstreams = with(&["c.io"], Some(Login::AzureCli));
    assert_eq!(upstreams.len(), 3);
    assert_eq!((upstreams[2].default, upstreams[2].credential.clone()), (true, CredentialSettings::AzureCli));
    assert_eq!(
        with(&["docker.io"], None)[2].url,
        "https://registry-1.docker.io",
        "Docker Hub speaks under another name"
    );
    assert_eq!(with(&["https://docker.io"], None)[2].url, "https://registry-1.docker.io");
    let upstreams = with(&[], Some(Login::Auto));
    assert_eq!(upstreams[0].credential, CredentialSettings::Auto, "without --upstream the login is the default one's");
}

#[test]
fn the_flag_allow_is_one_rule_more() {
    let rules =
        "[[access.rules]]\nnetworks = [\"10.0.0.0/8\"]\nrepositories = [\"a.io/x/**\"]\nallow = [\"pull\", \"push\"]\n";
    let (_folder, sources) = sources(&format!("{MINIMAL}\n{rules}"));
    let flags = Flags { allow: vec!["push".to_owned(), "delete".to_owned()], ..Flags::default() };
    let rules = load(&Sources { flags, ..sources.clone() }).unwrap().settings.access.rules;
    assert_eq!(rules.len(), 2);
    assert_eq!(rules[0].allow, [Right::Pull, Right::Push]);
    assert_eq!(rules[0].networks.as_deref(), Some(&["10.0.0.0/8".parse().unwrap()][..]));
    assert_eq!((rules[1].allow.as_slice(), &rules[1].networks), (&[Right::Push, Right::Delete][..], &None));
    assert_eq!(rules[1].repositories[0].as_str(), "**");
    let flags = Flags { allow: vec!["pull".to_owned()], ..Flags::default() };
    let found = errors_of(&Sources { flags, ..sources });
    assert_eq!(found, ["flag --allow: 'pull' is neither push nor delete: write --allow push,delete, or one of them"]);
}

/// A users file with ann and bob, beside a configuration that names it.
fn with_users(access: &str) -> (TempDir, Sources) {
    let hash = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";
    let (folder, sources) = sources(&format!("[access]\nusers_file = \"htpasswd\"\n{access}\n{MINIMAL}"));
    std::fs::write(folder.path().join("htpasswd"), format!("ann:{hash}\nbob:{hash}\n")).unwrap();
    (folder, sources)
}

#[test]
fn users_and_groups_in_rules_are_those_that_there_are() {
    let rule = |users: &str| {
        format!(
            "[access.groups]\nbuilders = [\"ann\", \"bob\"]\nstale = [\"cid\"]\n[[access.rules]]\nusers = {users}\nrepositories = [\"**\"]\nallow = [\"push\"]"
        )
    };
    for (users, resolved) in [
        ("[\"ann\"]", Some(vec!["ann"])),
        ("[\"@builders\"]", Some(vec!["ann", "bob"])),
        ("[\"*\"]", None),
        ("[\"ann\", \"*\"]", None),
    ] {
        let (folder, sources) = with_users(&rule(users));
        let settings = load(&sources).unwrap_or_else(|errors| panic!("{errors}")).settings;
        let found = settings.access.rules[0].users.clone();
        assert_eq!(found, resolved.map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>()), "{users}");
        assert_eq!(settings.access.users_file, Some(folder.path().join("htpasswd")));
        assert!(settings.access.open_to.is_empty(), "loopback needs a login too, unless open_to says otherwise");
    }
    for (users, problem) in [
        ("[\"@bilders\"]", "larder.toml:7:9: access.rules.0.users: there is no group 'bilders'"),
        ("[\"@stale\"]", "there is no user 'cid' in users_file: larder user add cid"),
        ("[\"cid\"]", "larder.toml:7:9: access.rules.0.users: there is no user 'cid' in users_file"),
    ] {
        let (folder, sources) = with_users(&rule(users));
        let found = errors_of(&sources).join("\n").replace(&format!("{}/", folder.path().display()), "");
        assert!(found.contains(problem), "{found}");
    }
    for (groups, problem) in [
        ("builders = []", "group 'builders' is empty"),
        ("builders = [\"@others\"]", "a group consists of users' names"),
        ("builders = \"ann\"", "write a list"),
    ] {
        let (_folder, sources) = with_users(&format!("[access.groups]\n{groups}"));
        let found = errors_of(&sources).join("\n");
        assert!(found.contains(problem), "{found}");
    }
    assert!(error("[access]\ngroups = 5").contains("write [access.groups]"));
}

#[test]
fn asking_upstream_needs_one_that_can_be_asked_and_lets_rules_name_whom_no_file_has() {
    let rule = "[[access.rules]]\nusers = [\"writer\"]\nrepositories = [\"**\"]\nallow = [\"push\"]\n";
    let with = |credential: &str| format!("[access]\nask_upstream = true\n{rule}{MINIMAL}{credential}");
    let anonymous = errors(&with(""));
    assert_eq!(anonymous.len(), 1, "{anonymous:?}");
    assert!(anonymous[0].contains("upstream myacr.azurecr.io is read anonymously"), "{anonymous:?}");
    let settings = loaded(&with("credential = { kind = \"azure-cli\" }\n")).settings.access;
    assert!(settings.ask_upstream && settings.open_to.is_empty());
    assert_eq!(settings.rules[0].users.as_deref(), Some(&["writer".to_owned()][..]));
    assert_eq!(
        (settings.verdict_ttl, settings.verdict_stale),
        (Duration::from_secs(60), Duration::from_secs(3 * 3600))
    );
    assert!(error("[access]\nverdict_ttl = \"0s\"").contains("access.verdict_ttl"));
}

#[test]
fn a_users_file_that_lets_nobody_in_is_an_error_with_its_place() {
    let (folder, sources) = with_users("");
    let file = folder.path().join("htpasswd");
    assert!(load(&sources).is_ok());
    for (content, problem) in [
        (
            Some("ann:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n"),
            "line 1: user 'ann' has a SHA-1 hash, and larder reads bcrypt alone",
        ),
        (Some("# nobody yet\n"), "the file has no user and nothing else lets anybody in: larder user add NAME"),
        (None, "does not exist: larder user add NAME --users-file"),
    ] {
        match content {
            Some(content) => std::fs::write(&file, content).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let found = errors_of(&sources);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("larder.toml:2:14: access.users_file: ") && found[0].contains(problem), "{found:?}");
    }
    // All that listen beyond loopback can be reached with a password.
    std::fs::write(
        folder.path().join("larder.toml"),
        format!("[server]\nlisten = [\"0.0.0.0:5000\"]\n[access]\nusers_file = \"htpasswd\"\n{MINIMAL}"),
    )
    .unwrap();
    let hash = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";
    std::fs::write(&file, format!("ann:{hash}\n")).unwrap();
    assert!(load(&sources).is_ok_and(|loaded| loaded.warnings.is_empty()));
}

#[test]
fn rules_that_let_nobody_do_anything_are_errors() {
    for (rule, problem) in [
        ("repositories = [\"a.io/x\"]", "the rule allows nothing"),
        ("allow = [\"push\"]", "the rule is about no repository"),
        ("repositories = [\"x\"]\nallow = [\"push\"]", "'x' matches no repository"),
        ("repositories = [\"**\"]\nallow = [\"write\"]", "'write' is no right"),
        (
            "repositories = [\"**\"]\nallow = [\"push\"]\nusers = [\"ann\"]",
            "'ann' cannot be known, since nobody can log in here",
        ),
        ("repositories = [\"**\"]\nallow = [\"push\"]\nusers = []", "the rule is for nobody"),
        ("repositories = [\"**\"]\nallow = [\"push\"]\nnetworks = []", "the rule is for nobody"),
    ] {
        let (_folder, sources) = sources(&format!("{MINIMAL}\n[[access.rules]]\n{rule}\n"));
        let found = errors_of(&sources);
        assert!(found.iter().any(|error| error.contains(problem)), "{rule}: {found:?}");
    }
}

#[test]
fn files_are_sought_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let base = without_file(folder.path());
    let nothing = load(&base).unwrap_err();
    assert!(nothing.nothing_configured && nothing.to_string().contains("--upstream"));
    let user = base.environment.config_folder().unwrap().join("larder");
    std::fs::create_dir_all(&user).unwrap();
    std::fs::write(user.join("larder.toml"), MINIMAL).unwrap();
    assert_eq!(load(&base).unwrap().file, Some(user.join("larder.toml")));
    std::fs::write(&base.system_file, MINIMAL).unwrap();
    assert_eq!(load(&base).unwrap().file.as_ref(), Some(&base.system_file));
    std::fs::write(folder.path().join("variable.toml"), MINIMAL).unwrap();
    let named = with_variables(&base, &[("LARDER_CONFIG", "variable.toml")]);
    assert_eq!(load(&named).unwrap().file.as_deref(), Some(Path::new("variable.toml")));
    let flag = Sources { file: Some(base.system_file.clone()), ..named };
    assert_eq!(load(&flag).unwrap().file, Some(base.system_file));
}

#[test]
fn the_store_is_where_the_first_of_flag_file_and_systemd_says() {
    let (folder, sources) = sources(MINIMAL);
    let systemd = with_variables(&sources, &[("STATE_DIRECTORY", "/var/lib/larder:/var/lib/other")]);
    assert_eq!(load(&systemd).unwrap().settings.store.path, Path::new("/var/lib/larder"));
    std::fs::write(folder.path().join("larder.toml"), format!("[store]\npath = \"here\"\n{MINIMAL}")).unwrap();
    assert_eq!(load(&systemd).unwrap().settings.store.path, folder.path().join("here"));
    let flags = Flags { store: Some("/there".to_owned()), ..Flags::default() };
    assert_eq!(load(&Sources { flags, ..systemd }).unwrap().settings.store.path, Path::new("/there"));
}

#[test]
fn doubtful_settings_are_warned_of() {
    let open = "[server]\nlisten = [\"0.0.0.0:5000\"]\n[access]\nopen_to = [\"0.0.0.0/0\"]\n";
    assert!(loaded(&format!("{open}{MINIMAL}")).warnings[0].contains("lets everybody in"));
    let beyond = "[server]\nlisten = [\"127.0.0.1:5000\", \"0.0.0.0:5443\"]\n";
    assert!(loaded(&format!("{beyond}{MINIMAL}")).warnings[0].contains("only loopback is let in"));
    let admin = "[admin]\nlisten = \"0.0.0.0:5001\"\n";
    assert!(loaded(&format!("{admin}{MINIMAL}")).warnings[0].contains("shows metrics"));
    let clear = format!("{MINIMAL}url = \"http://reg.lan\"\ncredential = {{ kind = \"auto\" }}\n");
    assert!(loaded(&clear).warnings[0].contains("plain http"));
    assert!(loaded(&format!("{MINIMAL}[[upstream]]\nname = \"b.io\"\n")).warnings[0].contains("default = true"));
    let patterns = "[store]\npin = [\"a.oi/x/**\", \"*.io/x\", \"**\", \"a.io/x\"]\n\
        [[access.rules]]\nrepositories = [\"a/x/**\", \"a.io/**\"]\nallow = [\"pull\"]\n\
        [[upstream]]\nname = \"a.io\"\naliases = [\"a\"]\n";
    assert_eq!(
        loaded(patterns).warnings,
        [
            "access.rules.0: 'a/x/**' matches nothing, since a is an alias: write a.io/x/**",
            "store.pin: 'a.oi/x/**' matches nothing, since no upstream is named a.oi",
        ]
    );
}

#[test]
fn an_upstream_that_is_larder_itself_is_an_error() {
    let at = |listen: &str, url: &str| {
        let text = format!(
            "[server]\nlisten = [\"{listen}\"]\n[access]\nopen_to = [\"10.0.0.0/8\"]\n[[upstream]]\nname = \"a.io\"\n{url}\n"
        );
        load(&sources(&text).1)
    };
    for (listen, url) in [
        ("127.0.0.1:5000", "url = \"http://127.0.0.1:5000\""),
        ("[::1]:5000", "url = \"http://localhost:5000\""),
        ("0.0.0.0:5000", "url = \"http://localhost:5000\""),
        ("127.0.0.1:5000", "mirrors = [\"http://127.0.0.1:5000\"]"),
    ] {
        let errors = at(listen, url).unwrap_err().to_string();
        assert!(errors.contains("is larder itself"), "{listen} {url}: {errors}");
        assert!(errors.contains(":7:"), "the line: {errors}");
    }
    for (listen, url) in [
        ("127.0.0.1:5000", "url = \"http://127.0.0.1:5002\""),
        ("127.0.0.1:5000", "url = \"http://127.0.0.2:5000\""),
        ("0.0.0.0:5000", "url = \"http://10.0.0.9:5000\""),
        ("127.0.0.1:0", "url = \"http://127.0.0.1\""),
    ] {
        assert!(at(listen, url).is_ok(), "{listen} {url}");
    }
}

#[test]
#[cfg(unix)]
fn a_unix_socket_alone_is_reached_by_local_clients() {
    let listen =
        loaded(&format!("[server]\nlisten = [\"unix:/run/larder/larder.sock\"]\n{MINIMAL}")).settings.server.listen;
    assert_eq!(listen, [Listen::Unix("/run/larder/larder.sock".into())]);
}

/// Runs the program in a folder of its own; exit code, stdout, stderr.
fn larder(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_larder"));
    command.args(arguments).current_dir(folder).env_clear().env("HOME", folder).env("LOCALAPPDATA", folder);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn check_prints_what_holds_as_a_file_that_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pw"), "hunter2\n").unwrap();
    let text = "[server]\ndrain = \"1m\"\n[[upstream]]\nname = \"a.io\"\n[upstream.credential]\nkind = \"password\"\n\
                username = \"ci\"\npassword_file = \"pw\"\n[[upstream]]\nname = \"b.io\"\ndefault = true\n";
    std::fs::write(folder.path().join("larder.toml"), text).unwrap();
    let (code, out, err) = larder(folder.path(), &["check", "--config", "larder.toml", "--admin", "127.0.0.1:7001"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let line =
        |start: &str| out.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {out}"));
    assert!(line("drain").ends_with("# larder.toml:2:9"));
    assert!(line("listen = \"127.0.0.1:7001\"").ends_with("# flag --admin"));
    assert!(line("fills = 256").ends_with("# default"));
    assert!(out.contains("/pw\"") && !out.contains("hunter2"), "{out}");
    std::fs::write(folder.path().join("printed.toml"), &out).unwrap();
    let values = |file: &str| {
        let file = Some(folder.path().join(file));
        let effective = load(&Sources { file, ..without_file(folder.path()) }).unwrap().effective;
        effective.into_iter().filter(|entry| entry.table != "admin").map(|entry| (entry.table, entry.key, entry.value))
    };
    assert!(values("larder.toml").eq(values("printed.toml")), "{out}");
    let (code, out, _) = larder(folder.path(), &["check", "--config", "larder.toml", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(code == Some(0) && json["valid"] == true && json["settings"][0]["key"] == "server.listen");
}

#[test]
fn check_fails_with_every_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("larder.toml"),
        "[store]\nmax_size = 5\nsync = \"x\"\n[[upstream]]\nname = \"a.io\"\n",
    )
    .unwrap();
    let (code, out, err) = larder(folder.path(), &["check", "--config", "larder.toml"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.starts_with("larder.toml:2:12: store.max_size: ") && err.ends_with("2 errors\n"), "{err}");
    let (code, out, err) = larder(folder.path(), &["check", "--config", "larder.toml", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, err.as_str(), json["errors"].as_array().unwrap().len()), (Some(1), "", 2));
}

#[test]
fn serve_without_a_registry_says_the_line_to_type() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, err) = larder(folder.path(), &["serve"]);
    assert!(code == Some(2) && err.contains("  larder serve --upstream myacr.azurecr.io"), "{err}");
    std::fs::create_dir(folder.path().join(".docker")).unwrap();
    let config = r#"{"auths":{"team.azurecr.io":{"auth":"c2VjcmV0"}}}"#;
    std::fs::write(folder.path().join(".docker/config.json"), config).unwrap();
    let docker = folder.path().join(".docker");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_larder"));
    let output =
        command.arg("serve").env_clear().env("DOCKER_CONFIG", docker).env("HOME", folder.path()).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(err.contains("  larder serve --upstream team.azurecr.io") && !err.contains("c2Vj"), "{err}");
}

#[test]
fn serve_refuses_a_wrong_configuration_before_anything_begins() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, err) = larder(folder.path(), &["serve", "--upstream", "a.io", "--max-size", "5"]);
    assert!(code == Some(2) && err.contains("flag --max-size: store.max_size: size '5' has no unit"), "{err}");
}

#[test]
fn help_names_only_what_exists() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, _) = larder(folder.path(), &["--help"]);
    let commands: Vec<&str> = out
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .map_while(|line| line.split_whitespace().next())
        .collect();
    let all = vec![
        "serve",
        "check",
        "client-config",
        "status",
        "list",
        "pin",
        "unpin",
        "purge",
        "warm",
        "export",
        "import",
        "inventory",
        "tls",
        "verify",
        "user",
        "help",
    ];
    assert_eq!((code, commands), (Some(0), all));
    let (_, out, _) = larder(folder.path(), &["serve", "--help"]);
    assert!(out.contains("--open-to") && out.contains("--sealed") && out.contains("--allow"), "{out}");
    // Commit, date, target and features, as the status and the metrics say them too.
    let version = format!("larder {}\n", larder::telemetry::build::LONG);
    assert_eq!(larder(folder.path(), &["--version"]).1, version);
    let parts: Vec<&str> = version.trim().split([' ', '(', ')', ',']).filter(|part| !part.is_empty()).collect();
    let [name, number, "commit", commit, date, target, "features:", _] = parts[..] else { panic!("{version}") };
    assert_eq!((name, number), ("larder", env!("CARGO_PKG_VERSION")));
    assert!(commit == "unknown" || (commit.len() == 12 && commit.bytes().all(|b| b.is_ascii_hexdigit())), "{version}");
    assert!(date == "unknown" || date.len() == 10, "{version}");
    assert!(target.contains(std::env::consts::ARCH) && target.contains(std::env::consts::OS), "{version}");
}

#[test]
fn sockets_that_systemd_hands_over_are_listened_on_and_the_file_names_the_same_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("larder.toml");
    let wide = |address: &str| Listen::Tcp(address.parse().unwrap());
    let unix = Listen::Unix("/run/larder.sock".into());
    let with = |text: &str, registry: &[Listen], admin: Option<&str>| {
        std::fs::write(&file, format!("{text}[[upstream]]\nname = \"a.io\"\n")).unwrap();
        let handed = Handed { registry: registry.to_vec(), admin: admin.map(|admin| admin.parse().unwrap()) };
        load(&Sources { file: Some(file.clone()), handed, ..without_file(folder.path()) })
    };
    let both = [wide("127.0.0.1:443"), wide("[::1]:443")];
    let loaded = with("", &both, Some("127.0.0.1:444")).unwrap();
    assert_eq!(
        (loaded.settings.server.listen, loaded.settings.admin.listen),
        (both.to_vec(), "127.0.0.1:444".parse().unwrap())
    );
    assert!(
        loaded.effective.iter().any(|entry| entry.key == "listen" && entry.origin.to_string() == "systemd's socket")
    );
    // In any order, and beside what larder binds itself.
    let more = "[server]\nlisten = [\"[::1]:443\", \"unix:/run/larder.sock\", \"127.0.0.1:443\"]\n";
    assert_eq!(with(more, &both, None).unwrap().settings.server.listen.len(), 3);
    assert_eq!(
        with("", std::slice::from_ref(&unix), None).unwrap().settings.server.listen,
        std::slice::from_ref(&unix)
    );
    // Who may come is asked of the sockets as of a file's addresses.
    let error = with("", &[wide("0.0.0.0:443")], None).unwrap_err().to_string();
    assert!(error.contains("only loopback is let in"), "{error}");
    let named = "[server]\nlisten = [\"127.0.0.1:443\"]\n";
    for (text, sockets, admin, line, remedy) in [
        (named, &both[..], None, "larder.toml:2:10", "write listen = [\"127.0.0.1:443\", \"[::1]:443\"]"),
        (more, &both[..1], None, "larder.toml:2:10", "write listen = [\"127.0.0.1:443\"]"),
        (named, std::slice::from_ref(&unix), None, "larder.toml:2:10", "write listen = [\"unix:/run/larder.sock\"]"),
        (
            "[admin]\nlisten = \"127.0.0.1:7\"\n",
            &[],
            Some("127.0.0.1:8"),
            "larder.toml:2:10",
            "write listen = \"127.0.0.1:8\"",
        ),
    ] {
        let error = with(text, sockets, admin).unwrap_err().to_string();
        assert!(error.contains(line) && error.contains(remedy) && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn man_pages_and_completions_are_made_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    assert_eq!(larder(path, &["generate", "man", "man"]).0, Some(0));
    assert_eq!(larder(path, &["generate", "completions", "completions"]).0, Some(0));
    let help = larder(path, &["--help"]).1;
    let commands = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let commands = commands.take_while(|line| line.starts_with("  ")).filter_map(|line| line.split_whitespace().next());
    let commands: Vec<&str> = commands.filter(|command| *command != "help").collect();
    assert!(commands.len() > 10, "{help}");
    for command in commands {
        let page = std::fs::read_to_string(path.join(format!("man/larder-{command}.1"))).unwrap();
        assert!(page.contains(".SH OPTIONS") && page.contains(".SH DESCRIPTION"), "{page}");
        for file in ["larder.bash", "_larder", "larder.fish", "_larder.ps1"] {
            let text = std::fs::read_to_string(path.join("completions").join(file)).unwrap();
            assert!(text.contains(command), "{file} does not know {command}");
        }
    }
    assert!(!path.join("man/larder-generate.1").exists(), "a command for packagers is no page for people");
    let (code, _, error) = larder(path, &["generate", "man", "completions/_larder"]);
    assert!(code == Some(1) && error.contains("cannot write into completions/_larder"), "{code:?} {error}");
}

#[test]
fn freshness_rules_are_read_in_order_and_say_what_is_wrong_with_them() {
    let upstream = "[[upstream]]\nname = \"a.io\"\n[upstream.freshness]\ntag_ttl = \"2m\"\n";
    let rules = "[[upstream.freshness.rules]]\nrepositories = [\"x/**\"]\ntag_ttl = \"1h\"\nimmutable_tags = [\"v*\"]\n\
                 [[upstream.freshness.rules]]\nrepositories = [\"y\"]\nmax_stale = \"1d\"\nnegative_ttl = \"0s\"\n";
    let (_folder, good) = sources(&format!("{upstream}{rules}"));
    let loaded = load(&good).unwrap();
    let [first, second] = loaded.settings.upstreams[0].freshness.rules.as_slice() else { panic!("two rules") };
    assert_eq!(first.repositories[0].as_str(), "a.io/x/**");
    assert_eq!((first.tag_ttl, first.max_stale), (Some(Duration::from_secs(3600)), None));
    assert_eq!(first.immutable_tags.as_deref(), Some(&["v*".to_owned()][..]));
    assert_eq!((second.max_stale, second.negative_ttl), (Some(Duration::from_secs(86400)), Some(Duration::ZERO)));
    let shown =
        loaded.effective.iter().find(|entry| entry.table == "upstream.0.freshness.rules.1" && entry.key == "tag_ttl");
    assert_eq!(shown.unwrap().value, Err("as in [upstream.freshness]"));

    for (rule, said) in [
        ("tag_ttl = \"1s\"", "the rule is for no repository"),
        ("repositories = [\"x\"]", "the rule changes nothing"),
        ("repositories = [\"a.io/x\"]\ntag_ttl = \"1s\"", "write \"x\""),
        ("repositories = [\"x:v1\"]\ntag_ttl = \"1s\"", "names a tag or a digest"),
        ("repositories = [\"x\"]\nimmutable_tags = [\"a/b\"]", "not a pattern of tags"),
        ("repositories = [\"x\"]\ntag_tll = \"1s\"", "did you mean `tag_ttl`"),
    ] {
        let (_folder, wrong) = sources(&format!("{upstream}[[upstream.freshness.rules]]\n{rule}\n"));
        let errors = load(&wrong).unwrap_err().to_string();
        assert!(errors.contains(said) && errors.contains("larder.toml:"), "{rule}: {errors}");
    }
}
