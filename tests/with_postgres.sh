#!/usr/bin/env bash
# Runs a command with TEST_DATABASE_URL set to a throw-away PostgreSQL on a
# free port, and stops that server by its process id when the command ends.
# With DURABLE=1 a commit is on disk before it is answered, as in production,
# and the server has the settings that docs/OPERATIONS.md recommends; else it
# is as fast as tests like it.
set -euo pipefail
bin=$(ls -d /usr/lib/postgresql/*/bin 2> /dev/null | sort -V | tail -n 1)
[ -n "$bin" ] || bin=$(dirname "$(command -v initdb)")
dir=$(mktemp -d)
as=()
if [ "$(id -u)" -eq 0 ]; then
  chown postgres "$dir"
  as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
fi
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
case ${DURABLE:-0} in
  1) settings='-c shared_buffers=1GB -c min_wal_size=4GB -c max_wal_size=8GB -c checkpoint_timeout=15min -c wal_compression=lz4' ;;
  *) settings='-c fsync=off -c synchronous_commit=off -c full_page_writes=off' ;;
esac
cd "$dir"
"${as[@]}" "$bin/initdb" -D "$dir/data" -U postgres -E UTF8 --locale=C.UTF-8 --auth=trust --no-sync > "$dir.log"
"${as[@]}" "$bin/pg_ctl" start -w -s -D "$dir/data" -l "$dir/data/server.log" -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=300 $settings"
pid=$(head -n 1 "$dir/data/postmaster.pid")
finish() {
  kill -QUIT "$pid" 2> /dev/null || true
  while kill -0 "$pid" 2> /dev/null; do sleep 0.1; done
  rm -rf "$dir" "$dir.log"
}
trap finish EXIT
cd - > /dev/null
TEST_DATABASE_URL="postgres://postgres@127.0.0.1:$port/postgres" "$@"
