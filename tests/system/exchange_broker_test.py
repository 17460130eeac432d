"""Workers and the real broker: kill -9 of either in the middle changes nothing that comes out.

    exchange_broker_test.py BUILD_DIR SOURCE_DIR [case ...]
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import zmq

from exchange_hall import crc32c, load_messages

BUILD, SOURCE = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
MODEL = os.environ.get("MOOTHALL_TEST_MODEL") or os.path.join(SOURCE, "deploy", "demo", "model")
SLOW = 6 if os.environ.get("MOOTHALL_SLOW") else 1
pb = load_messages(SOURCE)


class Client:
    """Submits, asks and fetches; says Hello again whenever the broker wants it."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.context = zmq.Context()
        self.socket = None
        self.connect()

    def connect(self):
        if self.socket:
            self.socket.close(0)
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(self.endpoint)
        self.send("hello", pb.Hello(role=pb.CLIENT, name="test", incarnation=9))
        until = time.monotonic() + 2 * SLOW
        while time.monotonic() < until: # nothing may be asked before its Welcome
            if self.socket.poll(200) and pb.Envelope.FromString(self.socket.recv_multipart()[0]).WhichOneof("body") == "welcome":
                return

    def send(self, name, body, payload=b"", correlation=0):
        envelope = pb.Envelope(major=1, payload_size=len(payload), correlation=correlation)
        if payload:
            envelope.payload_crc32c = crc32c(payload)
        getattr(envelope, name).CopyFrom(body)
        self.socket.send_multipart([envelope.SerializeToString(), payload])

    def ask(self, name, body, payload=b"", answer=None, seconds=30):
        """Asks until it is answered: every question here may be repeated."""
        end = time.monotonic() + seconds * SLOW
        while time.monotonic() < end:
            self.send(name, body, payload, correlation=7)
            until = time.monotonic() + 2 * SLOW
            while time.monotonic() < until:
                if not self.socket.poll(200):
                    continue
                head, data = self.socket.recv_multipart()
                envelope = pb.Envelope.FromString(head)
                kind = envelope.WhichOneof("body")
                if kind == answer and envelope.correlation == 7:
                    return getattr(envelope, kind), data
                if kind == "refusal" and envelope.refusal.code == pb.NEED_HELLO:
                    break
            self.connect()
        raise TimeoutError(f"no answer to {name}")

    def close(self):
        self.socket.close(0)
        self.context.term()


