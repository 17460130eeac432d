#!/usr/bin/env python3
"""Ten times the lines take no more memory: client and broker together within 8 MiB and 16 bytes a line.

    memory_test.py BUILD_DIR SOURCE_DIR [--long]

In short with lines that the client refuses: they are checked, submitted, kept, fetched and written as any other, and nobody
has to compute for them (5 s).  --long runs requests (2 minutes).
"""

import sys
import time

from run_hall import MODEL, SLOW, Place, check, lines

FEW, MANY = 10_000, 100_000


def peak(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("VmHWM")), 0)
    except OSError:
        return 0


def measure(count, good):
    """KiB at their peaks: the client's, the broker's."""
    place = Place("memory")
    more = {} if good else {"colour": 1}
    place.write("in.jsonl", lines({"custom_id": f"r{i}", "method": "POST", "url": "/v1/completions",
                                   "body": {"prompt": f"number {i}", "max_tokens": 1, **more}} for i in range(count)))
    client = place.start("run", "--model", MODEL, "in.jsonl", "-o", "out.jsonl", "--quiet")
    client.stderr.close()  # a thousand bad lines are told of
    client.stderr = None
    broker, peaks, begun = None, [0, 0], time.monotonic()
    while client.poll() is None:
        check(time.monotonic() - begun < 400, "it does not end")
        broker = broker or place.children().get("broker")
        peaks = [max(peaks[0], peak(client.pid)), max(peaks[1], peak(broker) if broker else 0)]
        time.sleep(0.02)
    code = client.returncode
    client.communicate()
    written = place.read("out.jsonl").count(b"\n")
    check(code == (0 if good else 2) and written == count, f"exit {code}, {written} lines")
    check(broker and peaks[1], "the broker was never seen")
    place.close()
    print(f"{count} lines: client {peaks[0]} KiB, broker {peaks[1]} KiB")
    return sum(peaks)


def main():
    if SLOW > 1:
        print("skipped: a sanitizer's memory says nothing of ours")
        sys.exit(77)
    good = "--long" in sys.argv
    few, many = measure(FEW, good), measure(MANY, good)
    allowed = 8 * 1024 + 16 * (MANY - FEW) // 1024
    check(many - few <= allowed, f"{many - few} KiB more, {allowed} are allowed")
    print(f"{many - few} KiB more, {allowed} are allowed")


if __name__ == "__main__":
    main()
