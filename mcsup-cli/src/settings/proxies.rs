//! Settings of the proxies before the server.

use mcsup_py::engine::{AllowList, FieldRules, HeaderMap, Hops, HopsField, ProxyProtocol, Trust};

use super::sources::{Origin, Sourced, Sources, refused};
use crate::args::UsageError;
use crate::values::{self, Refused};

/// Largest number of trusted hops.
const MOST_HOPS: usize = 100;

/// The proxies before the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxies {
    /// Which peers are trusted, and with what.
    pub trust: Trust,
}

impl Proxies {
    pub(super) fn resolve(sources: &Sources, warnings: &mut Vec<String>) -> Result<Self, UsageError> {
        let scheme = sources.many("secure_scheme_headers", scheme_field)?;
        let scheme: Vec<_> = match scheme.origin {
            Origin::Default => {
                FieldRules::SCHEME.map(|(name, secure)| (name.to_owned(), secure.to_owned())).to_vec()
            }
            _ => scheme.value.into_iter().flatten().collect(),
        };
        let forwarder = sources.one("forwarder_headers", field_names)?.value;
        let map = sources.one("header_map", |text| named(&HeaderMap::NAMES, text))?.value;
        let fields = FieldRules::new(scheme, forwarder, map, hops(sources)?).map_err(UsageError::new)?;
        let forwarded_allow = sources.one("forwarded_allow_ips", str::parse::<AllowList>)?;
        let proxy_protocol = sources.one("proxy_protocol", proxy_protocol)?.value;
        if proxy_protocol != ProxyProtocol::Off && forwarded_allow.origin == Origin::Default {
            // gunicorn trusts the proxy alone. In front of one in TCP mode the client itself writes the fields.
            let text = "proxy_protocol: X-Forwarded-Proto and other fields of a proxy count only from clients in \
                        forwarded_allow_ips, which is not set ('*': from all, if no client connects but by the proxy)";
            warnings.push(text.to_owned());
        }
        Ok(Self {
            trust: Trust {
                forwarded_allow: forwarded_allow.value,
                fields,
                proxy_protocol,
                proxy_allow: sources.one("proxy_allow_from", str::parse::<AllowList>)?.value,
            },
        })
    }
}

fn hops(sources: &Sources) -> Result<Hops, UsageError> {
    let count = sources.one("trusted_hops", |text| values::whole(text, 0..=MOST_HOPS))?.value;
    let Sourced { value: field, origin } =
        sources.one("trusted_hops_field", |text| named(&HopsField::NAMES, text))?;
    if count == 0 && origin != Origin::Default {
        let reason = "it needs trusted_hops, the number of proxies that append to the field";
        return Err(refused("trusted_hops_field", field.name(), &origin, reason));
    }
    Ok(Hops { count, field })
}

/// `None`: an empty text, which stands for no field.
fn scheme_field(text: &str) -> Result<Option<(String, String)>, Refused> {
    if text.is_empty() {
        return Ok(None);
    }
    let (name, secure) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    field_name(name)?;
    Ok(Some((name.to_owned(), secure.to_owned())))
}

fn field_names(text: &str) -> Result<Vec<String>, Refused> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| field_name(name).map(|()| name.to_owned())).collect()
}

/// The library knows which names a field can have.
fn field_name(name: &str) -> Result<(), Refused> {
    FieldRules::new([], [name.to_owned()], HeaderMap::Drop, Hops::default()).map(drop)
}

/// With gunicorn's further words.
fn proxy_protocol(text: &str) -> Result<ProxyProtocol, Refused> {
    match text.to_ascii_lowercase().as_str() {
        "false" | "0" | "none" => Ok(ProxyProtocol::Off),
        "true" | "1" => Ok(ProxyProtocol::Auto),
        word => named(&ProxyProtocol::NAMES, word),
    }
}

