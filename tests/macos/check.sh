#!/bin/sh
# Type-checks the workspace for macOS on a Debian machine: Debian's rustc comes with the source of its own standard
# library, which is checked along. Nothing is linked and nothing is run. See docs/MACOS.md.
set -eu
cd "$(dirname "$0")/../.."

skip() { echo "check-macos: skipped: $*"; exit 0; }

if [ "$(uname)" = Darwin ]; then
    exec cargo check --workspace --all-targets --locked
fi
installed() {
    [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] &&
        [ -e "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std/Cargo.toml" ]
}
if ! installed; then
    command -v apt-get >/dev/null || skip "there is no apt-get for rustc-web, cargo-web and rust-web-src"
    [ "$(id -u)" = 0 ] || skip "rustc-web, cargo-web and rust-web-src are not installed, and only root can install them"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >/dev/null
    apt-get install -qy --no-install-recommends rustc-web cargo-web rust-web-src >/dev/null
fi

target="$PWD/target/macos"
mkdir -p "$target"
cat >"$target/pyo3.cfg" <<CFG
implementation=CPython
version=3.11
shared=true
abi3=false
pointer_width=64
suppress_build_script_link_lines=true
CFG

env -u RUSTUP_TOOLCHAIN RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS="-D warnings" \
    CARGO_TARGET_DIR="$target" PYO3_CONFIG_FILE="$target/pyo3.cfg" \
    /usr/bin/cargo check -q -Zbuild-std=std,panic_unwind --target aarch64-apple-darwin --workspace --locked
echo "check-macos: no errors, no warnings"
