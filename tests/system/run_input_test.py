#!/usr/bin/env python3
"""Bad input to `moothall run`: a clear error, nothing lost.

    run_input_test.py BUILD_DIR SOURCE_DIR [case ...]
"""

import json
import os
import shutil
import struct
import subprocess

from run_hall import BUILD, MODEL, Place, check, lines, main, requests, sures

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def line(custom_id="x", url=COMPLETIONS, method="POST", **body):
    return json.dumps({"custom_id": custom_id, "method": method, "url": url, "body": body}).encode()


# name, the line, is it found before anything runs, what the error says.
BAD = [
    ("not JSON", b"this is not JSON", True, "JSON"),
    ("half an object", b'{"custom_id": "half", "method": "POST"', True, "JSON"),
    ("an array", b"[1, 2]", True, "object"),
    ("no body", b'{"custom_id": "nobody", "method": "POST", "url": "/v1/completions"}', True, "body"),
    ("unknown url", line("url", url="/v1/embeddings", prompt="a"), True, "/v1/embeddings"),
    ("another method", line("method", method="GET", prompt="a"), True, "method"),
    ("max_tokens 0", line("mt0", prompt="a", max_tokens=0), True, "max_tokens"),
    ("max_tokens negative", line("mt-1", prompt="a", max_tokens=-1), True, "max_tokens"),
    ("max_tokens huge", line("mthuge", prompt="a", max_tokens=2000000000), False, "2000000000"),
    ("max_tokens beyond numbers", line("mtbig", prompt="a", max_tokens=10 ** 30), True, ""),
    ("prompt over the context", line("long", prompt=[20] * 5000, max_tokens=1), False, "5001"),
    ("token id out of range", line("range", prompt=[20, 999999], max_tokens=1), False, "999999"),
    ("token id negative", line("negative", prompt=[20, -1], max_tokens=1), True, "prompt[1]"),
    ("invalid UTF-8", b'{"custom_id": "utf", "method": "POST", "url": "/v1/completions", "body": {"prompt": "\xff\xfe"}}', True, "UTF-8"),
    ("a zero byte", b'{"custom_id": "nul", "method": "POST", "url": "/v1/completions", "body": {"prompt": "a\x00b"}}', True, ""),
    ("unsupported parameter", line("bo", prompt="a", best_of=2), True, "best_of"),
    ("parameter of the wrong type", line("type", prompt="a", temperature="hot"), True, "temperature"),
    ("no messages", line("empty", url=CHAT, messages=[]), True, "messages"),
    ("unknown role", line("role", url=CHAT, messages=[{"role": "wizard", "content": "a"}]), True, "wizard"),
    ("custom_id of the wrong type", b'{"custom_id": 5, "method": "POST", "url": "/v1/completions", "body": {"prompt": "a"}}', True, "custom_id"),
    ("twin of the first", line("first", prompt="b", max_tokens=1), True, "line 1"),
    ("50 MB", None, True, "16777216"),
]


