#!/usr/bin/env python3
"""`moothall extract`: documents in, rows out, with the places where they were found.

    extract_test.py BUILD_DIR SOURCE_DIR [case ...]
"""

import csv
import io
import json
import os
import time

from pipelines import SCHEMA, Hall, demo, long_text, write_documents
from run_hall import MODEL, SLOW, Place, check, ended, main

COLUMNS = ["package", "version", "distribution", "urgency", "maintainer", "email", "date", "closes"]


def extract(place, *words, output="out.jsonl", schema=SCHEMA, **more):
    return place.call("extract", "--model", MODEL, "--schema", schema, *words, "-o", output, **more)


def at(row, pointer):
    for word in pointer.split("/")[1:]:
        word = word.replace("~1", "/").replace("~0", "~")
        row = row[int(word)] if isinstance(row, list) else row[word]
    return row


def stands_there(place, line):
    """Every labelled value is at its offsets; returns how many are exact."""
    data = place.read(line["source"])
    text = data.decode()
    exact = 0
    for pointer, span in line["spans"].items():
        value = at(line["row"], pointer)
        if span["label"] == "not_found":
            check(isinstance(value, str) and set(span) == {"label"}, span)
            continue
        in_bytes, in_text = data[slice(*span["bytes"])].decode(), text[slice(*span["chars"])]
        check(in_bytes == in_text, f"{line['source']} {pointer}: {in_bytes!r} by bytes, {in_text!r} by characters")
        if span["label"] == "exact":
            check(in_text == str(value), f"{line['source']} {pointer}: {in_text!r} stands there, not {value!r}")
            exact += 1
    return exact


def every_document_has_its_row_in_order():
    place = Place("ext-plain")
    texts = demo("entry", 24)
    texts[1] = "\ufeff" + texts[1].replace("\n", "\r\n")
    names = write_documents(place, texts)
    done = extract(place, "docs", "--workers", "2")
    check(done.code == 0, done)
    lines = place.results()
    check([line["source"] for line in lines] == names, "other documents, or another order")
    exact = 0
    for line in lines:
        check(list(line) == ["source", "row", "spans", "moothall"] and list(line["row"]) == COLUMNS, line)
        check(isinstance(line["row"]["closes"], list) and all(isinstance(v, int) for v in line["row"]["closes"]), line["row"])
        check(all(f"/{name}" in line["spans"] for name in COLUMNS[:-1]), "a string without its label")
        exact += stands_there(place, line)
    check(exact > 24 * 5, f"only {exact} values were found")

    table = extract(place, "docs", "--format", "csv", output="out.csv")
    check(table.code == 0, table)
    rows = list(csv.reader(io.StringIO(place.read("out.csv").decode(), newline="")))
    check(rows[0] == ["source", *COLUMNS, "error"], rows[0])
    for line, row in zip(lines, rows[1:], strict=True):
        check(row == [line["source"], *[line["row"][name] for name in COLUMNS[:-1]],
                      json.dumps(line["row"]["closes"], separators=(",", ":")), ""], row)
    again = extract(place, "docs", "--workers", "2")
    check(again.code == 0 and "nothing to do" in again.err, again)
    place.nothing_left()
    place.no_sockets()
    place.close()


def pieces_become_one_row_or_many():
    place = Place("ext-long")
    place.write("long.txt", "\ufeff" + long_text("entry", 30, seed=3))
    words = ["long.txt", "--chunk-tokens", "400", "--overlap-tokens", "0", "--keep"]
    done = extract(place, *words, "--merge", "package=all,version=longest,urgency=vote")
    check(done.code == 0, done)
    line = place.results()[0]
    chunks = line["moothall"]["chunks"]
    check(chunks >= 8 and line["moothall"]["jobs"] == chunks, line["moothall"])
    check(isinstance(line["row"]["package"], list) and len(line["row"]["package"]) == chunks, line["row"]["package"])
    check(isinstance(line["row"]["version"], str), line["row"])
    check("/package/0" in line["spans"] and "/package/7" in line["spans"], list(line["spans"]))
    stands_there(place, line)
    # Other rules change no job: nothing is computed again.
    began = time.monotonic()
    other = extract(place, *words, "--merge", "package=first")
    check(other.code == 0 and place.results()[0]["row"]["package"] == line["row"]["package"][0], other)
    audit = place.call("audit", "--state", "out.jsonl.moothall")
    check(audit.code == 0 and f"{chunks} jobs" in audit.out and time.monotonic() - began < 30 * SLOW, audit)

    many = extract(place, *words, "--many", output="many.jsonl")
    check(many.code == 0, many)
    lines = place.results("many.jsonl")
    check(all(line["source"] == "long.txt" and isinstance(line["row"], dict) for line in lines), lines[:1])
    for line in lines:
        stands_there(place, line)
    place.close()


