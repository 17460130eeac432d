#!/usr/bin/env python3
"""`moothall summarize`: documents in, a summary of each out, however long they are and whatever they are.

    summarize_test.py BUILD_DIR SOURCE_DIR [case ...]
"""

import json
import os
import signal
import time

from pipelines import ONE_LINE, Hall, demo, every_entry, long_text, small_model, write_documents
from run_hall import MODEL, SLOW, Place, check, ended, lines, main


def summarize(place, *words, output="out.jsonl", model=MODEL, **more):
    return place.call("summarize", "--model", model, *words, "-o", output, **more)


def each_document_has_its_line_in_order():
    """A summary is what `run` answers to the same words."""
    place = Place("sum-plain")
    texts = demo("description", 12)
    names = write_documents(place, texts)
    done = summarize(place, "docs", "--instruction", ONE_LINE, "--max-tokens", "40", "--workers", "2")
    check(done.code == 0, done)
    rows = place.results()
    check([row["source"] for row in rows] == names, [row["source"] for row in rows])
    check(all(set(row) == {"source", "summary", "moothall"} for row in rows), rows[0])
    check(all(row["moothall"]["chunks"] == 1 and row["moothall"]["levels"] == 0 and row["moothall"]["jobs"] == 1 for row in rows),
          "a document of one piece has one job")
    requests = [{"custom_id": name, "method": "POST", "url": "/v1/chat/completions",
                 "body": {"messages": [{"role": "user", "content": f"{ONE_LINE}\n\n{text.strip()}"}], "max_tokens": 40, "temperature": 0}}
                for name, text in zip(names, texts)]
    place.write("in.jsonl", lines(requests))
    check(place.run("in.jsonl", output="run.jsonl").code == 0, "run")
    for row, result in zip(rows, place.results("run.jsonl")):
        said = result["response"]["body"]["choices"][0]["message"]["content"]
        check(row["summary"] == said.strip(), f"{row['source']}: {row['summary']!r}, run says {said!r}")
    check(not os.path.exists(place.path("out.jsonl.moothall/store")), "the store stays after all went well")
    again = summarize(place, "docs", "--instruction", ONE_LINE, "--max-tokens", "40", "--workers", "2")
    check(again.code == 0 and "nothing to do" in again.err, again)
    place.nothing_left()
    place.no_sockets()
    place.close()


