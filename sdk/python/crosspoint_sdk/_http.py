"""Requests over the connections of the integration. The supervisor's broker adds the credential; it is never here."""

import json as _json
from typing import Any, Dict, List, Mapping, Optional
from urllib.parse import quote, urlencode

from ._errors import CredentialsRefused, Failed, Later, Never


def _opener(socket: Optional[str]) -> Any:
    # Imported where it is needed: it brings TLS, which takes longer than many a script.
    import http.client
    import socket as sockets
    import urllib.request

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    class AtSocket(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(socket)

    class Sockets(urllib.request.HTTPHandler):
        def http_open(self, req: Any) -> Any:
            return self.do_open(AtSocket, req)

    # The broker is on this machine: no proxy in between, and an answer that points elsewhere is an answer.
    handlers = [urllib.request.ProxyHandler({}), NoRedirect()]  # type: List[Any]
    if socket is not None:
        handlers.append(Sockets())
    return urllib.request.build_opener(*handlers)


class Response:
    """An answer, of any status."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes):
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status < 400

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        return _json.loads(self.body)

    @property
    def refused_by(self) -> Optional[str]:
        """The code of the supervisor's own error, if it and not the provider has answered."""
        return self.headers.get("xp-error")

    def check(self) -> "Response":
        """Answers itself, or raises what the status means for the run."""
        if self.ok:
            return self
        message = "HTTP %d: %s" % (self.status, self.text[:500].strip())
        if self.refused_by is not None:
            verdict = self._problem().get("retry")
            if verdict == "reauthorize":
                raise CredentialsRefused(message)
            if verdict == "later":
                raise Later(message, code=self.refused_by, after=self._after())
            raise Never(message, code=self.refused_by)
        if self.status == 401:
            raise CredentialsRefused(message)
        if self.status in (408, 425, 429) or self.status >= 500:
            raise Later(message, code="http-%d" % self.status, after=self._after())
        raise Never(message, code="http-%d" % self.status)

    def _problem(self) -> Dict[str, Any]:
        try:
            problem = self.json()
        except ValueError:
            return {}
        return problem if isinstance(problem, dict) else {}

    def _after(self) -> Optional[float]:
        try:
            return float(self.headers.get("retry-after", ""))
        except ValueError:
            return None


class Connection:
    """One of the integration's connections."""

    def __init__(self, base: str, headers: Optional[Mapping[str, str]] = None, socket: Optional[str] = None):
        self._socket = socket
        self._base = base.rstrip("/")
        self._headers = dict(headers or {})
        self._opener = None  # type: Any

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Optional[Mapping[str, Any]] = None,
        json: Any = None,
        data: Optional[bytes] = None,
        headers: Optional[Mapping[str, str]] = None,
        effect: Optional[str] = None,
        timeout: float = 60.0,
    ) -> Response:
        """Sends a request to a path below the connection's address and answers with whatever comes back.

        `effect` names what the request does, such as ``create-order-4711``: in every attempt of this run the provider
        gets the same idempotency key for it. Without a name the supervisor makes a key from the request.
        """
        url = self._base + "/" + path.lstrip("/")
        if query:
            url += ("&" if "?" in url else "?") + urlencode(query, doseq=True)
        sent = dict(self._headers)
        if json is not None:
            data = _json.dumps(json).encode("utf-8")
            sent["content-type"] = "application/json"
        if effect is not None:
            sent["xp-effect-key"] = effect
        sent.update(headers or {})
        from urllib.error import HTTPError
        from urllib.request import Request

        if self._opener is None:
            self._opener = _opener(self._socket)
        request = Request(url, data=data, headers=sent, method=method.upper())
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                return Response(answer.status, answer.headers, answer.read())
        except HTTPError as answer:
            with answer:
                return Response(answer.code, answer.headers, answer.read())
        except OSError as error:
            raise Later("no answer from %s %s: %s" % (method, path, error), code="unreachable") from error

    def get(self, path: str, **options: Any) -> Response:
        """As `request`, and raises if the status is 400 or above."""
        return self.request("GET", path, **options).check()

    def post(self, path: str, **options: Any) -> Response:
        return self.request("POST", path, **options).check()

    def put(self, path: str, **options: Any) -> Response:
        return self.request("PUT", path, **options).check()

    def patch(self, path: str, **options: Any) -> Response:
        return self.request("PATCH", path, **options).check()

    def delete(self, path: str, **options: Any) -> Response:
        return self.request("DELETE", path, **options).check()


def over_broker(broker: Optional[str], slot: str, socket: Optional[str] = None) -> Connection:
    """The connection of a slot, over the broker at this address, or at this socket."""
    if not broker:
        raise Failed("there is no broker here: the script runs without one", code="no-broker")
    return Connection(broker.rstrip("/") + "/c/" + quote(slot, safe=""), socket=socket)
