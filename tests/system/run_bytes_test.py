#!/usr/bin/env python3
"""DESIGN promise 3: the same request gives the same bytes, whoever computes it beside whatever else.

    run_bytes_test.py BUILD_DIR SOURCE_DIR [case ...]
"""

import os
import random
import signal

from run_hall import MODEL, Place, check, lines, main, requests, sure

ITEMS = requests(96, seed=21, tokens=32)
_bytes = {}


def measured(items, *flags, disturb=None):
    """custom_id -> what must be the same."""
    place = Place("bytes")
    place.write("in.jsonl", lines(items))
    process = place.start("run", "--model", MODEL, "in.jsonl", "-o", "out.jsonl", *flags)
    if disturb:
        disturb(place)
    _, err = process.communicate(timeout=300)
    check(process.returncode == 0, (flags, process.returncode, err))
    results = place.results()
    check([r["custom_id"] for r in results] == [i["custom_id"] for i in items], f"{flags}: not in the order of the input")
    place.nothing_left()
    place.no_sockets()
    place.close()
    return {r["custom_id"]: sure(r) for r in results}


def plain(weights):
    if weights not in _bytes:
        _bytes[weights] = measured(ITEMS, "--weights", weights)
    return _bytes[weights]


def compare(got, expected, words):
    for key, value in got.items():
        check(value == expected[key], f"{words}: {key} differs:\n  {value}\n  {expected[key]}")


def one_to_four_workers():
    for weights in ("bf16", "f32"):
        for workers in (2, 3, 4):
            compare(measured(ITEMS, "--weights", weights, "--workers", str(workers), "--threads", "1"), plain(weights), f"{weights}, {workers} workers")


def alone_or_sixty_four_together():
    compare(measured(ITEMS, "--weights", "bf16", "--sequences", "1"), plain("bf16"), "one at a time")
    compare(measured(ITEMS, "--weights", "bf16", "--sequences", "64"), plain("bf16"), "64 together")
    for item in (ITEMS[0], ITEMS[13], ITEMS[50]):
        compare(measured([item], "--weights", "bf16"), plain("bf16"), "alone in its file")


def the_order_shuffled():
    shuffled = list(ITEMS)
    random.Random(4).shuffle(shuffled)
    compare(measured(shuffled, "--weights", "bf16", "--workers", "2"), plain("bf16"), "shuffled")


def a_worker_killed_in_the_middle():
    def kill(place):
        while not (os.path.exists(place.path("out.jsonl")) and place.read("out.jsonl")):
            pass
        os.kill(place.children()["worker-2"], signal.SIGKILL)

    compare(measured(ITEMS, "--weights", "bf16", "--workers", "2", disturb=kill), plain("bf16"), "a worker killed")


main({case.__name__: case for case in (one_to_four_workers, alone_or_sixty_four_together, the_order_shuffled, a_worker_killed_in_the_middle)})
