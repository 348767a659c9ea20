#!/bin/sh
# Everything that `make bench` needs: setup.sh VENV WHEEL. What cannot be had is said, and left out.
set -eu
here=$(dirname "$0")
pip="$1/bin/pip --disable-pip-version-check --quiet"

missing=""
command -v wrk >/dev/null || missing="$missing wrk"
[ -e /usr/include/ev.h ] || missing="$missing libev-dev"  # for bjoern
[ -z "$missing" ] || echo "bench: goes on without$missing; Debian's apt-get install$missing adds what is missing" >&2

$pip install --force-reinstall --no-deps "$2"
$pip install -r "$here/requirements.txt"
sed '/^#/d; /^$/d' "$here/peers.txt" | while read -r peer; do
    # shellcheck disable=SC2086
    $pip install $peer </dev/null || echo "bench: left out: $peer" >&2
done