def what_stands_in_another_piece_is_found_too():
    place = Place("ext-stray")
    text = long_text("entry", 8, seed=5).replace("Zebra", "")
    place.write("long.txt", "\ufeff" + text + "\r\n\r\nA ZEBRA, late. The Zebra.")
    place.write("s.json", json.dumps({"type": "object", "description": "Find it.", "required": ["a", "b", "c"],
                                      "properties": {"a": {"const": "Zebra"}, "b": {"const": "zebra, Late"}, "c": {"const": "okapi"}}}))
    done = extract(place, "long.txt", "--chunk-tokens", "200", schema="s.json")
    check(done.code == 0, done)
    line = place.results()[0]
    check(line["moothall"]["chunks"] > 4, line["moothall"])
    check([line["spans"]["/" + name]["label"] for name in "abc"] == ["exact", "normalised", "not_found"], line["spans"])
    check(stands_there(place, line) == 1, line["spans"])
    place.close()


def schemas_are_judged_before_anything_runs():
    place = Place("ext-schema")
    write_documents(place, demo("entry", 1))
    cases = [
        ("{", "schema"),
        ('{"type":"string"}', "properties"),
        ('{"type":"object","properties":{"a":{"type":"string","maxLenght":3}}}', "#/properties/a/maxLenght"),
        ('{"type":"object","properties":{"a":{"type":"integer","minimum":3,"maximum":2}},"required":["a"]}', "schema"),
        ('{"type":"object","properties":{"a":{"enum":[]}},"required":["a"]}', "#/properties/a/enum"),
        ('{"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]}', "schema"),
        ("[" * 10000, "schema"),
    ]
    for i, (text, said) in enumerate(cases):
        place.write(f"s{i}.json", text)
        began = time.monotonic()
        done = extract(place, "docs", schema=f"s{i}.json")
        check(done.code == 1 and said in done.err and done.err.count("\n") == 1, f"{text[:60]}: {done}")
        check(time.monotonic() - began < 5 * SLOW and not os.path.exists(place.path("out.jsonl.moothall")), text[:60])
    # an integer beyond 64 bits is a bound like any other, but not one that can be copied
    place.write("wide.json", '{"type":"object","properties":{"a":{"type":"integer","minimum":0,"maximum":18446744073709551615}},"required":["a"]}')
    done = extract(place, "docs", "--many", schema="wide.json")
    check(done.code == 1 and "--many" in done.err and "18446744073709551615" in done.err, done)
    done = extract(place, "docs", "--quiet", schema="wide.json")
    check(done.code == 0 and [line["row"]["a"] >= 0 for line in place.results()] == [True], done)
    place.close()


def references_keep_their_meaning_in_many_rows():
    """The schema becomes the items of an array: "#" is then another place, and a property may have a keyword's name."""
    place = Place("ext-refs")
    names = write_documents(place, demo("entry", 4))
    place.write("s.json", json.dumps({
        "type": "object", "required": ["name", "enum"],
        "properties": {"name": {"$ref": "#/$defs/short"}, "next": {"$ref": "#"}, "enum": {"$ref": "#/properties/name"}},
        "$defs": {"short": {"type": "string", "minLength": 1, "maxLength": 5}}}))

    def judge(row):
        check(set(row) <= {"name", "next", "enum"} and 1 <= len(row["name"]) <= 5 and 1 <= len(row["enum"]) <= 5, row)
        if "next" in row:
            judge(row["next"])

    for flags in ([], ["--many"]):
        done = extract(place, "docs", "--temperature", "1.5", "--max-tokens", "90", "--restart", *flags, schema="s.json")
        check(done.code == 0, done)
        lines = place.results()
        check({line["source"] for line in lines} <= set(names) and lines, lines)
        for line in lines:
            judge(line["row"])
            stands_there(place, line)
    place.close()


def what_cannot_be_done_is_said_before_anything_runs():
    place = Place("ext-refused")
    write_documents(place, demo("entry", 1))
    cases = [
        (["docs", "--max-tokens", "5"], "shortest row"),
        (["docs", "--merge", "packag=first"], "package"),
        (["docs", "--merge", "package=frist"], "first"),
        (["docs", "--merge", "package=first", "--many"], "--many"),
        (["docs", "--instruction", "word " * 5000], "context"),
        (["docs", "--format", "xml"], "--format"),
        (["docs", "--template", "{package"], "template"),
        (["docs", "--weights", "q4"], "q4"),
    ]
    for words, said in cases:
        done = extract(place, *words)
        check(done.code == 1 and said in done.err and done.err.count("\n") == 1, f"{words}: {done}")
        check(not os.path.exists(place.path("out.jsonl.moothall")), f"{words} left something")
    done = place.call("extract", "--model", MODEL, "docs", "-o", "out.jsonl")
    check(done.code == 1 and "--schema" in done.err, done)
    place.close()


