use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The bytes of all files below each of a folder's entries, with their owner, a process, standing still meanwhile: else what goes
/// and what comes while files are counted would both be in it.
pub fn footprint(process: Pid, folder: &Path) -> BTreeMap<String, u64> {
    let _ = kill_process(process, Signal::STOP);
    // A stopped process may be in the middle of a system call; it is through with that soon.
    std::thread::sleep(Duration::from_millis(10));
    let mut entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    // An ingest that becomes a blob all the same is not seen twice.
    entries.sort_by_key(|path| path.ends_with("ingest"));
    let mut footprint = BTreeMap::new();
    for entry in entries {
        let bytes: &mut u64 = footprint.entry(entry.file_name().unwrap().to_string_lossy().into_owned()).or_default();
        walk(&entry, &mut |path| *bytes += fs::metadata(path).map_or(0, |metadata| metadata.len()));
    }
    let _ = kill_process(process, Signal::CONT);
    footprint
}

/// Every file below `path`, or itself; what goes away meanwhile is not there.
pub fn walk(path: &Path, visit: &mut dyn FnMut(&Path)) {
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().for_each(|entry| walk(&entry.path(), visit)),
        Err(_) if path.is_file() => visit(path),
        Err(_) => {}
    }
}
