# Counts the runs of its installation. The count is the flow's state.
set -eu
count=$(sed -n 's/.*"count":\([0-9][0-9]*\).*/\1/p' "$XP_STATE_FILE")
count=${count:-0}
if [ -n "${JOURNAL:-}" ]; then
  # Only a script at `process` can write to a file of the host's.
  echo "$XP_CTX_FLOW $XP_CTX_CUSTOMER $XP_CTX_EXECUTION $XP_RUN_KEY $XP_CTX_ATTEMPT $count $WORKER $(date +%s%3N)" >> "$JOURNAL"
fi
count=$((count + 1))
echo "{\"count\":$count}" > "$XP_STATE_OUT"
echo "$count" > "$XP_RESULT_FILE"
