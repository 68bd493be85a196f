# Turns a batch of new orders into a CSV file. The orders are its input and the file is its result, so it needs neither a
# folder of the host's nor the network, and runs in a sandbox that has none of them.
set -eu
file=$(sed 's/.*"file":"\([^"]*\)".*/\1/' "$XP_INPUT_FILE")
# "orders":[[1,"2026-11-22T12:00:00Z","City bike",49900],[2,..]]; there are no quotes, commas or backslashes in an item.
sed -e 's/.*"orders":\[\[\(.*\)\]\].*/\1/' -e 's/\],\[/\
/g' -e 's/"//g' "$XP_INPUT_FILE" > rows
count=$(sed -n '$=' rows)
{
  if [ "${XP_CFG_HEADER:-true}" = true ]; then echo "id,created,item,cents"; fi
  cat rows
} > export.csv
echo "$count orders in $file" >&2
# A text of JSON, with its line feeds written as such.
csv=$(sed 's/$/\\n/' export.csv | tr -d '\n')
printf '{"file":"%s","csv":"%s","summary":"%d orders exported to %s"}\n' "$file" "$csv" "$count" "$file" > "$XP_RESULT_FILE"
