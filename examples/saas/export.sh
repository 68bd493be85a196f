# Exports the orders that came since the last run, one CSV file per batch.
# The cursor (how many orders are exported) is the flow's state; a batch is named after its first order, so that a
# repeated run writes the same file again instead of a second one.
set -eu
orders="$ORDERS_DIR/$XP_CTX_CUSTOMER.csv"
cursor=$(sed -n 's/.*"cursor":[[:space:]]*\([0-9][0-9]*\).*/\1/p' "$XP_STATE_FILE")
cursor=${cursor:-0}
[ -f "$orders" ] || { echo '{"summary":"No orders yet"}' > "$XP_RESULT_FILE"; exit 0; }
total=$(wc -l < "$orders")
if [ "$total" -le "$cursor" ]; then
  echo '{"summary":"No new orders"}' > "$XP_RESULT_FILE"
  exit 0
fi
folder="$EXPORT_DIR/$XP_CTX_CUSTOMER"
mkdir -p "$folder"
file=$(printf 'orders-from-%05d.csv' $((cursor + 1)))
{
  [ "${XP_CFG_HEADER:-true}" = true ] && echo "id,created,item,cents"
  sed -n "$((cursor + 1)),${total}p" "$orders"
} > "$folder/.$file.part"
mv "$folder/.$file.part" "$folder/$file"
echo "wrote $file" >&2
printf '{"cursor":%d}\n' "$total" > "$XP_STATE_OUT"
printf '{"summary":"%d orders exported to %s","file":"%s"}\n' $((total - cursor)) "$file" "$file" > "$XP_RESULT_FILE"
