#!/bin/sh
# Everything that `make bench` needs: setup.sh VENV WHEEL. What cannot be had is said, and left out.
set -eu
here=$(dirname "$0")
pip="$1/bin/pip --disable-pip-version-check --quiet"

command -v wrk >/dev/null || { echo "bench: wrk is missing; Debian's package is wrk" >&2; exit 1; }
[ -e /usr/include/ev.h ] || echo "bench: goes on without bjoern, which needs libev; Debian's package is libev-dev" >&2

$pip install --force-reinstall --no-deps "$2"
$pip install -r "$here/requirements.txt"
sed '/^#/d; /^$/d' "$here/peers.txt" | while read -r peer; do
    # shellcheck disable=SC2086
    $pip install $peer </dev/null || echo "bench: left out: $peer" >&2
done
