#!/usr/bin/env python3
"""Kills what it can find, at random moments, and demands that nothing shows.

    kills.py [BUILD_DIR] [--kills N] [--runs M] [--requests K] [--workers W] [--update] [--seed S]

A run of K requests is started; `moothall run` itself, its broker or a worker is killed with SIGKILL at a
random moment; whatever run was killed is repeated, until it ends.  Then: as many lines as requests, in
their order, the same bytes as an undisturbed run, a clean audit, and neither a process nor a socket left.
At least N kills over at least M runs.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time

import run_hall
from run_hall import MODEL, Place, lines, requests, sures


def kill_one(draw, place, process):
    """Kills one of run, broker, workers; returns its name, or None when it was gone already."""
    victims = place.children()
    victims["run"] = process.pid
    name = draw.choice(sorted(victims))
    try:
        os.kill(victims[name], signal.SIGKILL)
    except ProcessLookupError:
        return None
    return name


def repeat_until_it_ends(draw, place, words, kills, about, status=0, longest=1.5, seconds=600, look=None):
    """Returns the names of what was killed, and how often it was started.  status: of its good end; longest: seconds between
    two kills, about half; look: called with the names so far whenever it is not there, killed or at its end."""
    killed, starts, done = [], 0, False
    until = time.monotonic() + seconds * run_hall.SLOW
    while not done:
        assert time.monotonic() < until, f"{about} does not end; killed so far: {killed}"
        process = place.start(*words)
        starts += 1
        while len(killed) < kills and process.poll() is None:
            # Early moments too: while it starts, while it submits.
            try:
                process.wait(timeout=draw.choice([0.02, 0.1, 0.3, 1.0, longest]) * draw.random() * 2 * run_hall.SLOW)
            except subprocess.TimeoutExpired:
                name = kill_one(draw, place, process)
                if name:
                    killed.append(name)
                if name == "run":
                    break
        try:
            _, err = process.communicate(timeout=300 * run_hall.SLOW)
        except subprocess.TimeoutExpired:
            process.kill()
            _, err = process.communicate()
            raise AssertionError(f"{about} hangs after {killed}: {err.decode(errors='replace')[-2000:]}; state kept in {place.dir}")
        if look:
            look(killed)
        assert process.returncode in (status, -signal.SIGKILL), \
            f"{about} ended with {process.returncode} after {killed}: {err.decode(errors='replace')[-2000:]}; state kept in {place.dir}"
        done = process.returncode == status
    return killed, starts


def nothing_shows(place, words, items, expected, killed, about):
    results = place.results()
    assert [r["custom_id"] for r in results] == [i["custom_id"] for i in items], \
        f"{about}: {len(results)} lines for {len(items)} requests, or out of order; kept in {place.dir}"
    for mine, undisturbed in zip(sures(results), expected):
        assert mine == undisturbed, f"{about}: other bytes after {killed}:\n  {mine}\n  {undisturbed}\nkept in {place.dir}"
    audit = place.call("audit", "--state", "out.jsonl.moothall")
    assert audit.code == 0 and "clean" in audit.out and ", 0 unfinished" in audit.out, f"{about}: {audit}"
    again = place.call(*words)
    assert again.code == 0 and "nothing to do" in again.err, f"{about}: the same command once more: {again}"
    place.nothing_left()
    place.no_sockets()


def one_run(draw, number, kills, args, items, expected, changed, expected_changed):
    """Returns how many kills it took."""
    place = Place(f"kills{number}")
    place.write("in.jsonl", lines(items))
    words = ["run", "--model", MODEL, "--workers", str(args.workers), "--keep", "in.jsonl", "-o", "out.jsonl"]
    killed, starts = repeat_until_it_ends(draw, place, words, kills, f"run {number}")
    nothing_shows(place, words, items, expected, killed, f"run {number}")
    print(f"run {number}: {len(killed)} kills ({', '.join(killed)}), {starts} starts, same bytes", flush=True)
    if changed:
        place.write("in.jsonl", lines(changed))
        more, starts = repeat_until_it_ends(draw, place, [*words, "--update"], kills, f"update {number}")
        nothing_shows(place, words, changed, expected_changed, more, f"update {number}")
        print(f"update {number}: {len(more)} kills ({', '.join(more)}), {starts} starts, same bytes", flush=True)
        killed += more
    place.close()
    return len(killed)


def undisturbed(items, workers):
    place = Place("undisturbed")
    place.write("in.jsonl", lines(items))
    begun = time.monotonic()
    ended = place.run("in.jsonl", "--workers", str(workers), timeout=300)
    assert ended.code == 0, ended
    expected = sures(place.results())
    place.nothing_left()
    place.no_sockets()
    place.close()
    print(f"undisturbed: {len(items)} requests in {time.monotonic() - begun:.1f} s", flush=True)
    return expected


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", nargs="?")
    parser.add_argument("source", nargs="?")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--update", action="store_true", help="then change a fifth of the requests and kill the update as well")
    parser.add_argument("--seed", type=int, default=None)
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else int(time.time())
    print(f"seed {seed}")
    draw = random.Random(seed)
    items = requests(args.requests, seed=seed, tokens=40)

    expected = undisturbed(items, args.workers)
    changed, expected_changed = None, None
    if args.update:
        changed = [other if draw.random() < 0.2 else item for item, other in zip(items, requests(args.requests, seed=seed + 1))]
        draw.shuffle(changed)
        expected_changed = undisturbed(changed, args.workers)

    left, number, faults = args.kills, 0, 0
    while left > 0 or number < args.runs:
        number += 1
        share = max(1, -(-left // max(1, args.runs - number + 1)))
        try:
            left -= one_run(draw, number, share, args, items, expected, changed, expected_changed)
        except AssertionError as fault:
            faults += 1
            print(f"FAILED: {fault}", flush=True)
            if faults > 2 or number > 10 * args.runs:
                break
    print(f"{args.kills - left} kills over {number} runs, {faults} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
