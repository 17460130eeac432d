#!/usr/bin/env python3
"""Output that has a form: always complete, always valid, the same bytes whoever computes it.

    structured_test.py BUILD_DIR SOURCE_DIR [case ...]

The judge is python's jsonschema where it is installed. Schemas are new each time; the seed is printed, MOOTHALL_SEED
repeats a run."""

import json
import os
import random
import re
import signal

from api_test import chat, completion, run
from run_hall import MODEL, Place, check, ended, lines, main, sures, wait_lines

try:
    import jsonschema
except ImportError:
    jsonschema = None

RECORD = {
    "type": "object",
    "properties": {  # not in the order of the alphabet: it is the order of the output
        "version": {"type": "string", "pattern": "^[0-9]+\\.[0-9]+(-[0-9]+)?$"},
        "package": {"type": "string", "minLength": 1, "maxLength": 24},
        "urgency": {"enum": ["low", "medium", "high"]},
        "closes": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 999999}, "maxItems": 4},
        "date": {"type": "string", "format": "date"},
        "share": {"type": "number", "minimum": 0.25, "maximum": 0.75},
        "note": {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 12}]},
    },
    "required": ["version", "package", "urgency", "closes", "date", "share"],
    "additionalProperties": False,
}


def schema(draw, depth=0):
    """A random schema of the kinds that extraction needs."""
    kind = draw.randrange(9 if depth < 3 else 6)
    if kind == 0:
        low = draw.randrange(4)
        return {"type": "string", "minLength": low, "maxLength": low + draw.randrange(9)}
    if kind == 1:
        low = draw.randint(-2000, 2000)
        return {"type": "integer", "minimum": low, "maximum": low + draw.choice([0, 5, 100000])}
    if kind == 2:
        return {"enum": draw.sample(["yes", "no", 1, 2.5, None, True, "ä\"\\", [1], {"a": 1}], draw.randint(1, 4))}
    if kind == 3:
        return {"type": draw.choice(["boolean", "null", ["boolean", "null"], ["integer", "null"]])}
    if kind == 4:
        return {"type": "string", "format": draw.choice(["date", "time", "date-time", "uuid", "email"])}
    if kind == 5:
        return {"type": "string", "pattern": draw.choice(["^[A-Z]{2}-[0-9]{1,4}$", "^(ab|c)+$", "[0-9]", "^$|^x", "^[^\"]{3}$"])}
    if kind == 6:
        return {"type": "array", "items": schema(draw, depth + 1), "minItems": draw.randrange(3), "maxItems": 3}
    if kind == 7:
        return {"anyOf": [schema(draw, depth + 1) for _ in range(draw.randint(1, 3))]}
    names = draw.sample(["b", "a", "name", "größe", "x y", "c\"", "date"], draw.randint(0, 5))
    return {"type": "object", "properties": {name: schema(draw, depth + 1) for name in names},
            "required": [name for name in names if draw.random() < 0.6], "additionalProperties": False}


def form(name, what, i):
    """One of the ways to ask for a schema."""
    return [{"response_format": {"type": "json_schema", "json_schema": {"name": name, "schema": what, "strict": True}}}, {"guided_json": what},
            {"guided_json": json.dumps(what)}, {"structured_outputs": {"json": what}}][i % 4]


def is_valid(value, what):
    if jsonschema is not None:
        jsonschema.Draft202012Validator(what).validate(value)


def read(text):
    """What a consumer of the row does; jsonschema's words are an AssertionError here."""
    return json.loads(text, parse_constant=lambda word: check(False, f"{word} is no JSON"))


