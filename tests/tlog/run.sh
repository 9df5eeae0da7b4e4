#!/usr/bin/env bash
# The transparency log of a running service, followed by Go's own sumdb. Wants
# Go and golang.org/x/mod of the distribution, and installs them with apt-get
# where they are missing; where it cannot, it says so and is skipped.
#
#   tests/tlog/run.sh [PROGRAM]      default: target/debug/bitacora
set -euo pipefail
cd "$(dirname "$0")/../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
program=$(realpath "${1:-$target/debug/bitacora}")
work=$(mktemp -d)
chmod 755 "$work"
pid=
finish() {
  [ -z "$pid" ] || { kill -TERM "$pid" 2> /dev/null && wait "$pid" || true; }
  rm -rf "$work"
}
trap finish EXIT

skip() {
  echo "tlog: SKIPPED, nobody else has followed the transparency log: $1"
  exit 0
}

sumdb=/usr/share/gocode/src/golang.org/x/mod/sumdb
if ! command -v go > /dev/null || [ ! -d $sumdb ]; then
  command -v apt-get > /dev/null || skip 'Go and golang.org/x/mod are not there'
  sudo=
  [ "$(id -u)" -eq 0 ] || sudo=sudo
  echo 'tlog: installing golang-go golang-golang-x-mod-dev'
  { $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive \
      apt-get install -y -qq --no-install-recommends golang-go golang-golang-x-mod-dev; } > "$work/apt" 2>&1 ||
    skip "apt-get could not install them: $(tail -n 1 "$work/apt")"
fi
env GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE="$target/go-cache" GOFLAGS= \
  go build -o "$work/verify" tests/tlog/verify.go

settings=(
  PATH="$PATH" HOME="$work" DATA_DIR="$work/data" RUST_LOG=warn
  JWT_SECRET=a-secret-of-at-least-32-characters-for-tlog TWILIO_WEBHOOK_TOKEN=tlog-check
  LOG_SIGNING_KEY="$("$program" log-key example.com/tlog-check 2> "$work/vkey")"
)
vkey=$(sed -n 's/^verifier key: //p' "$work/vkey")
(cd "$work" && exec env -i "${settings[@]}" "$program" serve --host 127.0.0.1 --port 0 > out 2> err) &
pid=$!
url=
for _ in $(seq 600); do
  url=$(sed -nE 's#.*is at (http://[^ ]+).*#\1#p' "$work/out" 2> /dev/null | head -n 1)
  [ -z "$url" ] || break
  kill -0 "$pid" 2> /dev/null || break
  sleep 0.1
done
[ -n "$url" ] || { echo 'tlog: the service did not start' >&2; cat "$work/err" >&2; exit 1; }

size() { curl -fsS "$url/tlog/checkpoint" 2> /dev/null | sed -n 2p; }
# Two heads, the second over more than a tile: a webhook is two leaves, its delivery and
# its event. All are waited for, for a head may be signed in the middle of them.
for count in 5 150; do
  before=$(size || true)
  for n in $(seq $count); do
    echo "next"; echo "url = \"$url/webhooks/twilio/sms/status\""; echo 'header = "X-Webhook-Token: tlog-check"'
    echo 'output = "/dev/null"'; echo "data = \"MessageSid=SM$count-$n&MessageStatus=delivered&To=%2B573001234567&From=%2B15005550006\""
  done | sed 1d | curl -fsS -K -
  for _ in $(seq 600); do
    now=$(size || true)
    [ "${now:-0}" -lt $((${before:-0} + 2 * count)) ] || break
    sleep 0.1
  done
done
[ "$(size)" -gt 256 ] || { echo "tlog: only $(size) leaves were sealed" >&2; cat "$work/err" >&2; exit 1; }
env -i "${settings[@]}" "$work/verify" -service "$url" -vkey "$vkey" -docs docs/TRANSPARENCY.md