/// The value with this name, in any case.
fn named<T: Copy>(names: &[(&str, T)], text: &str) -> Result<T, Refused> {
    let found = names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.trim()));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{self, Invocation};
    use crate::settings::Settings;

    fn trust(words: &[&str]) -> Result<Trust, String> {
        trust_beside(words, None, "")
    }

    /// `variable`: FORWARDED_ALLOW_IPS. `file`: the content of the settings file.
    fn trust_beside(words: &[&str], variable: Option<&str>, file: &str) -> Result<Trust, String> {
        let argv = std::iter::once(&"mcsup").chain(words).map(Into::into);
        let Ok(Invocation::Run(given)) = args::parse(argv) else { panic!("{words:?} does not run") };
        let look_up = |name: &str| variable.filter(|_| name == "FORWARDED_ALLOW_IPS").map(Into::into);
        let settings = Settings::resolve(given, &look_up, &|_| Ok(file.to_owned()));
        settings.map(|settings| settings.proxies.trust).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_the_library() {
        assert_eq!(trust(&[]), Ok(Trust::default()));
    }

    #[test]
    fn each_option_changes_its_part() {
        let rules = |scheme: &[(&str, &str)], forwarder: &[&str], map, hops| {
            let scheme = scheme.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            FieldRules::new(scheme, forwarder.iter().map(|name| (*name).to_owned()), map, hops).unwrap()
        };
        let found = trust(&[
            "--forwarded-allow-ips=10.0.0.0/8",
            "--secure-scheme-header=X-Scheme=https",
            "--forwarder-headers=REMOTE_USER",
            "--header-map=REFUSE",
            "--proxy-protocol",
            "--proxy-allow-from=*",
            "--trusted-hops=2",
            "--trusted-hops-field=Forwarded",
        ]);
        let hops = Hops { count: 2, field: HopsField::Forwarded };
        let expected = Trust {
            forwarded_allow: "10.0.0.0/8".parse().unwrap(),
            fields: rules(&[("X-Scheme", "https")], &["REMOTE_USER"], HeaderMap::Refuse, hops),
            proxy_protocol: ProxyProtocol::Auto,
            proxy_allow: "*".parse().unwrap(),
        };
        assert_eq!(found, Ok(expected));
        let found =
            trust(&["--secure-scheme-header=", "--forwarder-headers=", "--forwarded-allow-ips="]).unwrap();
        assert_eq!(found.fields, rules(&[], &[], HeaderMap::Drop, Hops::default()));
        assert_eq!(found.forwarded_allow, AllowList::NONE);
    }

    #[test]
    fn the_variable_of_gunicorn_counts_below_files_and_options() {
        let has = |words: &[&str], variable, file: &str| {
            let list = trust_beside(words, variable, file).unwrap().forwarded_allow;
            list.to_string()
        };
        assert_eq!(has(&[], Some("*"), ""), "*");
        let file = "forwarded_allow_ips = '10.0.0.1'";
        assert_eq!(has(&["-c", "x.toml"], Some("*"), file), "10.0.0.1");
        assert_eq!(has(&["-c", "x.toml", "--forwarded-allow-ips=10.0.0.2"], Some("*"), file), "10.0.0.2");
    }

    #[test]
    fn a_proxy_protocol_without_a_list_of_peers_has_a_warning() {
        for (words, count) in [
            (&[][..], 0),
            (&["--proxy-protocol"], 1),
            (&["--proxy-protocol", "--forwarded-allow-ips=127.0.0.1"], 0),
        ] {
            let argv = std::iter::once(&"mcsup").chain(words).map(Into::into);
            let Ok(Invocation::Run(given)) = args::parse(argv) else { panic!("{words:?} does not run") };
            let settings = Settings::resolve(given, &|_| None, &|_| unreachable!()).unwrap();
            let warned = settings.warnings.iter().filter(|warning| warning.starts_with("proxy_protocol: "));
            assert_eq!(warned.count(), count, "{words:?}");
        }
    }

    #[test]
    fn a_file_has_the_secure_scheme_headers_as_a_table_or_a_list() {
        let expected = trust(&["--secure-scheme-header=X-Scheme=https", "--secure-scheme-header=X-Tls=1"]);
        for file in [
            "secure_scheme_headers = ['X-Scheme=https', 'X-Tls=1']",
            "[secure_scheme_headers]\n'X-Scheme' = 'https'\n'X-Tls' = 1",
        ] {
            assert_eq!(trust_beside(&["-c", "x.toml"], None, file), expected, "{file}");
        }
        let error =
            trust_beside(&["-c", "x.toml"], None, "[secure_scheme_headers]\n'a=b' = '1'").unwrap_err();
        assert!(error.contains("\"a=b\" cannot be a field's name"), "{error}");
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_name() {
        for (word, texts) in [
            ("--forwarded-allow-ips=proxy.example", ["forwarded_allow_ips", "proxy.example"]),
            ("--proxy-allow-from=10.0.0.1/8", ["proxy_allow_from", "10.0.0.0/8"]),
            ("--proxy-protocol=v3", ["proxy_protocol", "off, v1, v2, auto"]),
            ("--header-map=keep", ["header_map", "drop, refuse, dangerous"]),
            ("--forwarder-headers=A B", ["forwarder_headers", "\"A B\""]),
            ("--secure-scheme-header=X-Scheme", ["secure_scheme_headers", "NAME=VALUE"]),
            ("--trusted-hops=-1", ["trusted_hops", "-1"]),
            ("--trusted-hops-field=forwarded", ["trusted_hops_field", "needs trusted_hops"]),
        ] {
            let error = trust(&[word]).unwrap_err();
            assert!(texts.iter().all(|text| error.contains(text)), "{error}");
        }
    }
}
