"""What the tests of `moothall run` share: requests, the program, what must come out, and what must not be left behind."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

BUILD = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else os.path.abspath("build")
SOURCE = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
MODEL = os.path.join(SOURCE, "deploy", "demo", "model")
MOOTHALL = os.path.join(BUILD, "moothall")
SLOW = 6 if os.environ.get("MOOTHALL_SLOW") else 1


_open = []  # places that are not closed yet


class Place:
    """A directory of its own, and a runtime directory of its own: what is left in it was left by us."""

    def __init__(self, name):
        self.dir = tempfile.mkdtemp(prefix=f"mh-{name}-")
        self.runtime = tempfile.mkdtemp(prefix="mhr-")
        self.env = dict(os.environ, XDG_RUNTIME_DIR=self.runtime)
        _open.append(self)

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode())
        return self.path(name)

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def start(self, *words, **more):
        return subprocess.Popen([MOOTHALL, *words], cwd=self.dir, env=self.env, stdin=more.pop("stdin", subprocess.DEVNULL),
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **more)

    def call(self, *words, timeout=120, stdin=None):
        process = self.start(*words, stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL)
        try:
            out, err = process.communicate(stdin, timeout=timeout * SLOW)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"moothall {' '.join(words)} did not end within {timeout * SLOW} s: {err.decode(errors='replace')}")
        return Ended(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))

    def run(self, input_name, *flags, output="out.jsonl", **more):
        return self.call("run", "--model", MODEL, input_name, "-o", output, *flags, **more)

    def results(self, name="out.jsonl"):
        return [json.loads(line) for line in self.read(name).decode().splitlines()]

    def processes(self):
        """Every process that was started for this place and lives."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().decode(errors="replace").split("\0")
                with open(f"/proc/{pid}/stat", "rb") as file:
                    state = file.read().rsplit(b")", 1)[1].split()[0]
            except OSError:
                continue
            if state != b"Z" and any(self.dir in word or self.runtime in word for word in words):
                found.append((int(pid), words))
        return found

    def children(self):
        """{"broker": pid, "worker-1": pid, ...}"""
        found = {}
        for pid, words in self.processes():
            if words[0].endswith("moothall-broker"):
                found["broker"] = pid
            elif words[0].endswith("moothall-worker"):
                name = next((w.split("=", 1)[1] for w in words if w.startswith("--name=")), None)
                if name:
                    found[name] = pid
        return found

    def nothing_left(self, seconds=35):
        """Neither processes nor sockets; processes of a killed run may need a moment."""
        until = time.monotonic() + seconds * SLOW
        while self.processes() and time.monotonic() < until:
            time.sleep(0.05)
        assert not self.processes(), f"left behind: {self.processes()}"

    def no_sockets(self):
        assert os.listdir(self.runtime) == [], f"left behind: {os.listdir(self.runtime)}"

    def end(self):
        for pid, _ in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass

    def close(self):
        self.end()
        if self in _open:
            _open.remove(self)
        subprocess.run(["rm", "-rf", self.dir, self.runtime], check=False)


