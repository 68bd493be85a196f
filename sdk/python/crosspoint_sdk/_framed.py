"""The framed binding: messages in on standard input, out on a descriptor or pipe of their own."""

import os
import sys
import threading
from typing import Iterable, Mapping

from ._messages import Messages


class Framed(Messages):
    name = "framed"

    def __init__(self, out: int, source: int):
        super().__init__()
        self._out = out
        self._source = source
        self._rest = bytearray()
        self._write_lock = threading.Lock()

    @classmethod
    def open(cls, env: Mapping[str, str], prefix: str) -> "Framed":
        descriptor = env.get(prefix + "_OUT_FD")
        if descriptor:
            out = int(descriptor)
        else:
            out = os.open(env[prefix + "_OUT_PATH"], os.O_WRONLY | os.O_CLOEXEC)
        os.set_inheritable(out, False)
        return cls(out, sys.stdin.fileno())

    def _carry(self, line: bytes) -> None:
        with self._write_lock:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._out, rest):]

    def _others(self) -> Iterable[bytes]:
        # Not by `sys.stdin`: a thread that waits in it makes the interpreter abort at its end.
        looked = 0
        while True:
            end = self._rest.find(b"\n", looked)
            if end >= 0:
                line = bytes(self._rest[:end])
                del self._rest[: end + 1]
                looked = 0
                yield line
                continue
            looked = len(self._rest)
            more = os.read(self._source, 65536)
            if not more:
                return
            self._rest += more

    _first = _others
