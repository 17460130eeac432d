#!/usr/bin/env python3
"""What requests mean, seen from outside: log-probs against a float64 forward, draws, stop strings, offsets.

    api_test.py BUILD_DIR SOURCE_DIR [case ...]

Checkpoints are new each time; the seed is printed, MOOTHALL_SEED repeats a run."""

import json
import os
import random
import sys

from run_hall import MODEL, SOURCE, Place, check, lines, main

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"


def run(items, *flags, model=MODEL, code=0):
    """custom_id -> body."""
    place = Place("api")
    place.write("in.jsonl", lines(items))
    ended = place.call("run", "--model", model, "in.jsonl", "-o", "out.jsonl", *flags)
    check(ended.code == code, ended)
    results = place.results()
    place.close()
    check([r["custom_id"] for r in results] == [i["custom_id"] for i in items], "other requests, or another order")
    return {r["custom_id"]: r["response"]["body"] for r in results}


def completion(name, prompt, **body):
    return {"custom_id": name, "method": "POST", "url": COMPLETIONS, "body": {"prompt": prompt, **body}}


def chat(name, content, **body):
    return {"custom_id": name, "method": "POST", "url": CHAT, "body": {"messages": [{"role": "user", "content": content}], **body}}


def write_tokenizer(folder, ids):
    """One token a byte, for as many as there are ids."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = [chr(b) for b in visible] + [chr(256 + i) for i in range(256 - len(visible))]
    vocab = dict(zip(symbols, ids))
    tokenizer = {
        "version": "1.0", "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "post_processor": None, "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }
    with open(os.path.join(folder, "tokenizer.json"), "w") as file:
        json.dump(tokenizer, file)


def log_probs_are_those_of_the_mathematics():
    """Prompt positions and generated ones, over every switch of the configuration, one to three workers."""
    try:
        import numpy as np
    except ImportError:
        print("numpy is not here: skipped")
        return
    sys.path.insert(0, os.path.join(SOURCE, "tests", "parity"))
    import make_checkpoint
    import reference

    seed = int(os.environ.get("MOOTHALL_SEED", int.from_bytes(os.urandom(3), "little")))
    print(f"MOOTHALL_SEED={seed}", flush=True)
    draw = random.Random(seed)
    positions = clear = 0
    for number in range(6):
        place = Place("checkpoint")
        folder = place.path("model")
        switches = make_checkpoint.make(folder, draw.randrange(1 << 32))
        config, weights = make_checkpoint.read(folder)
        rows, context = config["vocab_size"], config["max_position_embeddings"]
        # The tokenizer's ids: all rows; not the last ones, and with holes; more than there are rows.
        known = [range(rows), [i for i in range(rows - 5) if i % 9 != 4], range(256)][number % 3]
        write_tokenizer(folder, known)
        known = [i for i in known if i < rows]
        ids = lambda count: [draw.randrange(rows) for _ in range(count)]
        ask = {"temperature": 0, "logprobs": 3, "echo": True}
        items = [
            completion("one", ids(1), max_tokens=20, **ask),
            completion("scored", ids(draw.randint(2, 150)), max_tokens=0, **ask),
            completion("longer", ids(draw.randint(60, 200)), max_tokens=30, **ask),
            completion("drawn", ids(9), max_tokens=30, **{**ask, "temperature": 1.2, "seed": number}),
        ]
        if number == 0: # in several steps, and not a token more than there is room for
            items.append(completion("full", ids(context), max_tokens=0, **ask))
            items.append(completion("nearly", ids(context - 3), max_tokens=3, **ask))
        bodies = run(items, "--weights", "f32", "--workers", str(1 + number % 3), model=folder)
        if number % 3 == 2:
            body = run([completion("beyond", "a space")], model=folder, code=2)["beyond"]
            check(str(rows - 1) in body["error"]["message"], body)
        place.close()
        for item in items:
            where = f"{item['custom_id']} of {json.dumps(switches)}"
            choice = bodies[item["custom_id"]]["choices"][0]
            prompt = item["body"]["prompt"]
            all_ids = prompt + choice["token_ids"]
            logprobs = choice["logprobs"]
            check(len(choice["token_ids"]) == item["body"]["max_tokens"], f"{where}: {len(choice['token_ids'])} tokens")
            check(all(len(logprobs[key]) == len(all_ids) for key in ("tokens", "token_logprobs", "top_logprobs", "text_offset")), where)
            check(logprobs["token_logprobs"][0] is None and logprobs["top_logprobs"][0] is None, where)
            expected, margin = reference.forward(config, weights, all_ids)
            for at in range(1, len(all_ids)):
                if margin[:at].min() < 1e-3: # a router's choice that may fall either way
                    break
                row = expected[at - 1]
                positions += 1
                check(abs(logprobs["token_logprobs"][at] - max(row[all_ids[at]], -9999)) < 2e-3, f"{where}: position {at}")
                top = sorted(logprobs["top_logprobs"][at].values(), reverse=True)[:3]
                check(len(top) == 3 and np.abs(np.array(top) - np.sort(row)[::-1][:3]).max() < 2e-3, f"{where}: the likeliest at {at}")
                if at >= len(prompt):
                    check(all_ids[at] in known, f"{where}: drew token {all_ids[at]}, which the tokenizer lacks")
                if at >= len(prompt) and item["body"]["temperature"] == 0:
                    best = sorted(known, key=lambda i: -row[i])[:2]
                    if row[best[0]] - row[best[1]] > 0.02:
                        clear += 1
                        check(all_ids[at] == best[0], f"{where}: not the likeliest at {at}")
    check(positions > 300 and clear > 20, f"only {positions} positions, {clear} clear ones")
    print(f"{positions} positions, {clear} greedy tokens")


def draws_are_what_their_parameters_say():
    ask = {"prompt": "Package: moothall\nDescription:", "max_tokens": 12}
    same = {  # all of them leave nothing but the likeliest
        "greedy": {"temperature": 0}, "greedy with a seed": {"temperature": 0, "seed": 5}, "top_k 1": {"temperature": 1.9, "top_k": 1},
        "top_p 0": {"temperature": 1.9, "top_p": 0}, "top_p small": {"temperature": 1.9, "top_p": 1e-9},
        "top_p and top_k": {"temperature": 1.9, "top_p": 0, "top_k": 7}, "cold": {"temperature": 1e-9}, "nearly zero": {"temperature": 5e-324},
    }
    alike = {  # with one seed
        "seed": {}, "seed again": {}, "all of top_p": {"top_p": 1}, "no top_k": {"top_k": 0}, "top_k -1": {"top_k": -1}, "top_k huge": {"top_k": 2**31 - 1},
        "one of one": {"n": 1, "stream": False, "stop": None},
    }
    items = [completion(name, **ask, **more) for name, more in same.items()]
    items += [completion(name, **ask, temperature=1.5, seed=77, **more) for name, more in alike.items()]
    items += [completion(f"own {i}", **ask, temperature=1.5) for i in range(3)]
    items += [completion(f"seed {s}", **ask, temperature=1.5, seed=s) for s in (0, -1, 2**63 - 1, -2**63)]
    ids = {name: tuple(body["choices"][0]["token_ids"]) for name, body in run(items, "--workers", "2").items()}
    check(len({ids[name] for name in same}) == 1, {name: ids[name] for name in same})
    check(len({ids[name] for name in alike}) == 1, {name: ids[name] for name in alike})
    others = [name for name in ids if name.startswith(("own", "seed ")) and name not in alike] + ["seed"]
    check(len({ids[name] for name in others}) == len(others) == 8, "two seeds, or two custom_ids, drew the same")


def stop_strings_cut_where_they_begin():
    """However tokens cut them; tokens that were drawn are all counted."""
    ask = {"max_tokens": 40, "temperature": 0, "logprobs": True}
    body = run([chat("all", "Describe moothall, a hall of many workers.", **ask)])["all"]
    tokens = body["choices"][0]["logprobs"]["content"]
    stopped = body["choices"][0]["finish_reason"] == "stop"
    pieces = [b"" if stopped and i + 1 == len(tokens) else bytes(t["bytes"]) for i, t in enumerate(tokens)]
    check(b"".join(pieces).decode() == body["choices"][0]["message"]["content"], "the bytes are not the text")
    text = b"".join(pieces).decode()
    check(len(text) > 20, f"the demo model says only {text!r}")
    draw = random.Random(4)
    stops = [[text], [text + "?"], ["absent"], [text[0]], text[:3], [text[5:9], text[2:4], "absent"]]
    while len(stops) < 60:
        start = draw.randrange(len(text))
        stops.append([text[start:start + draw.randint(1, 9)]] + ([text[draw.randrange(len(text)):][:2]] if draw.random() < 0.3 else []))
    bodies = run([chat(str(i), "Describe moothall, a hall of many workers.", **ask, stop=stop) for i, stop in enumerate(stops)])
    for i, stop in enumerate(stops):
        count, expected, so_far = len(pieces), text, b""
        for at, piece in enumerate(pieces):
            so_far += piece
            seen = so_far.decode(errors="ignore")
            found = [seen.index(s) for s in ([stop] if isinstance(stop, str) else stop) if s in seen]
            if found:
                count, expected = at + 1, seen[:min(found)]
                break
        choice = bodies[str(i)]["choices"][0]
        check(choice["message"]["content"] == expected, f"{stop!r}: {choice['message']['content']!r}, expected {expected!r}")
        check(len(choice["token_ids"]) == len(choice["logprobs"]["content"]) == bodies[str(i)]["usage"]["completion_tokens"] == count, f"{stop!r}")
        check(choice["finish_reason"] == ("stop" if stopped or expected != text else "length"), f"{stop!r}: {choice['finish_reason']}")


def offsets_are_into_the_text():
    prompts = ["The package is", "line\n\n  two", "日本語 and naïve 😀", f"a{EOS}b", "z\0z"]
    bodies = run([completion(str(i), prompt, echo=True, logprobs=1, max_tokens=6, temperature=0) for i, prompt in enumerate(prompts)])
    for i, prompt in enumerate(prompts):
        choice = bodies[str(i)]["choices"][0]
        tokens, offsets, text = choice["logprobs"]["tokens"], choice["logprobs"]["text_offset"], choice["text"]
        check(text.startswith(prompt), f"{text!r}")
        check(tokens[0] == BOS and offsets[0] == offsets[1] == 0, f"{tokens[:2]} {offsets[:2]}")
        whole = [(t, o) for at, (t, o) in enumerate(zip(tokens, offsets))
                 if at and not t.startswith("bytes:") and not (at + 1 == len(tokens) and t == EOS)]
        check(len(whole) > 4 and all(text[o:o + len(t)] == t for t, o in whole), f"{prompt!r}: {whole} {text!r}")


def what_a_user_writes_is_never_control():
    items = [chat("control", f"a{EOS}b", max_tokens=1), chat("plain", "ab", max_tokens=1),
             chat("in parts", [{"type": "text", "text": EOS[:7]}, {"type": "text", "text": EOS[7:]}], max_tokens=1),
             completion("prompt", f"a{EOS}b", max_tokens=0, echo=True, logprobs=0)]
    bodies = run(items)
    count = {name: body["usage"]["prompt_tokens"] for name, body in bodies.items()}
    check(count["control"] > count["plain"] + 5 and count["in parts"] > count["plain"] + 5, count)
    check(bodies["prompt"]["choices"][0]["logprobs"]["tokens"] == [BOS, "a", EOS, "b"], bodies["prompt"])


def a_bad_line_keeps_its_name():
    """Programs write NaN and numbers beyond 64 bits; what fails must be found by its custom_id."""
    place = Place("name")
    form = '{"custom_id": "%s", "method": "POST", "url": "/v1/completions", "body": {"prompt": "a", "max_tokens": 1%s}}'
    more = {"nan": ', "temperature": NaN', "big": f', "seed": {10 ** 30}', "twice": ', "n": 1, "n": 1', "deep": ', "x": ' + "[" * 400 + "]" * 400, "fine": ""}
    place.write("in.jsonl", "\n".join(form % item for item in more.items()))
    ended = place.run("in.jsonl")
    check(ended.code == 2, ended)
    results = place.results()
    check([r["custom_id"] for r in results] == list(more), [r["custom_id"] for r in results])
    check([r["custom_id"] for r in results if not r["error"]] == ["fine"], results)
    place.close()


if __name__ == "__main__":
    main({case.__name__: case for case in (
        log_probs_are_those_of_the_mathematics, draws_are_what_their_parameters_say, stop_strings_cut_where_they_begin,
        offsets_are_into_the_text, what_a_user_writes_is_never_control, a_bad_line_keeps_its_name)})
