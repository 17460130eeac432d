#!/usr/bin/env python3
"""How tokens are drawn, seen from outside: penalties, bias, min_p, several choices, and what ends an answer.

    sampling_test.py BUILD_DIR SOURCE_DIR [case ...]
"""

import math
import os
import signal

from api_test import chat, completion, run
from run_hall import MODEL, Place, check, ended, lines, main, sure, wait_lines

PROMPT = "Package: moothall\nDescription: a"


def top_of(choice, at):
    return sorted(choice["logprobs"]["top_logprobs"][at].items(), key=lambda pair: -pair[1])


def penalties_and_bias_choose_what_they_should():
    """Log-probs are the model's own, so what bias, frequency and presence make of them can be worked out here."""
    ask = {"max_tokens": 60, "temperature": 0, "logprobs": 20, "ignore_eos": True}
    shaped = {"presence": {"presence_penalty": 1.5}, "frequency": {"frequency_penalty": 0.7}, "both": {"presence_penalty": -0.5, "frequency_penalty": 2},
              "bias": {"logit_bias": {str(i): (i % 5) - 2 for i in range(0, 1024)}},
              "all": {"presence_penalty": 0.3, "frequency_penalty": 0.2, "logit_bias": {str(i): -3 for i in range(300, 900)}}}
    items = [completion("plain", PROMPT, **ask)] + [completion(name, PROMPT, **ask, **more) for name, more in shaped.items()]
    bodies = run(items)
    differ = 0
    for name, more in shaped.items():
        choice = bodies[name]["choices"][0]
        ids = choice["token_ids"]
        bias = {int(i): value for i, value in more.get("logit_bias", {}).items()}
        id_of = {}  # text -> id, of what was generated: texts of the others are not needed
        for at, word in enumerate(choice["logprobs"]["tokens"]):
            id_of[word] = ids[at]
        for at, own in enumerate(choice["logprobs"]["tokens"]):
            def score(word, logprob):
                token = id_of.get(word)
                count = ids[:at].count(token)
                return logprob + bias.get(token, 0) - more.get("frequency_penalty", 0) * count - more.get("presence_penalty", 0) * (count > 0)

            mine = score(own, choice["logprobs"]["token_logprobs"][at])
            for word, logprob in top_of(choice, at):
                if word in id_of:
                    check(score(word, logprob) <= mine + 1e-3, f"{name}: {word!r} should have come before {own!r} at {at}")
        differ += ids != bodies["plain"]["choices"][0]["token_ids"]
    check(differ >= 4, f"only {differ} of {len(shaped)} make a difference")


def log_probs_do_not_know_of_penalties():
    """The same tokens as a prompt have the same scores, but for the two forms of attention."""
    prompt = list(range(300, 330))
    shaped = run([completion("shaped", prompt, max_tokens=30, logprobs=3, repetition_penalty=1.7, presence_penalty=1, min_p=0.1, seed=4,
                             logit_bias={"300": 5}, ignore_eos=True)], "--weights", "f32")["shaped"]["choices"][0]
    again = run([completion("scored", prompt + shaped["token_ids"], max_tokens=0, echo=True, logprobs=3)], "--weights", "f32")["scored"]["choices"][0]
    for at, value in enumerate(shaped["logprobs"]["token_logprobs"]):
        other = again["logprobs"]["token_logprobs"][len(prompt) + at]
        check(abs(value - other) < 1e-3, f"token {at}: {value}, {other}")


def min_p_is_a_share_of_the_best():
    items = [completion(f"{temperature} {min_p} {seed}", PROMPT, max_tokens=40, logprobs=1, temperature=temperature, min_p=min_p, seed=seed)
             for temperature in (0.7, 1, 2) for min_p in (0.02, 0.3, 1) for seed in range(4)]
    far = 0
    for name, body in run(items).items():
        temperature, min_p, _ = (float(word) for word in name.split())
        choice = body["choices"][0]
        for at, own in enumerate(choice["logprobs"]["token_logprobs"]):
            best = top_of(choice, at)[0][1]
            check((own - best) / temperature >= math.log(min_p) - 1e-3, f"{name}: {own} beside {best}")
            far += own < best - 1
    check(far > 20, f"only {far} draws that min_p could have refused")


