#!/usr/bin/env bash
# The long forms of the tests, for a night rather than for every change.
#
#   tests/long.sh                 all of them, one after another
#   tests/long.sh kills           200 kill -9 over 20 runs of 500 requests (about 3 minutes)
#   tests/long.sh pipelines       50 kill -9 under extract and summarize over 500 documents (about 5 minutes)
#   tests/long.sh torture         a broker killed some hundred times under 20,000 jobs (about 5 minutes)
#   tests/long.sh lives           20,000 random steps of jobs' lives, the broker killed some two thousand times (about 3 minutes)
#   tests/long.sh memory          100,000 requests through `run` against 10,000 (about 2 minutes)
#   tests/long.sh parity          300 fresh random checkpoints against the float64 reference (about 20 minutes)
#   tests/long.sh tokenizer       100,000 random strings a vocabulary against the tokenizers library (about 10 minutes)
#   tests/long.sh grammar         200,000 random grammars against languages written out as lists (about 3 minutes)
#   tests/long.sh schema          20,000 random schemas with jsonschema as the judge (about 5 minutes)
#   tests/long.sh structured      2,000 random schemas through whole programs, each with four budgets (about 3 minutes)
#   tests/long.sh fuzz            each fuzz target for 10 minutes with libFuzzer (installs clang)
#   tests/long.sh sanitizers      every test, the system tests too, under address and undefined-behaviour sanitizers
#
# What fails prints its seed; the same seed gives the same inputs again.
set -euo pipefail
cd "$(dirname "$0")/.."

./tests/run.sh --only unit >/dev/null # installs, and builds the release
python="$PWD/build-venv/bin/python"
export MOOTHALL_TEST_PYTHON="$python"
all="kills pipelines torture lives memory parity tokenizer grammar structured schema fuzz sanitizers"
for what in ${*:-$all}; do
    echo "== $what"
    case "$what" in
    kills) "$python" tests/system/kills.py build --kills 200 --runs 20 --requests 500 ;;
    pipelines) "$python" tests/system/pipeline_kills.py build --kills 50 --documents 500 ;;
    torture) MOOTHALL_BROKER="$PWD/build/moothall-broker" build/tests/torture_test 20000 ;;
    lives) MOOTHALL_BROKER="$PWD/build/moothall-broker" build/tests/lives_test 20000 ;;
    memory) "$python" tests/system/memory_test.py build . --long ;;
    parity) "$python" tests/parity/model_parity.py build/tests/logprobs --count 300 --long ;;
    tokenizer)
        for which in real demo variants; do
            "$python" tests/parity/tokenizer_parity.py $which --program build/tests/tokenizer_ids --count 100000
        done
        "$python" tests/parity/tokenizer_parity.py patterns --program build/tests/tokenizer_ids
        ;;
    grammar) MOOTHALL_GRAMMAR_ROUNDS=200000 MOOTHALL_GRAMMAR_SEED=1000 build/tests/model_grammar_test ;;
    schema)
        "$python" tests/parity/schema_random.py --program build/tests/schema_accepts --tokenizer deploy/demo/model --count 20000
        ;;
    structured) MOOTHALL_SCHEMAS=2000 "$python" tests/system/structured_test.py build . every_schema_and_budget_gives_a_valid_document ;;
    fuzz)
        ./deploy/install-packages.sh fuzz
        CC=clang cmake -S . -B build-fuzz -G Ninja -DMOOTHALL_FUZZ=ON -DMOOTHALL_SANITIZE=address >/dev/null
        targets=$(cd tests/fuzz && ls ./*_fuzz.c | sed 's|^\./||; s|\.c$||')
        # shellcheck disable=SC2086  # a list
        cmake --build build-fuzz --target $targets >/dev/null
        for target in $targets; do
            echo "-- $target"
            mkdir -p "build-fuzz/corpus/$target"
            "build-fuzz/tests/$target" -max_total_time=600 -rss_limit_mb=4096 "build-fuzz/corpus/$target" "tests/fuzz/corpus/${target%_fuzz}"
        done
        ;;
    sanitizers)
        cmake --preset asan >/dev/null && cmake --build --preset asan >/dev/null
        ctest --preset asan --timeout 1800
        ;;
    *) echo "unknown part $what; expected one of $all" >&2; exit 1 ;;
    esac
done