def what_is_no_text_fails_alone():
    place = Place("ext-bad")
    good = demo("entry", 2)
    names = write_documents(place, [good[0], b"", b"PK\3\4\0\0\0" * 9, "Ger\u00e4t ".encode("utf-16"), good[1]])
    done = extract(place, "docs", "--format", "csv", output="out.csv")
    check(done.code == 2, done)
    rows = list(csv.reader(io.StringIO(place.read("out.csv").decode(), newline="")))
    check([row[0] for row in rows[1:]] == names, rows)
    check([bool(row[-1]) for row in rows[1:]] == [False, True, True, True, False], [row[-1] for row in rows])
    check(extract(place, "docs").code == 2, "again, as JSON")
    check([("error" in line, "row" in line) for line in place.results()] == [(False, True)] + [(True, False)] * 3 + [(False, True)], "rows")
    many = extract(place, "docs", "--many")
    check(many.code == 1 and "--many was `false` and is now `true`" in many.err, many)
    place.close()


def a_document_that_changes_meanwhile_is_no_mixture():
    place = Place("ext-change")
    names = write_documents(place, demo("entry") * 2)
    process = place.start("extract", "--model", MODEL, "--schema", SCHEMA, "docs", "-o", "out.jsonl")
    until = time.monotonic() + 30 * SLOW
    asked = ""
    while f" {len(names)}\n" not in asked: # every document was read, and the last ones' answers are far away
        check(time.monotonic() < until and process.poll() is None, f"never asked for all: {asked}")
        asked = place.call("status", "--state", "out.jsonl.moothall").out
    place.write(names[-1], demo("entry", 1)[0])
    os.unlink(place.path(names[-2]))
    code, _, err = ended(process, 120)
    lines = place.results()
    check(code == 2 and len(lines) == len(names), err)
    check([line["source"] for line in lines if "error" in line] == names[-2:], [line for line in lines if "error" in line])
    place.close()


def rows_of_tables_are_documents():
    place = Place("ext-table")
    texts = demo("entry", 3)
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(["id", "entry"])
    for i, text in enumerate(texts):
        table.writerow([i, text])
    place.write("t.csv", out.getvalue())
    place.write("t.jsonl", "".join(json.dumps({"entry": text}) + "\n" for text in texts) + '{"other": 1}\n')
    write_documents(place, texts)
    check(extract(place, "docs", output="files.jsonl").code == 0, "as files")
    expected = [line["row"] for line in place.results("files.jsonl")]
    done = extract(place, "t.csv", "t.jsonl", "--template", "{entry}")
    check(done.code == 2, done)
    lines = place.results()
    check([line["source"] for line in lines] == ["t.csv#1", "t.csv#2", "t.csv#3", *[f"t.jsonl#{i}" for i in range(1, 5)]], lines)
    check([line["row"] for line in lines[:6]] == expected * 2, "other rows than from files")
    check("entry" in lines[6]["error"]["message"], lines[6])
    place.close()


def a_shared_hall_needs_no_model_here():
    hall = Hall("ext-shared")
    write_documents(hall, demo("entry", 6))
    private = extract(hall, "docs", output="private.jsonl")
    check(private.code == 0, private)
    shared = hall.call("extract", "--broker", hall.endpoint, "--schema", SCHEMA, "docs", "-o", "out.jsonl")
    check(shared.code == 0, shared)
    check([(line["source"], line["row"], line["spans"]) for line in hall.results()] ==
          [(line["source"], line["row"], line["spans"]) for line in hall.results("private.jsonl")], "other rows")
    restarted = hall.call("extract", "--broker", hall.endpoint, "--schema", SCHEMA, "docs", "-o", "out.jsonl", "--restart")
    check(restarted.code == 0, restarted)
    hall.close()


main({case.__name__: case for case in (
    every_document_has_its_row_in_order,
    pieces_become_one_row_or_many,
    what_stands_in_another_piece_is_found_too,
    schemas_are_judged_before_anything_runs,
    references_keep_their_meaning_in_many_rows,
    what_cannot_be_done_is_said_before_anything_runs,
    what_is_no_text_fails_alone,
    a_document_that_changes_meanwhile_is_no_mixture,
    rows_of_tables_are_documents,
    a_shared_hall_needs_no_model_here,
)})
