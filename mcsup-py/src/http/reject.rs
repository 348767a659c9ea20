//! Every refusal: a status, a line for the client and the log, and the paragraph that asks for it.

use std::fmt;

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reject {
    /// The response's status.
    pub status: u16,
    /// The error in the request.
    pub why: &'static str,
    /// Where that is written.
    pub source: &'static str,
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.status, self.why, self.source)
    }
}

macro_rules! rejects {
    ($($name:ident = $status:literal $why:literal $source:literal;)*) => {
        $(#[doc = $why] pub(crate) const $name: Reject = Reject { status: $status, why: $why, source: $source };)*

        /// All of them.
        #[cfg(test)]
        pub(crate) const ALL: &[Reject] = &[$($name),*];
    };
}

rejects! {
    REQUEST_LINE = 400 "malformed request line" "RFC 9112 3";
    METHOD = 400 "method is no uppercase token of 3 to 20 characters" "RFC 9110 15.5.1, a rule of this server";
    TARGET = 400 "request target has a form that its method does not allow" "RFC 9112 3.2";
    TARGET_BYTE = 400 "request target contains a control character or DEL" "RFC 3986 2";
    FRAGMENT = 400 "request target has a fragment" "RFC 9110 7.1";
    SCHEME = 400 "scheme of the request target is neither http nor https" "RFC 9110 4.2";
    VERSION = 505 "HTTP version is not 1.x" "RFC 9110 15.6.6";
    BARE_LF = 400 "line ends with a bare LF" "RFC 9112 2.2";
    FIELD = 400 "malformed header field" "RFC 9112 5";
    FIELD_NAME = 400 "header field name is no token" "RFC 9110 5.1";
    FOLDED = 400 "header field is folded" "RFC 9112 5.2";
    AUTHORITY = 400 "authority of the request target is empty or malformed, or has userinfo" "RFC 9110 4.2";
    PLAIN_TEXT = 400 "plain HTTP request on a port for HTTPS: the URL must begin with https://" "RFC 9110 4.2.2";
    CONNECT = 501 "CONNECT is for proxies" "RFC 9110 9.3.6";
    HOST_MISSING = 400 "HTTP/1.1 request without Host" "RFC 9112 3.2";
    HOST_REPEATED = 400 "more than one Host" "RFC 9112 3.2";
    HOST = 400 "Host is neither a host with or without a port, nor empty" "RFC 9112 3.2";
    UNDERSCORE = 400 "header field name has an underscore" "RFC 3875 4.1.18, a rule of this server";
    SCHEMES = 400 "header fields of the proxy name different schemes" "RFC 9110 15.5.1, a rule of this server";
    SCRIPT_NAME_REPEATED = 400 "more than one SCRIPT_NAME of the proxy" "RFC 9110 15.5.1, a rule of this server";
    SCRIPT_NAME_FORM = 400 "SCRIPT_NAME of the proxy is no path" "RFC 3986 3.3, a rule of this server";
    SCRIPT_NAME_ELSEWHERE = 400 "path does not begin with the SCRIPT_NAME of the proxy" "RFC 3875 4.1.13";
    FORWARDED = 400 "malformed Forwarded" "RFC 7239 4";
    PROXY_HEADER = 400 "malformed PROXY header" "RFC 9110 15.5.1, proxy-protocol.txt 2";
    PROXY_PEER = 403 "PROXY header of a peer that may not send one" "RFC 9110 15.5.4, proxy-protocol.txt 5";
    TYPE_REPEATED = 400 "more than one Content-Type" "RFC 9110 8.3";
    LENGTH = 400 "Content-Length is no number below 2^64" "RFC 9112 6.3";
    LENGTH_REPEATED = 400 "more than one Content-Length" "RFC 9112 6.3";
    LENGTH_AND_CODING = 400 "both Content-Length and Transfer-Encoding" "RFC 9112 6.3";
    CODING_ON_1_0 = 400 "Transfer-Encoding on HTTP/1.0" "RFC 9112 6.1";
    CODING = 400 "chunked is not the last transfer coding, or comes twice" "RFC 9112 6.1";
    CODING_UNKNOWN = 501 "unknown transfer coding" "RFC 9112 6.1";
    CHUNK_SIZE = 400 "malformed chunk size" "RFC 9112 7.1";
    CHUNK_EXTENSION = 400 "malformed or oversized chunk extension" "RFC 9112 7.1.1";
    CHUNK_END = 400 "chunk data does not end with CRLF" "RFC 9112 7.1";
    TRAILER = 400 "malformed, oversized or forbidden trailer field" "RFC 9110 6.5.1";
    EXPECTATION = 417 "unknown expectation" "RFC 9110 10.1.1";
    TIMEOUT = 408 "request did not arrive in time" "RFC 9110 15.5.9";
    INCOMPLETE = 400 "request body breaks off" "RFC 9112 8";
    BODY_SIZE = 413 "request body is larger than allowed" "RFC 9110 15.5.14";
    BUSY = 503 "too many requests wait already" "RFC 9110 15.6.4";
    STUCK = 503 "all threads of this worker are in overdue requests" "RFC 9110 15.6.4";
    NO_ROOM = 503 "no room for the request's body" "RFC 9110 15.6.4";
    FILE = 503 "the file cannot be opened now" "RFC 9110 15.6.4";
    OVERDUE = 504 "the application did not answer in time" "RFC 9110 15.6.5";
    LINE_SIZE = 414 "request line is longer than allowed" "RFC 9112 3";
    FIELD_COUNT = 431 "more header fields than allowed" "RFC 6585 5";
    FIELD_SIZE = 431 "header field is larger than allowed" "RFC 6585 5";
    HEAD_MEMORY = 431 "there is no memory for more large headers" "RFC 6585 5";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_its_reason_and_its_source() {
        for reject in ALL {
            assert!((400..=599).contains(&reject.status), "{reject}");
            assert!(reject.source.starts_with("RFC "), "{reject}");
        }
    }
}
