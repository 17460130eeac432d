"""Examples in chat form.  Real text where possible; names, versions and dates replaced by others so that the model
must copy what it reads instead of knowing it.  Truth is always read off the finished text (corpus.record)."""
import datetime
import json
import random
import re
import string

from corpus import CLOSES_MAX, FIELDS, record

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
EXTRACT = "Extract these fields as JSON: package, version, distribution, urgency, maintainer, email, date, closes."
SUMMARIZE = "Summarize this package description in one line."
EXTRACT_OTHERS = ["Extract these fields as JSON: {}.", "Extract {} as JSON.", "Return a JSON object with {}.",
                  "From this Debian changelog entry, extract {}. Answer in JSON.", "JSON with the fields {}, please."]
SUMMARIZE_OTHERS = ["Write a one-line synopsis of this package.", "Summarize the description in one short line.", "Summarize:",
                    "What is this package? Answer in one line.", "Write a one-line summary of the text below."]


def prompt(instruction, document):
    """What the chat template makes of the user message `instruction, blank line, document`."""
    return f"{BOS}User: {instruction}\n\n{document}\n\nAssistant:"


def answer(truth, fields=FIELDS):
    return " " + json.dumps({f: truth[f] for f in fields}, ensure_ascii=False, separators=(",", ":"))


def words(text):
    return re.findall(r"[a-z0-9]+", text.lower())


def rouge_l(candidate, reference):
    """F1 of the longest common subsequence of two lists of words."""
    row = [0] * (len(reference) + 1)
    for x in candidate:
        before = row[:]
        for j, y in enumerate(reference):
            row[j + 1] = before[j] + 1 if x == y else max(before[j + 1], row[j])
    return 2 * row[-1] / (len(candidate) + len(reference)) if row[-1] else 0.0


JOINTS = set("a an and or of in for to that which is are with by from on as the".split())
BEFORE = set("is are a an the provides contains offers implements allows enables supports includes to for of".split())


def phrase(synopsis, body, first=60, least=3, longest=10):
    """What the model is taught to answer: the phrase among the text's first words that comes nearest to the synopsis, and
    how near (ROUGE-L).  It begins a sentence or follows a word that announces it, and ends where its clause does or after
    some words.  The synopsis itself often says what its text does not; a small model that is taught that learns to guess."""
    spelled, wanted = " ".join(body.split()).split(" ")[:first], words(synopsis)
    each = [words(w) for w in spelled]
    best = (0.0, 0, 0)
    for i in range(len(spelled)):
        if spelled[i].lower() in JOINTS or (i > 0 and spelled[i - 1].lower() not in BEFORE and spelled[i - 1][-1] not in ".:"):
            continue
        j = i + 1
        while j < len(spelled) and j - i < longest and not (j - i >= least and spelled[j - 1][-1] in ".,;:)"):
            j += 1
        while j - i > 1 and spelled[j - 1].lower() in JOINTS:
            j -= 1
        best = max(best, (rouge_l([w for x in each[i:j] for w in x], wanted), i, j))
    near, i, j = best
    return " ".join(spelled[i:j]).rstrip(".,;:"), near


DISTRIBUTIONS = ["unstable"] * 14 + ["experimental"] * 4 + """bookworm bookworm-security bookworm-backports bullseye
    bullseye-security bullseye-backports buster stable stable-security testing sid trixie forky jessie-security wheezy lenny
    stretch-backports testing-proposed-updates UNRELEASED focal jammy noble frozen woody-security""".split() + ["frozen unstable", "stable unstable"]
URGENCIES = ["medium"] * 8 + ["low"] * 7 + ["high"] * 3 + ["emergency", "critical", "LOW", "HIGH", "Medium"]
DAYS, MONTHS = "Mon Tue Wed Thu Fri Sat Sun".split(), "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
ZONES = "+0000 +0100 +0200 -0500 -0700 -0400 -0800 +0900 +0530 -0300 +1000 +1100 +0800 +0300".split()
ACCENTS = "áéíóúäöüåøñçčšžřěłńśęąőćğıëïâôêàèßð"


