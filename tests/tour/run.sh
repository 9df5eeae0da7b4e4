#!/usr/bin/env bash
# Runs every command of the README's tour, in order, against a fresh service on
# free ports, then the demonstration on the same, and stops at the first that
# fails. What the README says is thereby true.
#
#   tests/tour/run.sh [PROGRAM]      default: target/release/bitacora
set -euo pipefail
cd "$(dirname "$0")/../.."

program=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/release/bitacora}")
work=$(mktemp -d)
chmod 755 "$work"
free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
PORT=$(free_port) SANDBOX_PORT=$(free_port) DATA_DIR=$work/data
export PORT SANDBOX_PORT DATA_DIR
service=
finish() {
  [ -z "$service" ] || { kill -TERM "$service" 2> /dev/null && wait "$service"; } || true
  rm -rf "$work"
}
trap finish EXIT

"$program" dev > "$work/out" 2> "$work/err" &
service=$!
# The last thing that it says of itself.
until grep -q '^Sample group:' "$work/out"; do
  kill -0 "$service" || { cat "$work/err"; exit 1; }
  sleep 0.2
done
cat "$work/out"

# The blocks ```sh of the section "Five minutes", as one script.
awk '/^## Five minutes/ {in_tour = 1; next} /^## / {in_tour = 0}
     in_tour && /^```sh/ {in_block = 1; next} /^```/ {in_block = 0}
     in_tour && in_block' README.md > "$work/tour.sh"
sed -i -e "s#target/release/bitacora#$program#g" -e "s#\.bitacora/#$DATA_DIR/#g" \
  -e "s#localhost:3000#localhost:$PORT#g" -e "s#localhost:4010#localhost:$SANDBOX_PORT#g" "$work/tour.sh"
ADMIN_PASSWORD=$(sed -n 's/^First login:.*password: \([^ ]*\).*/\1/p' "$work/out")
export ADMIN_PASSWORD
bash -euo pipefail -x "$work/tour.sh"
echo 'tour: every command worked'

python3 tests/demo/campaign.py "$program"
