#!/usr/bin/env bash
# The main job on real input: installs, builds, and turns 200 real documents (changelog entries and package
# descriptions) into valid rows and one-line summaries, each through a private hall of one broker and two workers that hold
# half of the demo model's experts each.  Writes rows.jsonl in the clone.  A second run builds nothing again.
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

# Exit status 2: finished, and some documents failed; they stand in the rows and count as wrong.
status=0
ran() {
    local got=0
    "$@" || got=$?
    [ $got -eq 0 ] || [ $got -eq 2 ] || exit $got
    [ $status -ne 0 ] || status=$got
}

entries=("$documents"/entry-*.txt)
descriptions=("$documents"/description-*.txt)

echo "moothall extract: 2 workers, ${#entries[@]} changelog entries, by deploy/demo/changelog.schema.json"
ran ./build/moothall extract --model deploy/demo/model --workers 2 --keep --schema deploy/demo/changelog.schema.json \
    "${entries[@]}" -o "$work/rows.jsonl"
echo "moothall summarize: 2 workers, ${#descriptions[@]} package descriptions"
ran ./build/moothall summarize --model deploy/demo/model --workers 2 --keep \
    --instruction "Summarize this package description in one line." "${descriptions[@]}" -o "$work/summaries.jsonl"

echo
./build/moothall-demo-score "$work/rows.jsonl" "$work/summaries.jsonl" $documents/truth.jsonl
echo
for output in rows summaries; do
    ./build/moothall audit --state "$work/$output.jsonl.moothall"
done
cat "$work/rows.jsonl" "$work/summaries.jsonl" >rows.jsonl
echo "rows.jsonl: $(wc -l <rows.jsonl) rows"
exit $status
