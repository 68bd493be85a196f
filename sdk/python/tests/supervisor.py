"""The other side of the protocol, small: starts a script and talks to it."""

import json
import os
import subprocess
import sys
import tempfile
import textwrap
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEFAULTS = {
    "type": "start",
    "v": 1,
    "mode": "normal",
    "execution": "0192a000-0000-7000-8000-000000000001",
    "run_key": "0192a000-0000-7000-8000-000000000002",
    "attempt": 2,
    "deadline": "2100-01-01T00:00:00.123456789Z",
    "customer": "acme",
    "flow": "go",
    "trigger": "call",
    "triggers": [{"specversion": "1.0", "type": "crosspoint.call", "data": {"n": 1}}],
    "config": {"size": 5},
    "state": {"version": 3, "value": {"page": 1}},
    "features": ["checkpoint"],
}


def environment(**more):
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": ROOT}
    env.update(more)
    return env


def script(text):
    return [sys.executable, "-c", "import crosspoint_sdk as xp\n" + textwrap.dedent(text)]


class Framed:
    """A script over the framed binding. Messages of the guest come from `read` or all together from `end`."""

    def __init__(self, text, by_path=False, **start):
        self.folder = tempfile.TemporaryDirectory()
        env = environment(XP_PROTOCOL="crosspoint/1", XP_BINDING="framed")
        fds = ()
        if by_path:
            path = os.path.join(self.folder.name, "messages")
            os.mkfifo(path)
            out = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            kept = os.open(path, os.O_WRONLY)
            os.set_blocking(out, True)
            env["XP_OUT_PATH"] = path
        else:
            out, kept = os.pipe()
            env["XP_OUT_FD"] = str(kept)
            fds = (kept,)
        self.process = subprocess.Popen(
            script(text),
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=fds,
        )
        self._kept = kept
        if not by_path:
            self._let_go()
        self.messages = os.fdopen(out, "rb")
        self.say(dict(DEFAULTS, **start))

    def _let_go(self):
        if self._kept is not None:
            os.close(self._kept)
            self._kept = None

    def say(self, message):
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def read(self, kind):
        """The next message of this kind."""
        for line in self.messages:
            message = json.loads(line)
            if message["type"] == kind:
                return message
        raise EOFError(kind)

    def end(self, timeout=30):
        """Waits for the end: exit code, the remaining messages, both outputs."""
        outputs, messages = [], []
        readers = [
            threading.Thread(target=lambda pipe=pipe: outputs.append(pipe.read()))
            for pipe in (self.process.stdout, self.process.stderr)
        ]
        readers.append(threading.Thread(target=lambda: messages.extend(json.loads(line) for line in self.messages)))
        for reader in readers:
            reader.start()
        try:
            code = self.process.wait(timeout)
        finally:
            self.process.kill()
            self._let_go()
            for reader in readers:
                reader.join()
        for pipe in (self.messages, self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()
        self.folder.cleanup()
        return code, messages, b"".join(outputs).decode()
