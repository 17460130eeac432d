#!/usr/bin/env python3
"""Kills `extract` and `summarize`, their brokers and their workers at random moments, and demands that nothing shows.

    pipeline_kills.py [BUILD_DIR] [--kills N] [--documents K] [--workers W] [--seed S] [--verb extract|summarize|both]

K documents, short ones and long ones, some that are no text.  The command, its broker or a worker is killed with SIGKILL at a
random moment; a killed command is repeated until it ends.  At no moment may half an output have its name.  Then: the same bytes as
undisturbed, a clean audit, and neither a process nor a socket left.  At least N kills over both verbs, half of each.
"""

import argparse
import os
import random
import sys
import time

from kills import repeat_until_it_ends
from pipelines import SCHEMA, demo, write_documents
from run_hall import MODEL, Place

FLAGS = {
    "extract": ["--schema", SCHEMA, "--max-tokens", "300", "--chunk-tokens", "300", "--merge", "version=all"],
    "summarize": ["--instruction", "Summarize this package description in one line.", "--max-tokens", "32", "--chunk-tokens", "120"],
}


def documents(verb, count, draw):
    texts = demo("entry" if verb == "extract" else "description")
    made = []
    for i in range(count):
        text = draw.choice(texts).replace("Debian", f"Debian {i}")
        if i % 10 == 9:  # some pieces each
            text = "\n\n".join([text] + draw.sample(texts, 3))
        made.append(b"\0\1\2" if i % 25 == 12 else text)
    return made


def words_of(verb, workers):
    return [verb, "--model", MODEL, "docs", "-o", "out.jsonl", "--keep", "--workers", str(workers), *FLAGS[verb]]


def undisturbed(verb, texts, workers):
    place = Place("undisturbed")
    write_documents(place, texts)
    begun = time.monotonic()
    done = place.call(*words_of(verb, workers), timeout=600)
    assert done.code == 2, done  # some are no text
    expected = place.read("out.jsonl")
    assert expected.count(b"\n") == len(texts) and expected.count(b'"error"') == sum(isinstance(t, bytes) for t in texts), done
    place.close()
    print(f"undisturbed {verb}: {len(texts)} documents in {time.monotonic() - begun:.1f} s", flush=True)
    return expected


def one_run(draw, verb, texts, expected, kills, workers):
    """Returns what was killed."""
    place = Place(f"{verb}-kills")
    write_documents(place, texts)

    def look(killed):
        if os.path.exists(place.path("out.jsonl")):
            assert place.read("out.jsonl") == expected, f"{verb}: other bytes after {killed}; kept in {place.dir}"

    killed, starts = repeat_until_it_ends(draw, place, words_of(verb, workers), kills, verb, status=2, longest=2.0, seconds=900, look=look)
    assert place.read("out.jsonl") == expected
    audit = place.call("audit", "--state", "out.jsonl.moothall")
    assert audit.code == 0 and "clean" in audit.out and ", 0 unfinished" in audit.out, f"{verb}: {audit}"
    again = place.call(*words_of(verb, workers))
    assert again.code == 2 and "nothing to do" in again.err, f"{verb} once more: {again}"
    place.nothing_left()
    place.no_sockets()
    place.close()
    print(f"{verb}: {len(killed)} kills ({', '.join(killed)}), {starts} starts, same bytes", flush=True)
    return killed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", nargs="?")
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--verb", choices=["extract", "summarize", "both"], default="both")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else int(time.time())
    print(f"seed {seed}")
    draw = random.Random(seed)
    verbs = ["extract", "summarize"] if args.verb == "both" else [args.verb]
    faults = total = 0
    for verb in verbs:
        texts = documents(verb, args.documents, draw)
        expected = undisturbed(verb, texts, args.workers)
        left = -(-args.kills // len(verbs))
        runs = 10 * left  # a run may be over before anything is killed
        while left > 0 and runs > 0 and faults < 3:
            runs -= 1
            try:
                killed = len(one_run(draw, verb, texts, expected, min(left, 5), args.workers))
                total += killed
                left -= killed
            except AssertionError as fault:
                faults += 1
                print(f"FAILED: {fault}", flush=True)
    print(f"{total} kills, {faults} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
