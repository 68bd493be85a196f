"""One run, whatever binding it speaks."""

import logging
import threading
import time
import uuid
from datetime import datetime, timezone
from typing import Any, Callable, Dict, List, Mapping, Optional

from ._errors import Cancelled
from ._http import Connection, over_broker

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_ABSENT = object()


class Run:
    """What is known of this run, and what it may say.

    Attributes: `mode` (``normal`` or ``init``), `config`, `input`, `triggers`, `secrets` (by name), `state`,
    `run_key`, `execution`, `attempt`, `customer`, `installation`, `integration`, `flow`, `trigger`, `deadline`
    (a `datetime`, or None), `binding` (``framed``, ``http``, ``plain`` or ``local``).
    """

    def __init__(self, binding: Any, facts: Mapping[str, Any]):
        self._binding = binding
        self.binding = binding.name  # type: str
        self.mode = facts.get("mode") or "normal"  # type: str
        self.config = facts.get("config")
        if self.config is None:
            self.config = {}
        self.triggers = facts.get("triggers") or []  # type: List[Dict[str, Any]]
        self.input = facts["input"] if "input" in facts else (self.triggers[0].get("data") if self.triggers else None)
        self.secrets = dict(facts.get("secrets") or {})  # type: Dict[str, str]
        self.state = facts.get("state")
        self.run_key = str(facts.get("run_key") or uuid.uuid4())
        self.execution = str(facts.get("execution") or self.run_key)
        self.attempt = int(facts.get("attempt") or 1)
        self.customer = facts.get("customer")
        self.installation = facts.get("installation")
        self.integration = facts.get("integration")
        self.flow = facts.get("flow")
        self.trigger = facts.get("trigger") or "call"
        self.deadline = _time(facts.get("deadline"))  # type: Optional[datetime]
        self._broker = facts.get("broker")
        self._socket = facts.get("network_socket")
        self._connections = dict(facts.get("connections") or {})  # type: Dict[str, Mapping[str, Any]]
        self._lock = threading.Lock()
        self._callbacks = []  # type: List[Callable[[str], Any]]
        self._reason = None  # type: Optional[str]
        self._called_back = threading.Event()
        self._called_back.set()
        binding.attach(self)

    # --- saying something

    def log(self, level: str, message: str, *, customer: bool = False, **fields: Any) -> None:
        """Writes a line for the integration's author, or with `customer` for the customer's people."""
        self._binding.log(level, str(message), fields, "customer" if customer else "developer")

    def debug(self, message: str, **fields: Any) -> None:
        self.log("debug", message, **fields)

    def info(self, message: str, **fields: Any) -> None:
        self.log("info", message, **fields)

    def warn(self, message: str, **fields: Any) -> None:
        self.log("warn", message, **fields)

    def error(self, message: str, **fields: Any) -> None:
        self.log("error", message, **fields)

    def tell(self, message: str) -> None:
        """A sentence for the customer's people."""
        self.log("info", message, customer=True)

    def metric(self, name: str, value: float = 1, kind: str = "counter") -> None:
        """Counts something (`counter`: values are added up) or notes how much there is (`gauge`: the last counts)."""
        self._binding.metric(name, value, kind)

    def progress(self, done: Optional[float] = None, total: Optional[float] = None, message: Optional[str] = None) -> None:
        """Says how far the work has come."""
        self._binding.progress(done, total, message)

    # --- remembering something

    def checkpoint(self, value: Any = _ABSENT, *, timeout: Optional[float] = None, **patch: Any) -> bool:
        """Remembers a new state: `value` replaces it whole, or the named fields replace those of the same name.

        Over the framed and the http binding it answers True as soon as the state is durable: it is kept even if the script is killed
        in the next moment. Where states are kept with the success of the run alone it answers False.
        Raises `Refused` if the state cannot be kept, `TimeoutError` if no answer came in time.
        """
        if (value is _ABSENT) == (not patch):
            raise TypeError("a checkpoint takes either a value or named fields")
        with self._lock:
            if patch:
                value = dict(self.state) if isinstance(self.state, dict) else {}
                value.update(patch)
            seq = self._binding.send_state(value, patch or None)
            self.state = value
        return self._binding.wait_for(seq, timeout)

    # --- stopping

    @property
    def cancelled(self) -> bool:
        """Whether the run was told to stop. It is killed when its grace is over."""
        return self._reason is not None

    @property
    def cancel_reason(self) -> Optional[str]:
        return self._reason

    def check(self) -> None:
        """Raises `Cancelled` if the run was told to stop. For loops that have kept what they did."""
        if self._reason is not None:
            raise Cancelled(self._reason)

    def on_cancel(self, callback: Callable[[str], Any]) -> None:
        """Calls back with the reason when the run is told to stop; at once if it has been. From any thread."""
        with self._lock:
            reason = self._reason
            if reason is None:
                self._callbacks.append(callback)
        if reason is not None:
            callback(reason)

    def _cancel(self, reason: str) -> None:
        # May come from a signal handler, which interrupts whoever holds the lock.
        if self._reason is not None:
            return
        self._called_back.clear()
        self._reason = reason
        callbacks, self._callbacks = self._callbacks, []
        try:
            for callback in callbacks:
                callback(reason)
        finally:
            self._called_back.set()

    def remaining(self) -> float:
        """Seconds until the run is killed; infinite if nobody does."""
        if self.deadline is None:
            return float("inf")
        return (self.deadline - _EPOCH).total_seconds() - time.time()

    # --- reaching others

    def connection(self, slot: str) -> Connection:
        """One of the integration's connections, by its name."""
        local = self._connections.get(slot)
        if local is not None:
            return Connection(local["base_url"], local.get("headers"))
        return over_broker(self._broker, slot, self._socket)

    def effect_key(self, name: str) -> str:
        """A UUID for an effect of this run, the same in every attempt: an idempotency key for providers."""
        return str(uuid.uuid5(uuid.UUID(self.run_key), name))


class LogHandler(logging.Handler):
    """Sends the records of Python's `logging` to the run's log."""

    def __init__(self, run: Run, level: int = logging.INFO):
        super().__init__(level)
        self._run = run

    def emit(self, record: logging.LogRecord) -> None:
        levels = [(logging.ERROR, "error"), (logging.WARNING, "warn"), (logging.INFO, "info")]
        level = next((name for bound, name in levels if record.levelno >= bound), "debug")
        try:
            self._run.log(level, self.format(record), logger=record.name)
        except Exception:  # noqa: BLE001
            self.handleError(record)


def _time(text: Optional[str]) -> Optional[datetime]:
    """RFC 3339, which `fromisoformat` understands from Python 3.11 on only."""
    if not text:
        return None
    text = text.replace("Z", "+00:00")
    main, dot, rest = text.partition(".")
    if dot:
        digits = len(rest) - len(rest.lstrip("0123456789"))
        main += "." + (rest[:digits] + "000000")[:6] + rest[digits:]
    return datetime.fromisoformat(main)
