//! Cipher suites by the names that OpenSSL gives them (`openssl ciphers`), for settings and for the application.

use rustls::crypto::ring::cipher_suite as suite;
use rustls::{CipherSuite, SupportedCipherSuite};

use super::TlsError;

/// All suites of rustls, the preferred ones first.
const SUITES: [(&str, SupportedCipherSuite); 9] = [
    ("TLS_AES_256_GCM_SHA384", suite::TLS13_AES_256_GCM_SHA384),
    ("TLS_AES_128_GCM_SHA256", suite::TLS13_AES_128_GCM_SHA256),
    ("TLS_CHACHA20_POLY1305_SHA256", suite::TLS13_CHACHA20_POLY1305_SHA256),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-AES256-GCM-SHA384", suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES128-GCM-SHA256", suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// The suites of a list of names, in its order. As with OpenSSL a list without a suite of TLS 1.3 leaves those as they are.
pub(super) fn selected(names: &str) -> Result<Vec<SupportedCipherSuite>, TlsError> {
    let mut chosen = Vec::new();
    for name in names.split([':', ',', ' ']).filter(|name| !name.is_empty()) {
        let known = SUITES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        chosen.push(known.ok_or_else(|| unknown(name))?.1);
    }
    if chosen.is_empty() {
        return Err(TlsError::Setting("the list of cipher suites is empty".to_owned()));
    }
    if !chosen.iter().any(is_of_tls13) {
        chosen.splice(0..0, SUITES.map(|(_, suite)| suite).into_iter().filter(is_of_tls13));
    }
    Ok(chosen)
}

fn is_of_tls13(suite: &SupportedCipherSuite) -> bool {
    suite.tls13().is_some()
}

fn unknown(name: &str) -> TlsError {
    let known = SUITES.map(|(name, _)| name).join(":");
    TlsError::Setting(format!("the cipher suite {name} is not one of {known}"))
}

/// OpenSSL's name of a suite.
pub(super) fn name_of(suite: CipherSuite) -> &'static str {
    SUITES.iter().find(|(_, known)| known.suite() == suite).map_or("", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> Result<Vec<&'static str>, String> {
        let chosen = selected(list).map_err(|error| error.to_string())?;
        Ok(chosen.iter().map(|suite| name_of(suite.suite())).collect())
    }

    #[test]
    fn a_list_of_names_selects_suites_and_leaves_tls_1_3_as_openssl_does() {
        let all_13 = ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"];
        let one = "ECDHE-RSA-AES128-GCM-SHA256";
        assert_eq!(names(one).unwrap(), [&all_13[..], &[one]].concat());
        assert_eq!(names("tls_aes_128_gcm_sha256").unwrap(), ["TLS_AES_128_GCM_SHA256"]);
        let both = format!("{one}:TLS_AES_128_GCM_SHA256");
        assert_eq!(names(&both).unwrap(), [one, "TLS_AES_128_GCM_SHA256"]);
    }

    #[test]
    fn a_suite_that_rustls_lacks_is_refused_with_the_list_of_those_that_it_has() {
        for name in ["DHE-RSA-AES128-GCM-SHA256", "HIGH", "!aNULL", "TLSv1"] {
            let refused = names(&format!("ECDHE-RSA-AES128-GCM-SHA256:{name}")).unwrap_err();
            assert!(
                refused.starts_with(&format!("the cipher suite {name} is not one of TLS_AES_")),
                "{refused}"
            );
            assert!(refused.ends_with(":ECDHE-RSA-CHACHA20-POLY1305"), "{refused}");
        }
        assert_eq!(names(" : ").unwrap_err(), "the list of cipher suites is empty");
    }

    #[test]
    fn all_suites_of_rustls_have_names() {
        let all = rustls::crypto::ring::ALL_CIPHER_SUITES;
        assert_eq!(all.len(), SUITES.len());
        assert!(all.iter().all(|suite| !name_of(suite.suite()).is_empty()));
    }
}
