#!/bin/sh
# publish_check.sh [BASELINE]: what a release needs beyond `make test`. docs/PUBLISHING.md describes it. BASELINE is the
# commit that the public interface is compared with; by default the newest tag `v*`.
set -eu
cd "$(dirname "$0")/../.."
cargo=${CARGO:-cargo}
step() { printf '\n-- %s\n' "$*"; }

step "cargo deny check"
"$cargo" deny --locked check bans licenses sources
# Its database of advisories is a repository on GitHub.
if ! "$cargo" deny fetch db; then
    echo "publish-check: the advisories are not checked: their database is not reached" >&2
else
    "$cargo" deny --locked check advisories
fi

baseline=${1:-$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || true)}
if [ -z "$baseline" ]; then
    step "cargo semver-checks: skipped: no release is tagged, so there is no interface to compare with"
else
    step "cargo semver-checks against $baseline"
    "$cargo" semver-checks --workspace --baseline-rev "$baseline"
fi

step "cargo publish --dry-run"
"$cargo" publish --workspace --dry-run --locked
