//! Settings of TLS.

use std::path::PathBuf;

use mcsup_py::tls::{CertificateFiles, ClientCertificates, TlsSettings, TlsVersion};

use super::sources::{Origin, Sourced, Sources, refused};
use crate::args::UsageError;
use crate::values::{self, Refused};

/// Names of [`ClientCertificates`]: ours, the numbers that gunicorn takes, and the names of Python's module `ssl`.
const CLIENTS: [(ClientCertificates, [&str; 4]); 3] = [
    (ClientCertificates::None, ["none", "0", "CERT_NONE", "VerifyMode.CERT_NONE"]),
    (ClientCertificates::Optional, ["optional", "1", "CERT_OPTIONAL", "VerifyMode.CERT_OPTIONAL"]),
    (ClientCertificates::Required, ["required", "2", "CERT_REQUIRED", "VerifyMode.CERT_REQUIRED"]),
];

/// The settings of TLS, `None` without a certificate, and warnings of settings without an effect.
pub(super) fn resolve(
    sources: &Sources,
    warnings: &mut Vec<String>,
) -> Result<Option<TlsSettings>, UsageError> {
    let certificates = sources.many("certfile", values::path)?;
    let keys = sources.many("keyfile", values::path)?;
    let clients = sources.one("cert_reqs", clients)?;
    let authorities = sources.optional("ca_certs", values::path)?;
    let oldest = sources.one("tls_min_version", version)?;
    let mut ignored = |name: &str, origin: &Origin, reason: &str| {
        warnings.push(format!("{name} (from {origin}) has no effect: {reason}"));
    };
    if certificates.value.is_empty() && keys.value.is_empty() {
        let origins = [
            ("cert_reqs", (*clients != ClientCertificates::None).then_some(&clients.origin)),
            ("ca_certs", authorities.as_ref().map(|given| &given.origin)),
            // Text of OpenSSL's is left in files without TLS.
            ("ciphers", sources.written("ciphers").map(|(origin, _)| origin)),
            ("tls_min_version", Some(&oldest.origin).filter(|origin| **origin != Origin::Default)),
        ];
        for (name, origin) in origins {
            if let Some(origin) = origin {
                ignored(name, origin, "without a certfile there is no TLS");
            }
        }
        return Ok(None);
    }
    let ciphers = sources.optional("ciphers", ciphers)?;
    match (&authorities, *clients) {
        (Some(given), ClientCertificates::None) => {
            ignored("ca_certs", &given.origin, "cert_reqs is none");
        }
        (None, ClientCertificates::Optional | ClientCertificates::Required) => {
            let reason = "it needs ca_certs, the certification authorities of clients";
            let name = CLIENTS.iter().find(|(kind, _)| *kind == *clients).map_or("", |(_, names)| names[0]);
            return Err(refused("cert_reqs", name, &clients.origin, reason));
        }
        _ => {}
    }
    Ok(Some(TlsSettings {
        certificates: pairs(certificates, &keys)?,
        clients: clients.value,
        authorities: authorities.map(|given| given.value),
        ciphers: ciphers.map(|given| given.value),
        oldest: oldest.value,
    }))
}

/// Certificates with their keys: as many as certificates, or none.
fn pairs(
    certificates: Sourced<Vec<PathBuf>>,
    keys: &Sourced<Vec<PathBuf>>,
) -> Result<Vec<CertificateFiles>, UsageError> {
    let (all, given) = (certificates.value.len(), keys.value.len());
    if given != 0 && given != all {
        let text = format!(
            "{given} of keyfile (from {}), and {all} of certfile: each certificate has its own key",
            keys.origin
        );
        return Err(UsageError::new(text));
    }
    let mut keys = keys.value.iter().cloned();
    let pair = |certificate| CertificateFiles { certificate, key: keys.next() };
    Ok(certificates.value.into_iter().map(pair).collect())
}

