"""The hooks of a request, and the objects that they get: `req` and `resp`."""

from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import unquote_to_bytes

Fields = List[Tuple[str, str]]


class Request:
    """A request. Changes that `pre_request` makes reach the environ."""

    def __init__(self, environ: Dict[str, Any], path: str, headers: Fields, number: int) -> None:
        self.method = environ["REQUEST_METHOD"]
        self.uri = environ["RAW_URI"]
        self.path = path
        self.query = environ["QUERY_STRING"]
        self.fragment = ""
        self.version = tuple(int(digit) for digit in environ["SERVER_PROTOCOL"][5:].split("."))
        self.headers = headers
        self.trailers: Fields = []
        self.body = environ["wsgi.input"]
        self.scheme = environ["wsgi.url_scheme"]
        self.remote_addr = _address(environ)
        self.peer_addr = self.remote_addr
        self.req_number = number
        self.proxy_protocol_info = None
        self.must_close = False
        self._before = self._state()

    def _state(self) -> Dict[str, Any]:
        """The keys of the environ that the attributes stand for."""
        state = {
            "REQUEST_METHOD": self.method,
            "RAW_URI": self.uri,
            "QUERY_STRING": self.query,
            "PATH_INFO": unquote_to_bytes(self.path).decode("latin-1"),
            "wsgi.url_scheme": self.scheme,
        }
        for name, value in self.headers:
            key = _key(name)
            state[key] = f"{state[key]},{value}" if key in state else value
        return state

    def apply(self, environ: Dict[str, Any]) -> None:
        """Writes the changes of a hook to the environ. gunicorn makes its environ after the hook."""
        now = self._state()
        for key in self._before.keys() - now.keys():
            environ.pop(key, None)
        for key, value in now.items():
            if self._before.get(key) != value:
                environ[key] = value

    def should_close(self) -> bool:
        """Whether the client asks for the end of the connection."""
        for name, value in self.headers:
            if name == "CONNECTION":
                return value.lower().strip() == "close" or (self.version <= (1, 0) and "keep" not in value.lower())
        return bool(self.version <= (1, 0))


class Response:
    """A response, as far as it has come when the hook is called."""

    def __init__(
        self, req: Request, status: Optional[str], headers: Fields, length: Optional[int], sent: int, head_sent: bool
    ) -> None:
        self.req = req
        self.status = status
        self.status_code = int(status.split()[0]) if status else None
        self.headers = headers
        self.headers_sent = head_sent
        self.response_length = length
        self.sent = sent
        self.chunked = head_sent and length is None and req.version > (1, 0) and bool(sent)
        self.must_close = False
        self.upgrade = False


class RequestHooks:
    """`pre_request` and `post_request` around the call of the application."""

    def __init__(self, found: Dict[str, Tuple[Any, int]], worker: Any) -> None:
        self._worker = worker
        self._before, _ = found.get("pre_request", (None, 0))
        self._after, self._count = found.get("post_request", (None, 0))

    def begin(self, environ: Dict[str, Any], path: str, headers: Fields) -> Request:
        """Makes the request. Its number counts those of the worker: a connection may have come from another one."""
        return Request(environ, path, headers, self._worker.nr + 1)

    def before(self, req: Request, environ: Dict[str, Any]) -> None:
        """Calls `pre_request`, whose exception is the caller's, and counts the request."""
        if self._before is not None:
            self._before(self._worker, req)
            req.apply(environ)
        self._worker.nr += 1

    def after(self, req: Request, environ: Dict[str, Any], answer: Optional[Tuple[Any, ...]]) -> None:
        """Calls `post_request`, and logs its exception."""
        if self._after is None:
            return
        try:
            resp = None if answer is None else Response(req, *answer)
            self._after(*(self._worker, req, environ, resp)[: self._count])
        except Exception:
            self._worker.log.exception("Exception in post_request hook")


def _key(name: str) -> str:
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def _address(environ: Dict[str, Any]) -> Any:
    port = environ.get("REMOTE_PORT")
    return (environ["REMOTE_ADDR"], int(port)) if port else ""
