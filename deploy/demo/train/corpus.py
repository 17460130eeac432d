"""Real Debian text with its truth: changelog entries and package descriptions, split by source package.

    python corpus.py pick                  apt's lists       -> WORK/packages.txt
    python corpus.py unpack                WORK/debs/*.deb   -> WORK/changelogs/
    python corpus.py build                 all of it         -> WORK/corpus.json

WORK is the environment's DEMO_WORK, or ./work.  Standard library only; needs apt's lists with English
descriptions, lz4 and dpkg-deb.  Truth is read off the text by rules (Debian Policy 4.4), never by hand.

The split goes by the source package's name alone, so nothing about a held-out package is trained on:
8 % are held out, one half of those to choose checkpoints by ("choose"), the other to publish ("test").
"""
import email.utils
import glob
import gzip
import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
import tarfile

WORK = os.environ.get("DEMO_WORK", "work")
FIELDS = ["package", "version", "distribution", "urgency", "maintainer", "email", "date", "closes"]
PICK_TRAIN, PICK_HELD = 1000, 300      # packages to fetch
DEB_BYTES_MAX = 60_000                 # small packages: we want their changelogs, not them
FAMILY_MAX = 45                        # of golang-*, librust-*, *-perl, ... each
ENTRY_CHARS_MAX, CLOSES_MAX = 2400, 24


def side(source):
    """Which side of the split a source package is on: train, choose or test."""
    if int(hashlib.sha256(source.encode()).hexdigest(), 16) % 100 >= 8:
        return "train"
    return "test" if hashlib.sha256(b"side:" + source.encode()).digest()[0] % 2 else "choose"


# ---- truth ------------------------------------------------------------------------------------

FIRST = re.compile(r"(?P<package>\S+) \((?P<version>[^\s()]+)\)(?P<dist>(?: +[\w.+-]+)+); *urgency=(?P<urgency>\w+).*")
LAST = re.compile(r" -- (?P<who>.*?) ?<(?P<email>[^<>]*)> {1,2}(?P<when>\S.*)")
BUGS = re.compile(r"closes: *(?:bug)?#?\s?\d+(?:, *(?:bug)?#?\s?\d+)*".replace(" *", r"\s*"), re.IGNORECASE)


def record(text):
    """The truth of one changelog entry; None where it is not a well-formed one."""
    lines = text.rstrip("\n").split("\n")
    first, last = FIRST.fullmatch(lines[0]), LAST.fullmatch(lines[-1])
    if not first or not last:
        return None
    when = email.utils.parsedate_tz(last["when"])
    who, mail = last["who"].strip(), last["email"].strip()
    if not when or not 1990 < when[0] < 2030 or not who or "@" not in mail:
        return None
    numbers = [int(n) for group in BUGS.findall("\n".join(lines[1:-1])) for n in re.findall(r"\d+", group)]
    return {"package": first["package"], "version": first["version"], "distribution": " ".join(first["dist"].split()),
            "urgency": first["urgency"].lower(), "maintainer": who, "email": mail,
            "date": "%04d-%02d-%02d" % when[:3], "closes": list(dict.fromkeys(numbers))}


def entries(changelog):
    """The entries of a changelog, newest first, each from its first line to its trailer."""
    open_entry = None
    for line in changelog.split("\n"):
        line = line.rstrip()
        if FIRST.fullmatch(line):
            open_entry = [line]
        elif open_entry is not None:
            open_entry.append(line)
            if line.startswith(" -- "):
                yield "\n".join(open_entry)
                open_entry = None


# ---- what to fetch, and unpacking it ----------------------------------------------------------

def available():
    """(package, source, size, maintainer) of everything in apt's lists."""
    dump = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    for stanza in dump.split("\n\n"):
        f = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", stanza, re.MULTILINE))
        if "Package" in f and "Filename" in f:
            yield f["Package"], f.get("Source", f["Package"]).split(" ")[0], int(f["Size"]), f.get("Maintainer", "")


def family(package):
    if package.endswith("-perl"):
        return "-perl"
    return package[:7] if package.startswith("lib") else package.split("-")[0]


def pick():
    smallest = {}
    for package, source, size, _ in available():
        if size < DEB_BYTES_MAX:
            smallest[source] = min(smallest.get(source, (size, package)), (size, package))
    chosen, count, left = [], {}, {"train": PICK_TRAIN, "choose": PICK_HELD // 2, "test": PICK_HELD // 2}
    for source in random.Random(7).sample(sorted(smallest), len(smallest)):
        package = smallest[source][1]
        key = (family(package), side(source))
        if left[side(source)] > 0 and count.get(key, 0) < FAMILY_MAX:
            count[key] = count.get(key, 0) + 1
            left[side(source)] -= 1
            chosen.append(package)
    with open(f"{WORK}/packages.txt", "w") as out:
        out.write("\n".join(chosen) + "\n")
    print(len(smallest), "sources have a small package;", len(chosen), "packages chosen")


def unpack():
    os.makedirs(f"{WORK}/changelogs", exist_ok=True)
    for deb in sorted(glob.glob(f"{WORK}/debs/*.deb")):
        out = f"{WORK}/changelogs/{os.path.basename(deb).split('_')[0]}"
        tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(tar)) as members:
            found = {}
            for m in members:
                name = os.path.basename(m.name)
                if m.isfile() and "usr/share/doc/" in m.name and name in ("changelog.gz", "changelog.Debian.gz"):
                    found[name] = gzip.decompress(members.extractfile(m).read())
        text = found.get("changelog.Debian.gz") or found.get("changelog.gz")
        if text:
            with open(out, "wb") as f:
                f.write(text)


