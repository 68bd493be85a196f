"""Greets an order and counts it. Try it without a host: see test.sh."""

import json
import os
import sys


def read(name):
    with open(os.environ[name]) as file:
        return json.load(file)


def write(name, value):
    with open(os.environ[name], "w") as file:
        json.dump(value, file)


order = read("XP_INPUT_FILE")
state = read("XP_STATE_FILE") or {"greeted": 0}
state["greeted"] += 1
greeting = os.environ.get("XP_CFG_GREETING", "Hello")
print(f"{greeting}, order {order.get('id')}", file=sys.stderr)
write("XP_STATE_OUT", state)
write("XP_RESULT_FILE", {"summary": f"Said {greeting} to order {order.get('id')}", "greeted": state["greeted"]})
