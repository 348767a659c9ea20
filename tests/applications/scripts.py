"""What a user does with each application: the requests of a session, in order."""

import re
from base64 import b64encode
from urllib.parse import urlencode

LARGE = bytes(range(256)) * 4096
EVENT = (
    "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//a test//EN\r\nBEGIN:VEVENT\r\nUID:event-1\r\nDTSTAMP:20260101T000000Z\r\n"
    "DTSTART:20260102T100000Z\r\nDTEND:20260102T110000Z\r\nSUMMARY:a meeting\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)
REPORT = (
    '<?xml version="1.0"?><C:calendar-query xmlns:D="DAV:" xmlns:C="urn:ietf:params:xml:ns:caldav"><D:prop>'
    '<C:calendar-data/></D:prop><C:filter><C:comp-filter name="VCALENDAR"/></C:filter></C:calendar-query>'
)


def checked(client):
    """Requests of each form that PEP 3333 knows."""
    client.get("/")
    client.get("/a%20path/%C3%A4?b=c&d=%20")
    client.send("HEAD", "/")
    client.send("POST", "/", b"a body", Content_Type="text/plain")
    client.send("PUT", "/large", LARGE)
    client.send("POST", "/chunked", iter([b"one", b"two"]), Transfer_Encoding="chunked")


def httpbin(client):
    """Each rule of httpbin at least once."""
    basic = {"Authorization": "Basic " + b64encode(b"me:secret").decode()}
    for path in (
        "/ /robots.txt /deny /ip /uuid /headers /user-agent /get?a=b&a=c /anything /anything/else?x=1 /gzip /deflate "
        "/encoding/utf8 /absolute-redirect/2 /relative-redirect/2 /redirect/2 /redirect-to?url=%2Fget /stream/5 "
        "/status/204 /status/304 /status/418 /status/500 /response-headers?a=b&c=d /cookies/set?one=1 /cookies/set/two/2 "
        "/cookies /cookies/delete?one /basic-auth/me/secret /hidden-basic-auth/me/secret /bearer "
        "/digest-auth/auth/me/secret /digest-auth/auth/me/secret/MD5 /digest-auth/auth/me/secret/MD5/never /delay/0 "
        "/drip?numbytes=10&duration=0&delay=0 /base64/aGVsbG8%3D /cache /cache/60 /etag/tag /bytes/2000?seed=1 "
        "/stream-bytes/2000?seed=1&chunk_size=300 /range/1000 /links/3 /links/3/1 /image /image/png /image/jpeg "
        "/image/webp /image/svg /xml /json /html /forms/post /static/favicon.ico /nothing"
    ).split():
        client.get(path)
    client.get("/brotli")
    client.get("/basic-auth/me/secret", **basic)
    client.get("/hidden-basic-auth/me/secret", **basic)
    client.get("/bearer", Authorization="Bearer token")
    client.get("/cache", If_None_Match="any")
    client.get("/etag/tag", If_None_Match='"tag"')
    client.get("/etag/tag", If_Match='"other"')
    client.get("/range/1000", Range="bytes=100-199")
    client.get("/range/1000", Range="bytes=2000-")
    client.get("/image", Accept="image/webp")
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        client.send(method, f"/{method.lower()}?q=1", b"a=b&c=d", Content_Type="application/x-www-form-urlencoded")
        client.send(method, "/anything", b'{"a": [1, 2]}', Content_Type="application/json")
        client.send(method, "/status/201", b"")
    client.form("/post", {"field": "value"}, [("file", "a.bin", LARGE[:5000])])
    client.send("POST", "/post", LARGE, Content_Type="application/octet-stream")
    for method in ("HEAD", "OPTIONS"):
        client.send(method, "/get")
    client.send("TRACE", "/get")


def django(client):
    """The admin: log in, upload, change, delete; and static files, compressed and not."""
    client.get("/admin/")
    token = _token(client.get("/admin/login/?next=/admin/"))
    client.form("/admin/login/?next=/admin/", {"csrfmiddlewaretoken": token, "username": "root", "password": "wrong"})
    form = {"csrfmiddlewaretoken": token, "username": "root", "password": "secret", "next": "/admin/"}
    assert client.form("/admin/login/?next=/admin/", form).status == 302
    client.get("/admin/")
    token = _token(client.get("/admin/papers/paper/add/"))
    file = ("file", "paper.bin", LARGE)
    answer = client.form("/admin/papers/paper/add/", {"csrfmiddlewaretoken": token, "title": "a paper"}, [file])
    assert answer.status == 302, answer.body
    client.get("/admin/papers/paper/")
    client.get("/admin/papers/paper/1/change/")
    client.get("/admin/papers/paper/999/change/")
    client.form("/admin/papers/paper/1/delete/", {"csrfmiddlewaretoken": token, "post": "yes"})
    client.form("/admin/papers/paper/add/", {"title": "without a token"}, [file])
    sheet = "/static/admin/css/base.css"
    whole = client.get(sheet)
    client.get(sheet, Accept_Encoding="gzip")
    client.get(sheet, Range="bytes=10-99")
    client.get(sheet, If_None_Match=whole.field("etag"))
    client.send("HEAD", sheet)
    client.get("/static/admin/img/icon-yes.svg")
    client.get("/nothing")
    client.get("/admin/", Host="other.test")
    client.form("/admin/logout/", {"csrfmiddlewaretoken": token})


def _token(answer):
    return re.search(rb'csrfmiddlewaretoken" value="([^"]+)', answer.body)[1].decode()


def radicale(client):
    """A calendar with one event."""
    client.get("/")
    client.send("OPTIONS", "/")
    client.send("PROPFIND", "/me/", Depth="0")
    client.send("MKCALENDAR", "/me/diary/")
    client.send("PUT", "/me/diary/event-1.ics", EVENT, Content_Type="text/calendar")
    client.send("PUT", "/me/diary/event-1.ics", EVENT, Content_Type="text/calendar", If_None_Match="*")
    client.send("PROPFIND", "/me/diary/", Depth="1")
    client.send("REPORT", "/me/diary/", REPORT, Depth="1")
    client.get("/me/diary/event-1.ics")
    client.send("MOVE", "/me/diary/event-1.ics", Destination="http://app.test/me/diary/event-2.ics")
    client.send("DELETE", "/me/diary/event-2.ics")
    client.send("DELETE", "/me/diary/")
    client.get("/me/diary/")


def dav(client):
    """A folder: files, properties, locks."""
    client.send("OPTIONS", "/")
    client.send("MKCOL", "/folder/")
    client.send("PUT", "/folder/large.bin", LARGE)
    client.send("PUT", "/folder/chunked.txt", iter([b"one", b"two"]), Transfer_Encoding="chunked")
    client.send("PROPFIND", "/folder/", Depth="1")
    client.get("/folder/large.bin")
    client.get("/folder/large.bin", Range="bytes=1000-1999")
    client.send("HEAD", "/folder/large.bin")
    client.send("COPY", "/folder/large.bin", Destination="http://app.test/copy.bin")
    client.send("MOVE", "/copy.bin", Destination="http://app.test/moved.bin", Overwrite="F")
    client.get("/folder/")
    client.get("/nothing")
    client.send("DELETE", "/moved.bin")
    client.send("DELETE", "/folder/")


def packages(client):
    """An upload of a package, the index, a download."""
    client.get("/")
    fields = {":action": "file_upload", "protocol_version": "1", "name": "a-package", "version": "1.0"}
    client.form("/", fields, [("content", "a_package-1.0.tar.gz", LARGE)])
    client.form("/", {**fields, ":action": "nothing"})
    client.get("/simple/")
    client.get("/simple/a-package/")
    client.get("/packages/")
    client.get("/packages/a_package-1.0.tar.gz")
    client.get("/packages/nothing.tar.gz")


def dashboard(client):
    """The page, its layout, and a callback."""
    client.get("/")
    client.get("/_dash-layout")
    client.get("/_dash-dependencies")
    change = (
        b'{"output": "greeting.children", "outputs": {"id": "greeting", "property": "children"}, "inputs": '
        b'[{"id": "name", "property": "value", "value": "you"}], "changedPropIds": ["name.value"]}'
    )
    assert client.send("POST", "/_dash-update-component", change, Content_Type="application/json").status == 200
    client.get("/_favicon.ico")


def bottled(client):
    """Forms, files and parts."""
    client.get("/you")
    client.form("/upload", {"a": "b"}, [("one", "1.bin", LARGE), ("two", "2.bin", b"2")])
    whole = client.get("/static/bottled.py")
    client.get("/static/bottled.py", Range="bytes=5-19")
    client.get("/static/bottled.py", If_Modified_Since=whole.field("last-modified"))
    client.send("HEAD", "/static/bottled.py")
    client.get("/lines/100")
    client.get("/broken/now")
    client.get("/a/b/c/nothing")
    client.send("POST", "/you?" + urlencode({"a": "ä"}))
