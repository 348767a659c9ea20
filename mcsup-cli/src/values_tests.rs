use super::*;

fn shown<T: std::fmt::Debug>(result: Result<T, Refused>) -> String {
    result.map_or_else(|reason| format!("refused: {reason}"), |value| format!("{value:?}"))
}

#[test]
fn whole_numbers_are_decimal_and_in_range() {
    for (text, expected) in [
        ("1", "1"),
        ("512", "512"),
        ("0", "refused: not from 1 to 512"),
        ("513", "refused: not from 1 to 512"),
        ("-1", "refused: not from 1 to 512"),
        ("99999999999999999999999", "refused: not from 1 to 512"),
        ("", "refused: not a whole number"),
        ("-", "refused: not a whole number"),
        ("x", "refused: not a whole number"),
        ("1.5", "refused: not a whole number"),
        ("0x10", "refused: not a whole number"),
        (" 1", "refused: not a whole number"),
        ("+1", "refused: not a whole number"),
    ] {
        assert_eq!(shown(whole(text, 1..=512_usize)), expected, "{text:?}");
    }
}

#[test]
fn a_limit_of_zero_or_beyond_the_most_is_the_most() {
    assert_eq!(limit("0", 100_usize), Ok(100));
    assert_eq!(limit("7", 100_usize), Ok(7));
    assert_eq!(limit("0", u64::MAX), Ok(u64::MAX));
    assert_eq!(limit("101", 100_usize), Ok(100));
    assert_eq!(limit("99999999999999999999", 100_usize), Ok(100));
    assert_eq!(shown(limit("-1", 100_usize)), "refused: not from 0 to 100");
    assert_eq!(shown(limit("1k", 100_usize)), "refused: not a whole number");
}

#[test]
fn a_surge_is_a_number_or_all() {
    assert_eq!(surge("all"), Ok(Surge::All));
    assert_eq!(surge("1"), Ok(Surge::Extra(1)));
    assert_eq!(surge("512"), Ok(Surge::Extra(512)));
    for text in ["All", "none", "1e2"] {
        assert_eq!(shown(surge(text)), "refused: expected a whole number or the word all", "{text:?}");
    }
    assert_eq!(shown(surge("0")), "refused: not from 1 to 512");
    assert_eq!(shown(surge("1.5")), "refused: not a whole number");
}

#[test]
fn a_count_of_zero_is_off() {
    assert_eq!(count_or_off("0"), Ok(None));
    assert_eq!(count_or_off("18446744073709551615"), Ok(Some(u64::MAX)));
    assert_eq!(shown(count("18446744073709551616")), "refused: not from 0 to 18446744073709551615");
    assert_eq!(shown(count("-1")), "refused: not from 0 to 18446744073709551615");
}

#[test]
fn memory_is_bytes_or_has_a_unit() {
    let words = "refused: not a whole number of bytes, such as 1048576, 512K, 256M or 1G";
    for (text, expected) in [
        ("0", "0"),
        ("1048576", "1048576"),
        ("1K", "1024"),
        ("256M", "268435456"),
        ("256m", "268435456"),
        ("1G", "1073741824"),
        ("0G", "0"),
        ("17179869183G", "18446744072635809792"),
        ("17179869184G", "refused: more than 18446744073709551615 bytes"),
        ("18446744073709551616", "refused: more than 18446744073709551615 bytes"),
        ("-1M", words),
        ("", words),
        ("M", words),
        ("1.5G", words),
        ("1MB", words),
        ("1MiB", words),
        ("1 M", words),
        ("1µ", words),
    ] {
        assert_eq!(shown(bytes(text)), expected, "{text:?}");
    }
    assert_eq!((bytes_or_off("0M"), bytes_or_off("2K")), (Ok(None), Ok(Some(2048))));
}

#[test]
fn a_request_path_is_absolute_and_has_no_query() {
    assert_eq!(request_path("/-/health"), Ok("/-/health".to_owned()));
    for (text, expected) in [
        ("", "refused: it must begin with /"),
        ("health", "refused: it must begin with /"),
        ("http://a/", "refused: it must begin with /"),
        ("/a?b", "refused: it may hold no ? and no white space"),
        ("/a b", "refused: it may hold no ? and no white space"),
        ("/a\u{a0}", "refused: it may hold no ? and no white space"),
        ("/a\0", "refused: it may hold no ? and no white space"),
    ] {
        assert_eq!(shown(request_path(text)), expected, "{text:?}");
    }
}

