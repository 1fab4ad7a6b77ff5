//! What a person needs to point a client at larder: files, lines to type, the restart, and what an outage of larder means.

use super::site::Site;
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;

/// The certificate authority's file, beside the file that names it.
pub(super) const CA_FILE: &str = "larder-ca.pem";

/// A file of the client's machine.
#[derive(Debug)]
pub(super) struct File {
    /// Absolute, as on the client's machine.
    pub(super) path: String,
    pub(super) content: String,
}

/// The guide for one client.
#[derive(Debug, Default)]
pub(super) struct Guide {
    pub(super) client: &'static str,
    pub(super) files: Vec<File>,
    /// Lines to type, or to put into a file that is the user's own.
    pub(super) lines: Vec<String>,
    pub(super) restart: &'static str,
    pub(super) when_down: &'static str,
    pub(super) notes: Vec<String>,
}

impl Guide {
    pub(super) fn file(&mut self, path: impl Into<String>, content: impl Into<String>) {
        self.files.push(File { path: path.into(), content: content.into() });
    }

    pub(super) fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// What holds for every client of such a site.
    pub(super) fn finish(mut self, site: &Site) -> Self {
        if site.in_container {
            self.note(
                "host.docker.internal: larder must know the name (server.names = [\"host.docker.internal\"]). Docker Desktop \
                 leads it to the desktop's loopback; on Linux start the container with --add-host \
                 host.docker.internal:host-gateway, let larder listen on the bridge's address and name its network in \
                 access.open_to.",
            );
        } else if site.at.is_loopback() {
            self.note(
                "localhost is the machine that the client runs on: for a client in a container say --in-container.",
            );
        }
        self
    }

    pub(super) fn show_files(&self) -> String {
        let mut text = String::new();
        for file in &self.files {
            let _ = writeln!(text, "==> {} <==\n{}", file.path, file.content);
        }
        text
    }

    /// All but the files.
    pub(super) fn advice(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let _ = writeln!(text, "{line}");
        }
        let gap = if text.is_empty() { "" } else { "\n" };
        let _ = writeln!(text, "{gap}restart: {}\nlarder down: {}", self.restart, self.when_down);
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        text
    }

    pub(super) fn to_json(&self, site: &Site) -> String {
        let files: Vec<_> = self.files.iter().map(|file| json!({"path": file.path, "content": file.content})).collect();
        let value = json!({
            "client": self.client,
            "at": site.at.to_string(),
            "upstreams": site.routes.iter().map(|route| &route.name).collect::<Vec<_>>(),
            "files": files,
            "lines": self.lines,
            "restart": self.restart,
            "when_down": self.when_down,
            "notes": self.notes,
        });
        format!("{value:#}\n")
    }

    /// Writes the files below `folder` and says what became of each. One that is there with another content is left alone unless
    /// `force` is given: it may hold settings of the user's own.
    pub(super) fn write(&self, folder: &Path, force: bool) -> Result<String, String> {
        if self.files.is_empty() {
            return Ok("no file: this client is told on its command line\n\n".to_owned());
        }
        let target = |file: &File| folder.join(file.path.trim_start_matches('/'));
        // All or nothing: half of a client's files would point it nowhere.
        let taken = self.files.iter().filter(|file| standing(&target(file), file) == Standing::Other);
        let taken: Vec<String> = taken.map(|file| target(file).display().to_string()).collect();
        if !force && !taken.is_empty() {
            return Err(format!(
                "nothing was written: {} is there with another content; put larder's lines into it by hand (without --write \
                 they are printed), or replace it with --force",
                taken.join(", ")
            ));
        }
        let mut said = String::new();
        for file in &self.files {
            let path = target(file);
            let word = match standing(&path, file) {
                Standing::Same => "unchanged",
                Standing::Other => "replaced",
                Standing::Absent => "written",
            };
            if word != "unchanged" {
                put(&path, &file.content).map_err(|error| format!("{said}cannot write {}: {error}", path.display()))?;
            }
            let _ = writeln!(said, "{word}: {}", path.display());
        }
        said.push('\n');
        Ok(said)
    }
}

#[derive(PartialEq, Eq)]
enum Standing {
    Absent,
    Same,
    Other,
}

/// What is there already. What cannot be read counts as other: writing will say why.
fn standing(path: &Path, file: &File) -> Standing {
    match std::fs::read(path) {
        Ok(old) if old == file.content.as_bytes() => Standing::Same,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Standing::Absent,
        _ => Standing::Other,
    }
}

fn put(path: &Path, content: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, content)
}

/// Text in the quotes that TOML, JSON and the shell's double quotes share.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
