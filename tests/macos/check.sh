#!/bin/sh
# check.sh [--install | --can]: type-checks the workspace for macOS on a Debian machine. Debian's rustc comes with the
# source of its own standard library, which is checked along. Nothing is linked and nothing is run. See docs/MACOS.md.
#   --install   as root: install Debian's packages where they are missing; otherwise the check is skipped then
#   --can       exit 0 if nothing is missing, and do nothing else
set -eu
cd "$(dirname "$0")/../.."

packages="rustc-web cargo-web rust-web-src"
skip() { echo "check-macos: skipped: $*"; exit 0; }

if [ "$(uname)" = Darwin ]; then
    [ "${1:-}" = --can ] || exec cargo check --workspace --all-targets --locked --features mcsup-core/hyper
    exit 0
fi
installed() {
    [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] &&
        [ -e "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std/Cargo.toml" ]
}
if [ "${1:-}" = --can ]; then
    installed
    exit
fi
if ! installed; then
    command -v apt-get >/dev/null || skip "it needs Debian's $packages, and there is no apt-get"
    [ "${1:-}" = --install ] || skip "it needs $packages: make check-macos installs them as root"
    [ "$(id -u)" = 0 ] || skip "it needs $packages, and only root can install them"
    echo "check-macos: installing $packages"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    # shellcheck disable=SC2086
    apt-get install -qy --no-install-recommends $packages
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

# Nothing is linked, so the C and assembler files of a dependency need no compiler for macOS: an empty file takes the
# place of each object.
mkdir -p "$target/tools"
cat >"$target/tools/cc" <<'CC'
#!/bin/sh
while [ $# -gt 0 ]; do
    [ "$1" != -o ] || : >"$2"
    shift
done
CC
cat >"$target/tools/ar" <<'AR'
#!/bin/sh
for word; do
    case $word in *.a) : >"$word" ;; esac
done
AR
chmod +x "$target/tools/cc" "$target/tools/ar"

env -u RUSTUP_TOOLCHAIN CC_aarch64_apple_darwin="$target/tools/cc" AR_aarch64_apple_darwin="$target/tools/ar" \
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS="-D warnings" \
    CARGO_TARGET_DIR="$target" PYO3_CONFIG_FILE="$target/pyo3.cfg" \
    /usr/bin/cargo check -Zbuild-std=std,panic_unwind --target aarch64-apple-darwin \
    --workspace --all-features --lib --bins --examples --locked
echo "check-macos: no errors, no warnings"
