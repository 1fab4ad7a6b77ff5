//! What reads `registries.conf`: skopeo, podman, buildah. Each has folders of its own, and none of the user's settings.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::content::digest_of;
use crate::matrix::{self, When};
use crate::process::{Outcome, command, program, run};
use crate::stage::{Image, NAME, Stage};
use crate::world::World;

/// A client with the files of `larder client-config` for the route.
pub(crate) struct Tool<'a> {
    name: &'static str,
    stage: &'a Stage,
    /// Where its files are; without one, in its home.
    world: Option<&'a World>,
    pub(crate) home: PathBuf,
}

impl<'a> Tool<'a> {
    /// `place` tells apart what is not to share a store.
    pub(crate) fn new(name: &'static str, stage: &'a Stage, place: &str) -> Self {
        let home = stage.folder.sub(&format!("{name}/{place}"));
        fs::write(home.join("policy.json"), r#"{"default": [{"type": "insecureAcceptAnything"}]}"#).unwrap();
        fs::write(home.join("storage.conf"), storage(&home)).unwrap();
        Self { name, stage, world: None, home }
    }

    /// The same in a world, which has the files.
    pub(crate) fn in_world(name: &'static str, stage: &'a Stage, place: &str, world: &'a World) -> Self {
        Self { world: Some(world), ..Self::new(name, stage, place) }
    }

    fn command(&self, route: &str) -> Command {
        let mut command = match self.world {
            Some(world) => world.command(&program(self.name), &self.home),
            None => command(&program(self.name), &self.home),
        };
        command.env("CONTAINERS_STORAGE_CONF", self.home.join("storage.conf")).env("XDG_RUNTIME_DIR", &self.home);
        // A folder that is named has to hold a login.
        command.env_remove("DOCKER_CONFIG");
        if self.world.is_some() {
            return command;
        }
        // The user's folder stands in for /etc/containers, whose drop-ins the machine may have its own of.
        let user = self.home.join(".config/containers");
        let drop_in = user.join("registries.conf.d/larder.conf");
        fs::create_dir_all(drop_in.parent().unwrap()).unwrap();
        fs::write(user.join("registries.conf"), "").unwrap();
        let sealed: &[&str] = if route == "exclusive" { &["--sealed"] } else { &[] };
        if ["mirror", "exclusive"].contains(&route) {
            let root = self.stage.client_config(&[&["podman", "--upstream", NAME], sealed].concat());
            fs::copy(root.join("etc/containers/registries.conf.d/larder.conf"), drop_in).unwrap();
        } else {
            let _ = fs::remove_file(drop_in);
        }
        command
    }

    pub(crate) fn ok(&self, route: &str, arguments: &[&str]) -> String {
        String::from_utf8(self.attempt(route, arguments).ok()).unwrap()
    }

    fn attempt(&self, route: &str, arguments: &[&str]) -> Outcome {
        let mut command = self.command(route);
        command.args(arguments);
        run(command, &self.home)
    }

    /// Pulls what is named, into its own store or, where it has none, into a folder; it verifies every digest by itself.
    pub(crate) fn pulls(&self, reference: &str) -> Outcome {
        let policy = self.home.join("policy.json").display().to_string();
        if self.name == "skopeo" {
            let (source, target) =
                (format!("docker://{reference}"), format!("dir:{}", self.home.join("dir").display()));
            return self.attempt("", &["--policy", &policy, "copy", &source, &target]);
        }
        self.attempt("", &["pull", "--quiet", "--signature-policy", &policy, reference])
    }
}

pub(crate) fn storage(home: &Path) -> String {
    let place = |name: &str| home.join(name).display().to_string();
    format!("[storage]\ndriver = \"vfs\"\nrunroot = \"{}\"\ngraphroot = \"{}\"\n", place("run"), place("graph"))
}

/// What the client names: larder, or by a mirror the registry itself.
fn reference(stage: &Stage, route: &str, image: &Image) -> String {
    let base = if ["mirror", "exclusive"].contains(&route) { NAME.to_owned() } else { stage.base(route) };
    format!("{base}/{}", image.reference())
}

/// With the file, larder's plain HTTP is allowed there; without it, on the command line.
fn unverified<'a>(route: &str, flag: &'a [&'a str]) -> &'a [&'a str] {
    if ["mirror", "exclusive"].contains(&route) { &[] } else { flag }
}

#[test]
fn matrix_skopeo() {
    let routes = matrix::routes("skopeo");
    let stage = Stage::new(NAME, &routes);
    let skopeo = Tool::new("skopeo", &stage, "home");
    matrix::run("skopeo", &stage, &routes, |route, image, when| {
        let folder = stage.folder.sub(&format!("{route}-{when:?}"));
        let policy = skopeo.home.join("policy.json");
        let source = format!("docker://{}", reference(&stage, route, image));
        let target = format!("dir:{}", folder.display());
        let mut arguments = vec!["--policy", policy.to_str().unwrap(), "copy"];
        arguments.extend(unverified(route, &["--src-tls-verify=false"]));
        arguments.extend([&*source, &*target]);
        skopeo.ok(route, &arguments);
        assert!(fs::read(folder.join("manifest.json")).unwrap() == image.manifest, "{route}, {when:?}");
        for bytes in [&image.config, &image.layer] {
            let path = folder.join(&digest_of(bytes)["sha256:".len()..]);
            assert!(fs::read(path).unwrap() == **bytes, "{route}, {when:?}");
        }
    });
}

#[test]
fn matrix_podman() {
    pulls_into_its_store("podman");
}

#[test]
fn matrix_buildah() {
    pulls_into_its_store("buildah");
}

/// A store of its own each time: what it has from before would not be pulled.
fn pulls_into_its_store(client: &'static str) {
    // Images of zstd:chunked have a test of their own (chunked.rs).
    let routes: Vec<_> = matrix::routes(client).into_iter().filter(|route| *route != "zstd-chunked").collect();
    let stage = Stage::new(NAME, &routes);
    matrix::run(client, &stage, &routes, |route, image, when: When| {
        let tool = Tool::new(client, &stage, &format!("{route}-{when:?}"));
        let (policy, name) = (tool.home.join("policy.json"), reference(&stage, route, image));
        let policy = ["--signature-policy", policy.to_str().unwrap()];
        let arguments =
            [&["pull", "--quiet"], &policy[..], unverified(route, &["--tls-verify=false"]), &[&*name]].concat();
        let said = tool.ok(route, &arguments);
        assert_eq!(format!("sha256:{}", said.trim()), image.id(), "{route}, {when:?}");
    });
}
