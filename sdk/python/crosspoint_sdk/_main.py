"""From the first message to the exit code."""

import os
import signal
import sys
import threading
import traceback
from typing import Any, Callable, Optional

from ._errors import Cancelled, Failed
from ._framed import Framed
from ._plain import Local, Plain
from ._remote import Remote
from ._run import Run


def start(prefix: str = "XP") -> Run:
    """Begins the run: finds the binding, reads what there is to know. Call it once, from the main thread.

    `prefix` is that of the environment variables. For scripts that do without `main`; they end by themselves.
    """
    env = os.environ
    protocol = env.get(prefix + "_PROTOCOL")
    if protocol not in (None, "", "crosspoint/1"):
        sys.stderr.write("crosspoint: the protocol %s is not known here\n" % protocol)
        sys.stderr.flush()
        sys.exit(78)
    if not protocol:
        folder = env.get(prefix + "_LOCAL_DIR") or ".crosspoint"
        binding = Local(folder, env.get(prefix + "_CTX_RUN_MODE") or "normal")  # type: Any
    elif env.get(prefix + "_BINDING") == "framed":
        binding = Framed.open(env, prefix)
    elif env.get(prefix + "_BINDING") == "http":
        binding = Remote.open(env, prefix)
    else:
        binding = Plain(env, prefix)
    run = Run(binding, binding.start())
    if binding.name != "local" and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: _asked_to_stop(run))
    return run


def _asked_to_stop(run: Run) -> None:
    reason = "deadline" if run.remaining() <= 60 else "draining"
    if run.binding in ("framed", "http"):
        # The message that comes with the signal knows better why.
        late = threading.Timer(1.0, run._cancel, [reason])
        late.daemon = True
        late.start()
    else:
        run._cancel(reason)


def main(
    work: Callable[[Run], Any],
    init: Optional[Callable[[Run], Any]] = None,
    prefix: str = "XP",
) -> None:
    """Does the work of one run and ends the process with the exit code that says what became of it.

    `work` gets the run and answers its result, which is sent as JSON; None is no result. `init` answers the choices of
    the configuration's fields while somebody sets the installation up: an object of field names, each with a list of
    ``{"value": .., "label": ..}``. Raise the exceptions of this package to say whether another attempt is worth it; any
    other is a failure that is repeated as the flow's policy says.
    """
    run = start(prefix)
    if run.mode == "init":
        work = init or (lambda _: {})
    sys.exit(_finish(run, work))


def _finish(run: Run, work: Callable[[Run], Any]) -> int:
    binding = run._binding
    try:
        result = work(run)
        binding.result(result)
        code = 0
    except Cancelled:
        code = 143
    except Failed as error:
        binding.failed(error.code, str(error), error.retryable, error.after)
        code = error.exit_code
    except Exception as error:  # noqa: BLE001
        traceback.print_exc()
        binding.failed(type(error).__name__, "%s: %s" % (type(error).__name__, error), None, None)
        code = 1
    # A wish to stop may be on its way through the callbacks, which run beside the work.
    run._called_back.wait(5)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code