def bad_lines_leave_the_others_alone():
    place = Place("bad")
    good = line("first", prompt="A moot hall", max_tokens=3, temperature=0)
    rows = [good]
    for name, text, _, _ in BAD:
        rows.append(text if text is not None else line("huge", prompt="y" * 50_000_000))
    rows.append(line("last", prompt="A moot hall", max_tokens=3, temperature=0))
    place.write("in.jsonl", b"\n".join(rows))
    ended = place.run("in.jsonl")
    check(ended.code == 2, ended)
    results = place.results()
    check(len(results) == len(rows), f"{len(results)} results for {len(rows)} lines")
    check(results[0]["custom_id"] == "first" and results[-1]["custom_id"] == "last", "out of order")
    check(results[0]["error"] is None and results[-1]["error"] is None, f"good lines failed: {results[0]} {results[-1]}")
    check(results[0]["response"]["body"]["choices"] == results[-1]["response"]["body"]["choices"], "the same request, other bytes")
    for i, (name, _, early, words) in enumerate(BAD):
        result = results[i + 1]
        check(result["error"] is not None and result["error"]["message"], f"{name}: {result}")
        check(words in result["error"]["message"], f"{name}: the message lacks {words!r}: {result['error']}")
        check(result["response"]["status_code"] in (400, 413), f"{name}: {result}")
        check(result["response"]["body"]["error"]["message"] == result["error"]["message"], f"{name}: two messages")
        number = f"line {i + 2}:"
        if early and sum(1 for _, _, e, _ in BAD[:i + 1] if e) <= 20:
            check(number in ended.err, f"{name}: stderr does not name {number}\n{ended.err}")
        if not early:
            check(number not in ended.err, f"{name}: refused too early\n{ended.err}")
    audit = place.call("audit", "--state", "out.jsonl.moothall")
    check(audit.code == 0 and f"{len(rows)} jobs" in audit.out, audit)
    again = place.run("in.jsonl")
    check(again.code == 2 and "nothing to do" in again.err, f"the same command: {again}")
    check(place.results() == results, "the same command changed the output")
    place.nothing_left()
    place.no_sockets()
    place.close()


def fail_stops_before_anything_runs():
    place = Place("fail")
    place.write("in.jsonl", line("a", prompt="a") + b"\n" + b"nonsense\n")
    ended = place.run("in.jsonl", "--on-bad-line", "fail")
    check(ended.code == 1 and "line 2" in ended.err and "nothing was run" in ended.err, ended)
    check(not os.path.exists(place.path("out.jsonl")) and not os.path.exists(place.path("out.jsonl.moothall")), os.listdir(place.dir))
    place.close()


def one_bad_request_of_a_thousand():
    place = Place("thousand")
    items = [{"custom_id": f"n{i}", "method": "POST", "url": COMPLETIONS, "body": {"prompt": [20 + i % 900], "max_tokens": 1}} for i in range(1000)]
    items[617]["body"]["max_tokens"] = "many"
    place.write("in.jsonl", lines(items))
    ended = place.run("in.jsonl")
    check(ended.code == 2 and "999 done, 1 failed" in ended.err, ended)
    results = place.results()
    check([i for i, r in enumerate(results) if r["error"]] == [617] and len(results) == 1000, "others failed too")
    place.close()


def shapes_of_files():
    """Blank lines, CRLF, a byte order mark, no last line end, an empty file, standard input: all are fine."""
    a, b = line("a", prompt="A", max_tokens=2), line("b", prompt="B", max_tokens=2)
    rows = {
        "plain": a + b"\n" + b + b"\n",
        "no last end": a + b"\n" + b,
        "CRLF": a + b"\r\n" + b + b"\r\n",
        "blank lines": b"\n\n" + a + b"\n  \t\n" + b + b"\n\n\n",
        "byte order mark": b"\xef\xbb\xbf" + a + b"\n" + b + b"\n",
    }
    expected = None
    for name, data in rows.items():
        place = Place("shape")
        place.write("in.jsonl", data)
        ended = place.run("in.jsonl")
        check(ended.code == 0, f"{name}: {ended}")
        got = sures(place.results())
        expected = expected or got
        check(got == expected, f"{name}: {got}")
        place.close()
    place = Place("shape")
    ended = place.run("-", stdin=rows["plain"])
    check(ended.code == 0 and sures(place.results()) == expected, f"standard input: {ended}")
    ended = place.run("-", stdin=rows["plain"])
    check(ended.code == 0 and "nothing to do" in ended.err, f"standard input again: {ended}")
    place.close()
    for name, data in {"empty": b"", "only blank lines": b"\n \n\n"}.items():
        place = Place("shape")
        place.write("in.jsonl", data)
        ended = place.run("in.jsonl")
        check(ended.code == 0 and place.read("out.jsonl") == b"", f"{name}: {ended}")
        again = place.run("in.jsonl")
        check(again.code == 0 and "nothing to do" in again.err, f"{name} again: {again}")
        place.close()


