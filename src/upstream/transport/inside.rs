//! What an upstream may lead larder to.
//!
//! A registry says where its blobs, its uploads and its token service are, and larder goes there from within the operator's
//! network. So an address that only somebody inside can reach (this machine, the link, private networks, a cloud's metadata) is
//! dialled only if the upstream itself is there, or if the operator has named the host. The address that is judged is the one
//! that is dialled: there is no second lookup. Through a proxy, which looks names up itself, the literal address and the name are
//! all that there is to judge.

use super::origin::Origin;
use crate::upstream::error::Failure;
use parking_lot::Mutex;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A kind of network that is not the public one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Kind {
    Loopback,
    LinkLocal,
    Private,
    /// Between a provider and its customers (RFC 6598), and of overlay networks.
    Shared,
    /// No host's own: unspecified, multicast, reserved. An upstream is never "there".
    Reserved,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Self::Loopback => "this machine itself",
            Self::LinkLocal => "a link-local or metadata address",
            Self::Private => "a private network",
            Self::Shared => "a shared (carrier or overlay) network",
            Self::Reserved => "no host's address",
        }
    }

    /// The kind of an address; `None`: it is public.
    pub(in crate::upstream) fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address),
        }
    }

    /// The kind of a host as it is written: an address in any of the forms that lookups accept, or a name that is never public.
    fn of_text(host: &str) -> Option<Self> {
        let host = host.trim_end_matches('.');
        // A zone (`fe80::1%eth0`) belongs to addresses of the link.
        if let Ok(address) = host.split('%').next().unwrap_or_default().parse::<IpAddr>() {
            return Self::of(address);
        }
        if let Some(address) = as_number(host) {
            return of_v4(address);
        }
        let below = |top: &str| host == top || host.strip_suffix(top).is_some_and(|rest| rest.ends_with('.'));
        if below("localhost") || below("localdomain") {
            return Some(Self::Loopback);
        }
        ["local", "internal", "home.arpa"].into_iter().any(below).then_some(Self::Private)
    }
}

fn of_v4(address: Ipv4Addr) -> Option<Kind> {
    match address.octets() {
        [127, ..] => Some(Kind::Loopback),
        // Azure's agents and names are served to its machines at an address that only looks public.
        [169, 254, ..] | [168, 63, 129, 16] => Some(Kind::LinkLocal),
        // With protocol assignments (one cloud's metadata stands there) and networks of benchmarks.
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [192, 0, 0, _] | [198, 18 | 19, ..] => Some(Kind::Private),
        [100, 64..=127, ..] => Some(Kind::Shared),
        // 0.0.0.0 is this machine for a socket, as is the rest of it for some systems.
        [0 | 224..=255, ..] => Some(Kind::Reserved),
        _ => None,
    }
}

fn of_v6(address: Ipv6Addr) -> Option<Kind> {
    let parts = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match parts {
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(Kind::Loopback),
        [0, 0, 0, 0, 0, 0, 0, 0] | [0xff00..=0xffff, ..] => Some(Kind::Reserved),
        [0xfe80..=0xfebf, ..] => Some(Kind::LinkLocal),
        // Unique local, the older site-local, and translation within one network (RFC 8215).
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] | [0x64, 0xff9b, 1, ..] => Some(Kind::Private),
        // An IPv4 address in other clothes: compatible, mapped, translated, NAT64, 6to4, Teredo.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => of_v4(v4(high, low)),
        [0x2001, 0, .., high, low] => of_v4(v4(!high, !low)),
        _ => None,
    }
}

/// An IPv4 address as lookups read numbers: `2130706433`, `0x7f.1`, `0177.0.0.1`.
fn as_number(host: &str) -> Option<Ipv4Addr> {
    let number = |text: &str| match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some("") => Some(0),
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u32::from_str_radix(text, 8).ok(),
        None => text.parse().ok(),
    };
    let parts = host.split('.').map(number).collect::<Option<Vec<u32>>>()?;
    let (last, first) = parts.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 255) {
        return None;
    }
    let bits = 8 * (4 - u32::try_from(first.len()).ok()?);
    if u64::from(*last) >= 1 << bits {
        return None;
    }
    let high = first.iter().fold(0_u64, |sum, part| sum << 8 | u64::from(*part));
    u32::try_from(high << bits | u64::from(*last)).ok().map(Ipv4Addr::from)
}

