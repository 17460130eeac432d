"""A broker of a hundred lines, for tests of workers: it deals seats and leases as the test wants,
keeps nothing on disk, and speaks the protocol of proto/PROTOCOL.md through generated classes.

The real broker has its own tests; this one can do what a good broker never does (two epochs in a
row, a lease sent twice), and it is a second reading of the protocol, in another language."""

import atexit
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

import zmq


def load_messages(root):
    """protoc's Python classes, made on the spot: they are as new as the .proto file."""
    out = tempfile.mkdtemp(prefix="moothall-proto-")
    atexit.register(shutil.rmtree, out, True)
    subprocess.run(["protoc", f"--python_out={out}", "-I", root, "proto/moothall.proto"], check=True, cwd=root)
    sys.path.insert(0, out)
    os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
    try:
        return importlib.import_module("proto.moothall_pb2")
    except ImportError:
        sys.path.insert(0, os.path.join(out, "proto"))
        return importlib.import_module("moothall_pb2")


def make_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


TABLE = make_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


class Worker:
    """A session; the process behind it is the test's."""

    def __init__(self, route, hello):
        self.route = route
        self.name = hello.name
        self.incarnation = hello.incarnation
        self.endpoint = hello.offer.endpoint
        self.shard_count = hello.offer.shard_count
        self.fingerprint = hello.fingerprint
        self.family = hello.offer.families[0]
        self.credit = 0
        self.seated = 0
        self.held = set(hello.held)
        self.beat = None
        self.seen = time.monotonic()
        self.gone = False


class Hall:
    def __init__(self, root, endpoint, jobs=(), heartbeat_ms=200):
        self.pb = load_messages(root)
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(endpoint)
        self.heartbeat_ms = heartbeat_ms
        self.workers = {}          # by name
        self.epoch = 0
        self.map = None
        self.fence = 0
        self.jobs = list(jobs)     # ready: dicts with id, endpoint, body, seed, and perhaps alone
        self.leased = {}           # fence -> (job, worker name)
        self.results = {}          # job id -> (Result, body)
        self.begun = set()         # fences of jobs whose result came by another way
        self.doubled = 0
        self.released = 0
        self.leasing = True

    def close(self):
        self.socket.close()
        self.context.term()

    # ---- sending

    def send(self, route, name, body, payload=b""):
        envelope = self.pb.Envelope(major=1, payload_size=len(payload))
        if payload:
            envelope.payload_crc32c = crc32c(payload)
        getattr(envelope, name).CopyFrom(body)
        try:
            self.socket.send_multipart([route, envelope.SerializeToString(), payload], zmq.NOBLOCK)
        except zmq.ZMQError:
            pass

    def deal(self, holders):
        """holders: the worker's name for each shard (None: unseated)."""
        self.epoch += 1
        names = list(self.workers)
        self.map = self.pb.Map(epoch=self.epoch, family=next(iter(self.workers.values())).family)
        for name in names:
            w = self.workers[name]
            self.map.worker.add(name=name, incarnation=w.incarnation, endpoint=w.endpoint)
        for shard, holder in enumerate(holders):
            if holder is not None:
                self.map.seat.add(shard=shard, worker=names.index(holder))
        for w in self.workers.values():
            if not w.gone:
                self.send(w.route, "map", self.map)

    def lose(self, name):
        """The worker is known to be dead: its leases are ready again."""
        worker = self.workers[name]
        worker.gone = True
        for fence in [f for f, (_, n) in self.leased.items() if n == name]:
            self.jobs.insert(0, self.leased.pop(fence)[0])

    def lease(self):
        if not self.leasing or self.map is None:
            return
        alive = [w for w in self.workers.values() if not w.gone]
        if any(w.seated != self.epoch for w in alive):
            return
        while self.jobs:
            # Turn by turn, so that all of them have something to do.
            job = self.jobs[0]
            free = [w for w in alive if len(w.held) < (1 if job.get("alone") else w.credit)]
            if not free:
                return
            w = min(free, key=lambda w: len(w.held))
            self.jobs.pop(0)
            self.fence += 1
            self.leased[self.fence] = (job, w.name)
            w.held.add(self.fence)
            body = job["body"] if isinstance(job["body"], bytes) else json.dumps(job["body"]).encode()
            self.send(w.route, "lease", self.pb.Lease(
                job=job["id"], generation=1, fence=self.fence, custom_id=job["id"], seed=job.get("seed", 1),
                alone=job.get("alone", False), endpoint=job["endpoint"], queue="default"), body)

    # ---- receiving

    def turn(self, wait_ms=20):
        if self.socket.poll(wait_ms):
            while self.socket.poll(0):
                route, head, payload = self.socket.recv_multipart()
                envelope = self.pb.Envelope.FromString(head)
                assert envelope.major == 1 and envelope.payload_size == len(payload)
                assert not payload or envelope.payload_crc32c == crc32c(payload)
                self.take(route, envelope, payload)
        self.lease()

    def by_route(self, route):
        return next((w for w in self.workers.values() if w.route == route), None)

    def take(self, route, envelope, payload):
        kind = envelope.WhichOneof("body")
        body = getattr(envelope, kind)
        if kind == "hello":
            worker = Worker(route, body)
            known = self.workers.get(worker.name)
            if known and known.incarnation == worker.incarnation:
                worker.seated, worker.credit = known.seated, known.credit
            self.workers[worker.name] = worker
            self.send(route, "welcome", self.pb.Welcome(session=1, heartbeat_ms=self.heartbeat_ms, lease_ms=2000,
                                                        payload_max=32 << 20, window=16, hall=4711))
            if self.map is not None and known and known.incarnation == worker.incarnation:
                self.send(route, "map", self.map)
            return
        worker = self.by_route(route)
        if worker is None:
            self.send(route, "refusal", self.pb.Refusal(code=self.pb.NEED_HELLO, text="unknown"))
            return
        worker.seen = time.monotonic()
        if kind == "credit":
            worker.credit = body.jobs
        elif kind == "heartbeat":
            worker.beat = body
            self.send(route, "heartbeat_reply", self.pb.HeartbeatReply(
                dropped=[f for f in body.held if f not in self.leased]))
        elif kind == "seated":
            worker.seated = body.epoch
        elif kind == "result":
            self.send(route, "stored", self.pb.Stored(job=body.job, generation=body.generation, fence=body.fence, recorded=True))
            worker.held.discard(body.fence)
            self.leased.pop(body.fence, None)
            if body.job not in self.results:
                self.results[body.job] = (body, payload)
                # It may be of a worker that was lost meanwhile, and the first: then nobody need begin with the job, and who has may finish.
                self.jobs = [job for job in self.jobs if job["id"] != body.job]
                self.begun |= {fence for fence, (job, _) in self.leased.items() if job["id"] == body.job}
            elif body.fence not in self.begun:
                self.doubled += 1
        elif kind == "release":
            for fence in body.fence:
                worker.held.discard(fence)
                if fence in self.leased:
                    self.jobs.insert(0, self.leased.pop(fence)[0])
                    self.released += 1
        elif kind == "goodbye":
            self.lose(worker.name)

    def until(self, condition, seconds=60, what=""):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(what or "the condition never came true")
            self.turn()