def to_standard_output():
    place = Place("stdout")
    place.write("in.jsonl", line("a", prompt="A", max_tokens=2) + b"\n")
    ended = place.run("in.jsonl", output="-")
    check(ended.code == 1 and "--state" in ended.err, ended)
    ended = place.run("in.jsonl", "--state", "s", output="-")
    check(ended.code == 0 and json.loads(ended.out)["custom_id"] == "a", ended)
    ended = place.run("in.jsonl", "--state", "s2", output="/dev/full")
    check(ended.code == 1 and "No space left" in ended.err, ended)
    place.nothing_left()
    place.no_sockets()
    place.close()


def places_that_cannot_be():
    place = Place("places")
    place.write("in.jsonl", lines(requests(2)))
    before = sorted(os.listdir(place.dir))
    rows = [
        (["run", "--model", MODEL, "in.jsonl", "-o", "missing/out.jsonl"], "missing"),
        (["run", "--model", MODEL, "in.jsonl", "-o", "."], "directory"),
        (["run", "--model", MODEL, "in.jsonl", "-o", "in.jsonl"], "both input and output"),
        (["run", "--model", MODEL, "absent.jsonl", "-o", "o.jsonl"], "absent.jsonl"),
        (["run", "--model", MODEL, ".", "-o", "o.jsonl"], "directory"),
        (["run", "--model", MODEL, "-o", "o.jsonl"], "no input"),
        (["run", "--model", MODEL, "in.jsonl", "in.jsonl", "-o", "o.jsonl"], "one input"),
        (["run", "--model", MODEL, "in.jsonl"], "-o"),
        (["run", "in.jsonl", "-o", "o.jsonl"], "--model"),
        (["run", "--model", "nowhere", "in.jsonl", "-o", "o.jsonl"], "nowhere"),
        (["run", "--model", MODEL, "in.jsonl", "-o", "o.jsonl", "--workers", "0"], "--workers"),
        (["run", "--model", MODEL, "in.jsonl", "-o", "o.jsonl", "--worker", "2"], "--workers"),
        (["run", "--model", MODEL, "in.jsonl", "-o", "o.jsonl", "--order", "random"], "--order"),
        (["run", "--model", MODEL, "in.jsonl", "-o", "o.jsonl", "--weights", "q8"], "not built yet"),
        (["run", "--broker", "tpc://x:1", "in.jsonl", "-o", "o.jsonl"], "tpc://x:1"),
        (["run", "--broker", "tcp://127.0.0.1:1", "--timeout", "1s", "in.jsonl", "-o", "o.jsonl"], "did not answer"),
        (["run", "--model", MODEL, "in.jsonl", "-o", "o2.jsonl", "--state", "."], "holds other files"),
        (["submit", "in.jsonl"], "--broker"),
        (["status"], "--state"),
        (["status", "--state", "nowhere"], "nowhere"),
        (["audit", "--state", "."], "no store"),
        (["bench", "quue"], "queue"),
        (["fetsh"], "fetch"),
        ([], "moothall run"),
    ]
    for words, says in rows:
        ended = place.call(*words)
        check(ended.code == 1, f"{words}: {ended}")
        check(says in ended.err, f"{words}: does not say {says!r}: {ended}")
        check(not words or len(ended.err.strip().splitlines()) <= 2, f"{words}: more than a line: {ended}")
        check(ended.out == "", f"{words}: {ended}")
    check(sorted(n for n in os.listdir(place.dir) if n != "o.jsonl.moothall") == before, os.listdir(place.dir))
    place.write("foreign.jsonl", "something of mine\n")
    ended = place.run("in.jsonl", output="foreign.jsonl")
    check(ended.code == 1 and "--restart" in ended.err and place.read("foreign.jsonl") == b"something of mine\n", ended)
    check(not os.path.exists(place.path("foreign.jsonl.moothall")), "left a state directory")
    place.close()