fn clients(text: &str) -> Result<ClientCertificates, Refused> {
    let found = CLIENTS.iter().find(|(_, names)| names.iter().any(|name| name.eq_ignore_ascii_case(text)));
    found.map(|(kind, _)| *kind).ok_or_else(|| "expected none, optional or required".to_owned())
}

fn ciphers(text: &str) -> Result<String, Refused> {
    mcsup_py::tls::check_ciphers(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn version(text: &str) -> Result<TlsVersion, Refused> {
    match text {
        "1.2" => Ok(TlsVersion::Tls12),
        "1.3" => Ok(TlsVersion::Tls13),
        _ => Err("expected 1.2 or 1.3; there is no older version".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{self, Invocation};
    use crate::settings::Settings;

    /// `file`: the content of the settings file.
    fn settings(words: &[&str], file: &str) -> Result<Settings, String> {
        let argv = ["mcsup"].iter().chain(words).map(Into::into);
        let Ok(Invocation::Run(given)) = args::parse(argv) else { panic!("{words:?} does not run") };
        Settings::resolve(given, &|_| None, &|_| Ok(file.to_owned())).map_err(|error| error.to_string())
    }

    fn pair(certificate: &str, key: Option<&str>) -> CertificateFiles {
        CertificateFiles { certificate: certificate.into(), key: key.map(Into::into) }
    }

    #[test]
    fn without_a_certificate_there_is_no_tls_and_its_settings_are_named() {
        assert_eq!(settings(&[], "").unwrap().tls, None);
        let words = ["--cert-reqs=2", "--ca-certs=a", "--ciphers=TLSv1", "--tls-min-version=1.2"];
        let plain = settings(&words, "").unwrap();
        assert_eq!(plain.tls, None);
        let named: Vec<_> = plain.warnings.iter().filter_map(|text| text.split(' ').next()).collect();
        assert_eq!(named, ["cert_reqs", "ca_certs", "ciphers", "tls_min_version"]);
    }

    #[test]
    fn each_option_changes_its_part_in_a_file_too() {
        let words = [
            "--certfile=a.pem",
            "--keyfile=a.key",
            "--certfile=b.pem",
            "--keyfile=b.key",
            "--cert-reqs=CERT_OPTIONAL",
            "--ca-certs=ca.pem",
            "--ciphers=ECDHE-RSA-AES128-GCM-SHA256",
            "--tls-min-version=1.3",
        ];
        let expected = TlsSettings {
            certificates: vec![pair("a.pem", Some("a.key")), pair("b.pem", Some("b.key"))],
            clients: ClientCertificates::Optional,
            authorities: Some("ca.pem".into()),
            ciphers: Some("ECDHE-RSA-AES128-GCM-SHA256".to_owned()),
            oldest: TlsVersion::Tls13,
        };
        assert_eq!(settings(&words, "").unwrap().tls, Some(expected));
        let file = settings(&["-c", "x.toml"], "certfile = 'a.pem'\ncert_reqs = 0").unwrap();
        assert_eq!(file.tls.unwrap().certificates, [pair("a.pem", None)]);
        assert_eq!(file.warnings, Vec::<String>::new());
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_its_name() {
        for (words, texts) in [
            (&["--keyfile=k"][..], ["keyfile", "0 of certfile"]),
            (&["--certfile=a", "--keyfile=k", "--keyfile=l"], ["2 of keyfile", "1 of certfile"]),
            (&["--certfile=a", "--cert-reqs=2"], ["cert_reqs", "needs ca_certs"]),
            (&["--cert-reqs=3"], ["cert_reqs", "none, optional or required"]),
            (&["--certfile=a", "--ciphers=HIGH"], ["ciphers", "ECDHE-RSA-AES128-GCM-SHA256"]),
            (&["--tls-min-version=1.1"], ["tls_min_version", "1.2 or 1.3"]),
        ] {
            let error = settings(words, "").unwrap_err();
            assert!(texts.iter().all(|text| error.contains(text)), "{error}");
        }
    }
}
