#!/usr/bin/env python3
"""`moothall run`, interrupted, repeated, changed: what is done is kept, and nothing is written twice.

    run_resume_test.py BUILD_DIR SOURCE_DIR [case ...]
"""

import functools
import json
import os
import shutil
import signal
import stat
import subprocess
import time

import run_hall
from run_hall import BUILD, MODEL, Place, check, lines, main, request, requests, sures

undisturbed = functools.partial(run_hall.undisturbed, codes=(0, 2))  # some of these requests are meant to fail


def wait_for(what, words, seconds=30):
    until = time.monotonic() + seconds * run_hall.SLOW
    while not what():
        check(time.monotonic() < until, f"waited in vain for {words}")
        time.sleep(0.005)


def begun(place, some=1, name="out.jsonl"):
    """Waits until the output has some lines."""
    wait_for(lambda: os.path.exists(place.path(name)) and place.read(name).count(b"\n") >= some, "the first results")


def start(place, *flags, name="in.jsonl", output="out.jsonl"):
    """A run that goes through its requests a few at a time, so that it is in the middle of them for long."""
    return place.start("run", "--model", MODEL, name, "-o", output, "--sequences", "4", *flags)


def signals_keep_what_is_done():
    items = requests(120, seed=5, tokens=60)
    expected = undisturbed(items)
    for number in (signal.SIGINT, signal.SIGTERM):
        place = Place("signal")
        place.write("in.jsonl", lines(items))
        process = start(place, "--workers", "2")
        begun(place)
        process.send_signal(number)
        _, err = process.communicate(timeout=30 * run_hall.SLOW)
        check(process.returncode == 1 and b"the same command continues" in err, (number, process.returncode, err))
        check(not place.processes(), f"left behind: {place.processes()}")
        place.no_sockets()
        some = len(place.results())
        check(0 < some < len(items), f"{some} results: not interrupted in the middle")
        ended = place.run("in.jsonl", "--workers", "2")
        check(ended.code == 0 and sures(place.results()) == expected, ended)
        place.close()


def a_second_signal_ends_at_once():
    place = Place("second")
    place.write("in.jsonl", lines(requests(120, seed=5, tokens=60)))
    process = start(place)
    begun(place)
    os.kill(place.children()["worker-1"], signal.SIGSTOP)  # so that an orderly end takes its time
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    check(process.poll() is None, "did not wait for its worker")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=5 * run_hall.SLOW)
    check(process.returncode == -signal.SIGINT, process.returncode)
    for pid, _ in place.processes():
        os.kill(pid, signal.SIGCONT)
    place.nothing_left()
    place.close()


def the_same_run_twice_at_once():
    place = Place("twice")
    items = requests(120, seed=6, tokens=40)
    place.write("in.jsonl", lines(items))
    process = start(place)
    begun(place)
    worker = place.children()["worker-1"]
    os.kill(worker, signal.SIGSTOP)  # it cannot be over meanwhile
    second = place.run("in.jsonl")
    check(second.code == 1 and f"process {process.pid} " in second.err, second)
    live = place.call("status", "--state", "out.jsonl.moothall", "--json")
    check(live.code == 0 and json.loads(live.out)["workers"][0]["connected"], f"status beside a live run: {live}")
    os.kill(worker, signal.SIGCONT)
    process.communicate(timeout=120 * run_hall.SLOW)
    check(process.returncode == 0 and sures(place.results()) == undisturbed(items), "disturbed by the second")
    place.close()


def waits_for_the_children_of_a_killed_run():
    place = Place("orphans")
    items = requests(100, seed=7, tokens=40)
    place.write("in.jsonl", lines(items))
    process = start(place)
    begun(place)
    broker = place.children()["broker"]
    os.kill(broker, signal.SIGSTOP)
    process.kill()
    process.communicate()
    again = start(place)
    time.sleep(2)
    check(again.poll() is None, "did not wait")
    os.kill(broker, signal.SIGCONT)
    _, err = again.communicate(timeout=60 * run_hall.SLOW)
    check(again.returncode == 0 and b"waiting for the processes of an earlier run" in err, (again.returncode, err))
    check(sures(place.results()) == undisturbed(items), "other bytes")
    place.nothing_left()
    place.no_sockets()
    place.close()


