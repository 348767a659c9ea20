//! Lists of addresses and networks.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;

/// Addresses and networks, or all of them.
///
/// Its text is gunicorn's: addresses and networks (RFC 4632 §3.1) with commas between them, or `*`. An IPv4 address in its
/// IPv6 form, as a listener at `[::]` sees it, is that IPv4 address (RFC 4291 §2.5.5.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowList {
    has_all: bool,
    networks: Vec<IpNet>,
}

impl Default for AllowList {
    /// The loopback addresses `127.0.0.1` and `::1`.
    fn default() -> Self {
        let networks =
            [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].map(IpNet::from).to_vec();
        Self { has_all: false, networks }
    }
}

impl AllowList {
    /// No address at all.
    pub const NONE: Self = Self { has_all: false, networks: Vec::new() };

    /// Whether `address` is in it.
    pub fn has(&self, address: IpAddr) -> bool {
        self.has_all || {
            let address = address.to_canonical();
            self.networks.iter().any(|network| network.contains(&address))
        }
    }

    /// Whether a peer is in it. A peer on a Unix socket has no address, and always is.
    pub(crate) fn has_peer(&self, peer: Option<SocketAddr>) -> bool {
        peer.is_none_or(|peer| self.has(peer.ip()))
    }
}

impl FromStr for AllowList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut list = Self::NONE;
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "*" => list.has_all = true,
                _ => list.networks.push(network(word)?),
            }
        }
        Ok(list)
    }
}

impl fmt::Display for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks =
            self.networks.iter().map(|network| match network.prefix_len() == network.max_prefix_len() {
                true => network.addr().to_string(),
                false => network.to_string(),
            });
        let all = self.has_all.then(|| "*".to_owned());
        f.write_str(&all.into_iter().chain(networks).collect::<Vec<_>>().join(","))
    }
}

fn network(word: &str) -> Result<IpNet, String> {
    let wrong = || format!("{word:?} is no address, no network such as 10.0.0.0/8, and not *");
    let Some((address, prefix)) = word.split_once('/') else {
        return word
            .parse::<IpAddr>()
            .map(|address| IpNet::from(address.to_canonical()))
            .map_err(|_| wrong());
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    // A netmask is an older form of an IPv4 length (RFC 4632 §3.1), which gunicorn knows too.
    let length = match prefix.parse::<Ipv4Addr>() {
        Ok(mask) if address.is_ipv4() => ipnet::ip_mask_to_prefix(mask.into()).map_err(|_| wrong())?,
        Err(_) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => prefix.parse().map_err(|_| wrong())?,
        _ => return Err(wrong()),
    };
    let network = IpNet::new(address, length).map_err(|_| wrong())?;
    if network.trunc() != network {
        return Err(format!("{word:?} has bits behind its prefix: write {}", network.trunc()));
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn has(list: &str, address: &str) -> bool {
        list.parse::<AllowList>().unwrap().has(address.parse().unwrap())
    }

    #[test]
    fn a_list_has_its_addresses_and_those_of_its_networks() {
        for (list, address, expected) in [
            ("127.0.0.1,::1", "127.0.0.1", true),
            ("127.0.0.1,::1", "::1", true),
            ("127.0.0.1,::1", "127.0.0.2", false),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("::ffff:127.0.0.1", "127.0.0.1", true),
            ("10.0.0.0/8 , 192.168.1.0/24", "192.168.1.77", true),
            ("10.0.0.0/255.0.0.0", "10.1.2.3", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("2001:db8::/32", "2001:db8:1::2", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("*", "8.8.8.8", true),
            ("10.0.0.1,*", "::2", true),
            ("", "127.0.0.1", false),
            (",", "127.0.0.1", false),
        ] {
            assert_eq!(has(list, address), expected, "{address} in {list:?}");
        }
    }

    #[test]
    fn a_peer_on_a_unix_socket_is_always_in_it() {
        assert!(AllowList::NONE.has_peer(None));
        assert!(!AllowList::NONE.has_peer(Some("127.0.0.1:1".parse().unwrap())));
    }

    #[test]
    fn what_is_no_list_is_refused_with_the_word_and_a_remedy() {
        for word in [
            "localhost",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "10.0.0/8",
            "1.2.3.4:80",
            "::1/::",
            "::/0.0.0.0",
            "10.0.0.0/0.0.255.0",
        ] {
            let error = word.parse::<AllowList>().unwrap_err();
            assert!(error.contains(word) && error.contains("10.0.0.0/8"), "{error}");
        }
        let error = "192.168.1.1/24".parse::<AllowList>().unwrap_err();
        assert!(error.ends_with("write 192.168.1.0/24"), "{error}");
    }

    #[test]
    fn a_list_is_shown_as_it_is_written() {
        for text in ["127.0.0.1,::1", "*", "10.0.0.0/8,2001:db8::/32", ""] {
            assert_eq!(text.parse::<AllowList>().unwrap().to_string(), text);
        }
        assert_eq!(AllowList::default().to_string(), "127.0.0.1,::1");
    }

    proptest! {
        #[test]
        fn a_network_has_the_addresses_with_its_prefix_and_no_others(
            (network, other, length) in (any::<u32>(), any::<u32>(), 0_u32..=32)
        ) {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            let list: AllowList = format!("{}/{length}", Ipv4Addr::from(network & mask)).parse().unwrap();
            prop_assert!(list.has(Ipv4Addr::from(network).into()));
            prop_assert_eq!(list.has(Ipv4Addr::from(other).into()), other & mask == network & mask);
        }
    }
}
