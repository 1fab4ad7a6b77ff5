//! Clients that pull until their server dies under them.

use super::harness::{Dice, sha256};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Something to pull.
#[derive(Debug)]
pub struct Item {
    pub target: String,
    pub digest: String,
}

/// Clients at work.
pub struct Load(JoinSet<()>);

impl Load {
    /// Each client pulls what is `missing`, in an order of its own, then everything, until an answer breaks off.
    pub fn begin(
        clients: usize,
        address: SocketAddr,
        items: &Arc<Vec<Item>>,
        missing: &[usize],
        dice: &mut Dice,
    ) -> Self {
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            let (items, mut missing) = (Arc::clone(items), missing.to_vec());
            let first = dice.below(missing.len().max(1) as u64) as usize;
            missing.rotate_left(first);
            tasks.spawn(async move {
                for at in missing.into_iter().chain((0..items.len()).cycle()) {
                    let item = &items[at];
                    let body = match fetch(address, &item.target).await {
                        Ok(body) => body,
                        // Whoever still answers, answers rightly: nothing is wrong with the registry.
                        Err(error) => {
                            assert_ne!(error.kind(), io::ErrorKind::InvalidData, "{}: {error}", item.target);
                            return;
                        }
                    };
                    assert_eq!(sha256(&body), item.digest, "a complete answer to {}", item.target);
                }
            });
        }
        Self(tasks)
    }

    /// Waits until all have noticed that their server is dead.
    pub async fn end(mut self) {
        while let Some(result) = self.0.join_next().await {
            if let Err(error) = result {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}

/// The body of a complete 200; anything else is an error.
pub async fn fetch(address: SocketAddr, target: &str) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(address).await?;
    let accept = "application/vnd.oci.image.manifest.v1+json";
    let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await?;
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let body = bytes.split_off(head + 4);
    let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    if length != Some(body.len()) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if !head.starts_with("http/1.1 200") {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{head}{}", String::from_utf8_lossy(&body))));
    }
    Ok(body)
}
