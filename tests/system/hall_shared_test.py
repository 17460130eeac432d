#!/usr/bin/env python3
"""A shared hall set up by hand, as an administrator does it, and what happens to it on a bad day.

    hall_shared_test.py BUILD_DIR SOURCE_DIR [case ...]
"""

import json
import os
import random
import shutil
import signal
import subprocess
import time

from run_hall import MODEL, SLOW, Hall, check, ended, lines, main, requests, sures, undisturbed


def infra(results):
    return [r["moothall"]["infra"] for r in results]


def who_may_not_come_in():
    """A second broker on the store, a taken port, an open address, another model, a name that is taken."""
    hall = Hall("guests")
    broker, endpoint = hall.broker("tcp://localhost:*")
    check(endpoint.startswith("tcp://127.0.0.1:"), endpoint)
    worker = hall.worker(endpoint, "w")
    hall.wait_log("broker", "hall.open")
    second, bound = hall.broker("tcp://127.0.0.1:*", log="second")
    check(bound is None and second.wait() == 1 and f"in use by process {broker.pid}" in hall.log("second"), hall.log("second"))
    third, bound = hall.broker(endpoint, store="third.db", log="third")
    check(bound is None and third.wait() == 1 and "in use" in hall.log("third"), hall.log("third"))
    for number, address in enumerate(("tcp://0.0.0.0:7599", "tcp://*:7599", "tcp://192.0.2.1:7599", "tcp://[::]:7599")):
        process, bound = hall.broker(address, store=f"open{number}.db", log=f"open{number}")
        check(bound is None and process.wait() == 1 and "loopback" in hall.log(f"open{number}"), (address, hall.log(f"open{number}")))
    shutil.copytree(MODEL, hall.path("other"))
    with open(hall.path("other/config.json")) as file:
        config = json.load(file)
    config["routed_scaling_factor"] = 3.25
    with open(hall.path("other/config.json"), "w") as file:
        json.dump(config, file)
    for name, flags, model in (("stranger", (), hall.path("other")), ("heavy", ("--weights", "f32"), MODEL)):
        process = hall.worker(endpoint, name, *flags, model=model)
        check(process.wait(30 * SLOW) == 4, hall.log(name))
        said = hall.log(name).strip().splitlines()[-1]
        check("refused" in said and said.count("fingerprint") >= 1 and "this hall's is" in said, said)
    twin = hall.worker(endpoint, "w", log="twin")
    hall.wait_log("twin", f"process {worker.pid}")
    check(twin.poll() is None and worker.poll() is None, "the twin or the worker ended")
    worker.kill()
    worker.wait()
    hall.wait_log("broker", "worker.came name=\"w\"", 2)
    for process in (twin, broker):
        process.terminate()
        check(process.wait(30 * SLOW) == 0, "did not leave in order")
    hall.close()


def a_worker_dies_and_comes_back_under_its_name():
    """Its jobs are lost once; the other workers' go on from where they were."""
    items = requests(300, seed=41, tokens=80)
    expected = undisturbed(items)
    hall = Hall("comeback")
    hall.write("in.jsonl", lines(items))
    _, endpoint = hall.broker(f"ipc://{hall.runtime}/b", "--workers", "3")
    workers = [hall.worker(endpoint, f"w{i}", "--sequences", "8") for i in range(3)]
    hall.wait_log("broker", "hall.open")
    run = hall.start("run", "--broker", endpoint, "in.jsonl", "-o", "out.jsonl")
    hall.wait_lines("out.jsonl", 1)
    workers[1].kill()
    workers[1].wait()
    until = time.monotonic() + 30 * SLOW
    while "its worker w1 is not here" not in hall.call("status", "--broker", endpoint).out:
        check(time.monotonic() < until, "status never named the shard without a seat")
    workers[1] = hall.worker(endpoint, "w1", "--sequences", "8")
    code, _, err = ended(run, 120)
    results = hall.results()
    check(code == 0 and sures(results) == expected, (code, err))
    lost = [r for r in results if r["moothall"]["infra"]]
    check(0 < len(lost) < 200 and max(infra(results)) == 1, f"{len(lost)} lost, at most {max(infra(results))} times")
    check(all(r["moothall"]["attempt"] == 0 for r in results), "a lost worker was counted as the job's own failure")
    audit = hall.call("audit", "--broker", endpoint)
    check(audit.code == 0 and "300 jobs, 300 generations, 300 entries" in audit.out, audit)
    hall.close()