class House:
    def __init__(self, workers):
        self.directory = tempfile.mkdtemp(prefix="mh-")
        os.chmod(self.directory, 0o700)
        self.endpoint = f"ipc://{self.directory}/b"
        self.processes = {}
        self.workers = [f"w{i}" for i in range(workers)]
        self.start_broker()
        for name in self.workers:
            self.start_worker(name)
        self.client = Client(self.endpoint)

    def spawn(self, name, *command):
        log = open(f"{self.directory}/{name}.log", "ab")
        self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def start_broker(self):
        self.spawn("broker", f"{BUILD}/moothall-broker", "--listen", self.endpoint, "--store", f"{self.directory}/hall.db",
                   "--workers", str(len(self.workers)), "--heartbeat-ms", "200", "--lease-ms", "3000")

    def start_worker(self, name):
        self.spawn(name, f"{BUILD}/moothall-worker", "--broker", self.endpoint, "--model", MODEL, "--name", name, "--threads", "1",
                   "--sequences", "8")

    def kill(self, name):
        self.processes[name].kill()
        self.processes[name].wait()
        if name == "broker":
            self.start_broker()
        else:
            self.start_worker(name)

    def submit(self, jobs):
        submit = pb.Submit(queue="default", batch="b", batch_total=len(jobs), mode=pb.NEW)
        payload = b""
        for i, job in enumerate(jobs):
            body = json.dumps(job["body"]).encode()
            submit.job.add(id=job["id"], custom_id=job["id"], position=i, size=len(body), seed=job["seed"], endpoint=job["endpoint"])
            payload += body
        answer, _ = self.client.ask("submit", submit, payload, "submitted")
        assert all(a in (pb.ACCEPTED, pb.DUPLICATE) for a in answer.acceptance), answer

    def done(self):
        status, _ = self.client.ask("status_ask", pb.StatusAsk(queue="default", batch="b"), b"", "status")
        return status.counts.done + status.counts.failed + status.counts.dead, status

    def wait(self, count, seconds=120):
        end = time.monotonic() + seconds * SLOW
        while True:
            done, status = self.done()
            if done >= count:
                return status
            if time.monotonic() > end:
                raise TimeoutError(f"{done} of {count} done\n{status}")
            time.sleep(0.02)

    def fetch(self, count):
        got, at = {}, 1
        while len(got) < count:
            entries, data = self.client.ask("fetch", pb.Fetch(queue="default", batch="b", order=pb.COMPLETION, items_max=256,
                                                              bytes_max=8 << 20, wait_ms=500, **{"from": at}), b"", "entries")
            for e in entries.entry:
                assert e.job not in got, f"{e.job} twice"
                got[e.job] = (e.state, e.status_code, data[:e.size])
                data = data[e.size:]
            at = entries.next
        audit, _ = self.client.ask("audit_ask", pb.AuditAsk(batch="b"), b"", "audit")
        assert not (audit.missing or audit.doubled or audit.corrupt or audit.holes or audit.unfinished), audit
        return got

    def close(self):
        self.client.close()
        for name in [*self.workers, "broker"]:
            process = self.processes[name]
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20 * SLOW)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            assert process.returncode == 0, f"{name}: {process.returncode}\n" + open(f"{self.directory}/{name}.log").read()
        shutil.rmtree(self.directory, ignore_errors=True)


def make_jobs(count):
    draw = random.Random(2)
    return [{"id": f"job-{i}", "endpoint": "/v1/completions", "seed": i, "body": {
        "prompt": f"{i} " + " ".join(draw.choice(["moot", "hall", "1.0-1", "closes", "new"]) for _ in range(draw.randint(1, 80))),
        "max_tokens": draw.randint(1, 100), "temperature": 2}} for i in range(count)]


def run(workers, count, disturb=lambda house: None):
    house = House(workers)
    try:
        jobs = make_jobs(count)
        house.submit(jobs)
        disturb(house)
        house.wait(count)
        got = house.fetch(count)
        assert all(state == pb.DONE for state, _, _ in got.values()), [g for g in got.values() if g[0] != pb.DONE][:3]
        house.close()
        return got
    finally:
        for process in house.processes.values():
            if process.poll() is None:
                process.kill()


COUNT = 80
BASE = []


def base():
    if not BASE:
        BASE.append(run(1, COUNT))
    return BASE[0]


def case_two_workers_undisturbed():
    assert run(2, COUNT) == base()


def case_worker_killed():
    def disturb(house):
        for at, name in ((10, "w1"), (35, "w0"), (60, "w1")):
            house.wait(at)
            house.kill(name)
    assert run(2, COUNT, disturb) == base()


def case_broker_killed():
    def disturb(house):
        for at in (10, 40):
            house.wait(at)
            house.kill("broker")
    assert run(2, COUNT, disturb) == base()


def case_both_killed():
    def disturb(house):
        house.wait(20)
        house.kill("w0")
        house.kill("broker")
        house.wait(50)
        house.kill("broker")
        house.kill("w1")
    assert run(2, COUNT, disturb) == base()


def main():
    cases = {name[5:]: value for name, value in globals().items() if name.startswith("case_")}
    for name in sys.argv[3:] or list(cases):
        begin = time.monotonic()
        cases[name]()
        print(f"ok {name} ({time.monotonic() - begin:.1f} s)", flush=True)


main()
