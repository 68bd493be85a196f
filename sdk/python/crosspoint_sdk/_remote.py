"""The http binding: the same messages, fetched and posted."""

import threading
import time
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from ._messages import Messages

# The supervisor answers within 25 seconds, with or without messages.
_PATIENCE = 40.0
_TRIES = 5


class Remote(Messages):
    name = "http"

    def __init__(self, url: str, token: str):
        super().__init__()
        from urllib.parse import urlsplit

        self._url = urlsplit(url)
        self._headers = {"authorization": "Bearer " + token}
        self._lock = threading.Lock()
        self._posting = None  # type: Any
        self._batch = 0
        self._fetched = 0
        self._lines = []  # type: List[bytes]

    @classmethod
    def open(cls, env: Mapping[str, str], prefix: str) -> "Remote":
        return cls(env[prefix + "_HTTP_URL"], env[prefix + "_HTTP_TOKEN"])

    def _connection(self) -> Any:
        import http.client

        secure = self._url.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        return kind(self._url.hostname, self._url.port, timeout=_PATIENCE)

    def _request(
        self, connection: Any, method: str, query: str, body: Optional[bytes], headers: Dict[str, str]
    ) -> Tuple[int, Mapping[str, str], bytes]:
        connection.request(method, self._url.path + "/messages" + query, body, dict(self._headers, **headers))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def _carry(self, line: bytes) -> None:
        """A batch whose answer was lost is sent again under its number, and counts once."""
        import http.client

        with self._lock:
            self._batch += 1
            headers = {"xp-batch": str(self._batch)}
            for attempt in range(1, _TRIES + 1):
                try:
                    if self._posting is None:
                        self._posting = self._connection()
                    status, _, _ = self._request(self._posting, "POST", "", line, headers)
                    break
                except (OSError, http.client.HTTPException):
                    self._posting = None
                    if attempt == _TRIES:
                        raise
                    time.sleep(0.1 * 2**attempt)
        if status >= 400:
            raise ConnectionError("the supervisor answered a message with HTTP %d" % status)

    def _others(self) -> Iterable[bytes]:
        import http.client

        connection, failures = None, 0
        while failures < _TRIES:
            while self._lines:
                yield self._lines.pop(0)
            try:
                if connection is None:
                    connection = self._connection()
                status, headers, body = self._request(connection, "GET", "?after=%d" % self._fetched, None, {})
            except (OSError, http.client.HTTPException):
                connection = None
                failures += 1
                time.sleep(0.1 * 2**failures)
                continue
            if status >= 400:
                return
            failures = 0
            if status == 200:
                self._fetched = int(headers.get("xp-batch") or self._fetched + 1)
                self._lines = body.splitlines()

    _first = _others
