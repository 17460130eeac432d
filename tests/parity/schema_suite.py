"""The JSON-Schema-Test-Suite against the grammar that is made of a schema.

    schema_suite.py --program schema_accepts --tokenizer DIR [--suite DIR|FILE.tar.gz]

The suite is part of jsonschema's source package; run.sh puts that into build-venv/suite.  Taken are the cases of draft 2020-12
whose schemas use the supported keywords only; of the optional ones those about the six formats and about patterns.  Each instance is
written compactly, properties in the schema's order and numbers in their shortest form, and must be accepted or refused as the
suite says.  What is left out is counted by reason."""
import argparse
import collections
import glob
import json
import os
import sys
import tarfile
import urllib.parse

from schema_lines import Program, loads, names_of, orders

KEYWORDS = set("""$schema $id $comment title description default examples deprecated readOnly writeOnly $defs definitions $ref type enum
    const anyOf oneOf minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength pattern format items
    prefixItems minItems maxItems properties required additionalProperties""".split())
FORMATS = "date date-time time email uuid uri".split()
FILES = """additionalProperties anyOf boolean_schema const default defs dynamicRef enum exclusiveMaximum exclusiveMinimum items maxItems
    maxLength maximum minItems minLength minimum multipleOf oneOf pattern prefixItems properties ref refRemote required
    type""".split() + ["optional/ecmascript-regex", "optional/non-bmp-regex"] + ["optional/format/" + f for f in FORMATS]
LEAPS = ("optional/format/date-time", "optional/format/time")


def unsupported(schema, root=True):
    """Why the schema is not ours to judge, or None."""
    if not isinstance(schema, dict):
        return None
    for key, value in schema.items():
        if key not in KEYWORDS:
            return f"keyword {key}"
        if key == "$id" and not root:
            return "$id below the root"
        if key == "format" and value not in FORMATS:
            return f"format {value}"
        children = []
        if key in ("properties", "$defs", "definitions"):
            children = value.values()
        elif key in ("anyOf", "oneOf", "prefixItems"):
            children = value
        elif key in ("items", "additionalProperties"):
            children = [value]
        for child in children:
            reason = unsupported(child, False)
            if reason:
                return reason
    return None


def refs(schema):
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            elif key not in ("enum", "const", "default", "examples"):
                yield from refs(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from refs(value)


def read_suite(where):
    """name -> cases"""
    if where.endswith(".tar.gz"):
        with tarfile.open(where) as archive:
            for member in archive:
                at = member.name.find("json/tests/draft2020-12/")
                if at >= 0 and member.name.endswith(".json"):
                    yield member.name[at + len("json/tests/draft2020-12/") : -5], archive.extractfile(member).read()
    else:
        for path in glob.glob(where + "/**/*.json", recursive=True):
            yield os.path.relpath(path, where)[:-5], open(path, "rb").read()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--suite")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    if not args.suite:
        found = glob.glob(os.path.join(sys.prefix, "suite", "jsonschema-*.tar.gz"))
        if not found:
            print("the suite is not there: skipped")
            return 77
        args.suite = found[0]
    suite = dict(read_suite(args.suite))
    program = Program(args.program, args.tokenizer)
    left_out, refused = collections.Counter(), collections.Counter()
    schemas = tests = wrong = reordered = 0
    for name in FILES:
        for case in loads(suite[name]):
            # The texts of numbers matter, so the schema goes over as the suite has it.
            raw = next(c for c in json.loads(suite[name]) if c["description"] == case["description"])["schema"]
            schema = case["schema"]
            reason = unsupported(schema)
            base = schema.get("$id", "") if isinstance(schema, dict) else ""
            if not reason and any(not r.startswith("#") and (not base or urllib.parse.urldefrag(r)[0] != base) for r in refs(schema)):
                reason = "$ref to another document"
            if not reason and any(r.startswith("#") and r[1:2] not in ("", "/") for r in refs(schema)):
                reason = "$ref to an anchor"
            if reason:
                left_out[reason] += 1
                continue
            names = names_of(schema, {})
            instances = [orders(test["data"], names) for test in case["tests"]]
            answer = program.ask(json.dumps(raw), texts=[t for i in instances for t in i])
            if "refused" in answer:
                # The grounds on which a schema of these keywords may be refused.
                if "oneOf" in answer["refused"] and "share no value" in answer["refused"]:
                    refused["oneOf that is not disjoint"] += 1
                elif answer["refused"].endswith("no value is allowed") and not any(test["valid"] for test in case["tests"]):
                    refused["nothing is an instance, as the cases say"] += 1
                elif name == "multipleOf" and "at most 10000" in answer["refused"]:
                    refused["multipleOf over its limit"] += 1
                else:
                    wrong += 1
                    print(f"{name}: {case['description']}: {json.dumps(raw)}\n    refused: {answer['refused']}")
                continue
            schemas += 1
            accepts = answer["accepts"]
            for test, instance in zip(case["tests"], instances):
                mine, accepts = accepts[: len(instance)], accepts[len(instance) :]
                if name in LEAPS and test["valid"] and isinstance(test["data"], str) and ":60" in test["data"]:
                    refused["leap seconds, which are not generated"] += 1
                    test["valid"] = False
                tests += 1
                reordered += any(mine) and not mine[0]
                if any(mine) != test["valid"]:
                    wrong += 1
                    print(f"{name}: {case['description']}: {test['description']}: {json.dumps(raw)}\n    {instance[0]}: accepted"
                          f" {any(mine)}, expected {test['valid']}")
    if program.close() != 0:
        wrong += 1
    print(f"{schemas} schemas, {tests} instances ({reordered} in another order of properties), {wrong} wrong")
    print("refused:", dict(refused), " left out:", dict(left_out.most_common()))
    return wrong != 0 or schemas < 100


if __name__ == "__main__":
    sys.exit(main())
