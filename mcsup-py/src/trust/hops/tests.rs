use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Empty: the peer's address stays.
fn client(field: HopsField, count: usize, lines: &[&str]) -> Result<String, Malformed> {
    let found = Hops { count, field }.client(lines.iter().map(|line| line.as_bytes()));
    Ok(found?.map_or_else(String::new, |address| address.to_string()))
}

#[test]
fn the_entry_of_the_farthest_trusted_hop_is_the_client() {
    for (count, lines, expected) in [
        (1, &["192.0.2.1"][..], Some("192.0.2.1:0")),
        (1, &["198.51.100.9, 192.0.2.1"], Some("192.0.2.1:0")),
        (2, &["203.0.113.5, 198.51.100.9, 192.0.2.1"], Some("198.51.100.9:0")),
        (2, &["203.0.113.5, 198.51.100.9", "192.0.2.1"], Some("198.51.100.9:0")),
        (1, &["192.0.2.1:4711"], Some("192.0.2.1:4711")),
        (1, &["2001:db8::1"], Some("[2001:db8::1]:0")),
        (1, &["[2001:db8::1]"], Some("[2001:db8::1]:0")),
        (1, &["[2001:db8::1]:4711"], Some("[2001:db8::1]:4711")),
        (1, &["192.0.2.1,, "], Some("192.0.2.1:0")),
        (2, &["192.0.2.1"], None),
        (1, &[], None),
        (1, &["unknown"], None),
        (1, &["192.0.2.1, localhost"], None),
        (1, &["192.0.2.1:99999"], None),
        (1, &["192.0.2.1:"], None),
        (1, &["[192.0.2.1]"], None),
        (1, &["fe80::1%eth0"], None),
        (0, &["192.0.2.1"], None),
    ] {
        let expected = Ok(expected.unwrap_or_default().to_owned());
        assert_eq!(client(HopsField::XForwardedFor, count, lines), expected, "{count} {lines:?}");
    }
}

#[test]
fn the_same_is_in_the_parameter_for_of_forwarded() {
    for (count, lines, expected) in [
        (1, &["for=192.0.2.1"][..], "192.0.2.1:0"),
        (1, &["For=\"192.0.2.1:4711\";proto=https;by=203.0.113.1"], "192.0.2.1:4711"),
        (1, &["proto=https; FOR=\"[2001:db8::1]:1\""], "[2001:db8::1]:1"),
        (1, &["for=198.51.100.9, for=192.0.2.1"], "192.0.2.1:0"),
        (2, &["for=198.51.100.9", "for=192.0.2.1"], "198.51.100.9:0"),
        (2, &["for=198.51.100.9,proto=https"], "198.51.100.9:0"),
        (1, &["for=\"192.0.2.1:_hidden\""], "192.0.2.1:0"),
        (1, &["for=192.0.2.1,,"], "192.0.2.1:0"),
        (1, &["for=198.51.100.9,proto=https"], ""),
        (1, &["for=_hidden"], ""),
        (1, &["for=unknown"], ""),
        (2, &["for=192.0.2.1"], ""),
        (1, &["for=192.0.2.1:4711"], "192.0.2.1:4711"),
        (1, &["for=[2001:db8::1]:1"], "[2001:db8::1]:1"),
    ] {
        assert_eq!(client(HopsField::Forwarded, count, lines), Ok(expected.to_owned()), "{count} {lines:?}");
    }
}

#[test]
fn a_line_of_a_client_has_no_effect_on_those_of_the_proxies() {
    for forged in ["x", "for=\"", "for=203.0.113.5 for=1", "for=1;for=2", ",", "for=203.0.113.5:x:y", ""] {
        let lines = [forged, "for=198.51.100.9", "for=192.0.2.1"];
        assert_eq!(client(HopsField::Forwarded, 1, &lines), Ok("192.0.2.1:0".to_owned()), "{forged:?}");
        assert_eq!(client(HopsField::Forwarded, 2, &lines), Ok("198.51.100.9:0".to_owned()), "{forged:?}");
    }
}

#[test]
fn a_line_with_the_entry_that_counts_is_well_formed_or_refused() {
    for line in [
        "for=192.0.2.1;for=192.0.2.2",
        "for=\"192.0.2.1",
        "for",
        "for=",
        "for = 192.0.2.1",
        "x, for=192.0.2.1",
    ] {
        assert_eq!(client(HopsField::Forwarded, 1, &[line]), Err(Malformed), "{line}");
        assert_eq!(client(HopsField::Forwarded, 2, &[line, "for=192.0.2.1"]), Err(Malformed), "{line}");
    }
    assert_eq!(client(HopsField::Forwarded, 1, &["for=\"\\192.0.2.1\""]), Ok(String::new()));
}

#[test]
fn a_client_cannot_hide_the_entry_of_a_proxy_in_an_open_quote() {
    for appended in [", for=192.0.2.1", ", for=\"[2001:db8::1]\"", ", for=192.0.2.1;proto=\"https\""] {
        for forged in ["for=\"203.0.113.5", "for=203.0.113.5;x=\"", "for=203.0.113.5;x=\"\\"] {
            assert_eq!(
                client(HopsField::Forwarded, 1, &[&format!("{forged}{appended}")]),
                Err(Malformed),
                "{forged}{appended}"
            );
        }
    }
}

proptest! {
    #[test]
    fn whatever_a_client_sends_the_entries_of_proxies_are_counted_from_the_end(
        forged in "[ -~]{0,30}", hops in vec(any::<[u8; 4]>(), 1..5)
    ) {
        let hops: Vec<_> = hops.into_iter().map(|ip| core::net::Ipv4Addr::from(ip).to_string()).collect();
        let expected = format!("{}:0", hops[0]);
        let line = format!("{forged},{}", hops.join(","));
        prop_assert_eq!(client(HopsField::XForwardedFor, hops.len(), &[&line]), Ok(expected.clone()));
        let line = format!("{forged},for={}", hops.join(",for="));
        let found = client(HopsField::Forwarded, hops.len(), &[&line]);
        prop_assert!(found.is_err() || found == Ok(expected.clone()));
        let found = client(HopsField::Forwarded, hops.len(), &[&forged, &format!("for={}", hops.join(",for="))]);
        prop_assert_eq!(found, Ok(expected));
    }

    #[test]
    fn no_bytes_make_it_panic(lines in vec(vec(any::<u8>(), 0..40), 0..4), count in 0_usize..4) {
        for field in [HopsField::XForwardedFor, HopsField::Forwarded] {
            let _ = Hops { count, field }.client(lines.iter().map(Vec::as_slice));
        }
    }
}
