"""The framed binding: messages in on standard input, out on a descriptor or pipe of their own."""

import json
import os
import sys
import threading
from typing import Any, Dict, Mapping, Optional

from ._errors import Refused

_SDK = "python/0.1.0"


class _Lines:
    """Lines of a descriptor. Not `sys.stdin`: a thread that waits in it makes the interpreter abort at its end."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self._rest = bytearray()

    def readline(self) -> bytes:
        looked = 0
        while True:
            end = self._rest.find(b"\n", looked)
            if end >= 0:
                line = bytes(self._rest[: end + 1])
                del self._rest[: end + 1]
                return line
            looked = len(self._rest)
            more = os.read(self._descriptor, 65536)
            if not more:
                return b""
            self._rest += more


class Framed:
    name = "framed"

    def __init__(self, out: int, source: _Lines):
        self._out = out
        self._source = source
        self._write_lock = threading.Lock()
        self._answered = threading.Condition()
        self._seq = 0
        self._acked = 0
        self._refusals = {}  # type: Dict[int, Refused]
        self._lost = False
        self._checkpoints = False
        self._run = None  # type: Any

    @classmethod
    def open(cls, env: Mapping[str, str], prefix: str) -> "Framed":
        descriptor = env.get(prefix + "_OUT_FD")
        if descriptor:
            out = int(descriptor)
        else:
            out = os.open(env[prefix + "_OUT_PATH"], os.O_WRONLY | os.O_CLOEXEC)
        os.set_inheritable(out, False)
        return cls(out, _Lines(sys.stdin.fileno()))

    def start(self) -> Dict[str, Any]:
        """Reads the first message. Ends the process where this version of the protocol is not spoken."""
        self._send({"type": "hello", "v": 1, "sdk": _SDK})
        while True:
            line = self._source.readline()
            if not line:
                raise EOFError("the supervisor sent no `start`")
            message = _object(line)
            if message.get("type") == "start":
                break
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
        for line in iter(self._source.readline, b""):
            message = _object(line)
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
        line = (json.dumps(message, separators=(",", ":"), default=str) + "\n").encode("utf-8")
        with self._write_lock:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._out, rest):]

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


def _object(line: bytes) -> Dict[str, Any]:
    """What cannot be understood is left out, as the protocol says."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