def the_broker_dies_under_surviving_workers():
    """Leases go on: nothing is computed again."""
    items = requests(200, seed=42, tokens=60)
    expected = undisturbed(items)
    hall = Hall("widow")
    hall.write("in.jsonl", lines(items))
    broker, endpoint = hall.broker(f"ipc://{hall.runtime}/b", "--workers", "2")
    for i in range(2):
        hall.worker(endpoint, f"w{i}")
    hall.wait_log("broker", "hall.open")
    run = hall.start("run", "--broker", endpoint, "in.jsonl", "-o", "out.jsonl")
    hall.wait_lines("out.jsonl", 1)
    for _ in range(2):
        broker.kill()
        broker.wait()
        broker, _ = hall.broker(endpoint, "--workers", "2")
        time.sleep(1)
    code, _, err = ended(run, 120)
    check(code == 0 and sures(hall.results()) == expected, (code, err))
    check(sum(infra(hall.results())) == 0, f"{sum(infra(hall.results()))} jobs were lost although no worker was")
    hall.close()


def a_worker_that_stands_still_longer_than_its_leases():
    """It is taken for dead, its jobs are done elsewhere, and its late results change nothing."""
    items = requests(300, seed=43, tokens=40)
    expected = undisturbed(items)
    hall = Hall("still")
    hall.write("in.jsonl", lines(items))
    _, endpoint = hall.broker(f"ipc://{hall.runtime}/b", "--workers", "2", "--lease-ms", "900ms", "--heartbeat-ms", "150ms")
    workers = [hall.worker(endpoint, f"w{i}", "--sequences", "8") for i in range(2)]
    hall.wait_log("broker", "hall.open")
    run = hall.start("run", "--broker", endpoint, "in.jsonl", "-o", "out.jsonl")
    hall.wait_lines("out.jsonl", 1)
    workers[0].send_signal(signal.SIGSTOP)
    hall.wait_log("broker", "job.lost")
    time.sleep(0.5)
    workers[0].send_signal(signal.SIGCONT)
    code, _, err = ended(run, 120)
    check(code == 0 and sures(hall.results()) == expected, (code, err))
    audit = hall.call("audit", "--broker", endpoint)
    check(audit.code == 0 and "300 entries" in audit.out, audit)
    check([w.poll() for w in workers] == [None, None], "a worker ended")
    hall.close()


def a_broker_that_stands_still_longer_than_its_leases():
    """On waking it hears the workers before it judges them: no job is lost, for no worker was."""
    items = requests(300, seed=47, tokens=40)
    expected = undisturbed(items)
    hall = Hall("asleep")
    hall.write("in.jsonl", lines(items))
    broker, endpoint = hall.broker(f"ipc://{hall.runtime}/b", "--workers", "2", "--lease-ms", "900ms", "--heartbeat-ms", "150ms")
    for i in range(2):
        hall.worker(endpoint, f"w{i}", "--sequences", "8")
    hall.wait_log("broker", "hall.open")
    run = hall.start("run", "--broker", endpoint, "in.jsonl", "-o", "out.jsonl")
    hall.wait_lines("out.jsonl", 1)
    broker.send_signal(signal.SIGSTOP)
    time.sleep(3)
    broker.send_signal(signal.SIGCONT)
    hall.wait_log("broker", "broker.paused")
    code, _, err = ended(run, 120)
    check(code == 0 and sures(hall.results()) == expected, (code, err))
    check(sum(infra(hall.results())) == 0, f"{sum(infra(hall.results()))} jobs were lost although no worker was")
    hall.close()


def more_workers_than_shards():
    items = requests(120, seed=44, tokens=30)
    expected = undisturbed(items)
    hall = Hall("crowd")
    hall.write("in.jsonl", lines(items))
    _, endpoint = hall.broker(f"ipc://{hall.runtime}/b", "--workers", "8")
    workers = [hall.worker(endpoint, f"w{i}", "--sequences", "8") for i in range(10)]
    hall.wait_log("broker", "worker.came", 10)
    done = hall.call("run", "--broker", endpoint, "in.jsonl", "-o", "out.jsonl")
    check(done.code == 0 and sures(hall.results()) == expected, done)
    by = {r["moothall"]["worker"] for r in hall.results()}
    check(len(by) >= 9, f"only {sorted(by)} worked")
    check([w.poll() for w in workers] == [None] * 10, "a worker ended")
    hall.close()


