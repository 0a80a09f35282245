#!/bin/sh
# Serves the Proxmox mock of a release on a port of 127.0.0.1: serve.sh RELEASE SERVICE PORT. PVE speaks TLS, as a real one does.
set -eu
home=${PROXMOX_MOCK_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/phalanx/proxmox-mock}
python=$home/$1/bin/python
export PROXMOX_MOCK_SERVICE=$2 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
if [ ! -x "$python" ]; then
  echo "there is no proxmox-sdk $1 in $home: run examples/proxmox-mock/setup.sh first" >&2
  exit 1
fi
set -- "$python" -m uvicorn proxmox_sdk.mock_main:app --host 127.0.0.1 --port "$3"
[ "$PROXMOX_MOCK_SERVICE" != pve ] || set -- "$@" --ssl-keyfile "$home/tls/key.pem" --ssl-certfile "$home/tls/cert.pem"
exec "$@"
