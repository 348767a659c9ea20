"""One client for two servers: it keeps cookies, and records each answer in a form that can be compared."""

import http.client
import re

PATIENCE = 60
# A name and a port that do not depend on the server.
HOST = "app.test"
# Fields that each server writes itself.
OWN = {"date", "server", "connection", "keep-alive", "transfer-encoding"}
# Parts of an answer that differ from one run of an application to the next.
CHANGING = [
    (re.compile(rb"(csrfmiddlewaretoken\" value=\")[^\"]+"), rb"\1*"),
    (re.compile(rb"(csrftoken|sessionid|nonce|opaque)=\"?[0-9A-Za-z]+"), rb"\1=*"),
    (re.compile(rb"expires=[^;]+"), rb"expires=*"),
    (re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), b"*uuid*"),
    (re.compile(rb"\"[^\"]+~[0-9a-f]{64}\""), b"*token*"),
    (re.compile(rb"(quota-[a-z]+-bytes>)\d+"), rb"\1*"),
    (re.compile(rb"opaquelocktoken:[^<>\"]+"), b"*lock*"),
    (re.compile(rb"(urn:uuid|ETag|etag)[^\r\n<]*"), rb"\1*"),
    (re.compile(rb"(messages=)[^;]+"), rb"\1*"),
    (re.compile(rb"\x1f\x8b\x08\0[\s\S]{4}"), b"*gzip*"),
    (re.compile(rb"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[^<\"]*"), b"*time*"),
    (re.compile(rb"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT"), b"*date*"),
]


class Answer:
    """The parts of an answer that the application decides."""

    def __init__(self, request, response):
        self.request = request
        self.status = response.status
        self.reason = response.reason
        self.body = response.read()
        self.fields = sorted((name.lower(), value) for name, value in response.getheaders() if name.lower() not in OWN)

    def field(self, name):
        """The last value of a field; None where there is none."""
        return dict(self.fields).get(name)

    def comparable(self):
        """The answer without what changes from one run to the next."""
        fields = [(name, _mask(value.encode()).decode()) for name, value in self.fields]
        # A server may add the length; a HEAD has that of the application.
        left_out = {"etag", "last-modified"} | (set() if self.request[0] == "HEAD" else {"content-length"})
        fields = [(name, value) for name, value in fields if name not in left_out]
        return self.request, self.status, self.reason, fields, _mask(self.body)


def _mask(data):
    for pattern, replacement in CHANGING:
        data = pattern.sub(replacement, data)
    return data


class Client:
    """Sends requests one after the other over one connection, as long as that stays open."""

    def __init__(self, port, tls=None):
        self.scheme = "https" if tls else "http"
        if tls:
            self.connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=tls)
        else:
            self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self.cookies, self.answers = {}, []

    def send(self, method, path, body=None, **fields):
        """Sends a request and returns the recorded answer. An underscore in the name of a field is a hyphen."""
        fields = {name.replace("_", "-"): value for name, value in fields.items()}
        if self.cookies:
            fields["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        is_chunked = "Transfer-Encoding" in fields
        self.connection.request(method, path, body, {"Host": HOST, **fields}, encode_chunked=is_chunked)
        response = self.connection.getresponse()
        for line in response.headers.get_all("Set-Cookie") or []:
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        answer = Answer((method, path), response)
        self.answers.append(answer)
        return answer

    def get(self, path, **fields):
        """Sends a GET."""
        return self.send("GET", path, **fields)

    def form(self, path, fields, files=()):
        """Posts a form as a browser does, with files if there are any."""
        boundary = "----a-boundary-of-the-test"
        parts = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
        parts += [(f'name="{name}"; filename="{file}"', data) for name, file, data in files]
        body = b"".join(
            f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"
            for head, data in parts
        )
        body += f"--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        origin = f"{self.scheme}://{HOST}"
        return self.send("POST", path, body, Content_Type=kind, Origin=origin, Referer=origin + path)