/// What may be dialled for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::upstream) enum AddressScope {
    /// Any address: the operator has named the host.
    Anywhere,
    /// What is public, or where the upstream itself is; the text is the setting that gives leave for more.
    Outside(&'static str),
}

/// Where an upstream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seen {
    /// It has not answered yet.
    #[default]
    Nowhere,
    Public,
    Inside(Kind),
}

/// The border to private networks that answers of one endpoint cannot lead across.
pub(in crate::upstream) struct Border {
    upstream: String,
    own: Origin,
    token_realms: Vec<String>,
    data_hosts: Vec<String>,
    /// Where the upstream has last answered from.
    seen: Mutex<Seen>,
}

impl Border {
    pub(in crate::upstream) fn new(
        upstream: &str,
        own: &Origin,
        token_realms: &[String],
        data_hosts: &[String],
    ) -> Self {
        let (upstream, own) = (upstream.to_owned(), own.clone());
        let (token_realms, data_hosts) = (token_realms.to_vec(), data_hosts.to_vec());
        Self { upstream, own, token_realms, data_hosts, seen: Mutex::default() }
    }

    pub(in crate::upstream) fn own(&self) -> &Origin {
        &self.own
    }

    /// What may be dialled for a request to `target`: one for a token, or one for content.
    pub(in crate::upstream) fn scope(&self, target: &Origin, for_token: bool) -> AddressScope {
        let (named, setting) =
            if for_token { (&self.token_realms, "token_realms") } else { (&self.data_hosts, "data_hosts") };
        if *target == self.own || target.is_named_in(named) {
            AddressScope::Anywhere
        } else {
            AddressScope::Outside(setting)
        }
    }

    /// The host has answered from this address, or through a proxy.
    pub(in crate::upstream) fn answered(&self, from: &Origin, peer: Option<IpAddr>) {
        if *from == self.own {
            let kind = peer.map_or_else(|| Kind::of_text(&self.own.host), Kind::of);
            *self.seen.lock() = kind.map_or(Seen::Public, Seen::Inside);
        }
    }

    /// Whether it is known where the upstream itself is.
    pub(in crate::upstream) fn is_located(&self) -> bool {
        *self.seen.lock() != Seen::Nowhere
    }

    /// Judges an address that `target` has.
    pub(in crate::upstream) fn judge(&self, target: &Origin, setting: &str, address: IpAddr) -> Result<(), Failure> {
        let place = if target.host.parse() == Ok(address) { String::new() } else { format!(" ({address})") };
        self.judged(target, setting, &place, Kind::of(address))
    }

    /// Judges a host that a proxy will look up.
    pub(in crate::upstream) fn judge_text(&self, target: &Origin, setting: &str) -> Result<(), Failure> {
        self.judged(target, setting, "", Kind::of_text(&target.host))
    }

