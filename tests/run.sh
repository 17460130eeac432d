#!/usr/bin/env bash
# Installs what the tests need, builds three times (release; address and undefined-behaviour sanitizers;
# thread sanitizer for what is threaded) and runs everything through CTest.
#
#   tests/run.sh                  everything
#   tests/run.sh --only LABEL     one label (unit parity store system net fuzz bench cuda pg), release build
#   tests/run.sh --release        the release build only
#
# A test that needs what this machine lacks exits 77 and says what; CTest shows it as skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

only=
release_only=
while [ $# -gt 0 ]; do
    case "$1" in
    --only) only="${2:?--only needs a label}"; shift 2 ;;
    --release) release_only=1; shift ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "unknown argument $1; expected --only LABEL or --release" >&2; exit 1 ;;
    esac
done

./deploy/install-packages.sh test

# What the tests are held against comes from PyPI into a folder of its own, outside the sources' sight: the tokenizers library,
# jsonschema with what it needs to judge formats, and the standard's own cases, which jsonschema's source package has.
venv="$PWD/build-venv"
if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import tokenizers, numpy, zmq, google.protobuf, jsonschema, rfc3339_validator' 2>/dev/null; then
    rm -rf "$venv"
    /usr/bin/python3 -m venv --system-site-packages "$venv"
    pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
    pip install tokenizers || echo "tokenizers could not be installed: the tokenizer's parity test will be skipped" >&2
    pip install 'jsonschema[format-nongpl]==4.26.0' ||
        echo "jsonschema could not be installed: random schemas will be skipped" >&2
    pip download --no-deps --no-binary jsonschema --dest "$venv/suite" jsonschema==4.26.0 ||
        echo "jsonschema's source could not be fetched: the suite of JSON Schema will be skipped" >&2
fi
export TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp${TSAN_OPTIONS:+:$TSAN_OPTIONS}"
export MOOTHALL_TEST_PYTHON="$venv/bin/python"

labels="unit parity store system net fuzz bench cuda pg"
if [ -n "$only" ] && [[ " $labels " != *" $only "* ]]; then
    echo "unknown label $only; expected one of $labels" >&2
    exit 1
fi

jobs=$(nproc)
build() { # preset, then targets (none: everything)
    local preset="$1"
    shift
    cmake --preset "$preset" -DBUILD_TESTING=ON -Wno-dev >"build-$preset.log" 2>&1 || { cat "build-$preset.log" >&2; exit 1; }
    cmake --build --preset "$preset" -j "$jobs" ${1+--target "$@"} >>"build-$preset.log" 2>&1 || { tail -n 60 "build-$preset.log" >&2; exit 1; }
    rm -f "build-$preset.log"
}

failed=0
run() { # preset, ctest arguments
    local preset="$1"
    shift
    echo "== ctest, $preset build: $*"
    ctest --preset "$preset" --no-tests=error "$@" || failed=1
}

build release
if [ -n "$only" ]; then
    if ! ctest --preset release -N -L "^$only\$" | grep -q 'Test *#'; then
        echo "no test has the label $only yet"
        exit 0
    fi
    run release -L "^$only\$"
    exit $failed
fi
if [ -z "$release_only" ]; then
    build asan
    build tsan threaded_tests
    run asan -L '^(unit|fuzz|store)$' -j "$jobs"
    run tsan -L '^threads$' -j "$jobs"
fi
# Whole programs and rates want the machine; the rest share it.
run release -LE '^(system|bench)$' -j "$jobs"
run release -L '^(system|bench)$'
exit $failed
