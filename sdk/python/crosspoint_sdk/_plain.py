"""The plain binding (variables and files), and the same without a supervisor: a folder on the author's own machine."""

import json
import os
import sys
from typing import Any, Dict, Mapping, Optional


class _Files:
    """Logs are lines on standard error; the state is kept with the success of the run."""

    name = "files"

    def __init__(self, state_path: str):
        self._state_path = state_path

    def attach(self, run: Any) -> None:
        pass

    def log(self, level: str, message: str, fields: Mapping[str, Any], audience: str) -> None:
        text = message if level == "info" else "%s: %s" % (level.upper(), message)
        if fields:
            text += " " + json.dumps(fields, default=str)
        _line(text)

    def metric(self, name: str, value: float, kind: str) -> None:
        _line("Metric %s: %s (%s)" % (name, value, kind))

    def progress(self, done: Optional[float], total: Optional[float], message: Optional[str]) -> None:
        parts = ["Progress"]
        if done is not None:
            parts[0] += ": %s" % done + ("" if total is None else " of %s" % total)
        if message:
            parts.append(message)
        _line(": ".join(parts))

    def send_state(self, value: Any, patch: Optional[Mapping[str, Any]]) -> int:
        _write(self._state_path, value)
        return 0

    def wait_for(self, seq: int, timeout: Optional[float]) -> bool:
        return False

    def failed(self, code: str, message: str, retryable: Optional[bool], after: Optional[float]) -> None:
        _line("%s (%s)" % (message, code))


class Plain(_Files):
    name = "plain"

    def __init__(self, env: Mapping[str, str], prefix: str):
        self._env = env
        self._prefix = prefix
        super().__init__(env[prefix + "_STATE_OUT"])

    def start(self) -> Dict[str, Any]:
        get = lambda name: self._env.get(self._prefix + "_" + name)  # noqa: E731
        facts = {
            name: get("CTX_" + variable)
            for name, variable in [
                ("mode", "RUN_MODE"),
                ("execution", "EXECUTION"),
                ("attempt", "ATTEMPT"),
                ("customer", "CUSTOMER"),
                ("installation", "INSTALLATION"),
                ("integration", "INTEGRATION"),
                ("flow", "FLOW"),
                ("trigger", "TRIGGER"),
            ]
        }  # type: Dict[str, Any]
        facts.update(run_key=get("RUN_KEY"), deadline=get("DEADLINE"))
        facts.update(broker=get("BROKER_URL"), network_socket=get("NETWORK_SOCKET"))
        for name in ("config", "input", "triggers", "state"):
            path = get(name.upper() + "_FILE")
            facts[name] = _read(path) if path else None
        folder = get("SECRETS_DIR")
        if folder:
            facts["secrets"] = {name: _text(os.path.join(folder, name)) for name in sorted(os.listdir(folder))}
        return facts

    def result(self, value: Any) -> None:
        if value is not None:
            _write(self._env[self._prefix + "_RESULT_FILE"], value)


class Local(_Files):
    """Reads `config.json`, `input.json`, `state.json`, `secrets.json` and `connections.json` from a folder, each of
    which may be missing; writes `state.json`; prints the result.

    `connections.json` gives each connection a `base_url` and, if it needs them, `headers`.
    """

    name = "local"

    def __init__(self, folder: str, mode: str):
        self._folder = folder
        self._mode = mode
        super().__init__(os.path.join(folder, "state.json"))

    def start(self) -> Dict[str, Any]:
        names = ("config", "input", "state", "secrets", "connections")
        facts = {name: _read(os.path.join(self._folder, name + ".json")) for name in names}
        facts["mode"] = self._mode
        facts["triggers"] = [{"type": "crosspoint.call", "data": facts["input"]}]
        return facts

    def send_state(self, value: Any, patch: Optional[Mapping[str, Any]]) -> int:
        os.makedirs(self._folder, exist_ok=True)
        return super().send_state(value, patch)

    def result(self, value: Any) -> None:
        print(json.dumps(value, indent=2, default=str))


def _line(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _read(path: str) -> Any:
    try:
        text = _text(path)
    except FileNotFoundError:
        return None
    return json.loads(text) if text.strip() else None


def _write(path: str, value: Any) -> None:
    """Whole or not at all, also if the script is killed in between."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(path + ".new", path)
