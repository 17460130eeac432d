"""What schema_suite.py and schema_random.py share: instances as texts, and the program that reads them."""
import itertools
import json
import subprocess
from decimal import Decimal


def loads(text):
    """Numbers exact."""
    return json.loads(text, parse_float=Decimal)


def number(value):
    """The shortest spelling: no exponent, no zeros at the end, 1.0 is 1."""
    if isinstance(value, int):
        return str(value)
    value = Decimal(value) if isinstance(value, Decimal) else Decimal(repr(value))
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


NAMED = {"\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def spell(text):
    out = ['"']
    for c in text:
        if c in '"\\':
            out.append("\\" + c)
        elif c in NAMED:
            out.append(NAMED[c])
        elif c < " ":
            out.append("\\u%04x" % ord(c))
        else:
            out.append(c)
    return "".join(out) + '"'


def names_of(schema, names):
    """Property names in the order in which the schema has them."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "properties" and isinstance(value, dict):
                for name, child in value.items():
                    names.setdefault(name, len(names))
                    names_of(child, names)
            elif key not in ("enum", "const", "default", "examples"):
                names_of(value, names)
    elif isinstance(schema, list):
        for value in schema:
            names_of(value, names)
    return names


ORDERS_MAX = 720


def texts(value, names):
    """The value's compact texts: first with keys in the schema's order, then in every other order, as far as ORDERS_MAX goes.
    Which order is right depends on the branch of an anyOf: properties that it does not name come last."""
    if value is None or value is True or value is False:
        yield {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, str):
        yield spell(value)
    elif isinstance(value, (int, float, Decimal)):
        yield number(value)
    elif isinstance(value, list):
        for items in itertools.islice(itertools.product(*(list(texts(v, names)) for v in value)), ORDERS_MAX):
            yield "[" + ",".join(items) + "]"
    else:
        keys = sorted(value, key=lambda k: names.get(k, len(names)))
        children = {k: list(texts(v, names)) for k, v in value.items()}
        for order in itertools.islice(itertools.permutations(keys), ORDERS_MAX):
            for items in itertools.islice(itertools.product(*(children[k] for k in order)), ORDERS_MAX):
                yield "{" + ",".join(spell(k) + ":" + v for k, v in zip(order, items)) + "}"


def orders(value, names, most=ORDERS_MAX):
    return list(itertools.islice(texts(value, names), most))


class Program:
    """schema_accepts, line by line."""

    def __init__(self, path, tokenizer, *arguments):
        self.process = subprocess.Popen([path, tokenizer, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, schema, **fields):
        """schema: its text."""
        self.process.stdin.write(json.dumps({"schema": schema, **fields}).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if len(line) < 2:
            raise SystemExit(f"the program failed at the schema {schema}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        return self.process.wait()
