#!/usr/bin/env python3
"""The rest of a job's life: cancelled, done again, expired, held back, preferred, paused, erased, followed.

    life_test.py BUILD_DIR SOURCE_DIR [case ...]
"""

import json
import os
import random
import signal
import subprocess
import time

from run_hall import SLOW, Hall, Place, check, ended, lines, main, requests, sures, undisturbed


def ask(custom_id, prompt="The package is", **more):
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": {"prompt": prompt, "max_tokens": 1, "temperature": 0, **more}}


def hall_of(name, workers=1):
    """A hall with that many workers at their seats, and the flags that name it."""
    hall = Hall(name)
    hall.at = ["--broker", hall.broker(f"ipc://{hall.runtime}/b", "--workers", str(max(workers, 1)))[1]]
    hall.join = lambda who="w": hall.worker(hall.at[1], who)
    for i in range(workers):
        hall.join(f"w{i}")
    if workers:
        hall.wait_log("broker", "hall.open")
    return hall


def submit(hall, batch, items, *flags):
    hall.write("in.jsonl", lines(items))
    return hall.call("submit", *hall.at, "--batch", batch, "in.jsonl", *flags)


def fetched(hall, batch, *flags):
    done = hall.call("fetch", *hall.at, "--batch", batch, "--order", "input", "--wait", *flags)
    return done.code, [json.loads(line) for line in done.out.splitlines()]


def status(hall, *flags):
    done = hall.call("status", *hall.at, "--json", *flags)
    check(done.code == 0, done)
    return json.loads(done.out)


def codes(results):
    return [r["error"]["code"] if r["error"] else "done" for r in results]


def wait_until(what, true, seconds=30):
    until = time.monotonic() + seconds * SLOW
    while not true():
        check(time.monotonic() < until, f"never came: {what}")
        time.sleep(0.05)


def audit(hall):
    done = hall.call("audit", *hall.at)
    check(done.code == 0, done)


