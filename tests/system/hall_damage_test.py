#!/usr/bin/env python3
"""Damage to a private hall between two runs, and a disk that is full: what can be made good is, the rest is said.

    hall_damage_test.py BUILD_DIR SOURCE_DIR [case ...]
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time

from run_hall import MODEL, SLOW, Place, check, ended, lines, main, requests, sures, undisturbed, wait_lines

STATE = "out.jsonl.moothall"
RUN = ["run", "--model", MODEL, "in.jsonl", "-o", "out.jsonl"]
SLOWLY = ["--sequences", "1", "--threads", "1"] # so that it is not over before something can happen to it


def damage_between_two_runs():
    """What can be made good is; what cannot is said in one line, and --restart is the way out."""
    items = requests(100, seed=55, tokens=40)
    expected = undisturbed(items)

    def cut(place, name, size):
        with open(place.path(name), "r+b") as file:
            file.truncate(size)

    def another_programs_store(place):
        shutil.rmtree(place.path(f"{STATE}/store"))
        os.mkdir(place.path(f"{STATE}/store"))
        with sqlite3.connect(place.path(f"{STATE}/store/hall.db")) as database:
            database.execute("CREATE TABLE cake (slice)")
        database.close()

    def append(place):
        with open(place.path("out.jsonl"), "a") as file:
            file.write('{"half a line\nand more\n')

    rows = [ # what is done, the exit status then, what stderr says
        (lambda place: shutil.rmtree(place.path(STATE)), 1, "--restart"),
        (lambda place: cut(place, f"{STATE}/record.json", 100), 1, "record"),
        (lambda place: cut(place, f"{STATE}/store/hall.db", 50000), 1, "cut short"),
        (another_programs_store, 1, "another program"),
        (lambda place: shutil.rmtree(place.path(f"{STATE}/store")), 0, "another store"),
        (lambda place: os.unlink(place.path(f"{STATE}/lines-1")), 0, "continuing"),
        (lambda place: os.unlink(place.path("out.jsonl")), 0, "continuing"),
        (lambda place: cut(place, "out.jsonl", 1000), 0, "continuing"),
        (append, 0, "continuing"),
    ]
    for number, (damage, code, says) in enumerate(rows):
        place = Place(f"damage{number}")
        place.write("in.jsonl", lines(items))
        process = place.start(*RUN, *SLOWLY)
        wait_lines(place)
        process.send_signal(signal.SIGINT)
        check(ended(process)[0] == 1, f"{number}: was not interrupted")
        damage(place)
        done = place.call(*RUN)
        check(done.code == code and says in done.err, f"{number}: {done}")
        if code != 0:
            done = place.call(*RUN, "--restart")
            check(done.code == 0, f"{number}, --restart: {done}")
        check(sures(place.results()) == expected, f"{number}: other bytes")
        place.nothing_left(0.2)
        place.no_sockets()
        place.close()


def a_full_disk():
    """Submits are refused with the reason, what is leased still ends, and room makes all go on."""
    items = requests(150, seed=56, tokens=40)
    expected = undisturbed(items)
    place = Place("full")
    disk = tempfile.mkdtemp(prefix="mhd-")
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], stderr=subprocess.DEVNULL).returncode:
        os.rmdir(disk)
        place.close()
        print("       a_full_disk: no small disk can be mounted here; left out")
        return
    filler = os.path.join(disk, "filler")

    def fill(but=0):
        with open(filler, "ab", buffering=0) as file:
            try:
                while os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize > but:
                    file.write(b"x" * min(65536, os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - but))
            except OSError:
                pass

    try:
        place.write("in.jsonl", lines(items))
        words = ["run", "--model", MODEL, "in.jsonl", "-o", "out.jsonl", "--state", os.path.join(disk, "s"), "--keep"]
        fill()
        full = place.call(*words)
        check(full.code == 1 and "No space left" in full.err, full)
        os.unlink(filler)
        fill(1000 * 1000)
        process = place.start(*words)
        time.sleep(1.5 * SLOW)
        check(process.poll() is None, f"gave up: {process.poll()}")
        os.unlink(filler)
        code, _, err = ended(process, 90)
        check(code == 0 and "disk is full" in err and sures(place.results()) == expected, (code, err))
        again = place.call(*words, "--restart")
        check(again.code == 0, again)
        process = place.start(*words, "--restart")
        time.sleep(0.8 * SLOW)
        fill()
        time.sleep(1 * SLOW)
        os.unlink(filler)
        code, _, err = ended(process, 90)
        if code != 0: # its own record found no room
            check("No space left" in err, (code, err))
            done = place.call(*words)
            check(done.code == 0, done)
        check(sures(place.results()) == expected, "other bytes")
        audit = place.call("audit", "--state", os.path.join(disk, "s"))
        check(audit.code == 0 and "150 jobs, 150 generations, 150 entries" in audit.out, audit)
        place.nothing_left()
    finally:
        subprocess.run(["umount", "-l", disk], check=False)
        os.rmdir(disk)
    place.close()


main({case.__name__: case for case in (damage_between_two_runs, a_full_disk)})
