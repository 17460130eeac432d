#!/usr/bin/env python3
"""`moothall bench` prints what the contract says, and its rates hold.   rates_test.py BUILD_DIR SOURCE_DIR

The machine may be shared with others, who only ever make a figure worse: the best of a few tries counts, and of the
durable submits half of the promised 10,000/s is asked for here (`moothall bench queue` by itself shows the whole)."""
import json
import os
import subprocess
import sys

BUILD, SOURCE = map(os.path.abspath, sys.argv[1:3])
TRIES = 4


def bench(*words):
    done = subprocess.run([os.path.join(BUILD, "moothall"), "bench", *words, "--quiet"], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(text) for text in done.stdout.splitlines()]
    for line in lines:
        assert {"bench", "case", "value", "unit"} <= line.keys() and isinstance(line["value"], (int, float)), line
    return {line["case"]: line for line in lines}


def best(what, case, floor, *words):
    seen = []
    for _ in range(TRIES):
        got = bench(*words)
        seen.append(got[case]["value"])
        if seen[-1] >= floor:
            break
    print(f"{what}: {max(seen):.2f} {got[case]['unit']} (asked for: {floor}; tries: {len(seen)})", flush=True)
    return got, max(seen) >= floor


def main():
    queue, queue_ok = best("durable submits", "submit", 5000, "queue", "--clients", "16", "--in-flight", "16", "--size", "1024", "--seconds", "2")
    for key in ("clients", "in_flight", "size", "jobs_per_message", "durability"):
        assert key in queue["submit"], queue
    assert queue["submit"]["jobs_per_message"] == 1 and queue["submit"]["durability"] == "fsync", queue
    hall, hall_ok = best("two workers' share", "two-workers-share", 0.6, "hall", "--model", os.path.join(SOURCE, "deploy/demo/model"), "--rounds", "2")
    for key in ("weights", "sequences", "threads", "workers"):
        assert key in hall["two-workers-share"], hall
    return 0 if queue_ok and hall_ok else 1


if __name__ == "__main__":
    sys.exit(main())