def a_running_batch_is_cancelled():
    """Acknowledged at once, nothing begun after it, what was done delivered."""
    hall = hall_of("cancel")
    check(submit(hall, "b", [ask(f"r{i}", f"number {i}", max_tokens=4) for i in range(10000)]).code == 0, "submit")
    wait_until("some are done", lambda: status(hall, "--batch", "b")["request_counts"]["completed"] >= 100)
    begun = time.monotonic()
    done = hall.call("cancel", *hall.at, "--batch", "b", "--reason", "wrong prompt")
    took, said_ms = time.monotonic() - begun, time.time() * 1000
    check(done.code == 0 and "requests cancelled" in done.err, done)
    check(took < 0.1 * 5 * SLOW, f"took {took * 1000:.0f} ms")  # all of a process, on a machine that others use
    check(status(hall, "--batch", "b")["moothall"]["counts"]["leased"] == 0, "some are leased still")
    code, results = fetched(hall, "b")
    kinds = codes(results)
    done_count = kinds.count("done")
    check(code == 2 and len(results) == 10000 and set(kinds) == {"done", "batch_cancelled"} and done_count >= 100, f"{code} {len(results)} {done_count}")
    late = [r for r in results if not r["error"] and r["moothall"]["leased_ms"] > said_ms + 5]
    check(not late, f"{len(late)} were begun after the cancel")
    check(all(r["response"] is None and r["error"]["message"] == "wrong prompt" for r in results if r["error"]), results[-1])
    batch = status(hall, "--batch", "b")
    check(batch["object"] == "batch" and batch["id"] == "b" and batch["endpoint"] == "/v1/completions", batch)
    check(batch["status"] == "cancelled" and batch["cancelling_at"] <= batch["cancelled_at"] and batch["completed_at"] is None, batch)
    check(batch["request_counts"] == {"total": 10000, "completed": done_count, "failed": 10000 - done_count}, batch)
    usage = batch["usage"]
    check(usage["output_tokens"] >= done_count and usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"], usage)
    done = hall.call("cancel", *hall.at, "--batch", "b")
    check(done.code == 0 and "nothing to cancel" in done.err, done)
    done = submit(hall, "b", [ask("more")])
    check(done.code == 1 and "takes no more requests" in done.err and "wrong prompt" in done.err, done)
    for words in (["--batch", "mistyped"], ["--batch", "b", "nobody"], []):
        done = hall.call("cancel", *hall.at, *words)
        check(done.code == 1 and (words[-1:] or ["--batch"])[0] in done.err, done)
    check("no queue has a batch `mistyped`" in hall.call("retry", *hall.at, "--batch", "mistyped").err, "which is not there?")
    audit(hall)
    print(f"    acknowledged, with the process, within {took * 1000:.0f} ms; {done_count} were done")
    hall.close()


def a_batch_is_cancelled_while_it_is_submitted():
    """The submit ends with the reason, and what had come of it by then is cancelled and counted."""
    hall = hall_of("growing", workers=0)
    hall.write("in.jsonl", lines([ask(f"r{i}", f"number {i}") for i in range(20000)]))
    for batch in "abc":  # what grows between two questions of the cancel does so by chance
        run = hall.start("submit", *hall.at, "--batch", batch, "in.jsonl")
        wait_until("some are there", lambda: hall.call("status", *hall.at, "--batch", batch).code == 0)
        done = hall.call("cancel", *hall.at, "--batch", batch, "--reason", "wrong file", "--wait")
        check(done.code == 0 and "; 0 had ended" in done.err, done)
        code, _, err = ended(run)
        check(code == 1 and "wrong file" in err, (code, err))
        code, results = fetched(hall, batch)
        check(code == 2 and f" {len(results)} requests cancelled" in done.err and len(results) < 20000, (len(results), done))
        counts = status(hall, "--batch", batch)["request_counts"]
        check(counts == {"total": 20000, "completed": 0, "failed": len(results)}, counts)
    audit(hall)
    hall.close()


def some_requests_are_cancelled_and_done_again():
    """By custom_id or id; a retry takes what ended otherwise than done, and only what is asked."""
    hall = hall_of("again", workers=0)
    items = [ask(f"r{i}") for i in range(6)] + [ask("faulty", [10, 999999]), ask("refused", colour=1)]
    check(submit(hall, "b", items).code == 2, "submit")
    check(hall.call("cancel", *hall.at, "--batch", "b", "r1", "r2").code == 0, "cancel")
    hall.join()
    code, results = fetched(hall, "b")
    kinds = codes(results)
    check(code == 2 and kinds[:6] == ["done", "batch_cancelled", "batch_cancelled"] + ["done"] * 3 and len(set(kinds)) == 4, kinds)
    first = results[1]["id"]
    for words, code, says in ((["--only", "expired"], 0, "nothing to do again"), ([first], 0, "1 requests are done again"),
                              (["--only", "cancelled,dead"], 0, "1 requests are done again"), (["r0"], 0, "nothing to do again"),
                              (["r0", "nobody"], 1, "nobody"), (["--only", "faield"], 1, "faield"), (["--only", "dead,dead"], 1, "twice"),
                              (["--only", "failed"], 2, "refused by its client")):
        done = hall.call("retry", *hall.at, "--batch", "b", *words)
        check(done.code == code and says in done.err, (words, done))
    code, results = fetched(hall, "b")
    check(codes(results)[:6] == ["done"] * 6 and codes(results)[6:] == kinds[6:], codes(results))
    check([r["moothall"]["generation"] for r in results] == [1, 2, 2, 1, 1, 1, 2, 1], results)
    check(hall.call("retry", "--batch", "b").code == 1 and hall.call("retry", *hall.at, "--batch", "c").code == 1, "retry of nothing")
    # A batch that was cancelled as a whole is open again after a retry.
    check(hall.call("pause", *hall.at, "--queue", "default").code == 0, "pause")
    check(submit(hall, "c", items[:6]).code == 0 and hall.call("cancel", *hall.at, "--batch", "c", "--wait").code == 0, "cancel c")
    check(status(hall, "--batch", "c")["status"] == "cancelled" and submit(hall, "c", [ask("new")]).code == 1, "c is open")
    check(hall.call("retry", *hall.at, "--batch", "c").code == 0 and submit(hall, "c", items[:6] + [ask("new")]).code == 0, "c is closed")
    # Two queues may have a batch of one name: nothing is done to one of them by chance.
    check(submit(hall, "c", items[:6], "--queue", "other").code == 0, "the other c")
    for words in (["cancel"], ["retry"], ["purge"]):
        done = hall.call(*words, *hall.at, "--batch", "c")
        check(done.code == 1 and "`default`" in done.err and "`other`" in done.err and "--queue" in done.err, done)
    check([b["queue"] for b in status(hall, "--batch", "c")["batches"]] == ["default", "other"], status(hall, "--batch", "c"))
    check("batch c of queue other" in hall.call("status", *hall.at, "--batch", "c").out, "status of both")
    check(hall.call("cancel", *hall.at, "--batch", "c", "--queue", "other", "--wait").code == 0, "the other c")
    # Many at once, one of them by its id (which another batch's job does not have).
    check(submit(hall, "many", [ask(f"m{i}") for i in range(700)]).code == 0, "many")
    done = hall.call("cancel", *hall.at, "--batch", "many", "--quiet", *(f"m{i}" for i in range(600)))
    check(done.code == 0 and done.err == "" and status(hall, "--batch", "many")["request_counts"]["failed"] == 600, done)
    done = hall.call("cancel", *hall.at, "--batch", "many", "m650", first)
    check(done.code == 1 and first in done.err, done)
    last = json.loads(hall.call("fetch", *hall.at, "--batch", "many", "--order", "completion").out.splitlines()[-1])
    check(hall.call("retry", *hall.at, "--batch", "many", last["id"], "m1").code == 0, last)
    check(status(hall, "--batch", "many")["request_counts"]["failed"] == 599, status(hall, "--batch", "many"))
    check(hall.call("resume", *hall.at, "--queue", "default").code == 0, "resume")
    code, results = fetched(hall, "c")
    batch = status(hall, "--batch", "c", "--queue", "default")
    check(code == 0 and len(results) == 7 and batch["status"] == "completed" and batch["cancelled_at"] is None, batch)
    audit(hall)
    hall.close()


def what_is_too_late_expires():
    hall = hall_of("late", workers=0)
    items = [ask(f"r{i}") for i in range(5)]
    check(submit(hall, "deadline", items, "--deadline", "1s").code == 0, "submit")
    check(submit(hall, "ttl", items, "--ready-ttl", "1s").code == 0, "submit")
    check(submit(hall, "held", items, "--not-before", "3s", "--deadline", "10m").code == 0, "submit")
    for flags, says in ((["--deadline", "soon"], "soon"), (["--deadline", "2020-01-01T00:00:00Z"], "before now"), (["--not-before", "5"], "duration"),
                        (["--deadline", "1s", "--not-before", "1h"], "before --not-before"), (["--priority", "urgent"], "high")):
        done = submit(hall, "wrong", items, *flags)
        check(done.code == 1 and says in done.err, done)
    held = status(hall, "--batch", "held")
    check(held["moothall"]["counts"]["delayed"] == 5 and held["status"] == "validating" and held["in_progress_at"] is None, held)
    check(550 < held["expires_at"] - time.time() <= 600, held)
    for batch in ("deadline", "ttl"):
        code, results = fetched(hall, batch)
        check(code == 2 and codes(results) == ["batch_expired"] * 5 and all(r["error"]["message"] for r in results), results)
        shown = status(hall, "--batch", batch)
        check(shown["status"] == "expired" and shown["expired_at"] and shown["request_counts"]["failed"] == 5, shown)
    begun = time.time() * 1000
    hall.join()
    code, results = fetched(hall, "held")
    check(code == 0 and len(results) == 5, results)
    check(all(r["moothall"]["leased_ms"] >= min(begun, r["moothall"]["created_ms"] + 3000) for r in results), results)
    check(status(hall, "--batch", "held")["in_progress_at"] >= held["created_at"], "in progress")
    audit(hall)
    hall.close()


def the_urgent_goes_first():
    """And the rest gets its share meanwhile."""
    hall = hall_of("urgent", workers=0)
    for priority in ("low", "normal", "high"):
        check(submit(hall, priority, [ask(f"{priority}{i}") for i in range(150)], "--priority", priority).code == 0, priority)
    hall.join()
    order = [json.loads(line)["custom_id"] for line in hall.call("fetch", *hall.at, "--queue", "default", "--wait", "--batch", "high").out.splitlines()]
    check(len(order) == 150, len(order))
    for priority in ("low", "normal"):
        check(fetched(hall, priority)[0] == 0, priority)
    order = [json.loads(line)["custom_id"] for line in hall.call("fetch", *hall.at, "--queue", "default").out.splitlines()]
    mean = {p: sum(i for i, name in enumerate(order) if name.startswith(p)) / 150 for p in ("low", "normal", "high")}
    check(len(order) == 450 and mean["high"] < mean["normal"] < mean["low"], mean)
    low = [i for i, name in enumerate(order) if name.startswith("low")]
    check(low[0] < max(i for i, name in enumerate(order) if name.startswith("high")), f"the first of low was served only after {low[0]} others")
    hall.close()


def a_paused_queue_waits():
    """Nothing of it is begun; other queues go on."""
    hall = hall_of("pause")
    items = [ask(f"r{i}") for i in range(10)]
    check(submit(hall, "first", items).code == 0 and fetched(hall, "first")[0] == 0, "first")
    done = hall.call("pause", *hall.at, "--queue", "default")
    check(done.code == 0 and "paused" in done.err, done)
    check(submit(hall, "second", items).code == 0, "second")
    check(submit(hall, "other", items, "--queue", "other").code == 0 and fetched(hall, "other", "--queue", "other")[0] == 0, "other")
    check(status(hall, "--batch", "second")["moothall"]["counts"]["ready"] == 10, "something was begun")
    queues = {q["name"]: q["paused"] for q in status(hall)["queues"]}
    check(queues == {"default": True, "other": False}, queues)
    check("queue default is paused" in hall.call("status", *hall.at).out, "status does not say it")
    run = hall.start("run", *hall.at, "in.jsonl", "-o", "out.jsonl", "--batch", "third")
    said = run.stderr.readline().decode()
    check("queue default is paused" in said and run.poll() is None, said)
    done = hall.call("resume", *hall.at, "--queue", "default")
    check(done.code == 0 and fetched(hall, "second")[0] == 0, done)
    code, _, err = ended(run)
    check(code == 0 and len(hall.results()) == 10, (code, err))
    for words in (["--queue", "nowhere"], []):
        done = hall.call("pause", *hall.at, *words)
        check(done.code == 1 and (words or ["--queue"])[-1] in done.err, done)
    hall.close()


def what_is_purged_is_gone():
    """From the files, not only from the answers; audits and consumers hold."""
    marker = "Zyxwvut"
    hall = hall_of("purge")
    items = [ask(f"r{i}", f"{marker} {i}", echo=True) for i in range(30)]

    def stored():
        found = 0
        for name in os.listdir(hall.dir):
            if name.startswith("hall.db"):
                found += hall.read(name).count(marker.encode())
        return found

    check(submit(hall, "b", items).code == 0 and fetched(hall, "b")[0] == 0, "b")
    check(stored() >= 60, f"the marker is stored {stored()} times")
    for words, says in ((["--queue", "default"], "--older-than"), ([], "--batch"), (["--batch", "mistyped"], "mistyped"),
                        (["--queue", "default", "--older-than", "old"], "older-than")):
        done = hall.call("purge", *hall.at, *words)
        check(done.code == 1 and says in done.err, done)
    done = hall.call("purge", *hall.at, "--batch", "b", "--older-than", "1h")
    check(done.code == 0 and " 0 requests" in done.err, done)
    done = hall.call("purge", *hall.at, "--batch", "b")
    check(done.code == 0 and " 30 requests" in done.err, done)
    check(stored() == 0, f"the marker is stored {stored()} times after the purge")
    code, results = fetched(hall, "b")
    check(code == 2 and codes(results) == ["result_purged"] * 30 and all(r["response"] is None for r in results), results[0])
    done = hall.call("retry", *hall.at, "--batch", "b", "r1")
    check(done.code == 0 and "nothing to do again" in done.err, done)
    done = hall.call("retain", *hall.at, "--queue", "default", "--keep", "1s")
    check(done.code == 0 and "for 1 s" in done.err and status(hall)["queues"][0]["retention_ms"] == 1000, done)
    check(submit(hall, "c", items).code == 0 and fetched(hall, "c")[0] in (0, 2), "c")
    wait_until("retention", lambda: status(hall)["queues"][0]["purged"] >= 60)
    wait_until("retention reaches the files", lambda: stored() == 0)
    check(hall.call("retain", *hall.at, "--queue", "default").code == 1, "retain without --keep")
    audit(hall)
    hall.close()


def consumers_follow():
    """Two of them, each at its own place, one killed again and again; a batch's end is the end of following it."""
    items = [ask(f"r{i}", f"number {i}") for i in range(400)]
    hall = hall_of("follow")
    check(submit(hall, "b", items[:10]).code == 0, "submit")
    steady = hall.start("fetch", *hall.at, "--queue", "default", "--consumer", "steady", "--follow", "-o", "steady.jsonl")
    killed = ["fetch", *hall.at, "--queue", "default", "--consumer", "killed", "--follow", "-o", "killed.jsonl"]
    draw = random.Random(7)
    check(submit(hall, "c", items).code == 0, "submit")
    for _ in range(6):
        process = hall.start(*killed)
        try:
            process.wait(0.1 + draw.random() * 0.4)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
    batch = hall.call("fetch", *hall.at, "--batch", "c", "--follow", "-o", "batch.jsonl")
    check(batch.code == 0 and len(hall.results("batch.jsonl")) == 400, batch)
    last = hall.start(*killed)
    wait_until("both are at the end", lambda: {c["name"]: c["position"] for c in status(hall)["queues"][0]["consumers"]} == {"steady": 411, "killed": 411})
    for process, name in ((steady, "steady"), (last, "killed")):
        process.send_signal(signal.SIGINT)
        code, _, err = ended(process)
        results = hall.results(name + ".jsonl")
        names = [(r["id"], r["custom_id"]) for r in results]
        check(code == 0 and len(names) == len(set(names)) == 410, (code, err, len(names), len(set(names))))
    check(hall.read("steady.jsonl") == hall.read("killed.jsonl"), "two consumers read different things")
    check("consumer steady: has 410 of 410 results" in hall.call("status", *hall.at).out, "status does not show consumers")
    # On a stream the place is kept, too: a second look has only what is new.
    words = ["fetch", *hall.at, "--queue", "default", "--consumer", "stream", "--follow"]
    process = hall.start(*words)
    time.sleep(1 * SLOW)
    process.send_signal(signal.SIGINT)
    code, out, _ = ended(process)
    check(code == 0 and out.count("\n") == 410 and hall.call(*words[:-1]).out == "", (code, out.count("\n")))
    hall.close()


def a_consumer_keeps_to_its_file_and_order():
    """A file that it has not written is never cut or written over, whatever name was mistyped."""
    hall = hall_of("files")
    items = [ask(f"r{i}", f"number {i}") for i in range(30)]
    check(submit(hall, "b", items[:20]).code == 0 and fetched(hall, "b")[0] == 0, "b")
    words = ["fetch", *hall.at, "--batch", "b", "--consumer", "c"]
    check(hall.call(*words, "-o", "c.jsonl").code == 0 and len(hall.results("c.jsonl")) == 20, "c")
    whole = hall.read("c.jsonl")
    check(submit(hall, "d", items).code == 0 and hall.call("fetch", *hall.at, "--batch", "d", "--wait", "-o", "d.jsonl").code == 0, "d")
    for name, data in (("long.txt", b"x" * 100000), ("short.txt", b"mine"), ("other.jsonl", hall.read("d.jsonl")), ("cut.jsonl", whole[:-10])):
        hall.write(name, data)
        done = hall.call(*words, "-o", name)
        check(done.code == 1 and name in done.err and hall.read(name) == data, (name, done))
    done = hall.call(*words, "--order", "input", "-o", "c.jsonl")
    check(done.code == 1 and "completion order" in done.err and hall.read("c.jsonl") == whole, done)
    # A consumer that knows of nothing yet has written nothing either.
    check(hall.call("pause", *hall.at, "--queue", "default").code == 0 and submit(hall, "e", items).code == 0, "e")
    words = ["fetch", *hall.at, "--batch", "e", "--consumer", "c"]
    check(hall.call(*words, "-o", "e.jsonl").code == 0 and hall.read("e.jsonl") == b"", "e.jsonl")
    done = hall.call(*words, "-o", "long.txt")
    check(done.code == 1 and len(hall.read("long.txt")) == 100000, done)
    check(hall.call("resume", *hall.at, "--queue", "default").code == 0 and fetched(hall, "e")[0] == 0, "resume")
    # What was written after the cursor was kept is cut, and another place or a copy is the same file.
    check(hall.call(*words, "-o", "e.jsonl").code == 0 and len(hall.results("e.jsonl")) == 30, "e.jsonl")
    hall.write("moved.jsonl", hall.read("e.jsonl") + b'{"id":"bat')
    check(hall.call(*words, "-o", "moved.jsonl").code == 0 and hall.read("moved.jsonl") == hall.read("e.jsonl"), "moved.jsonl")
    hall.close()


def nobody_is_seated():
    """`run` says so at once, waits, and goes on when a worker comes; `top` shows it meanwhile."""
    items = requests(20, seed=5, tokens=4)
    hall = hall_of("nobody", workers=0)
    hall.write("in.jsonl", lines(items))
    run = hall.start("run", *hall.at, "in.jsonl", "-o", "out.jsonl", "--priority", "high")
    first = run.stderr.readline().decode()
    check("has no seated worker" in first and hall.at[1] in first, first)
    top = hall.start("top", *hall.at, "--every", "200ms")
    time.sleep(1 * SLOW)
    top.send_signal(signal.SIGINT)
    code, out, err = ended(top)
    check(code == 0 and out.count("no workers") >= 2 and "20" in out, (code, out, err))
    check(run.poll() is None, "it did not wait")
    hall.join()
    code, _, err = ended(run)
    check(code == 0 and "a worker is seated now" in err and sures(hall.results()) == undisturbed(items), (code, err))
    quiet = hall.call("run", *hall.at, "in.jsonl", "-o", "quiet.jsonl", "--quiet")
    check(quiet.code == 0 and quiet.err == "", quiet)
    hall.close()


def a_run_of_the_first_lines():
    """--limit: another one is a run of other lines."""
    items = requests(12, seed=6, tokens=4)
    expected = undisturbed(items)
    place = Place("limit")
    place.write("in.jsonl", lines(items))
    check(place.run("in.jsonl", "--limit", "3", "--keep").code == 0 and sures(place.results()) == expected[:3], "first three")
    done = place.run("in.jsonl", "--limit", "3")
    check(done.code == 0 and "complete" in done.err, done)
    done = place.run("in.jsonl", "--limit", "8", "--update", "--keep")
    check(done.code == 0 and sures(place.results()) == expected[:8], done)
    done = place.run("in.jsonl", "--limit", "100", "--update")
    results = place.results()
    check(done.code == 0 and sures(results) == expected and all(r["moothall"]["generation"] == 1 for r in results), done)
    check(results[0]["moothall"]["finished_ms"] < results[11]["moothall"]["created_ms"], "the first three were done again")
    done = place.run("in.jsonl", "--limit", "5")
    check(done.code == 0 and "written anew" in done.err and sures(place.results()) == expected[:5], done)
    # One that is not finished goes on as it was, or with --update.
    place.write("bad.jsonl", lines(items[:2]) + "bad\n" + lines(items[2:8]))
    check(place.run("bad.jsonl", "--limit", "3", output="bad.out").code == 2, "a bad line")
    for limit, says in (("5", "line 4 is new"), ("2", "ends after 2")):
        done = place.run("bad.jsonl", "--limit", limit, output="bad.out")
        check(done.code == 1 and says in done.err, done)
    done = place.run("bad.jsonl", "--limit", "5", "--update", output="bad.out")
    results = place.results("bad.out")
    check(done.code == 2 and sures(results[:2] + results[3:]) == expected[:4], done)
    done = place.run("in.jsonl", "--limit", "0")
    check(done.code == 1 and "--limit" in done.err, done)
    done = place.call("run", "--model", "no", "-", "-o", "x", "--limit", "1", stdin=b"\n")
    check(done.code == 1, done)
    place.close()


def a_run_is_cancelled_and_goes_on():
    """From another terminal; --retry-failed does the rest."""
    items = [ask(f"r{i}", f"number {i}", max_tokens=16) for i in range(600)]
    expected = undisturbed(items)
    place = Place("stopped")
    place.write("in.jsonl", lines(items))
    run = place.start("run", "--model", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "deploy", "demo", "model"), "in.jsonl", "-o",
                      "out.jsonl")
    wait_until("results", lambda: os.path.exists(place.path("out.jsonl")) and place.read("out.jsonl").count(b"\n") > 5)
    done = place.call("cancel", "--state", "out.jsonl.moothall")
    check(done.code == 0 and "cancelled" in done.err, done)
    code, _, err = ended(run)
    kinds = codes(place.results())
    check(code == 2 and len(kinds) == 600 and set(kinds) == {"done", "batch_cancelled"}, (code, err, set(kinds)))
    done = place.run("in.jsonl")
    check(done.code == 2 and "--retry-failed" in done.err, done)
    done = place.run("in.jsonl", "--retry-failed")
    results = place.results()
    check(done.code == 0 and sures(results) == expected, done)
    generations = [r["moothall"]["generation"] for r in results]
    check(generations == [1 if kind == "done" else 2 for kind in kinds], "what was done was done again")
    place.nothing_left()
    place.close()


if __name__ == "__main__":
    main({case.__name__: case for case in (
        a_running_batch_is_cancelled, a_batch_is_cancelled_while_it_is_submitted, some_requests_are_cancelled_and_done_again, what_is_too_late_expires, the_urgent_goes_first, a_paused_queue_waits,
        what_is_purged_is_gone, consumers_follow, a_consumer_keeps_to_its_file_and_order, nobody_is_seated, a_run_of_the_first_lines, a_run_is_cancelled_and_goes_on)})
