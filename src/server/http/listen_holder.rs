//! Who holds a port, and which one is free: best effort, for an error message.
//!
//! Linux tells the holder in `/proc` (of other users' processes only to root); elsewhere the message goes without.

use std::net::SocketAddr;

/// How many ports after the wanted one are tried.
const NEAR: u16 = 50;

/// A free port near the wanted one, on the same address. Somebody else may take it in the meantime.
pub(in crate::server) fn free_port(wanted: SocketAddr) -> Option<SocketAddr> {
    (1..=NEAR)
        .filter_map(|step| wanted.port().checked_add(step))
        .map(|port| SocketAddr::new(wanted.ip(), port))
        .find(|address| std::net::TcpListener::bind(address).is_ok())
}

/// The process that listens on the port, such as `docker-registry (pid 812)`.
#[cfg(target_os = "linux")]
pub(in crate::server) fn holder(address: SocketAddr) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| listening(&table, address.port()))
        .collect();
    let processes = std::fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let pid = process.file_name().into_string().ok()?.parse::<u32>().ok()?;
        let files = std::fs::read_dir(process.path().join("fd")).ok()?;
        let holds = files
            .flatten()
            .filter_map(|file| std::fs::read_link(file.path()).ok())
            .any(|target| inodes.iter().any(|inode| target.as_os_str() == format!("socket:[{inode}]").as_str()));
        let name = std::fs::read_to_string(process.path().join("comm")).ok()?;
        holds.then(|| format!("{} (pid {pid})", name.trim()))
    })
}

#[cfg(not(target_os = "linux"))]
pub(in crate::server) fn holder(_: SocketAddr) -> Option<String> {
    None
}

/// Inodes of the sockets that listen on the port, from a table of `/proc/net`.
#[cfg(target_os = "linux")]
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    table
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listens = fields.get(1)?.ends_with(&port) && *fields.get(3)? == LISTEN;
            if listens { fields.get(9).map(|inode| (*inode).to_owned()) } else { None }
        })
        .collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_kernel_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
                     1: 0100007F:1388 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n\
                     2: 0100007F:1389 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0\n";
        assert_eq!(listening(table, 5000), ["4711"]);
    }

    #[test]
    fn finds_this_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = holder(listener.local_addr().unwrap()).unwrap();
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
    }
}
