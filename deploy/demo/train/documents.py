"""Choose the documents that ship, from the "test" side, at random with a seed: what a model makes of them plays no part.

    python documents.py list  TOKENIZER_DIR            the packages whose copyright file is needed
    python documents.py write TOKENIZER_DIR OUT_DIR    documents, truth.jsonl, requests.jsonl, SOURCES.md

Put the listed packages into WORK/debs (apt-get download) before `write`.
"""
import glob
import io
import json
import os
import random
import re
import subprocess
import sys
import tarfile

from tokenizers import Tokenizer

from corpus import WORK, available
from examples import EXTRACT, SUMMARIZE, prompt

ENTRIES, DESCRIPTIONS = 110, 90
PROMPT_TOKENS_MAX = 560
MAX_TOKENS = {"extract": 300, "summarize": 48}


def choose(tokenizer):
    """[(task, source package, binary package or None, document, truth)]; one document of a kind from a source."""
    with open(f"{WORK}/corpus.json") as f:
        corpus = json.load(f)
    rng, out = random.Random(11), []
    for task, kind, count, instruction in (("extract", "entries", ENTRIES, EXTRACT), ("summarize", "descriptions", DESCRIPTIONS, SUMMARIZE)):
        rows, taken = sorted(corpus[kind]["test"], key=lambda r: (r[0], str(r))), set()
        rng.shuffle(rows)
        for row in rows:
            text = row[-1]
            if len(taken) == count or row[0] in taken or len(tokenizer.encode(prompt(instruction, text)).ids) > PROMPT_TOKENS_MAX:
                continue
            taken.add(row[0])
            out.append((task, row[0], row[1] if task == "summarize" else None, text, row[1] if task == "extract" else row[2]))
    return out


def copyright_file(package):
    """The text of a package's copyright file: from a fetched .deb, else from this machine; None where neither has it."""
    for deb in glob.glob(f"{WORK}/debs/{package}_*.deb"):
        tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(tar)) as members:
            for m in members:
                if m.isfile() and m.name.endswith(f"usr/share/doc/{package}/copyright"):
                    return members.extractfile(m).read().decode(errors="replace")
    path = f"/usr/share/doc/{package}/copyright"
    if os.path.isfile(path):
        with open(path, errors="replace") as f:
            return f.read()
    return None


def licence(text):
    """The licence named for the packaging, else for everything; None where the file is not machine-readable."""
    named = {}
    for stanza in re.split(r"\n\s*\n", text or ""):
        files, name = re.search(r"^Files:\s*(.*(?:\n\s.*)*)", stanza, re.M), re.search(r"^License:[ \t]*(\S.*)$", stanza, re.M)
        if files and name:
            for pattern in files[1].split():
                named[pattern] = name[1].strip()
    return named.get("debian/*") or named.get("*")


def main():
    tokenizer = Tokenizer.from_file(f"{sys.argv[2]}/tokenizer.json")
    chosen, packages_of = choose(tokenizer), {}
    for package, source, size, _ in available():
        packages_of.setdefault(source, []).append((size, package))

    def candidates(source, package):
        return [package] if package else [p for _, p in sorted(packages_of.get(source, []))]

    if sys.argv[1] == "list":
        for _, source, package, _, _ in chosen:
            mine = candidates(source, package)
            if mine and not any(copyright_file(p) for p in mine):
                print(mine[0])
        return

    out, count = sys.argv[3], {"extract": 0, "summarize": 0}
    os.makedirs(out, exist_ok=True)
    truths, requests, notes = [], [], []
    for task, source, package, text, truth in chosen:
        count[task] += 1
        name = f"{'entry' if task == 'extract' else 'description'}-{count[task]:03}-{package or source}.txt"
        with open(f"{out}/{name}", "w") as f:
            f.write(text + "\n")
        truths.append({"source": name, "task": task, "record" if task == "extract" else "synopsis": truth})
        content = f"{EXTRACT if task == 'extract' else SUMMARIZE}\n\n{text}"
        requests.append({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": {
            "model": "moothall-demo", "messages": [{"role": "user", "content": content}], "max_tokens": MAX_TOKENS[task], "temperature": 0}})
        where = next(((p, copyright_file(p)) for p in candidates(source, package) if copyright_file(p)), (None, None))
        stands = f"`usr/share/doc/{where[0]}/copyright` in package {where[0]}" if where[0] else "`debian/copyright` of the source package"
        notes.append(f"| {name} | {source} | {licence(where[1]) or 'see there'} | {stands} |")
    for name, rows in (("truth.jsonl", truths), ("requests.jsonl", requests)):
        with open(f"{out}/{name}", "w") as f:
            f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with open(f"{out}/SOURCES.md", "w") as f:
        f.write(SOURCES.format(entries=count["extract"], descriptions=count["summarize"]) + "\n".join(notes) + "\n")
    print(count)


SOURCES = """# Where these documents come from

{entries} changelog entries (`entry-*.txt`) and {descriptions} package descriptions (`description-*.txt`), verbatim from packages of
Debian 12 "bookworm". They were chosen by `../train/documents.py`, at random with a seed, among source packages of which nothing
was trained on and by which no checkpoint was chosen.

They are not under this repository's licence: an entry or a description belongs to its package and carries the licence of
that package's packaging (`debian/*`), as its copyright file states. The third column is what that file names for
`debian/*`, else for the whole package, where it is machine-readable; the file itself is what holds.

`truth.jsonl` was read off the entries by the rules of Debian Policy 4.4 (`../train/corpus.py`, `record`); a
description's truth is the synopsis that its packager wrote. `requests.jsonl` asks for the same documents in the same order.

| document | source package | licence named | where it stands |
|---|---|---|---|
"""

if __name__ == "__main__":
    main()