def what_ends_an_answer():
    eos = str(2047)
    bodies = run([
        completion("eos", "a", max_tokens=9, temperature=0, logit_bias={eos: 100}),
        completion("ignored", "a", max_tokens=9, temperature=0, logit_bias={eos: 100}, ignore_eos=True),
        completion("stop id", "a", max_tokens=9, temperature=0, logit_bias={"400": 100}, stop_token_ids=[7, 400]),
        completion("pattern", "a", max_tokens=90, temperature=0, logit_bias={"400": 100}, repetition_detection={"max_pattern_size": 4, "min_count": 6}),
        completion("no pattern", "a", max_tokens=9, temperature=0, logit_bias={"400": 100}, repetition_detection={"max_pattern_size": 4, "min_count": 10}),
        chat("in a chat", "a", max_tokens=90, temperature=0, logit_bias={"400": 100}, repetition_detection={"max_pattern_size": 2, "min_pattern_size": 2, "min_count": 3}),
    ])
    expected = {"eos": ("stop", 1), "ignored": ("length", 9), "stop id": ("stop", 1), "pattern": ("repetition", 6), "no pattern": ("length", 9), "in a chat": ("repetition", 6)}
    for name, (reason, count) in expected.items():
        choice = bodies[name]["choices"][0]
        check((choice["finish_reason"], len(choice["token_ids"])) == (reason, count), f"{name}: {choice}")
    check(bodies["stop id"]["choices"][0]["text"] == "" and bodies["no pattern"]["choices"][0]["text"], bodies)


def mixed(count):
    """Requests for several choices among others; prompts of all lengths around the cache's page of 64."""
    items = []
    for i in range(count):
        more = [{"n": 1 + i % 5}, {"n": 3, "repetition_penalty": 1.2, "min_p": 0.05}, {"n": 2, "logprobs": 2, "echo": True}, {}, {"n": 7, "top_p": 0.9, "presence_penalty": 0.5}][i % 5]
        prompt = " ".join(["fix the build on hurd"] * (1 + i * 5 % 40))
        items.append(completion(f"c{i}", prompt, max_tokens=4 + i % 30, temperature=0.9, **more))
    return items


def checked(results, items):
    for result, item in zip(results, items):
        body = result["response"]["body"]
        choices = body["choices"]
        check(result["custom_id"] == item["custom_id"], "another order")
        check([choice["index"] for choice in choices] == list(range(item["body"].get("n", 1))), f"{item['custom_id']}: {choices}")
        check(body["usage"]["completion_tokens"] == sum(len(choice["token_ids"]) for choice in choices), body["usage"])
        check(body["usage"]["total_tokens"] == body["usage"]["completion_tokens"] + body["usage"]["prompt_tokens"], body["usage"])
    return [sure(result) for result in results]


def several_choices_are_the_same_whoever_computes_them():
    items = mixed(30)
    expected = None
    for flags in ([], ["--sequences", "1"], ["--sequences", "3", "--workers", "2", "--threads", "1"], ["--workers", "3", "--threads", "1"], "kill"):
        place = Place("choices")
        place.write("in.jsonl", lines(items))
        process = place.start("run", "--model", MODEL, "in.jsonl", "-o", "out.jsonl", *(["--workers", "2"] if flags == "kill" else flags))
        if flags == "kill":
            wait_lines(place)
            os.kill(place.children()["worker-2"], signal.SIGKILL)
        code, _, err = ended(process, 120)
        check(code == 0, (flags, code, err))
        got = checked(place.results(), items)
        expected = expected or got
        for mine, other in zip(got, expected):
            check(mine == other, f"{flags}:\n  {mine}\n  {other}")
        place.nothing_left()
        place.close()
    # The first of several is what a request for one gets (with a seed: else it comes from the body).
    one = completion("one", PROMPT, max_tokens=30, seed=8, temperature=1)
    bodies = run([one, {**one, "custom_id": "many", "body": {**one["body"], "n": 4}}])
    check(bodies["many"]["choices"][0] == bodies["one"]["choices"][0], bodies)
    texts = {choice["text"] for choice in bodies["many"]["choices"]}
    check(len(texts) > 1, texts)


if __name__ == "__main__":
    main({case.__name__: case for case in (
        penalties_and_bias_choose_what_they_should, log_probs_do_not_know_of_penalties, min_p_is_a_share_of_the_best, what_ends_an_answer,
        several_choices_are_the_same_whoever_computes_them)})