def changed_input_is_refused_or_updated():
    for order in ("input", "completion"):
        place = Place("changed")
        items = requests(120, seed=8)
        place.write("in.jsonl", lines(items))
        process = start(place, "--order", order)
        begun(place)
        process.kill()
        process.communicate()
        place.nothing_left()
        new = list(items)
        new[41] = dict(items[41], body=dict(items[41]["body"], max_tokens=3))
        new.append(dict(request(500, __import__("random").Random(3)), custom_id="appended"))
        place.write("in.jsonl", lines(new))
        refused = place.run("in.jsonl", "--order", order)
        check(refused.code == 1 and "line 42 " in refused.err and "--update" in refused.err, refused)
        ended = place.run("in.jsonl", "--order", order, "--update", "--keep")
        check(ended.code == 0, ended)
        results = place.results()
        check(sorted(sures(results)) == sorted(undisturbed(new)), "other bytes after --update")
        if order == "input":
            check(sures(results) == undisturbed(new), "out of order after --update")
        audit = place.call("audit", "--state", "out.jsonl.moothall")
        check(audit.code == 0, audit)
        # Kept, so it can be updated once more: one line less, two changed places.
        newer = new[:10] + [new[12], new[11]] + new[13:]
        place.write("in.jsonl", lines(newer))
        ended = place.run("in.jsonl", "--order", order, "--update", "--keep")
        check(ended.code == 0, ended)
        results = place.results()
        check(sorted(sures(results)) == sorted(undisturbed(newer)), "other bytes after the second --update")
        check(all(r["moothall"]["generation"] == 1 for r in results if r["custom_id"] != "r41"), "did unchanged requests again")
        check(not os.path.exists(place.path("out.jsonl.moothall-new")), "left its new file")
        place.close()


def retry_does_the_failed_again():
    place = Place("retry")
    items = requests(30, seed=9)
    items[7]["body"]["max_tokens"] = 1_000_000  # over the context: the worker refuses it
    items[20]["body"]["temperature"] = "hot"  # the client refuses it
    place.write("in.jsonl", lines(items))
    ended = place.run("in.jsonl")
    check(ended.code == 2 and "28 done, 2 failed" in ended.err, ended)
    first = place.results()
    ended = place.run("in.jsonl", "--retry-failed")
    check(ended.code == 2, ended)
    results = place.results()
    check([r["moothall"]["generation"] for r in results] == [2 if i == 7 else 1 for i in range(30)], "other generations")
    check(sures(results) == sures(first), "other bytes")
    os.unlink(place.path("out.jsonl"))
    ended = place.run("in.jsonl")
    check(ended.code == 2 and sures(place.results()) == sures(first), f"the output was removed: {ended}")
    shutil.rmtree(place.path("out.jsonl.moothall/store"))
    ended = place.run("in.jsonl", "--retry-failed")
    check(ended.code == 2 and "another store" in ended.err and sures(place.results()) == sures(first), f"the store was removed: {ended}")
    with open(place.path("out.jsonl"), "a") as file:
        file.write("a note of mine\n")
    ended = place.run("in.jsonl")
    check(ended.code == 1 and "changed since" in ended.err, f"the output was changed: {ended}")
    check(place.read("out.jsonl").endswith(b"a note of mine\n"), "a changed output was overwritten")
    os.unlink(place.path("out.jsonl"))
    items[7]["body"]["max_tokens"] = 5
    items[20]["body"]["temperature"] = 0.5
    place.write("in.jsonl", lines(items))
    ended = place.run("in.jsonl", "--update")
    check(ended.code == 0 and sures(place.results()) == undisturbed(items), ended)
    check(not os.path.exists(place.path("out.jsonl.moothall/store")), "the store was kept after exit 0")
    place.close()


def a_finished_run_says_so():
    place = Place("finished")
    items, others = requests(10, seed=10), requests(12, seed=11)
    place.write("in.jsonl", lines(items))
    check(place.run("in.jsonl").code == 0, "first")
    kept = place.read("out.jsonl")
    left = set(os.listdir(place.path("out.jsonl.moothall")))
    check(left == {"record.json", "lock", "run.lock"}, left)
    again = place.run("in.jsonl", "--workers", "3")
    check(again.code == 0 and "nothing to do" in again.err and place.read("out.jsonl") == kept, again)
    audit = place.call("audit", "--state", "out.jsonl.moothall")
    check(audit.code == 1 and "--keep" in audit.err, audit)
    place.write("in.jsonl", lines(others))
    other = place.run("in.jsonl")
    check(other.code == 0 and sures(place.results()) == undisturbed(others), other)
    with open(place.path("out.jsonl"), "a") as file:
        file.write("mine\n")
    place.write("in.jsonl", lines(items))
    refused = place.run("in.jsonl")
    check(refused.code == 1 and "--restart" in refused.err and place.read("out.jsonl").endswith(b"mine\n"), refused)
    anew = place.run("in.jsonl", "--restart")
    check(anew.code == 0 and sures(place.results()) == undisturbed(items), anew)
    os.unlink(place.path("out.jsonl"))
    anew = place.run("in.jsonl")
    check(anew.code == 0 and sures(place.results()) == undisturbed(items), f"the output was removed: {anew}")
    place.close()


