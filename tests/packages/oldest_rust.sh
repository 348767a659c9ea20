#!/bin/sh
# oldest_rust.sh COMMAND [ARGUMENT...]: runs a command, such as `cargo check`, with the oldest Rust that Cargo.toml
# declares: rustup's toolchain of that version, or Debian's packages of it, which are unpacked below `target`. It
# installs nothing, and root is not needed. Debian 12 has Rust 1.85 as `rustc-web`.
#   --can   prints the version, or the reason why there is none to standard error with exit code 1
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)

oldest=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$top/Cargo.toml")
home="$top/target/rust-$oldest"
fail() { echo "$*" >&2; exit 1; }
unset RUSTUP_TOOLCHAIN

if command -v rustup >/dev/null; then
    # Only what is there: `rustup run` alone would ask the network.
    toolchain=$(rustup toolchain list | sed -n "s/^\($oldest[.0-9]*-[^ ]*\).*/\1/p" | head -n 1)
    if [ -n "$toolchain" ]; then
        [ "$1" = --can ] && set -- rustc --version
        exec rustup run "$toolchain" "$@"
    fi
fi

if ! [ -e "$home/.ready" ]; then
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        fail "no toolchain $oldest of rustup, and no apt-get"
    version=$(apt-cache madison rustc-web 2>/dev/null | awk -v oldest="$oldest." 'index($3, oldest) == 1 { print $3; exit }')
    [ -n "$version" ] || fail "no toolchain $oldest of rustup, and no rustc-web $oldest that apt knows"
    llvm=$(apt-cache show "libstd-rust-web-$oldest=$version" | grep -o 'libllvm[0-9]*' | head -n 1)
    rm -rf "$home"
    mkdir -p "$home/packages"
    # With the libraries that cargo is linked to: a machine without Debian's Rust lacks some of them.
    (cd "$home/packages" && apt-get download -q "rustc-web=$version" "cargo-web=$version" \
        "libstd-rust-web-$oldest=$version" "libstd-rust-web-dev=$version" "$llvm" \
        libcurl4 libhttp-parser2.9 libpcre3 libsqlite3-0 libssh2-1 >log 2>&1) ||
        fail "apt-get download: $(tail -n 1 "$home/packages/log")"
    for package in "$home"/packages/*.deb; do dpkg-deb -x "$package" "$home"; done
    rm -rf "$home/packages"
    touch "$home/.ready"
fi

machine=$(uname -m)-linux-gnu
export LD_LIBRARY_PATH="$home/usr/lib/$machine:$home/lib/$machine"
export RUSTC="$home/usr/bin/rustc" RUSTDOC="$home/usr/bin/rustdoc" PATH="$home/usr/bin:$PATH"
[ "$1" = --can ] && set -- rustc --version
exec "$@"
