#!/bin/sh
# Fetches the plugin's source release from PyPI into examples/proxbox/source: the mock data that every cell needs,
# and what `install_source=local` installs. Does nothing when it is there.
#   source.sh [VERSION]      (0.0.29.post6)
set -eu
cd "$(dirname "$0")"
version=${1:-0.0.29.post6}
[ "$(cat source/.version 2> /dev/null || true)" = "$version" ] && { echo "up to date  source ($version)" >&2; exit 0; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m pip download -q --disable-pip-version-check --no-deps --no-binary netbox-proxbox --ignore-requires-python -d "$work" "netbox-proxbox==$version"
mkdir "$work/source"
tar -xzf "$work"/*.tar.gz -C "$work/source" --strip-components=1
echo "$version" > "$work/source/.version"
rm -rf source && mv "$work/source" source && chmod -R u+rwX,go+rX source
echo "fetched     source ($version)" >&2