def options_and_model_may_not_change_in_the_middle():
    place = Place("options")
    items = requests(150, seed=12, tokens=40)
    place.write("in.jsonl", lines(items))
    shutil.copytree(MODEL, place.path("m"))
    words = ["run", "--model", "m", "in.jsonl", "-o", "out.jsonl"]
    process = place.start(*words, "--sequences", "4")
    begun(place)
    wait_for(lambda: json.loads(place.read("out.jsonl.moothall/record.json"))["family"], "the kernel family in the record")
    process.kill()
    process.communicate()
    for flags, says in ((["--weights", "f32"], "--weights"), (["--order", "completion"], "--order"), (["--batch", "b"], "--batch")):
        refused = place.call(*words, *flags)
        check(refused.code == 1 and says in refused.err and "--restart" in refused.err, refused)
    config = json.loads(place.read("m/config.json"))
    config["norm_topk_prob"] = not config["norm_topk_prob"]
    place.write("m/config.json", json.dumps(config))
    refused = place.call(*words)
    check(refused.code == 1 and "model has changed" in refused.err, refused)
    shutil.copy(os.path.join(MODEL, "config.json"), place.path("m/config.json"))
    record = json.loads(place.read("out.jsonl.moothall/record.json"))
    family = record["family"]
    place.write("out.jsonl.moothall/record.json", json.dumps(dict(record, family="cpu-other")))
    refused = place.call(*words)
    check(refused.code == 1 and "cpu-other" in refused.err and family in refused.err and "--mixed" in refused.err, refused)
    place.write("out.jsonl.moothall/record.json", json.dumps(record))
    ended = place.call(*words, "--workers", "3")
    check(ended.code == 0 and sures(place.results()) == undisturbed(items), ended)
    place.close()


def completion_order_has_each_once():
    place = Place("completion")
    items = requests(160, seed=13, tokens=30)
    place.write("in.jsonl", lines(items))
    process = start(place, "--order", "completion", "--workers", "2")
    begun(place, 20)
    process.kill()
    process.communicate()
    ended = place.run("in.jsonl", "--order", "completion", "--workers", "2")
    check(ended.code == 0 and sorted(sures(place.results())) == sorted(undisturbed(items)), ended)
    place.close()