def broker_that_comes_late():
    """A shared hall that is not there yet: a message, and patience."""
    place = Place("late")
    place.write("in.jsonl", lines(requests(3)))
    endpoint = f"ipc://{place.runtime}/b"
    process = place.start("submit", "--broker", endpoint, "--batch", "late", "in.jsonl")
    try:
        process.wait(timeout=3)
        raise AssertionError("did not wait")
    except subprocess.TimeoutExpired:
        pass
    broker = subprocess.Popen([os.path.join(BUILD, "moothall-broker"), "--listen", endpoint, "--store", place.path("hall.db")],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        out, err = process.communicate(timeout=30)
        check(process.returncode == 0 and out == b"late\n" and b"does not answer; trying again" in err, (process.returncode, out, err))
        again = place.call("submit", "--broker", endpoint, "--batch", "late", "in.jsonl")
        check(again.code == 0 and "3 known already" in again.err, again)
        place.write("in.jsonl", lines(requests(3, seed=9)))
        conflict = place.call("submit", "--broker", endpoint, "--batch", "late", "in.jsonl")
        check(conflict.code == 1 and "line 1" in conflict.err and "--update" in conflict.err, conflict)
        update = place.call("submit", "--broker", endpoint, "--batch", "late", "--update", "in.jsonl")
        check(update.code == 0 and "3 to be done again" in update.err, update)
        status = place.call("status", "--broker", endpoint, "--json")
        check(status.code == 0 and json.loads(status.out)["counts"]["ready"] == 3, status)
        audit = place.call("audit", "--broker", endpoint)
        check(audit.code == 0 and "6 generations, 3 entries" in audit.out, audit)
    finally:
        broker.terminate()
        broker.wait()
        process.kill()
    place.close()


def header_of(data):
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + size]), data[8 + size:]


def with_header(header, rest):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def models_that_cannot_be_loaded():
    place = Place("models")
    place.write("in.jsonl", lines(requests(2)))
    with open(os.path.join(MODEL, "model.safetensors"), "rb") as file:
        header, rest = header_of(file.read())
    name = "model.layers.1.self_attn.kv_a_proj_with_mqa.weight"

    def fresh():
        shutil.rmtree(place.path("m"), ignore_errors=True)
        shutil.copytree(MODEL, place.path("m"))

    def lacks_a_tensor():
        place.write("m/model.safetensors", with_header({k + "x" * (k == name): v for k, v in header.items()}, rest))

    def wrong_shape():
        wrong = json.loads(json.dumps(header))
        wrong[name]["shape"].reverse()
        place.write("m/model.safetensors", with_header(wrong, rest))

    def truncated():
        data = place.read("m/model.safetensors")
        place.write("m/model.safetensors", data[:len(data) - 1000])

    def index_names_a_missing_file():
        os.rename(place.path("m/model.safetensors"), place.path("m/model-00001-of-00002.safetensors"))
        keys = [k for k in header if k != "__metadata__"]
        where = {k: "model-00001-of-00002.safetensors" for k in keys}
        where[keys[-1]] = "model-00002-of-00002.safetensors"
        place.write("m/model.safetensors.index.json", json.dumps({"metadata": {}, "weight_map": where}))

    def tokenizer_of_another_kind():
        tokenizer = json.loads(place.read("m/tokenizer.json"))
        tokenizer["model"] = {"type": "Unigram", "vocab": []}
        place.write("m/tokenizer.json", json.dumps(tokenizer))

    def no_config():
        os.unlink(place.path("m/config.json"))

    def another_architecture():
        config = json.loads(place.read("m/config.json"))
        config["architectures"] = ["LlamaForCausalLM"]
        config["model_type"] = "llama"
        place.write("m/config.json", json.dumps(config))

    rows = [(lacks_a_tensor, name), (wrong_shape, name), (truncated, "model.safetensors"),
            (index_names_a_missing_file, "model-00002-of-00002.safetensors"), (tokenizer_of_another_kind, "Unigram"),
            (no_config, "config.json"), (another_architecture, "lama")]
    for number, (spoil, says) in enumerate(rows):
        fresh()
        spoil()
        ended = place.call("run", "--model", "m", "in.jsonl", "-o", f"o{number}.jsonl")
        check(ended.code == 1 and says in ended.err, f"{spoil.__name__}: does not say {says!r}: {ended}")
        check(len(ended.err.strip().splitlines()) == 1, f"{spoil.__name__}: more than a line: {ended}")
        place.nothing_left()
        place.no_sockets()
        if spoil is not tokenizer_of_another_kind:
            inspect = place.call("inspect", "m")
            check(inspect.code == 1 and says in inspect.err, f"inspect, {spoil.__name__}: {inspect}")
    place.close()


