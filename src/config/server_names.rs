//! The names that a server's certificate is made for.

use super::names::parse_host;
use crate::oci::DOCKER_HUB;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// DNS names and addresses, the loopback's among them, each once. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerNames {
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl ServerNames {
    /// From names as people write them; a port is left out. Those of Docker Hub come together.
    pub fn parse(texts: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut names = Self { dns: Vec::new(), addresses: Vec::new() };
        for text in texts {
            names.add(&text)?;
        }
        names.add("localhost")?;
        for address in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            names.add_address(address);
        }
        Ok(names)
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            self.add_address(address);
            return Ok(());
        }
        let host = parse_host(text)?;
        let host = match host.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host.to_owned(),
            _ => host,
        };
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            self.add_address(address);
            return Ok(());
        }
        let all = if DOCKER_HUB.contains(&host.as_str()) { DOCKER_HUB.map(str::to_owned).to_vec() } else { vec![host] };
        for name in all {
            if !self.dns.contains(&name) {
                self.dns.push(name);
            }
        }
        Ok(())
    }

    fn add_address(&mut self, address: IpAddr) {
        if !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
    }

    /// The first of them.
    #[must_use]
    pub fn first(&self) -> &str {
        self.dns.first().map_or("localhost", String::as_str)
    }

    /// The DNS names.
    #[must_use]
    pub fn dns(&self) -> &[String] {
        &self.dns
    }

    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_people_write_them_and_loopback_is_always_there() {
        let names = ServerNames::parse(
            ["MyAcr.azurecr.io", "registry.lan:5000", "10.0.0.7:443", "[::1]:5000", "docker.io", "localhost"]
                .map(str::to_owned),
        );
        let names = names.unwrap();
        assert_eq!(names.dns()[..2], ["myacr.azurecr.io", "registry.lan"]);
        assert!(DOCKER_HUB.iter().all(|hub| names.dns().contains(&(*hub).to_owned())));
        assert_eq!(names.dns().iter().filter(|name| *name == "localhost").count(), 1);
        let addresses: Vec<String> = names.addresses().iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.7", "::1", "127.0.0.1"]);
        assert!(ServerNames::parse(["a b".to_owned()]).is_err());
    }
}
