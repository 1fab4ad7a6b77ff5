//! The ORAS CLI, in the two versions that have to work.

use std::path::{Path, PathBuf};

use crate::process::{Folder, Outcome, command, program, run};
use crate::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1_1_0,
    V1_3_3,
}

pub(crate) struct Oras {
    version: Version,
    program: PathBuf,
    home: PathBuf,
    world: Option<World>,
}

impl Oras {
    pub(crate) fn new(version: Version, folder: &Folder) -> Self {
        let (name, says) = match version {
            Version::V1_1_0 => ("oras-1.1.0", "1.1.0"),
            Version::V1_3_3 => ("oras", "1.3.3"),
        };
        let oras = Self { version, program: program(name), home: folder.sub(name), world: None };
        let version = oras.ok(&["version"], &oras.home);
        assert!(version.contains(says), "{} is to be {says}, and says: {version}", oras.program.display());
        oras
    }

    /// The same in a world, with its logins in `home`.
    pub(crate) fn in_world(self, world: &World, home: PathBuf) -> Self {
        Self { world: Some(world.clone()), home, ..self }
    }

    pub(crate) fn run(&self, arguments: &[&str], folder: &Path) -> Outcome {
        let mut command = match &self.world {
            Some(world) => world.command(&self.program, &self.home),
            None => command(&self.program, &self.home),
        };
        command.args(arguments);
        run(command, folder)
    }

    /// The standard output of a run that succeeds.
    pub(crate) fn bytes(&self, arguments: &[&str], folder: &Path) -> Vec<u8> {
        self.run(arguments, folder).ok()
    }

    pub(crate) fn ok(&self, arguments: &[&str], folder: &Path) -> String {
        String::from_utf8(self.bytes(arguments, folder)).unwrap()
    }

    /// The digest that a reference stands for.
    pub(crate) fn resolve(&self, reference: &str, folder: &Path) -> String {
        if self.version == Version::V1_3_3 {
            return self.ok(&["resolve", reference], folder).trim().to_owned();
        }
        // The older one asks the same question under another name.
        let descriptor = self.ok(&["manifest", "fetch", "--descriptor", reference], folder);
        let descriptor: serde_json::Value = serde_json::from_str(&descriptor).unwrap();
        descriptor["digest"].as_str().unwrap().to_owned()
    }

    /// What refers to a manifest, as JSON.
    pub(crate) fn discover(&self, reference: &str, folder: &Path) -> Outcome {
        let json = match self.version {
            Version::V1_1_0 => ["--output", "json"],
            Version::V1_3_3 => ["--format", "json"],
        };
        self.run(&["discover", json[0], json[1], reference], folder)
    }
}
