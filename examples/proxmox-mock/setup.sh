#!/bin/sh
# Makes what examples/proxmox-mock.yaml runs: two releases of the Proxmox mock from PyPI, each in a virtual environment,
# and a self-signed certificate for the service that speaks TLS. What is there already stays; prints the directory.
#
#   examples/proxmox-mock/setup.sh [DIRECTORY]        ~/.cache/phalanx/proxmox-mock unless given
#   phalanx run examples/proxmox-mock.yaml [--input home=DIRECTORY]
set -eu

releases="0.0.14.post3 0.0.15"
uvicorn=0.54.0

home=${1:-${PROXMOX_MOCK_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/phalanx/proxmox-mock}}
mkdir -p "$home"
home=$(CDPATH= cd -- "$home" && pwd)

python=
for candidate in python3.13 python3.12 python3.11 python3; do
  if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "setup.sh: Python 3.11 or newer with its venv module is needed (Debian: apt-get install python3-venv)" >&2
  exit 1
fi

for release in $releases; do
  # Made aside and moved there when complete, so that a broken-off run leaves nothing half made.
  # A virtual environment knows its own path only in scripts, which the example doesn't use.
  [ -e "$home/$release/bin/python" ] && continue
  echo "setup.sh: proxmox-sdk $release in $home/$release" >&2
  fresh=$(mktemp -d "$home/.$release.XXXXXX")
  trap 'rm -rf "$fresh"' EXIT
  "$python" -m venv "$fresh" >&2
  "$fresh/bin/python" -m pip install --quiet --disable-pip-version-check \
    "proxmox-sdk==$release" "uvicorn==$uvicorn" >&2
  rm -rf "${home:?}/$release"
  mv "$fresh" "$home/$release"
  trap - EXIT
done

if [ ! -s "$home/tls/cert.pem" ]; then
  command -v openssl > /dev/null || { echo "setup.sh: openssl is needed (Debian: apt-get install openssl)" >&2; exit 1; }
  mkdir -p "$home/tls"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=proxmox-mock \
    -addext "subjectAltName=DNS:localhost,IP:127.0.0.1" \
    -keyout "$home/tls/key.pem" -out "$home/tls/fresh.pem" 2> /dev/null
  mv "$home/tls/fresh.pem" "$home/tls/cert.pem"
fi

echo "$home"