    fn judged(&self, target: &Origin, setting: &str, place: &str, kind: Option<Kind>) -> Result<(), Failure> {
        let Some(kind) = kind else { return Ok(()) };
        let seen = *self.seen.lock();
        if seen == Seen::Inside(kind) && kind != Kind::Reserved {
            return Ok(());
        }
        Err(Failure::foreign(format!(
            "{} leads to {target}{place}, which is {}: it was not dialled; if it belongs to that registry, add {target} to \
             {setting} of upstream {}",
            self.own,
            kind.words(),
            self.upstream
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(address: &str) -> Option<Kind> {
        Kind::of(address.parse().unwrap())
    }

    #[test]
    fn each_form_of_an_inner_address_is_known() {
        for (addresses, want) in [
            (["127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "2002:7f00:1::"], Kind::Loopback),
            (
                ["169.254.169.254", "168.63.129.16", "fe80::1", "febf::1", "64:ff9b::169.254.169.254", "::ffff:a9fe:1"],
                Kind::LinkLocal,
            ),
            (["10.0.0.1", "172.31.9.9", "192.168.0.1", "fd00:ec2::254", "fec0::1", "64:ff9b:1::1"], Kind::Private),
            (
                ["172.16.0.1", "192.0.0.192", "198.18.0.1", "2002:c0a8:1::", "::ffff:0:10.1.1.1", "fc00::"],
                Kind::Private,
            ),
            (
                [
                    "100.64.0.1",
                    "100.127.255.255",
                    "100.100.100.200",
                    "::ffff:100.64.0.1",
                    "64:ff9b::6440:1",
                    "2002:6440:1::",
                ],
                Kind::Shared,
            ),
            (["0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "255.255.255.255", "ff02::1"], Kind::Reserved),
        ] {
            for address in addresses {
                assert_eq!(kind(address), Some(want), "{address}");
            }
        }
        // Teredo has the address of its client turned over.
        assert_eq!(kind("2001:0:1:1:1:1:f5ff:fffe"), Some(Kind::Private));
        for address in
            ["20.1.2.3", "172.32.0.1", "100.128.0.1", "2600::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "192.0.2.1"]
        {
            assert_eq!(kind(address), None, "{address}");
        }
    }

    #[test]
    fn a_host_that_a_proxy_looks_up_is_judged_as_it_is_written() {
        for (host, want) in [
            ("2130706433", Kind::Loopback),
            ("0x7f000001", Kind::Loopback),
            ("0x7f.1", Kind::Loopback),
            ("0177.0.0.01", Kind::Loopback),
            ("127.1", Kind::Loopback),
            ("127.0.0.1.", Kind::Loopback),
            ("localhost", Kind::Loopback),
            ("a.localhost.", Kind::Loopback),
            ("169.16689662", Kind::LinkLocal),
            ("fe80::1%25eth0", Kind::LinkLocal),
            ("metadata.google.internal", Kind::Private),
            ("0", Kind::Reserved),
            ("::1", Kind::Loopback),
        ] {
            assert_eq!(Kind::of_text(host), Some(want), "{host}");
        }
        for host in ["myacr.azurecr.io", "notlocalhost", "8.8.8.8", "134744072", "1.2.3.4.5", "256.1.1.1", "", "09.1"] {
            assert_eq!(Kind::of_text(host), None, "{host}");
        }
    }

    #[test]
    fn an_upstream_leads_only_to_where_it_is_itself() {
        let origin = |url: &str| Origin::of(&url.parse().unwrap()).unwrap();
        let own = origin("https://r.example");
        let border = Border::new("r", &own, &["auth.lan".to_owned()], &["data.lan:9000".to_owned()]);
        let target = origin("https://data.lan:9000");
        assert_eq!(border.scope(&target, false), AddressScope::Anywhere);
        assert_eq!(border.scope(&target, true), AddressScope::Outside("token_realms"), "another setting");
        assert_eq!(border.scope(&origin("https://AUTH.lan"), true), AddressScope::Anywhere);
        assert_eq!(border.scope(&origin("https://auth.lan"), false), AddressScope::Outside("data_hosts"));
        assert_eq!(
            border.scope(&origin("https://r.example:22"), false),
            AddressScope::Outside("data_hosts"),
            "another port"
        );
        let (inner, link) = ("10.0.0.2".parse().unwrap(), "169.254.169.254".parse().unwrap());
        let judge = |address| border.judge(&origin("https://x.example"), "data_hosts", address);
        assert!(judge(inner).is_err() && judge("20.1.2.3".parse().unwrap()).is_ok());
        border.answered(&origin("https://x.example"), Some(inner));
        assert!(judge(inner).is_err(), "only the upstream itself counts");
        border.answered(&own, Some("192.168.7.7".parse().unwrap()));
        assert!(judge(inner).is_ok() && judge(link).is_err());
        border.answered(&own, Some("20.1.2.3".parse().unwrap()));
        let text = judge(inner).unwrap_err().reason;
        assert!(text.contains("x.example (10.0.0.2)") && text.contains("data_hosts of upstream r"), "{text}");
    }
}
