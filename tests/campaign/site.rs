//! Where larder runs in a round: its file, its folder, and the disk below it.

use super::harness::{Process, Setup};
use super::world::World;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What the disk of a full-disk round has left.
const LEFT: u64 = 2 << 20;

pub struct Site {
    setup: Setup,
    pub store: PathBuf,
    pub limit: u64,
    config: String,
    mounted: Option<PathBuf>,
}

impl Site {
    pub fn new(world: &World, limit: u64) -> Self {
        let setup = Setup::of(&world.registries[0].acr);
        let password = setup.file("password", World::password());
        setup.file("larder.toml", &world.config(&password.to_string_lossy()));
        let config = setup.folder.path().join("larder.toml").to_string_lossy().into_owned();
        let store = setup.store().to_owned();
        Self { setup, store, limit, config, mounted: None }
    }

    /// The same, on a disk that is almost full: a file system of its own where this process may mount one, else one of which
    /// larder is told to leave more free than there is.
    pub fn on_a_full_disk(mut self) -> Self {
        let disk = self.setup.folder.path().join("disk");
        let _ = fs::create_dir_all(&disk);
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(&disk).output();
        if mount.is_ok_and(|output| output.status.success()) {
            let ballast = usize::try_from((24 << 20) - LEFT).unwrap_or(0);
            let _ = fs::write(disk.join("ballast"), vec![0_u8; ballast]);
            self.setup.settings.store.path = disk.join("store");
            self.store = disk.join("store");
            self.mounted = Some(disk);
        } else {
            let text = fs::read_to_string(&self.config).unwrap_or_default();
            let _ = fs::write(&self.config, text.replace("min_free = \"0B\"", "min_free = \"900TiB\""));
        }
        self
    }

    pub async fn start(&self) -> Process {
        Process::start(&self.setup, &["--config", &self.config, "--max-size", &format!("{}B", self.limit)]).await
    }

    /// What `larder verify` finds in the store of a process that has ended; an error unless every blob is sound.
    pub fn verify(&self) -> Result<(), String> {
        let output = Command::new(env!("CARGO_BIN_EXE_larder"))
            .args(["verify", "--store"])
            .arg(&self.store)
            .env_clear()
            .output();
        let output = output.map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(disk) = &self.mounted {
            let _ = Command::new("umount").arg(disk).output();
        }
    }
}