def a_shared_hall():
    """run, submit and fetch through a broker and a worker that were there before."""
    place = Place("shared")
    items = requests(60, seed=14)
    items[3]["body"]["max_tokens"] = 0
    place.write("in.jsonl", lines(items))
    endpoint = f"ipc://{place.runtime}/b"
    broker = subprocess.Popen([os.path.join(BUILD, "moothall-broker"), "--listen", endpoint, "--store", place.path("hall.db"), "--workers", "1"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    worker = subprocess.Popen([os.path.join(BUILD, "moothall-worker"), "--broker", endpoint, "--model", MODEL, "--name", "w",
                               "--exchange", f"ipc://{place.runtime}/w"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ended = place.call("run", "--broker", endpoint, "in.jsonl", "-o", "out.jsonl")
        check(ended.code == 2 and sures(place.results()) == undisturbed(items), ended)
        same = place.call("submit", "--broker", endpoint, "in.jsonl")
        check(same.code == 2 and f"{len(items)} known already" in same.err, f"submit names the batch otherwise than run: {same}")
        submitted = place.call("submit", "--broker", endpoint, "--queue", "q", "--batch", "b", "in.jsonl")
        check(submitted.code == 2 and submitted.out == "b\n", submitted)
        fetched = place.call("fetch", "--broker", endpoint, "--queue", "q", "--batch", "b", "--order", "input", "--wait", "-o", "f.jsonl")
        check(fetched.code == 2 and sures(place.results("f.jsonl")) == undisturbed(items), fetched)
        taken = place.call("fetch", "--broker", endpoint, "--queue", "q", "--consumer", "c", "-o", "c.jsonl")
        check(taken.code == 2 and sorted(sures(place.results("c.jsonl"))) == sorted(undisturbed(items)), taken)
        size = len(place.read("c.jsonl"))
        with open(place.path("c.jsonl"), "a") as file:
            file.write('{"half a line that a killed fetch')
        taken = place.call("fetch", "--broker", endpoint, "--queue", "q", "--consumer", "c", "-o", "c.jsonl")
        check(taken.code == 0 and len(place.read("c.jsonl")) == size, taken)
        streamed = place.call("fetch", "--broker", endpoint, "--queue", "q")
        check(streamed.code == 2 and len(streamed.out.splitlines()) == 60, streamed)
    finally:
        worker.terminate()
        worker.wait()
        broker.terminate()
        broker.wait()
    place.close()


def a_shared_hall_whose_broker_is_away_for_a_while():
    """Also: run itself killed and repeated, with its results in somebody else's store."""
    place = Place("away")
    items = requests(250, seed=15, tokens=40)
    place.write("in.jsonl", lines(items))
    endpoint = f"ipc://{place.runtime}/b"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def broker_there():
        return subprocess.Popen([os.path.join(BUILD, "moothall-broker"), "--listen", endpoint, "--store", place.path("hall.db"), "--workers", "1"],
                                **quiet)

    broker = broker_there()
    worker = subprocess.Popen([os.path.join(BUILD, "moothall-worker"), "--broker", endpoint, "--model", MODEL, "--name", "w",
                               "--exchange", f"ipc://{place.runtime}/w"], **quiet)
    words = ["run", "--broker", endpoint, "in.jsonl", "-o", "out.jsonl"]
    try:
        process = place.start(*words)
        begun(place)
        process.kill()
        process.communicate()
        process = place.start(*words)
        time.sleep(0.5)
        broker.kill()
        broker.wait()
        time.sleep(4)
        broker = broker_there()
        _, err = process.communicate(timeout=120 * run_hall.SLOW)
        check(process.returncode == 0 and sures(place.results()) == undisturbed(items), (process.returncode, err))
        again = place.call(*words)
        check(again.code == 0 and "nothing to do" in again.err, again)
        audit = place.call("audit", "--broker", endpoint)
        check(audit.code == 0 and "250 jobs, 250 generations, 250 entries" in audit.out, audit)
    finally:
        worker.terminate()
        worker.wait()
        broker.terminate()
        broker.wait()
    place.close()


def a_runtime_directory_too_long_for_a_socket():
    place = Place("path")
    place.write("in.jsonl", lines(requests(3)))
    place.env["XDG_RUNTIME_DIR"] = place.path("r" * 100)
    os.makedirs(place.env["XDG_RUNTIME_DIR"], mode=0o700)
    ended = place.run("in.jsonl", "--workers", "2")
    check(ended.code == 0, ended)
    check(not os.listdir(place.env["XDG_RUNTIME_DIR"]), "sockets where their path does not fit")
    place.close()


def programs_that_die_at_once():
    """Five deaths before it was ready end the run with the program's last words; a model that cannot be loaded does at once."""
    for program, script, says, quick in (
            ("moothall-worker", "#!/bin/sh\necho no such luck >&2\nexit 1\n", "no such luck", False),
            ("moothall-worker", "#!/bin/sh\necho moothall-worker: the model is a teapot >&2\nexit 3\n", "the model is a teapot", True),
            ("moothall-broker", "#!/bin/sh\necho no hall today >&2\nexit 1\n", "no hall today", False)):
        place = Place("deaths")
        os.makedirs(place.path("bin"))
        for name in ("moothall", "moothall-broker", "moothall-worker"):
            shutil.copy(os.path.join(BUILD, name), place.path("bin"))
        place.write(f"bin/{program}", script)
        os.chmod(place.path(f"bin/{program}"), stat.S_IRWXU)
        place.write("in.jsonl", lines(requests(2)))
        begin = time.monotonic()
        process = subprocess.run([place.path("bin/moothall"), "run", "--model", MODEL, "in.jsonl", "-o", "out.jsonl"], cwd=place.dir,
                                 env=place.env, capture_output=True, timeout=60 * run_hall.SLOW)
        err = process.stderr.decode()
        check(process.returncode == 1 and says in err.splitlines()[-1], err)
        check(quick or "died 5 times" in err, err)
        check(not quick or time.monotonic() - begin < 5 * run_hall.SLOW, "took its time over a model that cannot be loaded")
        place.nothing_left()
        place.no_sockets()
        place.close()


main({case.__name__: case for case in (
    signals_keep_what_is_done, a_second_signal_ends_at_once, the_same_run_twice_at_once, waits_for_the_children_of_a_killed_run,
    changed_input_is_refused_or_updated, retry_does_the_failed_again, a_finished_run_says_so,
    options_and_model_may_not_change_in_the_middle, completion_order_has_each_once, a_shared_hall,
    a_shared_hall_whose_broker_is_away_for_a_while,
    a_runtime_directory_too_long_for_a_socket, programs_that_die_at_once)})
