"""What the framed and the http binding say, however it is carried."""

import json
import sys
import threading
from typing import Any, Dict, Iterable, Mapping, Optional

from ._errors import Refused

SDK = "python/0.1.0"


class Messages:
    """A binding of messages. A carrier gives `name`, `_carry`, `_first` and `_others`."""

    name = ""

    def __init__(self) -> None:
        self._answered = threading.Condition()
        self._seq = 0
        self._acked = 0
        self._refusals = {}  # type: Dict[int, Refused]
        self._lost = False
        self._checkpoints = False
        self._run = None  # type: Any

    def _carry(self, line: bytes) -> None:
        """Brings a line to the supervisor."""
        raise NotImplementedError

    def _first(self) -> Iterable[bytes]:
        """Lines of the supervisor, until `start` was among them."""
        raise NotImplementedError

    def _others(self) -> Iterable[bytes]:
        """The lines after that, for as long as there are any."""
        raise NotImplementedError

    def start(self) -> Dict[str, Any]:
        """Reads the first message. Ends the process where this version of the protocol is not spoken."""
        self._send({"type": "hello", "v": 1, "sdk": SDK})
        for line in self._first():
            message = parse(line)
            if message.get("type") == "start":
                break
        else:
            raise EOFError("the supervisor sent no `start`")
        if message.get("v") != 1:
            sys.stderr.write("crosspoint: version %r of the protocol is not known here\n" % (message.get("v"),))
            sys.stderr.flush()
            raise SystemExit(78)
        self._checkpoints = "checkpoint" in (message.get("features") or [])
        message["state"] = (message.get("state") or {}).get("value")
        return message

    def attach(self, run: Any) -> None:
        self._run = run
        threading.Thread(target=self._listen, name="crosspoint", daemon=True).start()

    def _listen(self) -> None:
        for line in self._others():
            message = parse(line)
            kind, seq = message.get("type"), message.get("seq")
            if kind == "cancel":
                self._run._cancel(str(message.get("reason") or "cancelled"))
                continue
            with self._answered:
                if kind == "ack" and isinstance(seq, int):
                    self._acked = max(self._acked, seq)
                elif kind == "refused" and isinstance(seq, int):
                    refused = Refused(str(message.get("code")), str(message.get("message")))
                    self._refusals[seq] = refused
                self._answered.notify_all()
        with self._answered:
            self._lost = True
            self._answered.notify_all()

    def _send(self, message: Mapping[str, Any]) -> None:
        self._carry((json.dumps(message, separators=(",", ":"), default=str) + "\n").encode("utf-8"))

    def log(self, level: str, message: str, fields: Mapping[str, Any], audience: str) -> None:
        line = {"type": "log", "level": level, "message": message, "audience": audience}  # type: Dict[str, Any]
        if fields:
            line["fields"] = fields
        self._send(line)

    def metric(self, name: str, value: float, kind: str) -> None:
        self._send({"type": "metric", "name": name, "value": value, "kind": kind})

    def progress(self, done: Optional[float], total: Optional[float], message: Optional[str]) -> None:
        fields = {"done": done, "total": total, "message": message}
        line = {"type": "progress"}  # type: Dict[str, Any]
        line.update({name: value for name, value in fields.items() if value is not None})
        self._send(line)

    def send_state(self, value: Any, patch: Optional[Mapping[str, Any]]) -> int:
        self._seq += 1
        self._send(dict({"type": "state", "seq": self._seq}, **({"patch": patch} if patch else {"value": value})))
        return self._seq

    def wait_for(self, seq: int, timeout: Optional[float]) -> bool:
        if not self._checkpoints:
            return False
        with self._answered:
            settled = self._answered.wait_for(
                lambda: seq in self._refusals or self._acked >= seq or self._lost, timeout
            )
            refused = self._refusals.pop(seq, None)
            if refused is not None:
                raise refused
            if self._acked >= seq:
                return True
        if not settled:
            raise TimeoutError("the state was not acknowledged in time")
        raise ConnectionError("the supervisor is gone; whether the state was kept is not known")

    def result(self, value: Any) -> None:
        if value is not None:
            self._send({"type": "result", "value": value})

    def failed(self, code: str, message: str, retryable: Optional[bool], after: Optional[float]) -> None:
        line = {"type": "error", "code": code, "message": message}  # type: Dict[str, Any]
        if retryable is not None:
            line["retryable"] = retryable
        if after is not None:
            line["retry_after_ms"] = max(0, int(after * 1000))
        self._send(line)


def parse(line: bytes) -> Dict[str, Any]:
    """What cannot be understood is left out, as the protocol says."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
