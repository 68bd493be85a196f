#!/bin/sh
# Runs the flow as the host would: files and variables, no library.
set -eu
cd "$(dirname "$0")"
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
echo '{ "id": 7, "item": "bell", "cents": 900 }' >"$dir/input.json"
echo 'null' >"$dir/state.json"
XP_CFG_GREETING=Hi XP_INPUT_FILE="$dir/input.json" XP_STATE_FILE="$dir/state.json" \
  XP_STATE_OUT="$dir/state-out.json" XP_RESULT_FILE="$dir/result.json" python3 greet.py
grep -q '"greeted": 1' "$dir/state-out.json"
grep -q 'Said Hi to order 7' "$dir/result.json"
XP_CFG_GREETING=Hi XP_RESULT_FILE="$dir/count.json" sh bin/count.sh
grep -q '"characters": 2' "$dir/count.json"
echo "both flows work"
