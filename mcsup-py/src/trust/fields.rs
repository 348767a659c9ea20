//! The fields of a request that count if its peer is trusted: scheme, mount point, address; and names with an underscore.

use core::net::SocketAddr;

use super::hops::{Hops, HopsField, Malformed};

/// Which fields count, and how names with an underscore are treated.
///
/// The environ has the same name for `X-Forwarded-For` and `X_Forwarded_For` (RFC 3875 §4.1.18). So a client could forge
/// with the second one what a proxy says with the first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRules {
    /// Names, and the value of each that means https.
    scheme: Vec<(String, String)>,
    /// Names with an underscore that a trusted peer may send, in upper case.
    forwarder: Vec<String>,
    has_all_forwarders: bool,
    map: HeaderMap,
    hops: Hops,
    /// The lengths of the names that count, as bits.
    lengths: u64,
}

/// How a field whose name has an underscore is treated, unless a trusted peer may send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeaderMap {
    /// The request is served without it.
    #[default]
    Drop,
    /// The request is refused.
    Refuse,
    /// It is in the environ, under the same name as a field with hyphens.
    Dangerous,
}

impl HeaderMap {
    /// The name of each.
    pub const NAMES: [(&str, Self); 3] =
        [("drop", Self::Drop), ("refuse", Self::Refuse), ("dangerous", Self::Dangerous)];
}

/// Whether a field with an underscore in its name is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Yes,
    No,
    /// The request is refused.
    Refused,
    /// The request is refused: only one such field has a meaning.
    Repeated,
}

/// The statements of a trusted peer in one head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Claims {
    /// Whether the scheme is https.
    pub(crate) is_https: Option<bool>,
    /// The place of SCRIPT_NAME among the fields.
    pub(crate) script_name: Option<usize>,
    /// The client's address, where hops are counted.
    pub(crate) client: Option<SocketAddr>,
}

/// The rules for the fields of one peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rules: &'a FieldRules,
    is_trusted: bool,
    lengths: u64,
}

/// Two fields name different schemes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contradiction;

impl FieldRules {
    /// The rules without any field that counts.
    pub(crate) const NONE: Self = Self {
        scheme: Vec::new(),
        forwarder: Vec::new(),
        has_all_forwarders: false,
        map: HeaderMap::Drop,
        hops: Hops { count: 0, field: HopsField::XForwardedFor },
        lengths: 0,
    };

    /// gunicorn's `secure_scheme_headers`: names, and the value that means https.
    pub const SCHEME: [(&str, &str); 3] =
        [("X-FORWARDED-PROTOCOL", "ssl"), ("X-FORWARDED-PROTO", "https"), ("X-FORWARDED-SSL", "on")];

    /// gunicorn's `forwarder_headers`.
    pub const FORWARDER: [&str; 2] = ["SCRIPT_NAME", "PATH_INFO"];

    /// `scheme`: names, and the value of each that means https; any other value means http. `forwarder`: names with an
    /// underscore that a trusted peer may send; `*`: any.
    ///
    /// # Errors
    /// A name that no field can have.
    pub fn new(
        scheme: impl IntoIterator<Item = (String, String)>,
        forwarder: impl IntoIterator<Item = String>,
        map: HeaderMap,
        hops: Hops,
    ) -> Result<Self, String> {
        let mut rules = Self { map, hops, ..Self::NONE };
        for (name, secure) in scheme {
            is_token(&name)?;
            rules.lengths |= bit_of(name.len());
            rules.scheme.push((name, secure.trim().to_owned()));
        }
        for name in forwarder {
            match name.as_str() {
                "*" => rules.has_all_forwarders = true,
                _ => {
                    is_token(&name)?;
                    rules.forwarder.push(name.to_ascii_uppercase());
                }
            }
        }
        Ok(rules)
    }

    /// The rules for a peer.
    pub(crate) fn reader(&self, is_trusted: bool) -> Reader<'_> {
        Reader { rules: self, is_trusted, lengths: if is_trusted { self.lengths } else { 0 } }
    }
}

impl Default for FieldRules {
    /// gunicorn's.
    fn default() -> Self {
        let scheme = Self::SCHEME.map(|(name, secure)| (name.to_owned(), secure.to_owned()));
        let forwarder = Self::FORWARDER.map(str::to_owned);
        Self::new(scheme, forwarder, HeaderMap::Drop, Hops::default()).unwrap_or(Self::NONE)
    }
}