class Writer:
    """Invents the facts of a changelog entry."""

    def __init__(self, entries, packages, people, seed):
        self.rng = random.Random(seed)
        self.packages = sorted({r["package"] for _, r, _ in entries} | set(packages))
        self.versions = [r["version"] for _, r, _ in entries]
        self.names = sorted({r["maintainer"] for _, r, _ in entries} | {p.split(" <")[0] for p in people})
        self.mails = sorted({r["email"] for _, r, _ in entries} | {p.split(" <")[1][:-1] for p in people})
        self.firsts = sorted({n.split()[0] for n in self.names})
        self.lasts = sorted({n.split()[-1] for n in self.names if " " in n})
        self.domains = sorted({m.split("@")[1] for m in self.mails})
        self.parts = sorted({p for n in self.packages for p in n.split("-") if p})
        self.words = sorted({w for _, _, text in entries[:4000] for w in re.findall(r"[a-z]{3,10}", text)})
        self.items = [item for _, _, text in entries for item in re.findall(r"^  \* .*(?:\n(?!  \* | -- ).+)*", text, re.M) if len(item) < 500]

    def letters(self, low, high, alphabet=string.ascii_lowercase):
        return "".join(self.rng.choices(alphabet, k=self.rng.randint(low, high)))

    def syllables(self):
        rng = self.rng
        made = [rng.choice("bcdfghjklmnprstvwxz") + rng.choice(["a", "e", "i", "o", "u", "ai", "ou", "an", "er", "in", "os", "el"]) for _ in range(rng.randint(1, 4))]
        if rng.random() < 0.15:                      # coucou
            at = rng.randrange(len(made))
            made.insert(at, made[at])
        return "".join(made)

    def part(self):
        k = self.rng.random()
        if k < 0.15:
            return self.rng.choice("go lib py js c net http xml test github com json data cli".split())
        if k < 0.45:
            return self.rng.choice(self.parts)
        if k < 0.65:
            return self.rng.choice(self.words)
        return self.syllables() if k < 0.85 else self.letters(1, 8)

    def package(self):
        rng = self.rng
        if rng.random() < 0.4:
            return rng.choice(self.packages)
        parts = []
        for _ in range(rng.choice([1, 2, 2, 3, 3, 4, 5])):
            if parts and rng.random() < 0.3:         # what makes copying hard: a part again, or nearly
                again = rng.choice([parts[-1], rng.choice(parts)])
                parts.append(again + rng.choice(["", "s", str(rng.randint(0, 9)), rng.choice(string.ascii_lowercase)]))
            else:
                parts.append(self.part() + (str(rng.randint(0, 99)) if rng.random() < 0.12 else ""))
        name = rng.choice(["", "", "", "lib", "python-", "golang-", "ruby-", "node-", "r-cran-", "rust-", "haskell-"]) + rng.choice("-" * 12 + ".+").join(parts)
        name += rng.choice([""] * 12 + ["-perl", "-java", "-el", "-dev", "-data"] * 2 + ["-perl-perl", "-java-java"])
        if rng.random() < 0.06:
            name = self.digits(1, 2) + name           # 3dchess
        name = re.sub(r"[^a-z0-9.+-]", "", name.lower()).strip("-+.")
        return name if len(name) > 1 else "x" + name + "0"

    def digits(self, low, high):
        rng = self.rng
        alphabet = rng.choice(["0123456789", "0123456789", "012", rng.choice("0123456789") * 3 + rng.choice("0123456789")])
        return self.letters(low, high, alphabet)

    def date_digits(self):
        rng = self.rng
        return "%d%02d%02d" % (rng.randint(1998, 2026), rng.randint(1, 12), rng.randint(1, 28))

    def version(self):
        rng = self.rng
        k = rng.random()
        if k < 0.45:                                  # a real one with other digits
            version = "".join(rng.choice("0123456789") if c.isdigit() and rng.random() < 0.7 else c for c in rng.choice(self.versions))
            return re.sub(r"[0-9a-f]{7,}", lambda m: self.letters(len(m[0]), len(m[0]), "0123456789abcdef") if re.search("[a-f]", m[0]) else m[0], version)
        number = lambda: rng.choice([str(rng.randint(0, 9)), str(rng.randint(0, 9)), str(rng.randint(0, 40)), self.digits(1, 4), self.date_digits() if rng.random() < 0.3 else "1"])
        numbers = [number() for _ in range(rng.choice([1, 2, 2, 3, 3, 4, 5]))]
        if rng.random() < 0.12:
            numbers = [rng.choice(numbers) for _ in range(len(numbers) + 1)]                  # 1.1.1, 5.25.5
        version = ".".join(numbers)
        if rng.random() < 0.35:
            revision = self.letters(7, rng.choice([7, 7, 8, 12]), "0123456789abcdef")
            version += rng.choice([f"~git{self.date_digits()}.{revision}", f"+git{self.date_digits()}.{rng.randint(0, 3)}.{revision}", f"+git{self.date_digits()}+{revision}",
                                   f"~git{self.date_digits()}.{rng.randint(0, 3)}.{revision}", f"~rc{rng.randint(1, 9)}", f"~beta{rng.randint(1, 9)}", "+dfsg", f"+dfsg{rng.randint(1, 9)}",
                                   f"+ds{rng.randint(1, 3)}", "+ds", f"+svn{self.digits(2, 6)}", f"+r{self.digits(2, 5)}", "~dfsg", f"+repack{rng.randint(1, 3)}", self.letters(1, 2)])
        if rng.random() < 0.85:
            version += "-" + rng.choice(["1", "1", "2", "3", str(rng.randint(1, 30)), number()])
            version += rng.choice([""] * 8 + [".1", ".2", f"+deb{rng.randint(6, 13)}u{rng.randint(1, 9)}", f"~deb{rng.randint(8, 13)}u{rng.randint(1, 9)}", f"~bpo{rng.randint(8, 13)}+{rng.randint(1, 3)}",
                                              f"ubuntu{rng.randint(1, 9)}", f"+b{rng.randint(1, 9)}", f"~exp{rng.randint(1, 9)}"])
        return (f"{rng.randint(1, 9)}:" if rng.random() < 0.1 else "") + version

    def name(self):
        rng = self.rng
        k = rng.random()
        if k < 0.3:
            return rng.choice(self.names)

        def one(real):
            word = rng.choice(real) if rng.random() < 0.5 else (self.syllables() if rng.random() < 0.8 else self.letters(2, 9)).capitalize()
            if rng.random() < 0.08:
                at = rng.randrange(len(word))
                word = word[:at] + rng.choice(ACCENTS) + word[at + 1:]
            return word

        first, last = one(self.firsts), one(self.lasts)
        return rng.choice([f"{first} {last}"] * 12 + [first, f"{first} {one(self.firsts)} {last}", f"{first} {rng.choice(string.ascii_uppercase)}. {last}", f"{first}-{one(self.firsts)} {last}",
                           f"{first} {last}-{one(self.lasts)}", f"{first} {rng.choice(['van', 'de', 'von', 'dos', 'van der', 'El'])} {last}", f'{first} "{self.syllables()}" {last}', f"{first} ({self.syllables()}) {last}",
                           f"{first} '{one(self.firsts)}' {last}", f"{first} {last} {one(self.lasts)}", f"Debian {first} {rng.choice(['Team', 'Group', 'Maintainers', 'Packaging Team'])}"])

    def mail(self, name):
        rng = self.rng
        if rng.random() < 0.12:
            return rng.choice(self.mails)
        plain = [w for w in (re.sub(r"[^a-z]", "", w.lower()) for w in name.split()) if w] or ["me"]
        first, last = plain[0], plain[-1]
        user = rng.choice([first, last, first + last, f"{first}.{last}", first[0] + last, f"{first}_{last}", f"{first}-{last}", last + first[0], "".join(w[0] for w in plain) + self.letters(0, 2),
                           ".".join(plain), self.syllables(), self.letters(2, 8), f"{first}+{rng.choice(['debian', 'deb', self.letters(2, 5)])}", f"pkg-{self.part()}-maintainers"])
        user = (re.sub(r"[^\w.+-]", "", user).strip(".") or "x") + (self.digits(1, 4) if rng.random() < 0.12 else "")
        k = rng.random()
        if k < 0.12:                                  # reiner@reiner-h.de
            user = re.sub(r"[^a-z0-9-]", "", user).strip("-") or "me"
            return f"{user}@{user}{rng.choice(['', '', '-' + self.letters(1, 3), last, self.part()])}.{rng.choice(['org', 'net', 'de', 'com', 'name'])}"
        if k < 0.35:
            return user + "@debian.org"
        if k < 0.6:
            return f"{user}@{rng.choice(self.domains)}"
        host = ".".join(re.sub(r"[^a-z0-9-]", "", self.part().lower()).strip("-") or "h" for _ in range(rng.choice([1, 1, 1, 2, 3])))
        return f"{user}@{host}.{rng.choice('org net de com fr co.uk io eu info name it pl edu org.au jp'.split())}"

    def date(self):
        rng = self.rng
        d = datetime.date(1997, 1, 1) + datetime.timedelta(days=rng.randrange(10900))
        day = rng.choice(["%02d"] * 6 + ["%d", "%2d"]) % d.day
        return f"{DAYS[d.weekday()]}, {day} {MONTHS[d.month - 1]} {d.year} {rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02} {rng.choice(ZONES)}"

    def bugs(self):
        """A function that invents numbers; now and then all near each other, as bugs reported together are."""
        rng = self.rng
        if rng.random() < 0.3:
            base = rng.randint(10000, 1100000)
            return lambda: str(base + rng.choice([rng.randint(0, 9), rng.randint(-300, 300)]))
        return lambda: str(rng.randint(*rng.choice([(1000, 1199999), (100000, 999999), (100000, 999999)])))

    def item(self, closing=0.25, bug=None):
        rng = self.rng
        item = rng.choice(self.items)
        if rng.random() < closing:
            bug = bug or self.bugs()
            bugs = ", ".join("#" + bug() for _ in range(rng.choice([1, 1, 1, 2, 2, 3, 4, 6])))
            item = item.split("\n")[0] if rng.random() < 0.5 else item
            item += rng.choice([" ({})", ". {}", " {}.", "\n    ({})", "\n    {}", " ({}).", "; {}", ", {}"]).format(rng.choice(["Closes", "Closes", "closes", "CLOSES"]) + ": " + bugs)
        return item

    def entry(self, truth, text, short):
        """An entry like the given one with other facts; short: with few bullets of one line."""
        rng, lines = self.rng, text.split("\n")
        if short and rng.random() < 0.35:             # several bugs, each somewhere else
            bug = self.bugs()
            items = [self.item(rng.choice([0.3, 0.8]), bug) for _ in range(rng.randint(1, 4))]
            body = ["", *"\n".join(i if len(i) < 200 else i.split("\n")[0] for i in items).split("\n"), ""]
        elif short:
            body = ["", *(self.item().split("\n")[0] for _ in range(rng.choice([1, 1, 2, 3]))), ""]
        elif rng.random() < 0.3:
            body = ["", *"\n".join(self.item() for _ in range(rng.choice([1, 1, 2, 2, 3, 4]))).split("\n"), ""]
        else:
            body = lines[1:-1]
        first = re.fullmatch(r"\S+ \(\S+\) +([^;]+); *urgency=(\w+)(.*)", lines[0])
        keep = lambda p, old, new: old if rng.random() < p else new()
        package = keep(0.1, truth["package"], self.package)
        version = keep(0.2, truth["version"], self.version)
        where = keep(0.4, first[1], lambda: rng.choice(DISTRIBUTIONS))
        urgency = keep(0.4, first[2], lambda: rng.choice(URGENCIES))
        name = keep(0.05, truth["maintainer"], self.name)
        bodies = "\n".join(body)
        if rng.random() < 0.8:
            bug = self.bugs()
            bodies = re.sub(r"(?<=#)\d{4,7}\b", lambda _: bug(), bodies)
        if rng.random() < 0.12:                       # the name also stands in the body, as in team uploads
            bodies = f"\n  [ {name} ]{bodies}"
        new = f"{package} ({version}) {where}; urgency={urgency}{first[3]}\n{bodies}\n -- {name} <{self.mail(name)}>  {self.date()}"
        made = record(new)
        return (made, new) if made and len(made["closes"]) <= CLOSES_MAX else (truth, text)

    def disguise(self, *texts, share=0.2):
        """The same texts with some of their words replaced by others, everywhere alike: what is left is to copy."""
        to = {}

        def other(found):
            word = found[0]
            if word.lower() not in to:
                to[word.lower()] = self.rng.choice([self.rng.choice(self.words), self.syllables()]) if self.rng.random() < share else word.lower()
            new = to[word.lower()]
            return word if new == word.lower() else new.capitalize() if word[0].isupper() else new

        return [re.sub(r"[A-Za-z]{4,}", other, text) for text in texts]

    # ---- whole examples: (prompt, answer) ----

    def copy(self):
        """Copying and nothing else; the start of training from nothing."""
        rng = self.rng
        text = rng.choice([lambda: ", ".join(self.package() for _ in range(rng.randint(1, 6))), lambda: " ".join(self.version() for _ in range(rng.randint(1, 4))),
                           lambda: " ".join("#" + self.digits(4, 7) for _ in range(rng.randint(1, 6))), lambda: (lambda n: f"{n} <{self.mail(n)}>")(self.name())])()
        return prompt(rng.choice(["Repeat:", "Repeat this text.", "Copy the text below."]), text[:200]), " " + text[:200]

    def extract(self, truth, text, usual=0.8):
        rng = self.rng
        if rng.random() < usual:
            return prompt(EXTRACT, text), answer(truth)
        fields = rng.choice([FIELDS, [f for f in FIELDS if rng.random() < 0.5] or [rng.choice(FIELDS)]])
        names = ", ".join(fields) if len(fields) < 2 or rng.random() < 0.7 else ", ".join(fields[:-1]) + " and " + fields[-1]
        return prompt(rng.choice(EXTRACT_OTHERS).format(names), text), answer(truth, fields)

    def summarize(self, synopsis, body, usual=0.7):
        return prompt(SUMMARIZE if self.rng.random() < usual else self.rng.choice(SUMMARIZE_OTHERS), body), " " + synopsis
