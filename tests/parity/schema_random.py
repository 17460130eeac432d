"""Random schemas, with python's `jsonschema` as the judge.

    schema_random.py --program schema_accepts --tokenizer DIR [--count N] [--seed N]

Of each schema (1) texts are written by random walks through its grammar, under random budgets from the minimum on: every one must be
valid and within its budget; (2) instances made after the schema, and broken ones, are accepted or refused as the judge says.
A schema may be refused only where no value of it can exist, or for the stated reasons that REFUSALS lists."""
import argparse
import collections
import json
import math
import random
import sys

from schema_lines import ORDERS_MAX, Program, loads, names_of, orders

PROPERTIES = ["id", "name", "price", "tags", "größe", "a\"b\\c", "x/y~z"]
OTHERS = ["other", "x", "é"]
PATTERNS = ["^[a-z]+$", "^[A-Z]{2}[0-9]{3}$", "b", "^(yes|no|maybe)$", "[0-9]+", "^a.*z$", "^.{0,5}$", "^\\S+ \\S+$", "^[^\"\\\\]*$", "ö", "^\\u0041?$"]
FORMATS = {
    "date": ["2024-02-29", "2023-02-29", "1999-12-31", "99-1-1"],
    "date-time": ["2024-02-29T12:00:00Z", "2023-01-01T25:00:00Z", "1985-04-12T23:20:50.52+02:00"],
    "time": ["12:00:00Z", "24:00:00Z", "08:30:06.283185Z"],
    "email": ["joe@example.com", "joe", "a.b+c@d-e.org"],
    "uuid": ["2eb8aa08-aa98-11ea-b4aa-73b441d16380", "2eb8aa08aa9811eab4aa73b441d16380", "2EB8AA08-AA98-11EA-B4AA-73B441D16380"],
    "uri": ["http://example.com/a?b=c#d", "//x", "urn:isbn:0451450523", "http://a b"],
}
STRINGS = ["", "a", "b", "ab", "abz", "yes", "no", "AB123", "x y", "tab\there", "quote\"", "back\\slash", "größer", "ö", "日本", "😀", "\u0001", "abcdefghij",
           "a" * 30, "12", "-1.5"]
# What a schema of supported keywords may be refused for; all but the last only where nothing can be generated.
REFUSALS = ["leaves no number", "is over the max", "no value is allowed", "is allowed by", "no text fits", "never ends", "requires itself", "no finite text", "share no value"]