impl Reader<'_> {
    /// Whether a field with an underscore in its name is kept. `place`: its place among the fields.
    pub(crate) fn underscored(self, name: &[u8], place: usize, claims: &mut Claims) -> Kept {
        let Self { rules, is_trusted, .. } = self;
        let is_listed = || rules.forwarder.iter().any(|listed| name.eq_ignore_ascii_case(listed.as_bytes()));
        if is_trusted && (rules.has_all_forwarders || is_listed()) {
            let is_script_name = name.eq_ignore_ascii_case(b"script_name");
            let is_repeated = is_script_name && claims.script_name.replace(place).is_some();
            return if is_repeated { Kept::Repeated } else { Kept::Yes };
        }
        match rules.map {
            HeaderMap::Drop => Kept::No,
            HeaderMap::Refuse => Kept::Refused,
            HeaderMap::Dangerous => Kept::Yes,
        }
    }

    /// Notes the scheme that a field names. Most fields cost one look at the length of their name.
    pub(crate) fn note(self, name: &[u8], value: &[u8], claims: &mut Claims) -> Result<(), Contradiction> {
        if self.lengths & bit_of(name.len()) == 0 {
            return Ok(());
        }
        for (known, secure) in &self.rules.scheme {
            if name.eq_ignore_ascii_case(known.as_bytes()) {
                let is_https = value == secure.as_bytes();
                if claims.is_https.replace(is_https).is_some_and(|before| before != is_https) {
                    return Err(Contradiction);
                }
            }
        }
        Ok(())
    }

    /// Whether the address of the client is to be looked for.
    pub(crate) fn counts_hops(self) -> bool {
        self.is_trusted && self.rules.hops.count > 0
    }

    /// The address of the client in the field that the hops write. `fields`: names and values, in order.
    pub(crate) fn client<'a>(
        self,
        fields: impl DoubleEndedIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    ) -> Result<Option<SocketAddr>, Malformed> {
        let hops = self.rules.hops;
        let name = hops.field.name().as_bytes();
        let is_ours = |(field, _): &(&[u8], &[u8])| field.eq_ignore_ascii_case(name);
        hops.client(fields.filter(is_ours).map(|(_, value)| value))
    }
}

/// Long names share a bit.
fn bit_of(length: usize) -> u64 {
    1 << length.min(63)
}

/// RFC 9110 §5.1.
fn is_token(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match !name.is_empty() && name.bytes().all(fits) {
        true => Ok(()),
        false => Err(format!("{name:?} is no name of a header field")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheme(
        rules: &FieldRules,
        is_trusted: bool,
        fields: &[(&str, &str)],
    ) -> Result<Option<bool>, Contradiction> {
        let mut claims = Claims::default();
        for (name, value) in fields {
            rules.reader(is_trusted).note(name.as_bytes(), value.as_bytes(), &mut claims)?;
        }
        Ok(claims.is_https)
    }

    #[test]
    fn a_trusted_peer_names_the_scheme_by_gunicorns_fields() {
        let rules = FieldRules::default();
        for (fields, expected) in [
            (&[][..], Ok(None)),
            (&[("X-Forwarded-Proto", "https")], Ok(Some(true))),
            (&[("x-forwarded-proto", "http")], Ok(Some(false))),
            (&[("X-Forwarded-Proto", "HTTPS")], Ok(Some(false))),
            (&[("X-Forwarded-Protocol", "ssl")], Ok(Some(true))),
            (&[("X-Forwarded-Ssl", "on")], Ok(Some(true))),
            (&[("X-Forwarded-Ssl", "on"), ("X-Forwarded-Proto", "https")], Ok(Some(true))),
            (&[("X-Forwarded-Ssl", "off"), ("X-Forwarded-Proto", "https")], Err(Contradiction)),
            (&[("X-Forwarded-Proto", "https"), ("X-Forwarded-Proto", "http")], Err(Contradiction)),
            (&[("Accept-Encoding", "https")], Ok(None)),
        ] {
            assert_eq!(scheme(&rules, true, fields), expected, "{fields:?}");
            assert_eq!(scheme(&rules, false, fields), Ok(None), "{fields:?}");
        }
    }

    #[test]
    fn a_name_with_an_underscore_is_kept_for_a_trusted_peer_that_may_send_it() {
        let kept = |map, forwarder: &[&str], is_trusted, name: &str| {
            let forwarder = forwarder.iter().map(|name| (*name).to_owned());
            let rules = FieldRules::new([], forwarder, map, Hops::default()).unwrap();
            let mut claims = Claims::default();
            let kept = rules.reader(is_trusted).underscored(name.as_bytes(), 3, &mut claims);
            (kept, claims.script_name)
        };
        for (map, otherwise) in [
            (HeaderMap::Drop, Kept::No),
            (HeaderMap::Refuse, Kept::Refused),
            (HeaderMap::Dangerous, Kept::Yes),
        ] {
            assert_eq!(kept(map, &["script_name"], true, "Script_Name"), (Kept::Yes, Some(3)));
            assert_eq!(kept(map, &["*"], true, "Remote_User"), (Kept::Yes, None));
            assert_eq!(kept(map, &["SCRIPT_NAME"], true, "Remote_User"), (otherwise, None));
            assert_eq!(kept(map, &["*"], false, "SCRIPT_NAME"), (otherwise, None));
        }
    }

    #[test]
    fn a_name_that_no_field_can_have_is_refused() {
        for name in ["", "a b", "X-Forwarded-Proto:", "é"] {
            let scheme = [(name.to_owned(), "https".to_owned())];
            assert!(FieldRules::new(scheme, [], HeaderMap::Drop, Hops::default()).is_err(), "{name:?}");
            assert!(
                FieldRules::new([], [name.to_owned()], HeaderMap::Drop, Hops::default()).is_err(),
                "{name:?}"
            );
        }
    }
}