#[test]
fn words_are_taken_as_they_are_written() {
    assert_eq!(preload_threads("refuse"), Ok(MoldThreads::Refuse));
    assert_eq!(shown(preload_threads("Warn")), "refused: expected refuse or warn");
    assert_eq!(reload_engine("poll"), Ok(ReloadEngine::Poll));
    assert_eq!(reload_engine("inotify"), Ok(ReloadEngine::Inotify));
    assert_eq!(shown(reload_engine("")), "refused: expected auto, poll or inotify");
}

#[test]
fn seconds_are_finite_and_not_negative() {
    for (text, expected) in [
        ("30", "30s"),
        ("0", "0ns"),
        ("-0", "0ns"),
        ("0.5", "500ms"),
        ("1e3", "1000s"),
        ("-1", "refused: less than 0 seconds"),
        ("-0.001", "refused: less than 0 seconds"),
        ("inf", "refused: not a number of seconds"),
        ("nan", "refused: not a number of seconds"),
        // A year is the longest time.
        ("1e300", "31536000s"),
        ("1e999", "31536000s"),
        ("31536000", "31536000s"),
        ("31536001", "31536000s"),
        ("30s", "refused: not a number of seconds"),
        ("", "refused: not a number of seconds"),
    ] {
        assert_eq!(shown(seconds(text)), expected, "{text:?}");
    }
}

#[test]
fn zero_seconds_mean_off_or_are_refused() {
    assert_eq!(seconds_or_off("0"), Ok(None));
    assert_eq!(seconds_or_off("1"), Ok(Some(Duration::from_secs(1))));
    assert_eq!(shown(positive_seconds("0.0")), "refused: must be more than 0 seconds");
    assert_eq!(positive_seconds("0.1"), Ok(Duration::from_millis(100)));
}

#[test]
fn a_liveness_timeout_is_longer_than_the_time_between_signs_of_life() {
    assert_eq!(liveness_or_off("0"), Ok(None));
    assert_eq!(liveness_or_off("1"), Ok(Some(SHORTEST_LIVENESS)));
    assert!(liveness_or_off("0.9").is_err_and(|reason| reason.contains("at least 1")));
}

#[test]
fn a_umask_is_octal_beyond_doubt() {
    for (text, expected) in [
        ("007", "7"),
        ("0o007", "7"),
        ("0", "0"),
        ("7", "7"),
        ("0777", "511"),
        ("0o27", "23"),
        ("22", "refused: octal or decimal? Write 022 if octal"),
        ("01000", "refused: not from 0 to 0777"),
        ("0777777777777777777777", "refused: not from 0 to 0777"),
        ("8", "refused: not an octal number such as 007"),
        ("089", "refused: not an octal number such as 007"),
        ("0x7", "refused: not an octal number such as 007"),
        ("0o", "refused: not an octal number such as 007"),
        ("-1", "refused: not an octal number such as 007"),
        ("", "refused: not an octal number such as 007"),
    ] {
        assert_eq!(shown(umask(text)), expected, "{text:?}");
    }
}

#[test]
fn an_owner_of_a_socket_is_a_user_a_group_or_both() {
    let owner = |user: &str, group: &str| {
        let name = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
        Ok(SocketOwner { user: name(user), group: name(group) })
    };
    assert_eq!(socket_owner("app"), owner("app", ""));
    assert_eq!(socket_owner("app:www-data"), owner("app", "www-data"));
    assert_eq!(socket_owner(":33"), owner("", "33"));
    for text in ["", ":", "app:"] {
        assert_eq!(shown(socket_owner(text)), "refused: expected USER, USER:GROUP or :GROUP", "{text:?}");
    }
}

#[test]
fn variables_have_a_name() {
    assert_eq!(variable("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
    assert_eq!(variable("A="), Ok(("A".to_owned(), String::new())));
    for text in ["A", "=b", ""] {
        assert_eq!(shown(variable(text)), "refused: expected NAME=VALUE", "{text:?}");
    }
}

#[test]
fn directories_are_split_at_commas() {
    assert_eq!(shown(directories("a, b,,/c d")), r#"["a", "b", "/c d"]"#);
    assert_eq!(shown(directories("")), "[]");
}

#[test]
fn levels_and_destinations_are_named() {
    assert_eq!(level("Warning"), Ok(Level::Warning));
    for (name, expected) in [
        ("WARN", Level::Warning),
        ("fatal", Level::Critical),
        ("notset", Level::Debug),
        ("trace", Level::Debug),
        ("", Level::Info),
    ] {
        assert_eq!(level(name), Ok(expected), "a name of another logger: {name}");
    }
    assert!(level("loud").is_err());
    assert_eq!(destination("-"), Ok(Destination::Standard));
    assert_eq!(destination("a.log"), Ok(Destination::File("a.log".into())));
    assert!(destination("").is_err());
}