def documents_of(draw, count, longest):
    """Random schemas with their least budget, a little more, and enough; all choices valid and within it.  How many."""
    schemas = [schema(draw) for _ in range(count)]
    # The least budget is said by the refusal of one that is too small; a last line sees to it that there is one.
    asks = [completion(f"m{i}", "a", max_tokens=1, **form("s", what, i)) for i, what in enumerate(schemas + [RECORD])]
    asked = run(asks, code=2)
    items, wanted = [], {}
    for i, what in enumerate(schemas):
        body = asked[f"m{i}"]
        least = 1
        if "error" in body:
            check(body["error"]["param"] == "max_tokens", body)
            least = int(re.search(r"expected at least (\d+)$", body["error"]["message"]).group(1))
        if least > longest:
            continue
        for budget in (least, min(least + 1, longest), min(least + draw.randrange(40), longest), longest):
            name = f"{i}/{budget}/{len(items)}"
            wanted[name] = (what, budget)
            items.append(completion(name, f"Number {i}:", max_tokens=budget, temperature=draw.choice([0, 0.7, 1, 2]), n=draw.choice([1, 1, 2, 3]),
                                    **form("s", what, draw.randrange(4))))
    documents = 0
    for name, body in run(items, "--workers", "2", "--threads", "1").items():
        what, budget = wanted[name]
        for choice in body["choices"]:
            check(choice["finish_reason"] == "stop", f"{name}: {choice}")
            check(len(choice["token_ids"]) <= budget, f"{name}: {len(choice['token_ids'])} tokens")
            try:
                is_valid(read(choice["text"]), what)
            except Exception as fault:  # pylint: disable=broad-except
                raise AssertionError(f"{name}: {choice['text']!r} of {json.dumps(what)}: {fault}") from fault
            check(choice["text"].lstrip(" ") == choice["text"] or choice["text"][1] != " ", f"{name}: {choice['text']!r}")
            documents += 1
    return documents


def every_schema_and_budget_gives_a_valid_document():
    """MOOTHALL_SCHEMAS: how many."""
    seed = int(os.environ.get("MOOTHALL_SEED", int.from_bytes(os.urandom(3), "little")))
    count = int(os.environ.get("MOOTHALL_SCHEMAS", "60"))
    print(f"MOOTHALL_SEED={seed}; judge: {'jsonschema' if jsonschema else 'none'}", flush=True)
    draw = random.Random(seed)
    documents = 0
    for done in range(0, count, 200):
        documents += documents_of(draw, min(200, count - done), 200)
    print(f"{documents} documents")


def texts_and_patterns():
    choices = ["yes", "no", "perhaps not", "yes and no", "ä\"b"]
    bodies = run([chat(f"c{i}", "a", max_tokens=20, temperature=1.5, guided_choice=choices) for i in range(20)]
                 + [completion(f"r{i}", "a", max_tokens=30, temperature=1.5, guided_regex="(?:[A-Z][a-z]{2,5} ){2}[0-9]+") for i in range(10)]
                 + [chat(f"o{i}", "a", max_tokens=30 + i, temperature=2, response_format={"type": "json_object"}) for i in range(10)]
                 + [chat(f"s{i}", "a", max_tokens=40, structured_outputs=what) for i, what in enumerate(({"choice": ["x", "y"]}, {"regex": "a+b"}, {"json_object": True}))])
    seen = set()
    for name, body in bodies.items():
        choice = body["choices"][0]
        text = choice["text"] if name[0] == "r" else choice["message"]["content"]
        check(choice["finish_reason"] == "stop", f"{name}: {choice}")
        if name[0] == "c":
            seen.add(text)
        fits = {"c": lambda: text in choices, "r": lambda: re.fullmatch("(?:[A-Z][a-z]{2,5} ){2}[0-9]+", text), "o": lambda: isinstance(read(text), dict),
                "s": lambda: text in "xy" or re.fullmatch("a+b", text) or isinstance(read(text), dict)}[name[0]]
        check(fits(), f"{name}: {text!r}")
    check(len(seen) > 1, seen)


def properties_come_in_the_order_of_the_schema():
    turned = {**RECORD, "properties": dict(reversed(RECORD["properties"].items()))}
    bodies = run([chat("as written", "a", max_tokens=120, **form("s", RECORD, 0)), chat("turned", "a", max_tokens=120, **form("s", turned, 0)),
                  chat("as a text", "a", max_tokens=120, guided_json=json.dumps(turned))])
    for name, order in (("as written", list(RECORD["properties"])), ("turned", list(turned["properties"])), ("as a text", list(turned["properties"]))):
        keys = list(json.loads(bodies[name]["choices"][0]["message"]["content"]))
        check(keys == [key for key in order if key in keys], f"{name}: {keys}")


