//! Content that moves by disk, measured: `cargo bench --bench bundle -- [--gib N] [--small N] [--folder DIR]`.
//!
//! Makes N GiB in 20 blobs and N small blobs, imports them into a store, exports them whole and as a delta, imports the export into
//! another store, and does with `tar`, and with skopeo and oras where they are installed, what these can do of the same. All on one
//! disk, which should have room for five times the content. docs/performance.md says what is to hold.
#![expect(
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark measures the real time, and reports by printing and by stopping"
)]

use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const NAME: &str = "bench.test";
/// Blobs of the large kind.
const LARGE: u64 = 20;
/// Blobs that one manifest names.
const PER_MANIFEST: u64 = 5000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| arguments.iter().position(|it| it == name).and_then(|at| arguments.get(at + 1));
    let number = |name: &str, default: u64| option(name).map_or(default, |text| text.parse().unwrap());
    let folder = option("--folder").map_or_else(|| std::env::temp_dir().join("larder-bench-bundle"), PathBuf::from);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let (gib, small) = (number("--gib", 10), number("--small", 50_000));
    println!("{gib} GiB in {LARGE} blobs and {small} small ones below {}", folder.display());
    if gib > 0 {
        measure(&folder.join("large"), gib << 30, 0);
    }
    if small > 0 {
        measure(&folder.join("small"), 0, small);
    }
    let _ = fs::remove_dir_all(&folder);
}

fn measure(folder: &Path, large: u64, small: u64) {
    fs::create_dir_all(folder).unwrap();
    let layout = folder.join("layout");
    let bytes = make(&layout, large, small);
    let path = |name: &str| folder.join(name).display().to_string();
    println!("\n{bytes} bytes, {} blobs", if large > 0 { LARGE } else { small });
    let near = Site::start(folder, "near");
    near.timed("import a layout's folder", &["import", layout.to_str().unwrap()], bytes);
    near.timed("export --dry-run", &["export", "--all", "--dry-run", "--json"], bytes);
    let p99 = near.p99_of_hits(|| std::thread::sleep(Duration::from_secs(2)));
    let kit = path("kit.tar");
    let mut export = 0.0;
    let busy =
        near.p99_of_hits(|| export = near.timed("export to a tar", &["export", "--all", "--output", &kit], bytes));
    println!("  hits meanwhile: p99 {busy:.2} ms, {p99:.2} ms without: {:.2}x", busy / p99);
    let blobs = near.store().join("blobs").display().to_string();
    let tar = timed("tar of the same files", Command::new("tar").args(["-cf", &path("plain.tar"), &blobs]), bytes);
    // As the export does before it says that it is done.
    let synced = timed("and its sync", Command::new("sync").arg(path("plain.tar")), bytes);
    println!("  export runs at {:.2}x of tar", (tar + synced) / export);
    let _ = fs::remove_file(path("plain.tar"));
    near.timed(
        "export again, whole, over the one that is there",
        &["export", "--all", "--output", &path("again.tar")],
        bytes,
    );
    let _ = fs::remove_file(path("again.tar"));
    near.timed("inventory", &["inventory", "--output", &path("inventory")], bytes);
    near.timed(
        "export --have, nothing new",
        &["export", "--all", "--have", &path("inventory"), "--output", &path("delta.tar")],
        bytes,
    );
    let delta = fs::metadata(path("delta.tar")).unwrap().len();
    println!("  a delta of {delta} bytes: {:.3} %", 100.0 * delta as f64 / bytes as f64);
    let far = Site::start(folder, "far");
    far.timed("import of the tar elsewhere", &["import", &kit], bytes);
    far.timed("import of the tar again", &["import", &kit], bytes);
    println!("  peak memory of the daemons: {} MiB near, {} MiB far", near.peak() >> 20, far.peak() >> 20);
    let reference = format!("{NAME}/bench/0:v1");
    let source = format!("oci:{}:{reference}", layout.display());
    others(&near, &source, &path, bytes);
    drop((near, far));
    let _ = fs::remove_dir_all(folder);
}

/// Other tools, as far as they are here and can do it.
fn others(near: &Site, source: &str, path: &dyn Fn(&str) -> String, bytes: u64) {
    let has =
        |name: &str| Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if has("skopeo") {
        let target = format!("oci-archive:{}:x", path("skopeo.tar"));
        timed(
            "skopeo copy oci: oci-archive: (the first image)",
            Command::new("skopeo").args(["--insecure-policy", "copy", "-q", source, &target]),
            bytes,
        );
    }
    if has("oras") {
        let reference = format!("localhost:{}/bench/0:v1", near.port);
        timed(
            "oras backup to a tar (the first image)",
            Command::new("oras").args(["backup", "--output", &path("oras.tar"), &reference]),
            bytes,
        );
    }
    let _ = (fs::remove_file(path("skopeo.tar")), fs::remove_file(path("oras.tar")));
}

