#!/usr/bin/env bash
# The main job on real input: installs, builds, and sends 200 real documents (changelog entries and package
# descriptions) through a private hall of one broker and two workers that hold half of the demo model's experts each.
# Writes rows.jsonl in the clone.  A second run builds nothing again.
set -euo pipefail
cd "$(dirname "$0")/.."

./deploy/install-packages.sh build

# An existing build directory keeps its own settings (tests/run.sh uses the same one).
[ -f build/build.ninja ] || cmake --preset release -DBUILD_TESTING=OFF >/dev/null
cmake --build --preset release --target moothall moothall-broker moothall-worker moothall-demo-score >build/demo-build.log 2>&1 ||
    { tail -n 40 build/demo-build.log >&2; exit 1; }

documents=deploy/demo/documents
work=$(mktemp -d "${TMPDIR:-/tmp}/moothall-demo.XXXXXX")
trap 'rm -rf "$work"' EXIT

echo "moothall run: 2 workers, $(wc -l <$documents/requests.jsonl) requests"
status=0
./build/moothall run --model deploy/demo/model --workers 2 --keep \
    "$documents/requests.jsonl" -o "$work/results.jsonl" || status=$?
[ $status -eq 0 ] || [ $status -eq 2 ] || exit $status

./build/moothall-demo-score "$work/results.jsonl" $documents/truth.jsonl -o rows.jsonl
echo
./build/moothall audit --state "$work/results.jsonl.moothall"
echo "rows.jsonl: $(wc -l <rows.jsonl) rows"
exit $status
