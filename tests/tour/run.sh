#!/usr/bin/env bash
# Runs every command of the README's tour, in order, against a fresh service,
# and stops at the first that fails. What the README says is thereby true.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
chmod 755 "$work"
export DATA_DIR="$work/data" PORT="${TOUR_PORT:-3000}" SANDBOX_PORT="${TOUR_SANDBOX_PORT:-4010}"
service=
finish() {
  [ -z "$service" ] || { kill -TERM "$service" 2> /dev/null && wait "$service"; } || true
  rm -rf "$work"
}
trap finish EXIT

./target/release/bitacora dev > "$work/out" 2> "$work/err" &
service=$!
for _ in $(seq 100); do
  curl -fsS "http://localhost:$PORT/readyz" > /dev/null 2>&1 && break
  kill -0 "$service" || { cat "$work/err"; exit 1; }
  sleep 0.2
done
cat "$work/out"

# The blocks ```sh of the section "Five minutes", as one script.
awk '/^## Five minutes/ {in_tour = 1; next} /^## / {in_tour = 0}
     in_tour && /^```sh/ {in_block = 1; next} /^```/ {in_block = 0}
     in_tour && in_block' README.md > "$work/tour.sh"
sed -i -e "s#\.bitacora/#$DATA_DIR/#g" -e "s#localhost:3000#localhost:$PORT#g" -e "s#localhost:4010#localhost:$SANDBOX_PORT#g" "$work/tour.sh"
ADMIN_PASSWORD=$(sed -n 's/^First login:.*password: \([^ ]*\).*/\1/p' "$work/out")
export ADMIN_PASSWORD
bash -euo pipefail -x "$work/tour.sh"
echo 'tour: every command worked'
