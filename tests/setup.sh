#!/usr/bin/env bash
# Installs what building and running need and the machine has not: a C
# compiler (for the crate `ring`) and PostgreSQL's server binaries. Changes
# nothing where both are there.
set -euo pipefail

missing=()
command -v cc > /dev/null || missing+=(gcc libc6-dev)
has_postgres() {
  compgen -G '/usr/lib/postgresql/*/bin/initdb' > /dev/null || command -v initdb > /dev/null
}
has_postgres || missing+=(postgresql)
command -v cargo > /dev/null || {
  echo 'setup: cargo is not there: install Rust 1.95 or newer, see https://rustup.rs' >&2
  exit 1
}
[ ${#missing[@]} -gt 0 ] || exit 0

command -v apt-get > /dev/null || {
  echo "setup: please install: ${missing[*]} (this script only knows apt-get)" >&2
  exit 1
}
sudo=
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo > /dev/null || {
    echo "setup: please install as root: apt-get install ${missing[*]}" >&2
    exit 1
  }
  sudo=sudo
fi
echo "setup: installing ${missing[*]}"
$sudo apt-get update -qq
# Debian would start a server of its own on port 5432; ours needs the binaries only.
[ -e /etc/postgresql-common/createcluster.conf ] || {
  $sudo mkdir -p /etc/postgresql-common
  echo 'create_main_cluster = false' | $sudo tee /etc/postgresql-common/createcluster.conf > /dev/null
}
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
