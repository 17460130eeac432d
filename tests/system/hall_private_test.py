#!/usr/bin/env python3
"""A private hall under a restless hand: signals at every moment, quick kills, onlookers.

    hall_private_test.py BUILD_DIR SOURCE_DIR [case ...]
"""

import fcntl
import os
import random
import signal
import subprocess
import threading
import time

from run_hall import MODEL, MOOTHALL, SLOW, Place, check, ended, lines, main, requests, sures, undisturbed, wait_lines

STATE = "out.jsonl.moothall"
RUN = ["run", "--model", MODEL, "in.jsonl", "-o", "out.jsonl"]
SLOWLY = ["--sequences", "1", "--threads", "1"] # so that it is not over before something can happen to it


def signals_at_every_moment():
    """From the first milliseconds on: exit 1, a line that says how to go on, nothing left behind."""
    items = requests(150, seed=51, tokens=40)
    place = Place("moments")
    place.write("in.jsonl", lines(items))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for seconds in (0.02, 0.1, 0.4):
            process = place.start(*RUN, "--workers", "2")
            time.sleep(seconds * SLOW)
            process.send_signal(number)
            code, out, err = ended(process)
            if code == 0: # it was over by then
                place.call(*RUN, "--restart")
                continue
            if code == -number: # so early that not even the handler was there
                continue
            check(code == 1 and out == "" and "same command" in err.splitlines()[-1], f"{number} after {seconds} s: {code} {err}")
            place.nothing_left(0.2)
            place.no_sockets()
    process = subprocess.Popen(["nohup", MOOTHALL, *RUN], cwd=place.dir, env=place.env, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(0.3 * SLOW)
    process.send_signal(signal.SIGHUP)
    code, _, err = ended(process)
    check(code == 0 and sures(place.results()) == undisturbed(items), f"nohup: {code} {err}")
    place.close()


def a_worker_killed_as_soon_as_it_is_ready():
    """It could start, so it is started again, however often; also with --quiet, when nobody looks at the progress."""
    items = requests(400, seed=52, tokens=60)
    place = Place("ready")
    place.write("in.jsonl", lines(items))
    process = place.start(*RUN, *SLOWLY, "--quiet", "--keep")
    log = place.path(os.path.join(STATE, "worker-1.log"))
    for life in range(1, 7):
        until = time.monotonic() + 30 * SLOW
        while not os.path.exists(log) or place.read(log).count(b"worker.seated") < life:
            check(process.poll() is None, f"ended in life {life} with {process.returncode}")
            check(time.monotonic() < until, f"was not seated in life {life}")
            time.sleep(0.01)
        time.sleep(0.3 * SLOW) # it has worked, and nobody has asked how far it is
        worker = place.children().get("worker-1")
        check(worker is not None, f"no worker in life {life}")
        os.kill(worker, signal.SIGKILL)
    code, _, err = ended(process, 120)
    check(code == 0 and err == "", (code, err))
    check(sures(place.results()) == undisturbed(items), "other bytes")
    check(max(r["moothall"]["infra"] for r in place.results()) <= 7, "counted twice")
    place.nothing_left()
    place.no_sockets()
    place.close()


def the_broker_stands_still_for_a_while():
    """Shorter than a lease: nothing is lost."""
    items = requests(150, seed=53, tokens=60)
    place = Place("pause")
    place.write("in.jsonl", lines(items))
    process = place.start(*RUN, *SLOWLY, "--workers", "2")
    wait_lines(place)
    broker = place.children()["broker"]
    os.kill(broker, signal.SIGSTOP)
    time.sleep(6)
    os.kill(broker, signal.SIGCONT)
    code, _, err = ended(process, 120)
    check(code == 0 and sures(place.results()) == undisturbed(items), (code, err))
    check(sum(r["moothall"]["infra"] for r in place.results()) == 0, "jobs were lost although no worker was")
    place.close()


def a_signal_while_it_waits_for_an_onlooker():
    """The lock of the state directory is held by another verb for a moment: the line that says how to go on comes here too."""
    place = Place("waiting")
    place.write("in.jsonl", lines(requests(3, seed=55, tokens=4)))
    os.mkdir(place.path(STATE))
    with open(place.path(os.path.join(STATE, "run.lock")), "w") as lock:
        lock.write(f"{os.getpid()} status\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = place.start(*RUN)
        time.sleep(0.5 * SLOW)
        process.send_signal(signal.SIGINT)
        code, out, err = ended(process)
    check(code == 1 and out == "" and "same command" in err, (code, out, err))
    place.close()


def onlookers_while_runs_come_and_go():
    """status and audit of a state directory, all the time: they never fail, and no run fails because of them."""
    items = requests(200, seed=54, tokens=60)
    place = Place("onlookers")
    place.write("in.jsonl", lines(items))
    draw = random.Random(54)
    process = place.start(*RUN, "--keep")
    wait_lines(place)
    process.send_signal(signal.SIGINT)
    ended(process)
    faults, over = [], threading.Event()

    def look(verb):
        while not over.is_set():
            seen = place.call(verb, "--state", STATE)
            if seen.code != 0:
                faults.append(f"{verb}: {seen}")

    onlookers = [threading.Thread(target=look, args=(verb,)) for verb in ("status", "audit")]
    for onlooker in onlookers:
        onlooker.start()
    try:
        for _ in range(4):
            process = place.start(*RUN, "--keep")
            time.sleep((0.2 + draw.random()) * SLOW)
            process.send_signal(draw.choice([signal.SIGINT, signal.SIGKILL]))
            code, _, err = ended(process)
            check(code in (0, -signal.SIGKILL) or "same command" in err, (code, err))
        done = place.call(*RUN, "--keep")
        check(done.code == 0, done)
    finally:
        time.sleep(0.5)
        over.set()
        for onlooker in onlookers:
            onlooker.join()
    check(not faults, faults[:3])
    check(sures(place.results()) == undisturbed(items), "other bytes")
    place.nothing_left()
    place.no_sockets()
    place.close()


main({case.__name__: case for case in (
    signals_at_every_moment, a_worker_killed_as_soon_as_it_is_ready, the_broker_stands_still_for_a_while,
    a_signal_while_it_waits_for_an_onlooker, onlookers_while_runs_come_and_go)})