def strict_takes_no_more_than_was_named():
    what = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    ask = {"response_format": {"type": "json_schema", "json_schema": {"schema": what, "strict": True}}, "max_tokens": 60, "temperature": 2}
    for body in run([chat(f"{i}", f"{i}", seed=i, **ask) for i in range(8)]).values():
        check(list(json.loads(body["choices"][0]["message"]["content"])) == ["a"], body)


def what_cannot_be_is_refused_by_name():
    """Each alone: the others of the same file are answered."""
    cases = {
        "not json": ({"guided_json": "{"}, "guided_json", ""),
        "unknown": ({"guided_json": {"type": "object", "propertys": {}}}, "guided_json", "#/propertys"),
        "unsatisfiable": ({"guided_json": {"type": "array", "minItems": 3, "maxItems": 2}}, "guided_json", ""),
        "nothing to choose": ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": []}}}}, "response_format", "#/enum"),
        "without end": ({"guided_json": {"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/a"}}}}}, "guided_json", ""),
        "pattern": ({"guided_regex": "(a"}, "guided_regex", ""),
        "look-ahead": ({"structured_outputs": {"regex": "(?=a)b"}}, "structured_outputs", ""),
        "hostile": ({"guided_regex": "(a|b)*a(a|b){30}"}, "guided_regex", ""),
        "twice": ({"guided_json": {}, "guided_choice": ["a"]}, "guided_choice", "both say"),
        "with stop": ({"guided_json": {}, "stop": ["}"]}, "stop", "does not go together"),
        "budget": ({"guided_json": RECORD, "max_tokens": 5}, "max_tokens", "expected at least"),
    }
    items = [chat(name, "a", **{"max_tokens": 50, **fields}) for name, (fields, _, _) in cases.items()] + [chat("good", "a", max_tokens=50, guided_choice=["good"])]
    place = Place("refused")
    place.write("in.jsonl", lines(items))
    done = place.run("in.jsonl")
    check(done.code == 2, done)
    for result in place.results():
        name, response = result["custom_id"], result["response"]
        if name == "good":
            check(response["body"]["choices"][0]["message"]["content"] == "good", response)
            continue
        _, param, words = cases[name]
        body = response["body"] if response else {"error": result["error"]}
        check(body["error"]["param"] == param and words in body["error"]["message"], f"{name}: {result}")
    place.close()


def the_same_bytes_whoever_computes_them():
    items = []
    for i in range(30):
        more = [form("s", RECORD, i), {"guided_regex": "[a-z ]{4,40}[.]"}, {"n": 3, **form("s", RECORD, i)}, {"logprobs": True, "top_logprobs": 2, **form("s", RECORD, i)}, {},
                {"response_format": {"type": "json_object"}, "presence_penalty": 0.5}][i % 6]
        items.append(chat(f"i{i}", " ".join(["fix the build on hurd"] * (1 + i * 3 % 30)), max_tokens=90, temperature=[0, 1, 1.7][i % 3], **more))
    expected = None
    for flags in ([], ["--sequences", "1"], ["--sequences", "5", "--workers", "3", "--threads", "1"], "kill"):
        place = Place("forms")
        place.write("in.jsonl", lines(items))
        process = place.start("run", "--model", MODEL, "in.jsonl", "-o", "out.jsonl", *(["--workers", "2", "--threads", "1"] if flags == "kill" else flags))
        if flags == "kill":
            wait_lines(place)
            os.kill(place.children()["worker-1"], signal.SIGKILL)
        code, _, err = ended(process, 120)
        check(code == 0, (flags, code, err))
        got = sures(place.results())
        expected = expected or got
        for mine, other in zip(got, expected):
            check(mine == other, f"{flags}:\n  {mine}\n  {other}")
        check(len(got) == len(items), f"{flags}: {len(got)} results")
        place.nothing_left()
        place.close()


if __name__ == "__main__":
    main({case.__name__: case for case in (
        every_schema_and_budget_gives_a_valid_document, texts_and_patterns, properties_come_in_the_order_of_the_schema, strict_takes_no_more_than_was_named,
        what_cannot_be_is_refused_by_name, the_same_bytes_whoever_computes_them)})