class Maker:
    def __init__(self, rng):
        self.rng = rng
        self.defs = {}

    def chance(self, p):
        return self.rng.random() < p

    def value(self, depth=0):
        r = self.rng
        kind = r.randrange(8 if depth < 2 else 6)
        if kind == 0:
            return r.choice([None, True, False])
        if kind in (1, 2):
            return r.choice(STRINGS)
        if kind == 3:
            return r.choice([0, 1, -1, 12, 100, 10**15, -7])
        if kind == 4:
            return r.choice([0.5, -0.25, 1.0, 3.75, 100.0, 1e3, 0.001, 12.1])
        if kind == 5:
            return r.choice([[], {}, 0, ""])
        if kind == 6:
            return [self.value(depth + 1) for _ in range(r.randrange(3))]
        return {k: self.value(depth + 1) for k in r.sample(PROPERTIES, r.randrange(3))}

    def string(self):
        r, s = self.rng, {}
        how = r.randrange(6)
        if how == 0:
            s["pattern"] = r.choice(PATTERNS)
        elif how == 1:
            s["format"] = r.choice(list(FORMATS))
        if how not in (1,) and self.chance(0.5):
            s["minLength"] = r.choice([0, 1, 2, 3])
        if how not in (1,) and self.chance(0.5):
            s["maxLength"] = r.choice([3, 4, 5, 8, 40, 3.0])
        return s

    def number(self, integer):
        r, s = self.rng, {}
        low = r.choice([-1000, -100, -12.5, -1, 0, 0.1, 1, 3, 10])
        high = low + r.choice([0, 0.5, 1, 2, 10, 99.95, 1000, 123456])
        if integer or self.chance(0.2):
            if self.chance(0.3):
                s["multipleOf"] = r.choice([1, 2, 3, 5, 7, 10, 100])
        elif self.chance(0.2):
            s["multipleOf"] = r.choice([0.5, 0.01, 0.25, 1.5, 0.1])
        if self.chance(0.5):
            s[r.choice(["minimum", "exclusiveMinimum"])] = low
        if self.chance(0.5):
            s[r.choice(["maximum", "exclusiveMaximum"])] = high
        return s

    def array(self, depth):
        r, s = self.rng, {}
        if self.chance(0.8):
            s["items"] = self.schema(depth + 1)
        if self.chance(0.3):
            s["prefixItems"] = [self.schema(depth + 1) for _ in range(r.randrange(1, 4))]
        if self.chance(0.4):
            s["minItems"] = r.randrange(0, 3)
        if self.chance(0.5):
            s["maxItems"] = r.randrange(2, 6)
        return s

    def object(self, depth):
        r, s = self.rng, {}
        names = r.sample(PROPERTIES, r.randrange(0, 5))
        if names or self.chance(0.5):
            s["properties"] = {n: self.schema(depth + 1) for n in names}
        if self.chance(0.6):
            s["required"] = [n for n in names if self.chance(0.6)] + ([r.choice(OTHERS)] if self.chance(0.1) else [])
        if self.chance(0.6):
            s["additionalProperties"] = False if self.chance(0.6) else self.schema(depth + 1)
        items = list(s.items())
        r.shuffle(items)
        return dict(items)

    def typed(self, kind, depth):
        if kind == "string":
            return self.string()
        if kind in ("integer", "number"):
            return self.number(kind == "integer")
        if kind == "array":
            return self.array(depth)
        if kind == "object":
            return self.object(depth)
        return {}

    def schema(self, depth=0):
        r = self.rng
        kinds = ["null", "boolean", "integer", "number", "string", "string", "array", "object", "object"]
        if depth == 0:
            kinds = ["object"] * 6 + kinds
        if depth > 3:
            kinds = kinds[:6]
        how = r.random()
        if depth > 0 and how < 0.04:
            return self.chance(0.85)
        if how < 0.12:
            return {"enum": [self.value() for _ in range(r.randrange(1, 6))]}
        if how < 0.16:
            return {"const": self.value()}
        if how < 0.22 and depth < 4:
            return {**(self.typed(r.choice(kinds), depth) if self.chance(0.5) else {}),
                    "anyOf": [self.schema(depth + 1) for _ in range(r.randrange(1, 4))]}
        if how < 0.27 and depth < 4:
            return self.one(depth)
        if how < 0.33 and self.defs:
            ref = {"$ref": "#/$defs/" + r.choice(list(self.defs))}
            if self.chance(0.3):
                ref.update(self.typed(r.choice(kinds), depth))
            return ref
        if how < 0.37:
            return self.typed(r.choice(kinds), depth)  # without a type
        if how < 0.44:
            several = r.sample(sorted(set(kinds)), r.randrange(1, 4))
            schema = {"type": several}
            for kind in several:
                schema.update(self.typed(kind, depth + 1))
            return self.sane(schema)
        kind = r.choice(kinds)
        return {"type": kind, **self.typed(kind, depth), **({"description": "said"} if self.chance(0.1) else {})}

    def sane(self, schema):
        """Two types may have left bounds that contradict each other."""
        if {"integer", "number"} <= set(schema["type"]):
            for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
                schema.pop(key, None)
        return schema

    def one(self, depth):
        r = self.rng
        if self.chance(0.5):
            kinds = r.sample(["null", "boolean", "integer", "string", "array", "object"], 3)
            return {"oneOf": [{"type": k, **self.typed(k, depth + 1)} for k in kinds]}
        return {"type": "object", "oneOf": [
            {"properties": {"kind": {"const": k}, **{n: self.schema(depth + 2) for n in r.sample(PROPERTIES, 2)}}, "required": ["kind"],
             **({"additionalProperties": False} if self.chance(0.5) else {})} for k in ("one", "two", "three")[: r.randrange(1, 4)]]}

    def whole(self):
        for name in "PQR"[: self.rng.randrange(4)]:
            self.defs[name] = True
        self.defs = {name: self.schema(1) for name in self.defs}
        schema = self.schema(0)
        if self.defs:
            schema = {"$defs": self.defs, **schema}
        return schema

    # ---- instances ----

    def instance(self, schema, depth=0):
        """A value that tries to fit."""
        r = self.rng
        if schema is True or schema is False or depth > 6 or self.chance(0.04):
            return self.value()
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return r.choice(schema["enum"])
        value = None
        if "$ref" in schema and (len(schema) == 1 or self.chance(0.7)):
            return self.instance(self.defs[schema["$ref"].rsplit("/", 1)[1]], depth + 1)
        branch = schema.get("anyOf") or schema.get("oneOf")
        if branch and len(schema) == 1 + ("type" in schema):
            return self.instance(r.choice(branch), depth + 1)
        kind = schema.get("type") or r.choice(["string", "number", "array", "object"])
        kind = r.choice(kind) if isinstance(kind, list) else kind
        if branch:
            value = self.instance(r.choice(branch), depth + 1)
            if not isinstance(value, dict) or kind != "object":
                return value
        if kind == "null":
            return None
        if kind == "boolean":
            return self.chance(0.5)
        if kind == "string":
            if "format" in schema:
                return r.choice(FORMATS[schema["format"]])
            return r.choice(STRINGS)
        if kind in ("integer", "number"):
            low = schema.get("minimum", schema.get("exclusiveMinimum", -5))
            high = schema.get("maximum", schema.get("exclusiveMaximum", low + 20))
            number = r.choice([low, high, (low + high) / 2, r.randint(int(low) - 1, max(int(low), int(high)) + 1)])
            step = schema.get("multipleOf")
            number = round(number / step) * step if step else number
            return int(number) if kind == "integer" or number == int(number) else round(float(number), 4)
        if kind == "array":
            count = r.randrange(schema.get("minItems", 0), min(schema.get("maxItems", 4), 4) + 1)
            prefix = schema.get("prefixItems", [])
            return [self.instance(prefix[i] if i < len(prefix) else schema.get("items", True), depth + 1) for i in range(count)]
        made = value if isinstance(value, dict) else {}
        for name, child in schema.get("properties", {}).items():
            if name in schema.get("required", []) or self.chance(0.5):
                made[name] = self.instance(child, depth + 1)
        for name in schema.get("required", []):
            if name not in made:
                made[name] = self.instance(schema.get("additionalProperties", True), depth + 1)
        if schema.get("additionalProperties", True) is not False and self.chance(0.2):
            made[r.choice(OTHERS)] = self.instance(schema.get("additionalProperties", True), depth + 1)
        return made

    def broken(self, value):
        """Some part of it replaced, taken away or added."""
        r = self.rng
        if isinstance(value, dict) and value and self.chance(0.7):
            value = dict(value)
            name = r.choice(list(value))
            how = r.randrange(3)
            if how == 0:
                del value[name]
            elif how == 1:
                value[name] = self.broken(value[name])
            else:
                value[r.choice(PROPERTIES + OTHERS)] = self.value()
            return value
        if isinstance(value, list) and value and self.chance(0.7):
            value = list(value)
            at = r.randrange(len(value))
            if self.chance(0.5):
                value[at] = self.broken(value[at])
            else:
                value.insert(at, self.value())
            return value
        return self.value()


