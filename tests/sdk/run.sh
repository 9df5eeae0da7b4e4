#!/usr/bin/env bash
# The providers' official SDKs against the sandbox and against the service, each
# started here on a free port. The only part of the tests that wants PyPI, once:
# the SDKs then stay in target/sdk-venv. Without PyPI it says so and is skipped.
#
#   tests/sdk/run.sh [PROGRAM]      default: target/debug/bitacora
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
program=$(realpath "${1:-$target/debug/bitacora}")
venv=$target/sdk-venv
work=$(mktemp -d)
chmod 755 "$work"
pids=()
finish() {
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2> /dev/null && wait "$pid" || true; done
  rm -rf "$work"
}
trap finish EXIT

skip() {
  echo "sdk: SKIPPED, the checks with the providers' SDKs did not run: $1"
  exit 0
}

if ! cmp -s tests/sdk/requirements.txt "$venv/installed.txt"; then
  echo "sdk: installing the SDKs into $venv"
  python3 -m venv "$venv" > "$work/pip" 2>&1 || skip 'Python has no venv (apt-get install python3-venv)'
  if ! "$venv/bin/pip" install --disable-pip-version-check --retries 1 --timeout 15 \
      -r tests/sdk/requirements.txt > "$work/pip" 2>&1; then
    grep -qiE 'retrying|connection|timed out|proxy' "$work/pip" && skip 'PyPI cannot be reached'
    cat "$work/pip" >&2
    exit 1
  fi
  cp tests/sdk/requirements.txt "$venv/installed.txt"
fi

# Settings that both sides know; nothing of the caller's own, no .env file.
settings=(
  PATH="$PATH" HOME="$work" DATA_DIR="$work/data" RUST_LOG=warn
  PUBLIC_URL=https://bitacora.example.com
  ELEVENLABS_API_KEY=sandbox-key ELEVENLABS_WEBHOOK_SECRET=wsec_sdk_check
  TWILIO_ACCOUNT_SID=AC00000000000000000000000000000001 TWILIO_AUTH_TOKEN=sdk-check-token
  BUILDERBOT_API_KEY=bb-1 BUILDERBOT_WEBHOOK_TOKEN=sdk-check-builderbot MICROSERVICE_TOKEN=sdk-check-service
  MASTER_KEY=a-master-key-for-checks-of-32-characters-or-more
)

# start NAME PATTERN COMMAND…: sets `url` to what PATTERN finds in its output.
start() {
  local name=$1 pattern=$2
  shift 2
  (cd "$work" && exec env -i "${settings[@]}" "$@" > "$name.out" 2> "$name.err") &
  local pid=$!
  pids+=("$pid")
  for _ in $(seq 600); do
    url=$(sed -nE "s#.*$pattern.*#\1#p" "$work/$name.out" 2> /dev/null | head -n 1)
    [ -z "$url" ] || return 0
    kill -0 "$pid" 2> /dev/null || break
    sleep 0.1
  done
  echo "sdk: $name did not start" >&2
  cat "$work/$name.err" >&2
  exit 1
}

start sandbox 'sandbox is at (http://[^ ]+)' "$program" sandbox --port 0 --speed 60
sandbox=$url
start service 'is at (http://[^ ]+)' env ELEVENLABS_BASE_URL="$sandbox" "$program" serve --host 127.0.0.1 --port 0
service=$url

for check in "check_sandbox.py --sandbox $sandbox" "check_service.py --sandbox $sandbox --service $service"; do
  # shellcheck disable=SC2086
  env -i "${settings[@]}" "$venv/bin/python" "$root/tests/sdk/"$check
done