/// Makes an image layout; its bytes.
fn make(layout: &Path, large: u64, small: u64) -> u64 {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let mut total = 0;
    let mut put = |content: &[u8]| {
        let hex = hex(&Sha256::digest(content));
        fs::write(blobs.join(&hex), content).unwrap();
        total += content.len() as u64;
        format!(r#""digest":"sha256:{hex}","size":{}"#, content.len())
    };
    let mut state = 1_u64;
    let mut noise = |bytes: u64| {
        let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap() + 8);
        while (content.len() as u64) < bytes {
            // xorshift
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            content.extend_from_slice(&state.to_le_bytes());
        }
        content.truncate(usize::try_from(bytes).unwrap());
        content
    };
    let config = put(b"{}");
    let mut named = String::new();
    let (count, size) = if large > 0 { (LARGE, large / LARGE) } else { (small, 1000) };
    for (image, first) in (0..count).step_by(usize::try_from(PER_MANIFEST).unwrap()).enumerate() {
        let mut layers = String::new();
        for _ in first..count.min(first + PER_MANIFEST) {
            let _ = write!(layers, r#",{{"mediaType":"application/octet-stream",{}}}"#, put(&noise(size)));
        }
        let layers = layers.trim_start_matches(',');
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.empty.v1+json",{config}}},"layers":[{layers}]}}"#
        );
        let _ = write!(
            named,
            r#",{{"mediaType":"application/vnd.oci.image.manifest.v1+json",{},"annotations":{{"org.opencontainers.image.ref.name":"{NAME}/bench/{image}:v1"}}}}"#,
            put(manifest.as_bytes())
        );
    }
    fs::write(
        layout.join("index.json"),
        format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, named.trim_start_matches(',')),
    )
    .unwrap();
    total
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A sealed larder.
struct Site {
    folder: PathBuf,
    port: u16,
    daemon: Child,
}

impl Site {
    fn start(below: &Path, name: &str) -> Self {
        let folder = below.join(name);
        fs::create_dir_all(&folder).unwrap();
        let config = format!(
            "[store]\nmin_free = \"0B\"\nmax_size = \"200GiB\"\n[[upstream]]\nname = \"{NAME}\"\nurl = \"http://127.0.0.1:9\"\nsealed = true\ndefault = true\n"
        );
        fs::write(folder.join("larder.toml"), config).unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (address, admin) = (free(), free());
        let mut command = larder(&folder, &["serve"]);
        command.args(["--listen", &address.to_string(), "--admin", &admin.to_string()]);
        let daemon = command.stderr(File::create(folder.join("log")).unwrap()).spawn().unwrap();
        while TcpStream::connect(admin).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { folder, port: address.port(), daemon }
    }

    fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    fn timed(&self, what: &str, arguments: &[&str], bytes: u64) -> f64 {
        timed(what, &mut larder(&self.folder, arguments), bytes)
    }

    fn peak(&self) -> u64 {
        peak(self.daemon.id())
    }

    /// Milliseconds that one of a hundred requests for a stored manifest takes at least, while something goes on.
    fn p99_of_hits(&self, meanwhile: impl FnOnce()) -> f64 {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let mut times = Vec::new();
                let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
                stream.set_nodelay(true).unwrap();
                let mut buffer = vec![0; 1 << 20];
                while !done.load(Ordering::Relaxed) || times.len() < 200 {
                    let began = Instant::now();
                    stream.write_all(b"HEAD /v2/bench/0/manifests/v1 HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
                    let mut answer = Vec::new();
                    while !answer.ends_with(b"\r\n\r\n") {
                        let read = stream.read(&mut buffer).unwrap();
                        answer.extend_from_slice(&buffer[..read]);
                    }
                    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
                    times.push(began.elapsed());
                    std::thread::sleep(Duration::from_millis(1));
                }
                times.sort_unstable();
                times[times.len() * 99 / 100].as_secs_f64() * 1000.0
            });
            meanwhile();
            done.store(true, Ordering::Relaxed);
            asking.join().unwrap()
        })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn larder(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.env_clear().env("HOME", folder).args(arguments);
    command.arg("--config").arg(folder.join("larder.toml")).arg("--store").arg(folder.join("store"));
    command
}

/// Runs a command, and prints how long it took and the most memory it had; the seconds.
fn timed(what: &str, command: &mut Command, bytes: u64) -> f64 {
    let began = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut most = 0;
    let status = loop {
        most = most.max(peak(child.id()));
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    if !status.success() {
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        println!("  {what}: {status}: {said}");
        return seconds;
    }
    println!("  {what}: {seconds:.2} s, {:.0} MB/s, at most {} MiB", bytes as f64 / 1e6 / seconds, most >> 20);
    seconds
}

/// The most memory that a process has had.
fn peak(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or_default() << 10
}
