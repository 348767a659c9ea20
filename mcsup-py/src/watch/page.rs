//! The page with the traceback for browsers, while the newest version does not boot.
//!
//! The application, in its last good version, serves all other clients.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::app::{App, Reply, Request, Verdict};
use crate::http::head::Head;
use crate::http::response::{HeadFault, ResponseHead};

/// An application, and a page before it that is shown while `broken` says why.
pub(crate) struct BrokenPage<A, F> {
    app: A,
    broken: F,
}

impl<A: App, F: Fn() -> Option<Arc<str>>> BrokenPage<A, F> {
    /// Puts the page before `app`. `broken` is asked at each request.
    pub(crate) fn new(app: A, broken: F) -> Self {
        Self { app, broken }
    }
}

impl<A: App, F: Fn() -> Option<Arc<str>>> App for BrokenPage<A, F> {
    fn handles_signals(&self) -> bool {
        self.app.handles_signals()
    }

    fn has_garbage(&self) -> bool {
        self.app.has_garbage()
    }

    fn free(&mut self) {
        self.app.free();
    }

    fn call(&mut self, request: Request<'_>, reply: &mut dyn Reply) -> Verdict {
        match (self.broken)() {
            Some(reason) if wants_html(&request.head) => show(&reason, reply),
            _ => self.app.call(request, reply),
        }
    }
}

/// Whether a browser asks for a page: only browsers accept this type by name.
fn wants_html(head: &Head<'_>) -> bool {
    let names_html = |value: &[u8]| {
        value.split(|byte| *byte == b',').any(|range| {
            let kind = range.split(|byte| *byte == b';').next().unwrap_or_default();
            kind.trim_ascii().eq_ignore_ascii_case(b"text/html")
        })
    };
    matches!(head.method(), "GET" | "HEAD")
        && head.headers().any(|(name, value)| name.eq_ignore_ascii_case(b"accept") && names_html(value))
}

fn show(reason: &str, reply: &mut dyn Reply) -> Verdict {
    let mut head = ResponseHead::new();
    if begin(&mut head).is_err() {
        // It is constant and in order.
        return Verdict::Failed;
    }
    match reply.send_whole(&head, page(reason).as_bytes()) {
        Ok(()) => Verdict::Complete,
        Err(_) => Verdict::Failed,
    }
}

fn begin(head: &mut ResponseHead) -> Result<(), HeadFault> {
    head.begin(500, b"Internal Server Error")?;
    head.push(b"Content-Type", b"text/html; charset=utf-8")?;
    head.push(b"Cache-Control", b"no-store")?;
    head.push(b"Content-Security-Policy", POLICY)
}

/// Nothing runs and nothing is fetched, whatever the text is; the page's own style is known by its digest (a test
/// compares them).
const POLICY: &[u8] = b"default-src 'none'; style-src 'sha256-kPJ+XSk2m7nC2ZhcYuOGmnZDtLykxkp/EitFkRSi5wU='";

fn page(reason: &str) -> String {
    let mut page = String::with_capacity(BEFORE.len() + reason.len() * 2 + AFTER.len());
    page.push_str(BEFORE);
    escape(reason, &mut page);
    page.push_str(AFTER);
    page
}

const BEFORE: &str = "<!DOCTYPE html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta http-equiv=\"refresh\" content=\"1\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>The new version does not start</title>
<style>
body { font-family: system-ui, sans-serif; margin: 2rem; color: #222; background: #fff; }
pre { padding: 1rem; overflow: auto; color: #900; background: #f6f6f6; }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #111; }
  pre { color: #f99; background: #222; }
}
</style>
</head>
<body>
<h1>The new version does not start</h1>
<pre>";

const AFTER: &str = "</pre>
<p>The last good version still serves all other clients. This page goes away by itself when the file is mended.</p>
</body>
</html>
";

/// Appends text as HTML: nothing in it is a tag, a reference, or a character that no page may have.
fn escape(text: &str, page: &mut String) {
    for one in text.chars() {
        match one {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            '\n' | '\t' => page.push(one),
            one if one.is_control() => {
                let _ = write!(page, "\\x{:02x}", u32::from(one));
            }
            one => page.push(one),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{Heads, Limits};

    fn is_html(request: &str) -> bool {
        let bytes = format!("{request}\r\n\r\n");
        let mut heads = Heads::default();
        heads.read(bytes.as_bytes(), &Limits::default()).unwrap();
        wants_html(&heads.view(bytes.as_bytes()))
    }

    #[test]
    fn a_browser_is_known_by_what_it_accepts() {
        let browser = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert!(is_html(&format!("GET / HTTP/1.1\r\nHost: h\r\n{browser}")));
        assert!(is_html(&format!("HEAD / HTTP/1.1\r\nHost: h\r\n{browser}")));
        assert!(is_html("GET / HTTP/1.1\r\nHost: h\r\naccept: image/png\r\nACCEPT: a/b, Text/HTML ;q=0.3"));
        assert!(!is_html(&format!("POST / HTTP/1.1\r\nHost: h\r\n{browser}")));
        assert!(!is_html("GET / HTTP/1.1\r\nHost: h\r\nAccept: */*"));
        assert!(!is_html("GET / HTTP/1.1\r\nHost: h\r\nAccept: text/*, text/htmlx"));
        assert!(!is_html("GET / HTTP/1.1\r\nHost: h"));
    }

    #[test]
    fn nothing_in_the_text_is_markup() {
        let mut page = String::new();
        escape("</pre><script>alert('&amp;\"')</script>\n\tü\u{1b}[31m\0", &mut page);
        assert_eq!(
            page,
            "&lt;/pre&gt;&lt;script&gt;alert(&#39;&amp;amp;&quot;&#39;)&lt;/script&gt;\n\tü\\x1b[31m\\x00"
        );
    }
}
