#!/usr/bin/env bash
# Installs what is named below, and only what is missing, with apt; run by demo.sh and tests/run.sh.
#   install-packages.sh build|test|fuzz
set -euo pipefail

build="gcc g++ make cmake ninja-build pkg-config libzmq3-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler
       libyaml-dev libsqlite3-dev libjansson-dev libpcre2-dev libutf8proc-dev libsodium-dev uthash-dev"
test="libcmocka-dev python3 python3-venv python3-numpy python3-zmq python3-protobuf sqlite3 iproute2 procps util-linux groff-base"
fuzz="clang libclang-rt-14-dev"

case "${1:-build}" in
build) wanted="$build" ;;
test) wanted="$build $test" ;;
fuzz) wanted="$build $test $fuzz" ;;
*) echo "usage: $0 build|test|fuzz" >&2; exit 1 ;;
esac

missing=()
for package in $wanted; do
    # A package that the archive only offers under another name (libclang-rt-14-dev on other releases) fails in apt with its name.
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "these packages are missing and installing them needs root or sudo: ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi
echo "installing: ${missing[*]}" >&2
"${as_root[@]}" apt-get update -qq >&2
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
