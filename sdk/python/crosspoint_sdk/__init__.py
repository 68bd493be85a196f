"""Flows of Crosspoint integrations in Python.

A script hands its work to `main`::

    import crosspoint_sdk as xp

    def export(run):
        since = (run.state or {}).get("since", "1970-01-01")
        orders = run.connection("shop").get("/orders", query={"since": since}).json()
        run.info("exported", orders=len(orders))
        run.checkpoint({"since": max(o["created"] for o in orders)})
        return {"summary": f"Exported {len(orders)} orders"}

    xp.main(export)

The protocol is `crosspoint/1`; the framed binding is used where the supervisor speaks it, else the plain one, and
without a supervisor everything is read from and written to the folder `.crosspoint`.
"""

from ._errors import (
    Cancelled,
    ConfigInvalid,
    CredentialsRefused,
    Failed,
    InputInvalid,
    Later,
    Never,
    Refused,
)
from ._http import Connection, Response
from ._main import main, start
from ._run import LogHandler, Run

__all__ = [
    "Cancelled",
    "ConfigInvalid",
    "Connection",
    "CredentialsRefused",
    "Failed",
    "InputInvalid",
    "Later",
    "LogHandler",
    "Never",
    "Refused",
    "Response",
    "Run",
    "main",
    "start",
]
__version__ = "0.1.0"
