"""A client in another language: what PROTOCOL.md says is enough to write one.

usage: python_client_test.py BROKER SOURCE_DIR

Starts a broker, says Hello, submits three jobs (one as already failed), fetches its entry by completion and by
position, and keeps a cursor with a note.  Exit status 77: python3-zmq or python3-protobuf is missing.
"""

import os
import subprocess
import sys
import tempfile

try:
    import google.protobuf  # noqa: F401
    import zmq
except ImportError as missing:
    print("skip:", missing)
    sys.exit(77)

BROKER, SOURCE = sys.argv[1:3]


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


# ---- the client: forty lines ---------------------------------------------------------------------


class Client:
    def __init__(self, endpoint, messages):
        self.messages = messages
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, 10000)
        self.socket.connect(endpoint)
        self.correlation = 0
        hello = messages.Hello(role=messages.CLIENT, name="python", minor_max=0, incarnation=1)
        self.welcome = self.ask("hello", hello)[0].welcome

    def ask(self, kind, body, payload=b""):
        self.correlation += 1
        envelope = self.messages.Envelope(major=1, correlation=self.correlation, payload_size=len(payload))
        envelope.payload_crc32c = crc32c(payload) if payload else 0
        getattr(envelope, kind).CopyFrom(body)
        self.socket.send_multipart([envelope.SerializeToString(), payload])
        while True:
            first, second = self.socket.recv_multipart()
            answer = self.messages.Envelope.FromString(first)
            assert answer.major == 1 and answer.payload_size == len(second)
            assert not second or answer.payload_crc32c == crc32c(second)
            if answer.correlation == self.correlation:
                return answer, second

    def submit(self, queue, batch, total, jobs, mode=0):
        body = self.messages.Submit(queue=queue, batch=batch, batch_total=total, mode=mode)
        for position, (name, data, refused) in enumerate(jobs):
            body.job.add(id=name, custom_id=name, position=position, size=len(data), refused=refused,
                         endpoint="/v1/completions")
        return self.ask("submit", body, b"".join(data for _, data, _ in jobs))[0]

    def fetch(self, queue, batch, order, start, wait_ms=0):
        answer, payload = self.ask("fetch", self.messages.Fetch(queue=queue, batch=batch, order=order, wait_ms=wait_ms,
                                                                **{"from": start}))
        bodies, at = [], 0
        for entry in answer.entries.entry:
            bodies.append(payload[at:at + entry.size])
            at += entry.size
        return answer, bodies


# ---- what it must be able to do ---------------------------------------------------------------------


def check(endpoint, m):
    client = Client(endpoint, m)
    assert client.welcome.session and client.welcome.hall and client.welcome.heartbeat_ms
    jobs = [("a", b'{"prompt": "one"}', False), ("b", b'{"error": {}}', True), ("c", b'{"prompt": "three"}', False)]
    answer = client.submit("q", "first", 3, jobs)
    assert list(answer.submitted.acceptance) == [m.ACCEPTED] * 3, answer
    answer = client.submit("q", "first", 3, jobs)
    assert list(answer.submitted.acceptance) == [m.DUPLICATE] * 3, answer
    answer = client.submit("q", "first", 3, [("a", b"other", False)])
    assert list(answer.submitted.acceptance) == [m.CONFLICT] and "a" in answer.submitted.reason, answer

    answer, bodies = client.fetch("q", "first", m.COMPLETION, 1)
    assert bodies == [b'{"error": {}}'] and answer.entries.next == 2 and not answer.entries.end
    entry = answer.entries.entry[0]
    assert (entry.job, entry.state, entry.number, entry.position, entry.generation) == ("b", m.FAILED, 1, 1, 1)
    answer, bodies = client.fetch("q", "first", m.POSITION, 0, wait_ms=100)
    assert not bodies and answer.entries.next == 0 and answer.entries.waiting == 1, answer

    names = dict(queue="q", batch="first", consumer="writer")
    assert not client.ask("cursor_ask", m.CursorAsk(**names))[0].cursor.known
    client.ask("cursor_set", m.CursorSet(position=2, note=b"offset 13", **names))
    cursor = client.ask("cursor_ask", m.CursorAsk(**names))[0].cursor
    assert (cursor.known, cursor.position, cursor.note) == (True, 2, b"offset 13")

    status = client.ask("status_ask", m.StatusAsk(batch="first"))[0].status
    assert (status.counts.ready, status.counts.failed, status.batch_total) == (2, 1, 3), status
    assert status.waiting_for
    after, jobs_seen = 0, 0
    while True:
        audit = client.ask("audit_ask", m.AuditAsk(after=after))[0].audit
        assert not (audit.missing or audit.doubled or audit.corrupt or audit.holes), audit
        jobs_seen += audit.jobs
        after = audit.next
        if not after:
            break
    assert jobs_seen == 3

    # What a message may not say is refused by the name of the field, and the session goes on.
    refusal = client.submit("q", "first", 3, [("not allowed!", b"", False)]).refusal
    assert refusal.code == m.BAD_MESSAGE and "submit.job[0].id" in refusal.text, refusal
    refusal = client.ask("fetch", m.Fetch(queue="nowhere"))[0].refusal
    assert refusal.code == m.UNKNOWN_BATCH and "nowhere" in refusal.text, refusal
    assert client.ask("ping", m.Ping())[0].HasField("pong")


def main():
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["protoc", "--python_out", directory, "-I", SOURCE, "proto/moothall.proto"], check=True)
        sys.path.insert(0, os.path.join(directory, "proto"))
        import moothall_pb2

        broker = subprocess.Popen([BROKER, "--listen", "tcp://127.0.0.1:*", "--store", directory + "/hall.db",
                                   "--log-level", "warn"], stdout=subprocess.PIPE, text=True)
        try:
            line = broker.stdout.readline().strip()
            assert line.startswith("listening on tcp://127.0.0.1:"), line
            check(line.split()[-1], moothall_pb2)
            broker.terminate()
            assert broker.wait(10) == 0
            left = sorted(os.listdir(directory))
            assert "hall.db" in left and "hall.db-wal" not in left, left
        finally:
            broker.kill()
            broker.wait()
    print("ok")


main()