def a_store_that_is_none():
    """A broker that cannot start: five tries, then its own words."""
    place = Place("store")
    place.write("in.jsonl", lines(requests(2)))
    os.makedirs(place.path("out.jsonl.moothall/store"))
    place.write("out.jsonl.moothall/store/hall.db", b"this is not a database, whatever it is called " * 100)
    place.write("out.jsonl.moothall/record.json", b"{}")
    ended = place.run("in.jsonl")
    check(ended.code == 1 and "record" in ended.err, ended)
    ended = place.run("in.jsonl", "--restart")
    check(ended.code == 0, ended)
    place.close()


def tokenize_and_inspect():
    place = Place("tok")
    texts = ["A moot hall.", "", "naïve 日本 <｜end▁of▁sentence｜>", "\x00\x01 tab\t", "x" * 10000]
    ended = place.call("tokenize", "--model", MODEL, stdin="".join(json.dumps({"text": t}) + "\n" for t in texts).encode())
    check(ended.code == 0, ended)
    check(json.loads(ended.out.splitlines()[2])["ids"][-1] == 2047, "an added token did not match")
    back = place.call("tokenize", "--model", MODEL, "--decode", stdin=ended.out.encode())
    check(back.code == 0 and [json.loads(l)["text"] for l in back.out.splitlines()] == texts, back)
    bad = place.call("tokenize", "--model", MODEL, stdin=b'{"text": "a"}\nnonsense\n{"txt": 1}\n\n{"text": "b"}')
    check(bad.code == 2, bad)
    rows = [json.loads(l) for l in bad.out.splitlines()]
    check(["ids" in r for r in rows] == [True, False, False, True] and rows[1]["error"]["line"] == 2 and rows[2]["error"]["line"] == 3, bad)
    inspect = place.call("inspect", MODEL, "--json")
    facts = json.loads(inspect.out)
    check(inspect.code == 0 and facts["shards"] == 8 and facts["parameters"] > 4e6 and len(facts["fingerprint"]) == 64, inspect)
    check([m["workers"] for m in facts["memory"]] == list(range(1, 9)), facts["memory"])
    place.close()


def help_and_version():
    place = Place("help")
    for verb in ["run", "submit", "status", "fetch", "audit", "inspect", "tokenize", "bench"]:
        ended = place.call(verb, "--help")
        check(ended.code == 0 and f"Example:\n    " in ended.out and "moothall " + verb in ended.out.split("Example:")[1], f"{verb}: {ended}")
    check(place.call("--help").code == 0 and place.call("--version").out.startswith("moothall "), "--help, --version")
    place.close()


main({case.__name__: case for case in (
    help_and_version, bad_lines_leave_the_others_alone, fail_stops_before_anything_runs, one_bad_request_of_a_thousand, shapes_of_files,
    to_standard_output, places_that_cannot_be, broker_that_comes_late, models_that_cannot_be_loaded, a_store_that_is_none,
    tokenize_and_inspect)})
