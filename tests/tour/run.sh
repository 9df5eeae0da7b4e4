#!/usr/bin/env bash
# Runs every command of the README's tour, in order, against a fresh service on
# free ports, then the demonstration on the same, and stops at the first that
# fails. What the README says is thereby true.
#
#   tests/tour/run.sh [PROGRAM]      default: target/release/bitacora
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
program=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/release/bitacora}")
work=$(mktemp -d)
chmod 755 "$work"
service=
finish() {
  [ -z "$service" ] || { kill -TERM "$service" 2> /dev/null && wait "$service"; } || true
  rm -rf "$work"
}
trap finish EXIT

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
port=$(free_port) sandbox_port=$(free_port)
# Nothing of the caller's own, no .env file: the tour erases people.
settings=(
  PATH="$PATH" HOME="$work" PYTHONUTF8=1
  DATA_DIR="$work/data" PORT="$port" SANDBOX_PORT="$sandbox_port"
)
ln -s "$root/tests" "$work/tests"
cd "$work"

# With this seed one of the demonstration's first messages does not arrive.
env -i "${settings[@]}" "$program" dev --seed 962468444 > out 2> err &
service=$!
# The last thing that it says of itself.
until grep -q '^Sample group:' out; do
  kill -0 "$service" || { cat err; exit 1; }
  sleep 0.2
done
cat out

# The blocks ```sh of the section "Five minutes", as one script.
awk '/^## Five minutes/ {in_tour = 1; next} /^## / {in_tour = 0}
     in_tour && /^```sh/ {in_block = 1; next} /^```/ {in_block = 0}
     in_tour && in_block' "$root/README.md" > tour.sh
sed -i -e "s#target/release/bitacora#$program#g" -e "s#\.bitacora/#$work/data/#g" \
  -e "s#localhost:3000#localhost:$port#g" -e "s#localhost:4010#localhost:$sandbox_port#g" tour.sh
password=$(sed -n 's/^First login:.*password: \([^ ]*\).*/\1/p' out)
env -i "${settings[@]}" ADMIN_PASSWORD="$password" bash -euo pipefail -x tour.sh
echo 'tour: every command worked'

env -i "${settings[@]}" python3 tests/demo/campaign.py "$program"
