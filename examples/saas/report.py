"""Adds up by item what Ledgerly has booked for this customer. It asks Ledgerly over the broker: the API key is added outside
of the sandbox, and this script never sees it."""

import csv
import http.client
import io
import json
import os
import pathlib
import socket
import sys
import urllib.parse

LATER, REAUTHORIZE, BROKEN = 75, 77, 65


def ask(path):
    """One GET to Ledgerly."""
    broker = urllib.parse.urlsplit(os.environ["XP_BROKER_URL"])
    connection = http.client.HTTPConnection(broker.netloc, timeout=30)
    if "XP_NETWORK_SOCKET" in os.environ:  # at level `confined` the broker listens at a path
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(os.environ["XP_NETWORK_SOCKET"])
    connection.request("GET", f"{broker.path}/c/ledger{path}")
    answer = connection.getresponse()
    body = answer.read()
    if answer.status == 200:
        return json.loads(body)
    print(f"Ledgerly answered {answer.status}: {body.decode(errors='replace')}", file=sys.stderr)
    if not answer.getheader("XP-Error"):
        sys.exit(LATER if answer.status >= 500 else BROKEN)
    sys.exit({"later": LATER, "reauthorize": REAUTHORIZE}.get(json.loads(body)["retry"], BROKEN))


config = json.loads(pathlib.Path(os.environ["XP_CONFIG_FILE"]).read_text())
state = json.loads(pathlib.Path(os.environ["XP_STATE_FILE"]).read_text()) or {}
after, bookings, totals = state.get("after", 0), state.get("bookings", 0), state.get("totals", {})
more = True
while more:
    page = ask(f"/v1/bookings?after={after}")
    for booking in page["bookings"]:
        item = booking["text"].rpartition(": ")[2]
        totals[item] = totals.get(item, 0) + booking["cents"]
        bookings += 1
    after, more = page["next"], page["more"]

out = io.StringIO()
rows = csv.writer(out, lineterminator="\n")
rows.writerow(["item", "total"])
best = sorted(totals.items(), key=lambda pair: (-pair[1], pair[0]))[: config["top"]]
rows.writerows((item, f"{cents / 100:.2f}") for item, cents in best)

print(f"{bookings} bookings, {len(totals)} items", file=sys.stderr)
state = {"after": after, "bookings": bookings, "totals": totals}
pathlib.Path(os.environ["XP_STATE_OUT"]).write_text(json.dumps(state))
result = {"file": "totals.csv", "csv": out.getvalue(), "summary": f"{bookings} bookings of {len(totals)} items added up"}
pathlib.Path(os.environ["XP_RESULT_FILE"]).write_text(json.dumps(result))