def a_long_document_is_reduced_within_the_context():
    """Three levels in a context of 512: no prompt over it, two pieces a group at least, and the same bytes twice."""
    place = Place("sum-long")
    model = small_model(place, 512)
    place.write("long.txt", long_text("description", 32))
    place.write("short.txt", demo("description", 1)[0])
    words = ["long.txt", "short.txt", "--instruction", ONE_LINE + " word" * 160, "--max-tokens", "24", "--keep"]
    done = summarize(place, *words, model=model)
    check(done.code == 0, done)
    first = place.read("out.jsonl")
    rows = place.results()
    check(rows[0]["moothall"]["chunks"] > 32 and rows[0]["moothall"]["levels"] >= 3, rows[0]["moothall"])
    check(rows[1]["moothall"]["jobs"] == 1, rows[1]["moothall"])
    notes = place.results("out.jsonl.moothall/summaries.jsonl")
    levels = [0] * (rows[0]["moothall"]["levels"] + 1)
    for note in notes:
        check(note["source"] == "long.txt", "a document of one piece has no intermediate summary")
        check(note["number"] == levels[note["level"]], f"out of order: {note}")
        levels[note["level"]] += 1
    check(levels[0] == rows[0]["moothall"]["chunks"] and levels[-1] == 1, levels)
    check(all(above <= (below + 1) // 2 for below, above in zip(levels, levels[1:])), f"a level does not halve: {levels}")
    check(notes[-1]["summary"] == rows[0]["summary"], "the last summary is the document's")
    used = [entry["response"]["body"]["usage"] for entry in every_entry(place, "out.jsonl.moothall")]
    check(len(used) == sum(levels) + 1, f"{len(used)} jobs, {sum(levels) + 1} expected")
    check(max(u["prompt_tokens"] for u in used) + 24 <= 512, "a prompt leaves no room for its answer")
    audit = place.call("audit", "--state", "out.jsonl.moothall")
    check(audit.code == 0 and "clean" in audit.out, audit)

    os.unlink(place.path("out.jsonl"))
    began = time.monotonic()
    check(summarize(place, *words, model=model).code == 0, "again, from the store")
    check(place.read("out.jsonl") == first, "other bytes from the store")
    check(time.monotonic() - began < 20 * SLOW, "results that were there were computed again")
    place.close()


def a_thousand_pieces_are_reduced():
    """Pieces of 16 tokens, many to a group: never over the context, and the same bytes from nothing."""
    place = Place("sum-wide")
    model = small_model(place, 512)
    place.write("long.txt", long_text("description", 150, seed=2))
    words = ["long.txt", "--instruction", "Sum up.", "--max-tokens", "8", "--chunk-tokens", "16", "--keep"]
    check(summarize(place, *words, model=model).code == 0, "summarize")
    first, line = place.read("out.jsonl"), place.results()[0]
    check(line["moothall"]["chunks"] >= 1000 and line["moothall"]["levels"] >= 2, line["moothall"])
    used = [entry["response"]["body"]["usage"]["prompt_tokens"] for entry in every_entry(place, "out.jsonl.moothall")]
    check(len(used) == line["moothall"]["jobs"] and max(used) + 8 <= 512, f"{len(used)} jobs, the longest prompt {max(used)}")
    check(summarize(place, *words, "--restart", "--workers", "2", model=model).code == 0 and place.read("out.jsonl") == first,
          "other bytes the second time")
    place.close()


def what_is_no_text_fails_alone():
    place = Place("sum-bad")
    good = demo("description", 2)
    write_documents(place, [good[0], b"", b"\x7fELF\0\0\1\2" * 40, "caf\u00e9 cr\u00e8me br\u00fbl\u00e9e ".encode("latin-1") * 9, b" \n\t\n", good[1]])
    os.symlink("nowhere", place.path("docs/d0009.txt"))
    with open(os.path.join(place.dir.encode(), b"docs", b"d001\xff\n.txt"), "wb") as file:
        file.write(good[1].encode())
    os.symlink("..", place.path("docs/loop"))
    done = summarize(place, "docs", "--instruction", ONE_LINE)
    check(done.code == 2, done)
    rows = place.results()
    bad = [row["source"] for row in rows if "error" in row]
    check(bad == ["docs/d0001.txt", "docs/d0002.txt", "docs/d0003.txt", "docs/d0004.txt", "docs/d0009.txt"], bad)
    for row in rows:
        check(("summary" in row) != ("error" in row), row)
        if "error" in row:
            check(row["error"]["code"] and row["error"]["message"], row)
    check([r["source"] for r in rows][-1] == "docs/d001\ufffd\n.txt" and rows[-1]["summary"] == rows[-3]["summary"], rows[-1])
    check(any("\ufffd" in row["source"] and "summary" in row for row in rows), "a name that is not UTF-8")
    again = summarize(place, "docs", "--instruction", ONE_LINE)
    check(again.code == 2 and "nothing to do" in again.err, again)
    check(place.results() == rows, "the rows changed")
    retried = summarize(place, "docs", "--instruction", ONE_LINE, "--retry-failed")
    check(retried.code == 2 and place.results() == rows, retried)
    for name in bad:
        os.unlink(place.path(name))
    write_documents(place, [good[1]], prefix="x")
    mended = summarize(place, "docs", "--instruction", ONE_LINE)
    check(mended.code == 0, mended)
    check([row["source"] for row in place.results() if "error" in row] == [], "mended")
    place.close()


def documents_come_from_tables_and_standard_input():
    place = Place("sum-table")
    text = demo("description", 2)
    place.write("t.csv", 'name,text\nfirst,"' + text[0].replace('"', '""') + '"\nsecond,"' + text[1].replace('"', '""') + '"\n')
    place.write("other.csv", "name\nfirst\n")
    done = summarize(place, "t.csv", "other.csv", "--instruction", ONE_LINE, "--template", "{text}")
    check(done.code == 2, done)
    rows = place.results()
    check([row["source"] for row in rows] == ["t.csv#1", "t.csv#2", "other.csv#1"], rows)
    check("text" in rows[2]["error"]["message"], rows[2])
    piped = summarize(place, "-", "--instruction", ONE_LINE, output="piped.jsonl", stdin=text[0].encode())
    check(piped.code == 0, piped)
    check(place.results("piped.jsonl")[0] | {"moothall": 0} == {"source": "-", "summary": rows[0]["summary"], "moothall": 0}, "stdin")
    stream = place.call("summarize", "--model", MODEL, "-", "--instruction", ONE_LINE, "-o", "-", "--state", "st", stdin=text[0].encode())
    check(stream.code == 0 and json.loads(stream.out)["summary"] == rows[0]["summary"], stream)
    place.close()


def what_cannot_be_done_is_said_before_anything_runs():
    place = Place("sum-refused")
    write_documents(place, demo("description", 1))
    place.write("taken.jsonl", "mine\n")
    cases = [
        (["docs", "--length", "5-apples"], "--length"),
        (["docs", "--instruction", "word " * 5000], "context"),
        (["docs", "--max-tokens", "5000"], "--max-tokens"),
        (["docs", "--chunk-tokens", "4000"], "--chunk-tokens"),
        (["docs", "--overlap-tokens", "60", "--chunk-tokens", "100"], "--overlap-tokens"),
        (["docs", "--temperature", "hot"], "--temperature"),
        (["nowhere"], "nowhere"),
        ([], "no documents"),
        (["docs", "--lenght", "short"], "--length"),
    ]
    for words, said in cases:
        done = summarize(place, *words)
        check(done.code == 1 and said in done.err and done.err.count("\n") == 1, f"{words[:3]}: {done}")
        check(not os.path.exists(place.path("out.jsonl")) and not os.path.exists(place.path("out.jsonl.moothall")), f"{words[:3]} left something")
    done = summarize(place, "docs", output="docs/out.jsonl")
    check(done.code == 1 and "outside" in done.err, done)
    done = summarize(place, "docs", output="taken.jsonl")
    check(done.code == 1 and "--restart" in done.err and place.read("taken.jsonl") == b"mine\n", done)
    place.close()


def an_interrupted_command_goes_on():
    place = Place("sum-stop")
    names = write_documents(place, demo("description", 70) * 2)
    words = ["summarize", "--model", MODEL, "docs", "--max-tokens", "60", "-o", "out.jsonl", "--keep"]
    process = place.start(*words)
    until = time.monotonic() + 30 * SLOW
    while not os.path.exists(place.path("out.jsonl.moothall-new")) and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    check(code == 1 and "the same command continues" in err, err)
    check(not os.path.exists(place.path("out.jsonl")), "half an output looks like a whole one")
    other = place.call(*words, "--length", "3-words")
    check(other.code == 1 and "--restart" in other.err and "instruction" in other.err, other)
    changed = ["summarize", "--model", small_model(place, 1024), *words[3:]]
    other = place.call(*changed)
    check(other.code == 1 and "model has changed" in other.err, other)
    done = place.call(*words)
    check(done.code == 0 and [row["source"] for row in place.results()] == names, done)
    first = place.read("out.jsonl")
    # One document more: the others' jobs are in the store.
    write_documents(place, demo("description", 1), prefix="e")
    more = place.call(*words)
    check(more.code == 0 and place.read("out.jsonl").startswith(first), more)
    audit = place.call("audit", "--state", "out.jsonl.moothall")
    check(audit.code == 0 and f"{len(names) + 1} jobs" in audit.out, audit)
    check(place.call(*words, "--restart").code == 0 and place.read("out.jsonl").startswith(first), "restart")
    place.nothing_left()
    place.close()


def a_dry_run_counts_and_measures():
    place = Place("sum-dry")
    write_documents(place, [*demo("description", 4), demo("description", 1)[0], b"", long_text("description", 60)])
    done = place.call("summarize", "--model", MODEL, "docs", "--dry-run")
    check(done.code == 0, done)
    found = json.loads(done.out)
    check(found["documents"] == 7 and found["unreadable"] == 1 and found["duplicates"] == 1 and found["over_long"] == 1, found)
    check(found["tokens"] > 4000 and found["seconds"] >= 1 and found["measured_documents"] >= 1, found)
    check(sorted(os.listdir(place.dir)) == ["docs"], "a dry run left something")
    place.close()


def a_shared_hall_does_the_same():
    """With the tokenizer's files documents are split; without them each is one job, and one that is too long fails alone."""
    hall = Hall("sum-shared")
    write_documents(hall, demo("description", 5))
    hall.write("docs/long.txt", long_text("description", 60))
    asked = ["--instruction", ONE_LINE, "--max-tokens", "40"]
    private = summarize(hall, "docs", *asked, output="private.jsonl")
    check(private.code == 0, private)
    expected = [(row["source"], row["summary"]) for row in hall.results("private.jsonl")]
    shared = summarize(hall, "docs", *asked, "--broker", hall.endpoint)
    check(shared.code == 0 and [(row["source"], row["summary"]) for row in hall.results()] == expected, shared)
    bare = hall.call("summarize", "--broker", hall.endpoint, "docs", *asked, "-o", "bare.jsonl")
    check(bare.code == 2, bare)
    rows = hall.results("bare.jsonl")
    check([row["source"] for row in rows if "error" in row] == ["docs/long.txt"], rows)
    check([row["summary"] for row in rows if "summary" in row] == [s for name, s in expected if name != "docs/long.txt"], "bare")
    failed = hall.read("bare.jsonl")
    generations = hall.call("audit", "--broker", hall.endpoint, "--json")
    retried = hall.call("summarize", "--broker", hall.endpoint, "docs", *asked, "-o", "bare.jsonl", "--retry-failed")
    check(retried.code == 2 and hall.read("bare.jsonl") == failed, retried)
    more = hall.call("audit", "--broker", hall.endpoint, "--json")
    check(json.loads(more.out)["generations"] == json.loads(generations.out)["generations"] + 1, "only the failed one was done again")
    hall.close()


main({case.__name__: case for case in (
    each_document_has_its_line_in_order,
    a_long_document_is_reduced_within_the_context,
    a_thousand_pieces_are_reduced,
    what_is_no_text_fails_alone,
    documents_come_from_tables_and_standard_input,
    what_cannot_be_done_is_said_before_anything_runs,
    an_interrupted_command_goes_on,
    a_dry_run_counts_and_measures,
    a_shared_hall_does_the_same,
)})
