#!/bin/bash
# Makes the base image of the examples, Debian 13 with Python, by debootstrap: no image registry is asked.
# Does nothing when it is there and made by this very script. Needs root and debootstrap.
#   base.sh            makes it
#   base.sh --recipe   prints the digest of this recipe
set -euo pipefail
tag=phalanx-examples/base:trixie
recipe=$(sha256sum < "$0" | cut -c1-16)
[ "${1:-}" != --recipe ] || { echo "$recipe"; exit; }
made() { [ "$(docker image inspect -f '{{index .Config.Labels "phalanx.recipe"}}' $tag 2> /dev/null)" = "$recipe" ]; }
if made; then echo "up to date  $tag" >&2; exit; fi
# Cells that start at once all come here; one makes it.
exec 9> "${TMPDIR:-/tmp}/phalanx-examples-base.lock"
flock 9
if made; then echo "up to date  $tag" >&2; exit; fi
for tool in debootstrap docker; do command -v $tool > /dev/null || { echo "$tool is missing: apt-get install $tool" >&2; exit 1; }; done
[ "$(id -u)" = 0 ] || { echo "debootstrap needs root: sudo $0" >&2; exit 1; }
started=$SECONDS root=$(mktemp -d)
trap 'rm -rf "$root" "$root.log"' EXIT
debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv,curl trixie "$root" > "$root.log" 2>&1 || { tail -20 "$root.log" >&2; exit 1; }
# The host's extra CA certificates (of a package proxy, say): pip, uv and curl inside the containers need them. Mostly there are none.
cp -n /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/" 2> /dev/null || true
chroot "$root" update-ca-certificates > /dev/null 2>&1
printf 'path-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\npath-exclude=/usr/share/locale/*\n' > "$root/etc/dpkg/dpkg.cfg.d/01slim"
printf '%s\n' 'APT::Install-Recommends "false";' 'APT::Install-Suggests "false";' 'Acquire::Languages "none";' 'Dir::Cache::pkgcache "";' \
  'Dir::Cache::srcpkgcache "";' 'DPkg::Post-Invoke {"rm -f /var/cache/apt/archives/*.deb || true";};' > "$root/etc/apt/apt.conf.d/01slim"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/cache/apt/*.bin "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/* \
  "$root"/var/log/*.log "$root"/etc/resolv.conf "$root"/etc/hostname
ca=/etc/ssl/certs/ca-certificates.crt
tar -C "$root" --numeric-owner -c . | docker import \
  -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' -c 'ENV LANG=C.UTF-8' \
  -c "ENV SSL_CERT_FILE=$ca" -c "ENV PIP_CERT=$ca" -c "ENV REQUESTS_CA_BUNDLE=$ca" -c "ENV CURL_CA_BUNDLE=$ca" \
  -c 'ENV PIP_DISABLE_PIP_VERSION_CHECK=1' -c 'CMD ["/bin/bash"]' -c "LABEL phalanx.recipe=$recipe" - $tag > /dev/null
echo "built       $tag in $((SECONDS - started)) s" >&2
