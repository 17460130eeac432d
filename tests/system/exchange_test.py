"""Workers as real processes on the demo model: the same bytes whatever shares the work.

    exchange_test.py BUILD_DIR SOURCE_DIR [case ...]
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from exchange_hall import Hall

BUILD, SOURCE = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
MODEL = os.environ.get("MOOTHALL_TEST_MODEL") or os.path.join(SOURCE, "deploy", "demo", "model")
SLOW = 6 if os.environ.get("MOOTHALL_SLOW") else 1  # sanitizers


class Crew:
    """A hall and its worker processes."""

    def __init__(self, jobs=(), sanitize=False):
        self.directory = tempfile.mkdtemp(prefix="mh-")
        os.chmod(self.directory, 0o700)
        self.endpoint = f"ipc://{self.directory}/b"
        self.hall = Hall(SOURCE, self.endpoint, jobs)
        self.processes = {}

    def start(self, name, *flags, wait=True):
        before = self.hall.workers.get(name)
        log = open(f"{self.directory}/{name}.log", "ab")
        read, write = os.pipe()
        os.set_inheritable(read, True)
        self.processes[name] = subprocess.Popen(
            [f"{BUILD}/moothall-worker", "--broker", self.endpoint, "--model", MODEL, "--name", name, "--threads", "1",
             "--control-fd", str(read), *flags], stderr=log, close_fds=True, pass_fds=[read])
        self.processes[name].control = write
        os.close(read)
        if wait:
            self.hall.until(lambda: self.hall.workers.get(name) is not before or self.processes[name].poll() is not None,
                            30 * SLOW, f"{name} did not say hello")
            assert self.processes[name].poll() is None, self.log(name)

    def log(self, name):
        return open(f"{self.directory}/{name}.log").read()

    def deal(self, names):
        count = next(iter(self.hall.workers.values())).shard_count
        self.hall.deal([names[s * len(names) // count] for s in range(count)])

    def run(self, count, seconds=120):
        self.hall.until(lambda: len(self.hall.results) >= count, seconds * SLOW, f"{len(self.hall.results)} of {count} results")

    def end(self):
        codes = []
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for name, process in self.processes.items():
            end = time.monotonic() + 20 * SLOW
            while process.poll() is None and time.monotonic() < end:
                self.hall.turn(10)
            if process.poll() is None:
                process.kill()
            os.close(process.control)
            codes.append(process.wait())
            if codes[-1] not in (0, -9):
                sys.stderr.write(self.log(name))
        self.hall.close()
        if set(codes) <= {0, -9, 4}:
            shutil.rmtree(self.directory, ignore_errors=True)
        return codes


def make_jobs(count):
    """A mixture, the same in every case; some are refused."""
    draw = random.Random(4)
    words = "moothall (1.0-1) unstable; urgency=medium * New upstream release. Closes: #12345 -- Ann <ann@example.org> Mon, 01 Jan".split()
    jobs = []
    for i in range(count):
        text = " ".join(draw.choice(words) for _ in range(draw.randint(3, 120)))
        kind = i % 8
        job = {"id": f"job-{i}", "endpoint": "/v1/completions", "seed": i * 977 + 1}
        if kind == 0:
            job["endpoint"] = "/v1/chat/completions"
            job["body"] = {"messages": [{"role": "user", "content": text}], "max_tokens": draw.randint(1, 40)}
        elif kind == 1:
            job["body"] = {"prompt": text, "max_tokens": 40, "temperature": 1.0, "top_p": 0.95, "top_k": 50}
        elif kind == 2:
            job["body"] = {"prompt": [draw.randrange(1500) for _ in range(draw.randint(1, 300))], "max_tokens": 20, "logprobs": 3}
        elif kind == 3:
            job["body"] = {"prompt": text, "max_tokens": 0, "echo": True, "logprobs": 2}
        elif kind == 4:
            job["endpoint"] = "/v1/chat/completions"
            job["body"] = {"messages": [{"role": "system", "content": "Short."}, {"role": "user", "content": text}],
                           "max_tokens": 30, "logprobs": True, "top_logprobs": 2, "temperature": 0.7}
        elif kind == 5:
            job["body"] = {"prompt": text, "max_tokens": 30, "stop": ["e", "1."], "temperature": 0.5}
        elif kind == 6:
            job["body"] = {"prompt": text, "max_tokens": 80, "temperature": 1.2}
        else:
            job["body"] = [{"prompt": [7, 9999999], "max_tokens": 5}, {"prompt": text, "max_tokens": 100000},
                           {"prompt": text, "nonsense": 1}, {"prompt": text, "max_tokens": 25, "echo": True}][i // 8 % 4]
        jobs.append(job)
    return jobs


def bytes_of(crew):
    return {job: (result.outcome, result.status_code, result.prompt_tokens, result.generated_tokens, body)
            for job, (result, body) in crew.hall.results.items()}


def compare(name, got, expected):
    assert got.keys() == expected.keys(), f"{name}: other jobs"
    for job in expected:
        assert got[job] == expected[job], f"{name}: {job} differs:\n{got[job]}\n{expected[job]}"


def run_crew(jobs, names, *flags):
    crew = Crew(jobs)
    for name in names:
        crew.start(name, *flags)
    crew.deal(names)
    crew.run(len(jobs))
    time.sleep(0.5)
    crew.hall.turn()
    beats = {w.name: w.beat for w in crew.hall.workers.values()}
    got = bytes_of(crew)
    codes = crew.end()
    assert codes == [0] * len(codes), f"exit status {codes}"
    return got, beats


JOBS = make_jobs(64)
BASE = None


def base():
    global BASE
    if BASE is None:
        BASE, beats = run_crew(list(JOBS), ["w0"])
        assert beats["w0"].exchange.dispatches == 0
        outcomes = [v[0] for v in BASE.values()]
        assert outcomes.count(1) >= 50 and outcomes.count(2) == 6, outcomes
    return BASE


def check_messages(beats):
    """At most two messages (a dispatch and its answer) a MoE layer, peer and decode step."""
    for name, beat in beats.items():
        e = beat.exchange
        peers = len(beats) - 1
        assert e.decode_steps > 0 and e.moe_layers == 4
        assert e.decode_dispatches <= e.decode_steps * e.moe_layers * peers, f"{name}: {e}"
        assert e.resent <= e.dispatches // 10, f"{name}: {e}"  # none, but for a machine that stands still for seconds
        print(f"  {name}: {e.decode_steps} decode steps, {e.decode_dispatches} dispatches in them, "
              f"{2 * e.decode_dispatches / (e.decode_steps * e.moe_layers * peers):.2f} messages a layer, peer and decode step")


def case_two_workers():
    got, beats = run_crew(list(JOBS), ["w0", "w1"])
    compare("two workers", got, base())
    check_messages(beats)
    assert all(b.exchange.served > 0 for b in beats.values())


def case_three_workers_shuffled():
    jobs = list(JOBS)
    random.Random(1).shuffle(jobs)
    got, beats = run_crew(jobs, ["w0", "w1", "w2"])
    compare("three workers, shuffled", got, base())
    check_messages(beats)


def case_one_at_a_time():
    got, _ = run_crew(list(JOBS), ["w0"], "--sequences", "1", "--batch-tokens", "17")
    compare("one at a time, in chunks of 17", got, base())


def case_cache_is_full():
    """So small that sequences are sent away and start over."""
    jobs = [{"id": f"long-{i}", "endpoint": "/v1/completions", "seed": i,
             "body": {"prompt": f"{i} times", "max_tokens": 150 + 10 * i, "temperature": 2, "logprobs": 1}} for i in range(16)]
    roomy, _ = run_crew(list(jobs), ["w0"])
    crew = Crew(list(jobs))
    crew.start("w0", "--cache", str(64 * 960 * 10))
    crew.deal(["w0"])
    crew.run(len(jobs))
    compare("preemption", bytes_of(crew), roomy)
    assert "sequence.preempted" in crew.log("w0"), "nothing was preempted: the case tests nothing"
    assert crew.end() == [0]


def case_threads():
    got, _ = run_crew(list(JOBS), ["w0"], "--threads", "2")
    compare("two threads", got, base())


def case_alone():
    jobs = [dict(j, alone=i % 5 == 0) for i, j in enumerate(JOBS[:24])]
    got, _ = run_crew(jobs, ["w0", "w1"])
    compare("some alone", got, {j["id"]: base()[j["id"]] for j in jobs})


def case_worker_killed():
    """The only holder of half of the shards dies in the middle; its successor takes its seats."""
    for trial in range(3):
        crew = Crew(list(JOBS))
        crew.start("w0")
        crew.start("w1")
        crew.deal(["w0", "w1"])
        crew.run(4 + 12 * trial)
        crew.processes["w1"].kill()
        crew.processes["w1"].wait()
        crew.hall.lose("w1")
        # The one that is left says what it waits for, and keeps its leases.
        w0 = crew.hall.workers["w0"]
        crew.hall.until(lambda: w0.beat.waiting_shard >= 4 or not w0.held, 10 * SLOW, "w0 did not say what it waits for")
        crew.start("w1")
        crew.deal(["w0", "w1"])
        crew.run(len(JOBS))
        compare(f"worker killed, trial {trial}", bytes_of(crew), base())
        assert crew.hall.doubled == 0
        codes = crew.end()
        assert codes == [0, 0], codes


def case_worker_stands_still():
    """A holder that does not answer for seconds is asked again; computing a call twice changes nothing."""
    crew = Crew(list(JOBS))
    crew.start("w0")
    crew.start("w1")
    crew.deal(["w0", "w1"])
    crew.run(8)
    crew.processes["w1"].send_signal(signal.SIGSTOP)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        crew.hall.turn()
    beat = crew.hall.workers["w0"].beat
    assert beat.exchange.resent > 0 and beat.waiting_shard >= 4, beat
    crew.processes["w1"].send_signal(signal.SIGCONT)
    crew.run(len(JOBS))
    compare("worker stands still", bytes_of(crew), base())
    assert crew.end() == [0, 0]


def case_spare_worker():
    """One that holds no seat still takes leases."""
    crew = Crew(list(JOBS))
    for name in ("w0", "w1", "spare"):
        crew.start(name)
    crew.deal(["w0", "w1"])
    crew.run(len(JOBS))
    compare("a spare", bytes_of(crew), base())
    beat = crew.hall.workers["spare"].beat
    assert beat.exchange.dispatches > 0 and beat.exchange.served == 0, beat
    assert crew.end() == [0, 0, 0]


def case_seats_move():
    """The next map divides the shards differently while rows are away."""
    crew = Crew(list(JOBS))
    for name in ("w0", "w1", "w2"):
        crew.start(name)
    crew.deal(["w0", "w1", "w2"])
    for i, names in enumerate((["w2", "w0", "w1"], ["w1", "w2"], ["w0", "w1", "w2"])):
        crew.run(8 * (i + 1))
        crew.deal(names)
    crew.run(len(JOBS))
    compare("seats move", bytes_of(crew), base())
    assert crew.end() == [0, 0, 0]


def case_leaving_gives_leases_back():
    crew = Crew(list(JOBS))
    crew.start("w0", "--sequences", "4")
    crew.deal(["w0"])
    crew.run(6)
    crew.processes["w0"].send_signal(signal.SIGTERM)
    crew.hall.until(lambda: crew.processes["w0"].poll() is not None, 20 * SLOW)
    for _ in range(5):
        crew.hall.turn()
    assert crew.processes["w0"].returncode == 0, crew.log("w0")
    assert not crew.hall.leased, "leases were kept"
    assert len(crew.hall.results) + len(crew.hall.jobs) == len(JOBS)
    crew.end()


def case_control_pipe():
    crew = Crew()
    crew.start("w0")
    os.close(crew.processes["w0"].control)
    crew.hall.until(lambda: crew.processes["w0"].poll() is not None, 20 * SLOW)
    assert crew.processes["w0"].returncode == 0
    crew.processes["w0"].control = os.open("/dev/null", os.O_RDONLY)
    crew.end()


def case_errors_at_the_start():
    def worker(*flags):
        done = subprocess.run([f"{BUILD}/moothall-worker", *flags], capture_output=True, text=True, timeout=60 * SLOW)
        return done.returncode, done.stderr
    broker = ["--broker", "ipc:///tmp/nobody-listens-here"]
    for flags, code, word in (
            (["--model", MODEL], 1, "--broker"),
            (broker, 1, "--model"),
            (broker + ["--model", "/nonexistent", "--log-level", "quiet"], 3, "/nonexistent"),
            (broker + ["--model", MODEL, "--weights", "q8"], 1, "not built yet"),
            (broker + ["--model", MODEL, "--weights", "f16"], 1, "bf16"),
            (broker + ["--model", MODEL, "--thread", "1"], 1, "--threads"),
            (broker + ["--model", MODEL, "--control-fd", "99"], 1, "99"),
            (broker + ["--model", MODEL, "--chat-template", "v9", "--log-level", "quiet"], 3, "v9"),
            (["--broker", "gopher://x", "--model", MODEL, "--log-level", "quiet"], 1, "gopher"),
            (broker + ["--model", MODEL, "--exchange", "tcp://0.0.0.0:7000", "--log-level", "quiet"], 1, "loopback"),
            (broker + ["--model", MODEL, "--cache", "1000", "--log-level", "quiet"], 1, "--cache"),
            (broker + ["--model", MODEL, "extra"], 1, "extra"),
            (["--config", "/nonexistent.yaml"], 1, "/nonexistent.yaml")):
        got, text = worker(*flags)
        assert got == code and word in text and text.count("\n") == 1, f"{flags}: {got} {text!r}"
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
        f.write(f"model: {MODEL}\nthreds: 2\n")
        f.flush()
        got, text = worker("--config", f.name)
        assert got == 1 and ":2:1" in text and "threads" in text, text
    assert worker("--help")[0] == 0


def case_refused():
    """Another model, another family: the broker's text reaches the terminal, once."""
    crew = Crew()
    hall, take = crew.hall, crew.hall.take

    def refuse(route, envelope, payload):
        if envelope.WhichOneof("body") == "hello":
            hall.send(route, "refusal", hall.pb.Refusal(code=hall.pb.WRONG_MODEL, text="this hall serves another model"))
    hall.take = refuse
    crew.start("w0", "--log-level", "quiet", wait=False)
    hall.until(lambda: crew.processes["w0"].poll() is not None, 20 * SLOW)
    hall.take = take
    assert crew.processes["w0"].returncode == 4
    assert crew.log("w0").count("\n") == 1 and "another model" in crew.log("w0"), crew.log("w0")
    os.close(crew.processes.pop("w0").control)
    crew.end()


def main():
    cases = {name[5:]: value for name, value in globals().items() if name.startswith("case_")}
    wanted = sys.argv[3:] or list(cases)
    for name in wanted:
        begin = time.monotonic()
        cases[name]()
        print(f"ok {name} ({time.monotonic() - begin:.1f} s)", flush=True)


main()
