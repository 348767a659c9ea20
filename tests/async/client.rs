//! A client of HTTP/1.1 that fails at everything that a client would notice.

use std::io::{BufRead, BufReader, Error, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A kept connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// The head and the body of a response.
pub struct Response {
    pub head: String,
    pub body: String,
}

impl Response {
    pub fn closes(&self) -> bool {
        self.head.to_ascii_lowercase().contains("connection: close")
    }
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Sends a request without a body and returns the response.
    pub fn get(&mut self, path: &str) -> Result<Response> {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))?;
        self.response()
    }

    pub fn send(&mut self, text: &str) -> Result<()> {
        self.stream.get_mut().write_all(text.as_bytes())
    }

    pub fn response(&mut self) -> Result<Response> {
        let head = self.head()?;
        let length = head.to_ascii_lowercase().lines().find_map(|line| {
            line.strip_prefix("content-length: ").map(|length| length.parse::<usize>().unwrap())
        });
        let mut body = vec![0; length.unwrap_or_default()];
        self.stream.read_exact(&mut body)?;
        match head.starts_with("HTTP/1.1 200") {
            true => Ok(Response { head, body: String::from_utf8(body).unwrap() }),
            false => Err(Error::other(head)),
        }
    }

    /// Reads up to the end of a head.
    pub fn head(&mut self) -> Result<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(Error::other(format!("closed after {head:?}")));
            }
        }
        Ok(head)
    }

    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(line)
    }

    /// Whether the server closes the connection without a further byte.
    pub fn is_closed(&mut self) -> bool {
        self.stream.read(&mut [0]).is_ok_and(|count| count == 0)
    }
}
