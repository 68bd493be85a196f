"""Adds up the orders by item into one CSV file. Reads configuration and state as any crosspoint/1 script does."""

import csv
import json
import os
import pathlib
import sys

customer = os.environ["XP_CTX_CUSTOMER"]
config = json.loads(pathlib.Path(os.environ["XP_CONFIG_FILE"]).read_text())
state = json.loads(pathlib.Path(os.environ["XP_STATE_FILE"]).read_text()) or {}
orders = pathlib.Path(os.environ["ORDERS_DIR"], f"{customer}.csv")
rows = list(csv.reader(orders.open())) if orders.exists() else []

totals = state.get("totals", {})
for _id, _created, item, cents in rows[state.get("cursor", 0):]:
    totals[item] = totals.get(item, 0) + int(cents)

folder = pathlib.Path(os.environ["EXPORT_DIR"], customer)
folder.mkdir(parents=True, exist_ok=True)
part = folder / ".totals.csv.part"
with part.open("w", newline="") as out:
    writer = csv.writer(out)
    writer.writerow(["item", "total"])
    best = sorted(totals.items(), key=lambda pair: -pair[1])[: config["top"]]
    writer.writerows((item, f"{cents / 100:.2f}") for item, cents in best)
part.rename(folder / "totals.csv")

print(f"{len(rows)} orders, {len(totals)} items", file=sys.stderr)
pathlib.Path(os.environ["XP_STATE_OUT"]).write_text(json.dumps({"cursor": len(rows), "totals": totals}))
pathlib.Path(os.environ["XP_RESULT_FILE"]).write_text(json.dumps({"summary": f"Totals of {len(totals)} items updated"}))
