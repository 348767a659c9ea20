//! Other protocols that a client may speak to a port of HTTP/1 by mistake: how they begin, and what HTTP/2 is answered.

/// Whether a connection begins with HTTP/2's preface (RFC 9113 §3.4).
pub(crate) fn is_http2(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PRI * HTTP/2.0\r\n")
}

/// Whether it begins with a handshake record of TLS (RFC 8446 §5.1).
pub(crate) fn is_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [22, 3, ..])
}

/// Whether it begins with a PROXY header. Of version 2 the empty lines at its front may have been passed over.
pub(crate) fn is_proxy_header(bytes: &[u8]) -> bool {
    let starts: [&[u8]; 4] = [b"PROXY TCP", b"PROXY UNKNOWN", b"\r\n\r\n\0\r\nQUIT\n", b"\0\r\nQUIT\n"];
    starts.iter().any(|start| bytes.starts_with(start))
}

/// The answer to HTTP/2's preface (RFC 9113 §4.1): empty SETTINGS; on stream 1, which a client's first request has, status
/// 505 and a field that names the reason; and GOAWAY with HTTP_1_1_REQUIRED and the reason again. It has no body, since the
/// request's method is not known, and HEAD must have none (§8.1.1). GOAWAY names stream 1 as the last one: a client that
/// still sends that request's body takes it for refused otherwise, and drops the answer (§6.8). curl and other clients
/// show no answer in HTTP/1.1 here.
pub(crate) const HTTP2_ANSWER: &[u8] = b"\
    \x00\x00\x00\x04\x00\x00\x00\x00\x00\
    \x00\x00\x32\x01\x05\x00\x00\x00\x01\x08\x03505\x00\x07x-error\x23this server speaks HTTP/1.1 and 1.0\
    \x00\x00\x2b\x07\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x0dthis server speaks HTTP/1.1 and 1.0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_http2_is_three_whole_frames() {
        let (mut rest, mut kinds, mut last) = (HTTP2_ANSWER, Vec::new(), &b""[..]);
        while let Some((head, behind)) = rest.split_first_chunk::<9>() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            kinds.push((head[3], head[4], head[8], length));
            (last, rest) = behind.split_at(length);
        }
        assert!(rest.is_empty());
        // SETTINGS; HEADERS with END_HEADERS and END_STREAM; GOAWAY.
        assert_eq!(kinds, [(4, 0, 0, 0), (1, 5, 1, 50), (7, 0, 0, 43)]);
        // The last stream that was answered, and HTTP_1_1_REQUIRED.
        assert!(last.starts_with(&[0, 0, 0, 1, 0, 0, 0, 0x0d]));
    }
}