# ---- the corpus -------------------------------------------------------------------------------

def all_entries():
    """{side: [[source, record, text]]}; a held-out source gives at most 6 entries, another 220."""
    by_source, seen = {}, set()
    for path in sorted(glob.glob("/usr/share/doc/*/changelog*.gz")) + sorted(glob.glob(f"{WORK}/changelogs/*")):
        try:
            raw = open(path, "rb").read()
            text = (gzip.decompress(raw) if path.endswith(".gz") else raw).decode()
        except (OSError, UnicodeDecodeError):
            continue
        for entry in entries(text):
            truth = record(entry)
            if truth and entry not in seen and len(entry) <= ENTRY_CHARS_MAX and len(truth["closes"]) <= CLOSES_MAX:
                seen.add(entry)
                by_source.setdefault(truth["package"], []).append([truth["package"], truth, entry])
    out, rng = {"train": [], "choose": [], "test": []}, random.Random(5)
    for source in sorted(by_source):
        mine = by_source[source]
        rng.shuffle(mine)
        out[side(source)] += mine[:220 if side(source) == "train" else 6]
    for part in out.values():
        rng.shuffle(part)
    return out


def shingles(text):
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[i:i + 6]) for i in range(max(1, len(words) - 5))}


def all_descriptions(source_of):
    """{side: [[source, package, synopsis, body]]} without boilerplate and near-copies."""
    dull = re.compile(r"transitional|dummy package|debug symbols|metapackage enables feature|contains the following binaries", re.I)
    by_source = {}
    for path in sorted(glob.glob("/var/lib/apt/lists/*Translation-en*")):
        reader = ["lz4", "-dc", path] if path.endswith(".lz4") else ["cat", path]
        text = subprocess.run(reader, capture_output=True, check=True).stdout.decode(errors="replace")
        for stanza in text.split("\n\n"):
            name = re.search(r"^Package: (\S+)", stanza, re.M)
            desc = re.search(r"^Description-en: (.*)\n((?: .*(?:\n|$))*)", stanza, re.M)
            if not name or not desc or name[1] not in source_of:
                continue
            synopsis = " ".join(desc[1].split())
            body = "\n".join("" if l.strip() == "." else l[1:].rstrip() for l in desc[2].splitlines()).strip()
            if 100 <= len(body) <= 1800 and 12 <= len(synopsis) <= 90 and not dull.search(body + synopsis):
                by_source.setdefault(source_of[name[1]], []).append((name[1], synopsis, body))
    trained, beginnings, out = set(), set(), {"train": [], "choose": [], "test": []}
    for source in sorted(by_source, key=lambda s: (side(s) != "train", s)):     # the training side first
        kept = []
        for package, synopsis, body in sorted(by_source[source], key=lambda x: (len(x[0]), x[0])):
            mine = shingles(body)
            if len(kept) == 4 or any(len(mine & other) > 0.6 * min(len(mine), len(other)) for other in kept):
                continue
            kept.append(mine)
            if side(source) == "train":
                trained |= mine
                if body[:120] in beginnings:
                    continue
                beginnings.add(body[:120])
            elif len(mine & trained) > 0.25 * len(mine):
                continue                            # says what a trained-on description says
            out[side(source)].append([source, package, synopsis, body])
    rng = random.Random(6)
    for part in out.values():
        rng.shuffle(part)
    return out


def build():
    rows = list(available())
    source_of = {package: source for package, source, _, _ in rows}
    # Names to invent entries with, the training side's only.
    packages = sorted({n for p, s, _, _ in rows if side(s) == "train" for n in (p, s)})
    people = sorted({m for _, s, _, m in rows if side(s) == "train" and re.fullmatch(r'[^<>"]+ <[^<>\s]+@[^<>\s]+>', m)})
    corpus = {"entries": all_entries(), "descriptions": all_descriptions(source_of), "packages": packages, "people": people}
    with open(f"{WORK}/corpus.json", "w") as out:
        json.dump(corpus, out, ensure_ascii=False)
    for kind in ("entries", "descriptions"):
        print(kind, {part: [len(v), "of %d sources" % len({x[0] for x in v})] for part, v in corpus[kind].items()})
    print(len(packages), "package names,", len(people), "people")


if __name__ == "__main__":
    {"pick": pick, "unpack": unpack, "build": build}[sys.argv[1]]()