class Hall(Place):
    """A broker and workers, started one by one; whatever is left at the end is ended."""

    def __init__(self, name):
        super().__init__(name)
        self.started = []

    def program(self, name, log, *flags, **more):
        process = subprocess.Popen([os.path.join(BUILD, name), *flags], cwd=self.dir, env=self.env,
                                   stderr=open(self.path(log + ".log"), "ab"), **more)
        self.started.append(process)
        return process

    def broker(self, endpoint="tcp://127.0.0.1:*", *flags, store="hall.db", log="broker"):
        """Returns the process and the endpoint that it printed; None where it ended instead."""
        process = self.program("moothall-broker", log, "--listen", endpoint, "--store", store, *flags, stdout=subprocess.PIPE)
        line = process.stdout.readline().decode()
        return process, line.split()[-1] if line else None

    def worker(self, endpoint, name, *flags, model=MODEL, log=None):
        return self.program("moothall-worker", log or name, "--broker", endpoint, "--model", model, "--name", name,
                            "--threads", "1", *flags, stdout=subprocess.DEVNULL)

    def log(self, name):
        return self.read(name + ".log").decode(errors="replace")

    def wait_log(self, name, words, count=1, seconds=30):
        until = time.monotonic() + seconds * SLOW
        while self.log(name).count(words) < count:
            check(time.monotonic() < until, f"{name} never said {words!r} {count} times:\n{self.log(name)[-2000:]}")
            time.sleep(0.02)

    def wait_lines(self, name, count, seconds=60):
        until = time.monotonic() + seconds * SLOW
        while not os.path.exists(self.path(name)) or self.read(name).count(b"\n") < count:
            check(time.monotonic() < until, f"{name} never had {count} lines")
            time.sleep(0.02)

    def end(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
        super().end()


class Ended:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __repr__(self):
        return f"exit {self.code}; stdout: {self.out[:500]!r}; stderr: {self.err[:2000]!r}"


def text(draw, words):
    letters = ["fix", "the", "build", "on", "hurd", "closes", "urgency", "low", "Debian", "maintainer", "upload", "für", "naïve", "日本", "1.2-3"]
    return " ".join(draw.choice(letters) for _ in range(words))


def request(i, draw, tokens=24):
    """Chat and completions, greedy and sampled, prompts as text and as ids; among them some for several choices, with penalties, or
    with a form that fits into any budget."""
    kind = i % 4
    body = {"model": "demo", "max_tokens": draw.randint(1, tokens)}
    if i % 5 == 1:
        body["n"] = 2 + i % 2
    if i % 7 == 3:
        body["guided_regex"] = "[a-z ,]*"
    if i % 11 == 2:
        body["repetition_penalty"] = 1.2
    if kind in (0, 1):
        body["messages"] = [{"role": "user", "content": text(draw, draw.randint(1, 40))}]
        if kind == 1:
            body["temperature"] = 0.8
            body["top_p"] = 0.9
        return {"custom_id": f"r{i}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    if kind == 2:
        body["prompt"] = text(draw, draw.randint(1, 40))
        body["temperature"] = 0
        body["logprobs"] = 2
    else:
        body["prompt"] = [draw.randint(10, 1000) for _ in range(draw.randint(1, 60))]
        body["seed"] = i
    return {"custom_id": f"r{i}", "method": "POST", "url": "/v1/completions", "body": body}


def requests(count, seed=1, tokens=24):
    draw = random.Random(seed)
    return [request(i, draw, tokens) for i in range(count)]


def lines(items):
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)


def sure(result):
    """What the same request must give every time: all but ids, times and the key `moothall`."""
    response = result["response"]
    if response:
        body = response["body"]
        response = {"status_code": response["status_code"],
                    "body": {key: body[key] for key in ("object", "choices", "usage", "error") if key in body}}
    return json.dumps({"custom_id": result["custom_id"], "response": response, "error": result["error"]}, sort_keys=True)


def sures(results):
    return [sure(result) for result in results]


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def ended(process, seconds=60):
    """Exit status, stdout and stderr of a command that place.start began."""
    out, err = process.communicate(timeout=seconds * SLOW)
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")


def wait_lines(place, count=1, seconds=30):
    """Until the output has so many lines."""
    until = time.monotonic() + seconds * SLOW
    while not os.path.exists(place.path("out.jsonl")) or place.read("out.jsonl").count(b"\n") < count:
        check(time.monotonic() < until, f"never had {count} lines")
        time.sleep(0.01)


_undisturbed = {}


def undisturbed(items, *flags, codes=(0,)):
    """What the requests give when nobody disturbs."""
    key = (lines(items), flags)
    if key not in _undisturbed:
        place = Place("undisturbed")
        place.write("in.jsonl", lines(items))
        done = place.run("in.jsonl", *flags)
        check(done.code in codes, done)
        _undisturbed[key] = sures(place.results())
        place.close()
    return _undisturbed[key]


def main(cases):
    """Runs the cases named on the command line after BUILD and SOURCE, or all."""
    wanted = [word for word in sys.argv[2:] if word in cases]
    failed = 0
    for name, case in cases.items():
        if wanted and name not in wanted:
            continue
        begun = time.monotonic()
        try:
            case()
        except AssertionError as fault:
            failed += 1
            print(f"FAILED {name}: {fault}", flush=True)
            for place in _open:  # its files stay, to be looked at; its processes do not
                place.end()
            _open.clear()
        else:
            print(f"ok     {name} ({time.monotonic() - begun:.1f} s)", flush=True)
    print(f"{len(wanted or cases)} cases, {failed} failed")
    sys.exit(1 if failed else 0)