def submit_and_fetch_killed_again_and_again():
    """The broker and a worker die in between, too; still every file has every result once."""
    items = requests(1200, seed=45, tokens=8)
    hall = Hall("again")
    draw = random.Random(45)
    hall.write("in.jsonl", lines(items))
    broker, endpoint = hall.broker(f"ipc://{hall.runtime}/b", "--workers", "2")
    workers = [hall.worker(endpoint, f"w{i}") for i in range(2)]
    hall.wait_log("broker", "hall.open")
    words = ["submit", "--broker", endpoint, "--queue", "q", "--batch", "b", "in.jsonl"]
    for _ in range(8):
        process = hall.start(*words)
        try:
            process.wait(draw.random() * 0.1)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
    done = hall.call(*words)
    check(done.code == 0 and done.out == "b\n", done)
    for order in ("completion", "input"):
        words = ["fetch", "--broker", endpoint, "--queue", "q", "--batch", "b", "--consumer", order, "--order", order, "--wait",
                 "-o", order + ".jsonl"]
        for number in range(8):
            process = hall.start(*words)
            try:
                process.wait(0.05 + draw.random() * 0.6)
            except subprocess.TimeoutExpired:
                process.kill()
            process.communicate()
            if number == 3:
                broker.kill()
                broker.wait()
                broker, _ = hall.broker(endpoint, "--workers", "2")
            if number == 5:
                workers[0].kill()
                workers[0].wait()
                workers[0] = hall.worker(endpoint, "w0")
        done = hall.call(*words)
        check(done.code == 0, done)
        ids = [r["custom_id"] for r in hall.results(order + ".jsonl")]
        check(sorted(ids) == sorted(i["custom_id"] for i in items), f"{order}: {len(ids)} lines, {len(set(ids))} of them different")
        check(order == "completion" or ids == [i["custom_id"] for i in items], "not in the order of the input")
    audit = hall.call("audit", "--broker", endpoint, "--batch", "b")
    check(audit.code == 0 and "1200 jobs, 1200 generations, 1200 entries" in audit.out, audit)
    audit = hall.call("audit", "--broker", endpoint, "--batch", "mistyped")
    check(audit.code == 1 and "mistyped" in audit.err, audit)
    follow = hall.start("fetch", "--broker", endpoint, "--queue", "q", "--follow", "-o", "follow.jsonl")
    time.sleep(2 * SLOW)
    follow.send_signal(signal.SIGINT)
    code, _, err = ended(follow)
    check(code == 0 and len(hall.results("follow.jsonl")) == 1200, (code, err))
    hall.close()


def a_batch_that_is_there_already():
    """Its name with other requests is refused, and nothing else than --update replaces them."""
    items = requests(12, seed=46, tokens=6)
    hall = Hall("taken")
    hall.write("in.jsonl", lines(items))
    _, endpoint = hall.broker(f"ipc://{hall.runtime}/b", "--workers", "1")
    hall.worker(endpoint, "w")
    words = ["run", "--broker", endpoint, "--batch", "b", "in.jsonl"]
    done = hall.call(*words, "-o", "first.jsonl")
    check(done.code == 0, done)
    items[5]["body"]["max_tokens"] = items[5]["body"]["max_tokens"] + 1
    hall.write("in.jsonl", lines(items))
    done = hall.call(*words, "-o", "second.jsonl")
    check(done.code == 1 and "line 6" in done.err and "--update" in done.err, done)
    done = hall.call(*words, "-o", "second.jsonl", "--update")
    check(done.code == 0 and sures(hall.results("second.jsonl")) == undisturbed(items), done)
    check([r["moothall"]["generation"] for r in hall.results("second.jsonl")] == [2 if i == 5 else 1 for i in range(12)], "others were done again")
    hall.close()


main({case.__name__: case for case in (
    a_batch_that_is_there_already, who_may_not_come_in, a_worker_dies_and_comes_back_under_its_name, the_broker_dies_under_surviving_workers,
    a_worker_that_stands_still_longer_than_its_leases, a_broker_that_stands_still_longer_than_its_leases, more_workers_than_shards, submit_and_fetch_killed_again_and_again)})