def loops(schema, seen=()):
    """Whether a definition refers to itself in place, which no validator survives."""
    if not isinstance(schema, dict):
        return False
    return any(loops(s, seen) for s in schema.get("anyOf", []) + schema.get("oneOf", [])) or (
        "$ref" in schema and (schema["$ref"] in seen or loops(DEFS[schema["$ref"]], seen + (schema["$ref"],))))


DEFS = {}


def has_format(schema):
    return '"format"' in json.dumps(schema)


def order_count(value):
    """In how many orders of keys it can be written."""
    if isinstance(value, dict):
        return math.factorial(len(value)) * math.prod(order_count(v) for v in value.values())
    return math.prod(order_count(v) for v in value) if isinstance(value, list) else 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--count", type=int, default=250)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--texts", type=int, default=6, help="written of each schema")
    args = parser.parse_args()
    try:
        import jsonschema
        import rfc3339_validator, rfc3986_validator  # noqa: without them it has no opinion on times and URIs
    except ImportError as missing:
        print(f"{missing}: skipped")
        return 77
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
    print("--seed", seed)
    judge = jsonschema.Draft202012Validator
    reader = Program(args.program, args.tokenizer)
    writer = Program(args.program, args.tokenizer, "--write", str(args.texts), str(seed))
    counts = collections.Counter()
    wrong = 0
    for i in range(args.count):
        maker = Maker(random.Random(f"{seed} {i}"))
        schema = maker.whole()
        text = json.dumps(schema)
        DEFS.clear()
        DEFS.update({"#/$defs/" + name: d for name, d in maker.defs.items()})
        if any(loops(d) for d in DEFS.values()):
            counts["left out"] += 1
            continue
        exact = loads(text)
        validator = judge(exact, format_checker=judge.FORMAT_CHECKER)

        def valid(value):
            return validator.is_valid(value)

        answer = writer.ask(text)
        values = [maker.instance(schema) for _ in range(6)]
        values += [maker.broken(v) for v in values]
        values = [loads(json.dumps(v)) for v in values]
        if "refused" in answer:
            counts["refused"] += 1
            if not any(r in answer["refused"] for r in REFUSALS) or (
                "share no value" not in answer["refused"] and "leaves no number" not in answer["refused"] and any(valid(v) for v in values)):
                wrong += 1
                print(f"{i}: {text}\n    refused: {answer['refused']}")
            continue
        counts["schemas"] += 1
        for made in answer["texts"]:
            counts["texts"] += 1
            try:
                value = loads(made["text"])
                fault = next((e.message for e in validator.iter_errors(value)), None)
            except ValueError as e:
                fault = str(e)
            if fault or made["tokens"] > made["budget"]:
                wrong += 1
                print(f"{i}: {text}\n    wrote {made}: {fault}")
        names = names_of(schema, {})
        values = [v for v in values if order_count(v) <= ORDERS_MAX]
        forms = [orders(v, names) for v in values]
        values = [loads(form[0]) for form in forms]  # 100.0 is 100
        accepts = reader.ask(text, texts=[t for f in forms for t in f])["accepts"]
        for value, form in zip(values, forms):
            mine, accepts = any(accepts[: len(form)]), accepts[len(form) :]
            right = valid(value)
            counts["accepted" if mine else "not accepted"] += 1
            # The judge's formats are laxer than the standard's.
            if mine != right and not (right and has_format(schema)):
                wrong += 1
                print(f"{i}: {text}\n    {form[0]}: accepted {mine}, expected {right}")
    if reader.close() != 0 or writer.close() != 0:
        wrong += 1
    print(dict(counts), f"{wrong} wrong")
    return wrong != 0 or counts["schemas"] < 0.6 * args.count


if __name__ == "__main__":
    sys.exit(main())
