//! A port that leads to another one, and counts who came: with TLS it stands in front of larder as a web server would, without it
//! in front of the registry itself.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::process::free_port;

/// Gone with the runtime that it was started on.
pub(crate) struct Relay {
    pub(crate) port: u16,
    connections: Arc<AtomicUsize>,
}

impl Relay {
    /// Listens on a free port of 127.0.0.1 and `also` for connections to the port `to` of 127.0.0.1.
    pub(crate) fn start(runtime: &Runtime, also: IpAddr, to: u16, tls: Option<&TlsAcceptor>) -> Self {
        let (port, connections) = (free_port(), Arc::<AtomicUsize>::default());
        for address in BTreeSet::from([Ipv4Addr::LOCALHOST.into(), also]) {
            let listener = runtime.block_on(TcpListener::bind((address, port))).unwrap();
            let (count, tls) = (Arc::clone(&connections), tls.cloned());
            runtime.spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    count.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(carry(client, to, tls.clone()));
                }
            });
        }
        Self { port, connections }
    }

    /// How many connections came, whatever became of them.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// What fails is for the two ends to notice.
async fn carry(mut client: TcpStream, to: u16, tls: Option<TlsAcceptor>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let _ = match tls {
        None => copy_bidirectional(&mut client, &mut server).await,
        Some(tls) => match tls.accept(client).await {
            Ok(mut client) => copy_bidirectional(&mut client, &mut server).await,
            Err(error) => Err(error),
        },
    };
}
