#!/usr/bin/env python3
"""The tokenizer against the `tokenizers` library.

  tokenizer_parity.py real      the real vocabulary: the public vectors and 10,000 random texts
  tokenizer_parity.py demo      the same texts with the demo model's
  tokenizer_parity.py variants  small hand-made tokenizer.json files: other pre-tokenizers, normalizers,
                                options of added tokens, both ways to write merges; and what must be refused

  tokenizer_parity.py patterns  random regular expressions, as far as both take them; long, and not a part of CTest

Every run draws its texts from a new seed, which it prints; --seed N repeats one.  Encoding must be equal,
and decoding must give the text back (the library's own decoding of added letters is wrong, so the text is
the measure).  Exit status: 0 equal, 1 not, 77 what is needed is missing.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

try:
    import tokenizers
    from tokenizers import Tokenizer
except ImportError:
    print("skipped: the Python package `tokenizers` is missing")
    sys.exit(77)

# Blocks to draw characters from: (weight, first, last).
BLOCKS = [
    (30, 0x20, 0x7E), (3, 0x00, 0x1F), (2, 0x7F, 0x9F), (6, 0xA0, 0x24F), (3, 0x250, 0x2AF), (3, 0x300, 0x36F),
    (4, 0x370, 0x3FF), (5, 0x400, 0x52F), (2, 0x531, 0x58F), (2, 0x590, 0x5FF), (3, 0x600, 0x6FF), (3, 0x900, 0x97F),
    (1, 0xE00, 0xE7F), (2, 0x10A0, 0x10FF), (1, 0x1100, 0x11FF), (1, 0x13A0, 0x13FF), (2, 0x1E00, 0x1FFF),
    (5, 0x2000, 0x206F), (2, 0x2070, 0x218F), (3, 0x2190, 0x27BF), (1, 0x2C00, 0x2DFF), (4, 0x3000, 0x30FF),
    (6, 0x4E00, 0x9FFF), (1, 0xA640, 0xA7FF), (1, 0xAB30, 0xABBF), (3, 0xAC00, 0xD7A3), (1, 0xE000, 0xF8FF),
    (2, 0xFB00, 0xFDFF), (1, 0xFE00, 0xFE6F), (4, 0xFF00, 0xFFEF), (1, 0xFFF0, 0xFFFF), (1, 0x10000, 0x10FFF),
    (2, 0x11000, 0x11FFF), (1, 0x16000, 0x16FFF), (2, 0x1CC00, 0x1D7FF), (1, 0x1E000, 0x1EFFF), (6, 0x1F000, 0x1FAFF),
    (1, 0x1FB00, 0x1FBFF), (1, 0x20000, 0x323AF), (1, 0xE0000, 0xE01EF), (3, 0x00, 0x10FFFF),
]
WEIGHTS = [b[0] for b in BLOCKS]
SPACES = " \t\n\r\x0b\x0c\x85\xa0\u1680\u180e\u2000\u2003\u2028\u2029\u202f\u205f\u3000\u200b\ufeff"
DIGITS = "0123456789٣४൧〇一²½Ⅷ①𝟗\U0001E4F3\U00011DE4\U00016FF5\U00011F52"
# Marks of several classes, old and new to Unicode, and what composes with them.
MARKS = "aeiouAÅÄ\u0301\u0323\u0327\u0345\u05b0\u05c1\u0651\u064b\u093c\u0928\u0f71\u1abf\u1ac5\u0898\u08ca\u3099か\u1100\u1161\u11a8" \
        "\U00011935\U00011930\U00011943\U0001e2ae\U00011099\U000110ba\U0001d157\U0001d165"
WORDS = ("the The HELLO hello world don't I'll we've it's IT'S naïve café CAFÉ Führer ÀÁÿ÷ über groß ſtraße İstanbul "
         "привет ПРИВЕТ Ελλάδα შალვა Հայ հայ नमस्ते สวัสดี こんにちは カタカナ 你好世界 안녕하세요 שלום مرحبا "
         "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🦙 🫨 int main(void) { return 0; } a=b+c; x_1 3.14 1,000,000 0x1F http://example.org/?q=1&r=2").split(" ")


def texts_of(rng, count, fragments):
    def character():
        _, first, last = rng.choices(BLOCKS, WEIGHTS)[0]
        while True:
            c = rng.randint(first, last)
            if not 0xD800 <= c <= 0xDFFF:
                return chr(c)

    def block():
        _, first, last = rng.choices(BLOCKS, WEIGHTS)[0]
        return "".join(chr(c) for c in (rng.randint(first, last) for _ in range(rng.randint(1, 12)))
                       if not 0xD800 <= c <= 0xDFFF)

    makers = [
        (8, lambda: "".join(character() for _ in range(rng.randint(1, 8)))),
        (8, block),
        (12, lambda: rng.choice(WORDS)),
        (6, lambda: " "),
        (4, lambda: rng.choice(SPACES) * rng.choice([1, 1, 2, 3, 7, 40])),
        (2, lambda: "".join(rng.choice(SPACES) for _ in range(rng.randint(1, 6)))),
        (2, lambda: rng.choice(["\r\n", "\n", "\n\n", "\r", "\n\r\n", " \n", "\n ", "\t\n\t"])),
        (4, lambda: "".join(rng.choice(DIGITS) for _ in range(rng.randint(1, 9)))),
        (2, lambda: chr(rng.randint(33, 126)) * rng.choice([1, 2, 3, 5, 16])),
        (1, lambda: "\x00"),
        (1, lambda: "".join(rng.choice(MARKS) for _ in range(rng.randint(2, 5)))),
        (2, lambda: rng.choice("aéあ字") + "".join(chr(rng.randint(0x300, 0x36F)) for _ in range(rng.randint(1, 4)))),
    ]
    if fragments:
        def piece():
            f = rng.choice(fragments)
            if rng.random() < 0.6:
                return f
            a, b = sorted((rng.randint(0, len(f)), rng.randint(0, len(f))))
            return f[a:b]
        makers.append((5, piece))
    weights = [m[0] for m in makers]
    out = [""]
    while len(out) < count:
        n = rng.choice([1, 2, 3, 5, 8, 13, 30])
        out.append("".join(m() for m in (rng.choices(makers, weights)[0][1] for _ in range(n))))
    return out


def run(program, directory, lines, *arguments):
    feed = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run([program, directory, *arguments], input=feed.encode(), capture_output=True)
    if done.returncode != 0:
        raise SystemExit(f"{directory}: tokenizer_ids failed with {done.returncode}: {done.stderr[-400:]!r}")
    return [json.loads(line) for line in done.stdout.splitlines()]  # of bytes: text may hold U+2028


def compare(name, program, directory, texts, decodes=True):
    oracle = Tokenizer.from_file(os.path.join(directory, "tokenizer.json"))
    ours = [line["ids"] for line in run(program, directory, [{"text": t} for t in texts])]
    theirs = [e.ids for e in oracle.encode_batch(texts, add_special_tokens=False)]
    wrong = [i for i in range(len(texts)) if ours[i] != theirs[i]]
    for i in wrong[:5]:
        print(f"{name}: {texts[i]!r}\n   ours   {ours[i]}\n   theirs {theirs[i]}")
    print(f"{name}: {len(texts) - len(wrong)} of {len(texts)} texts encode as the library does")
    lost = []
    if decodes:
        back = [line["text"] for line in run(program, directory, [{"ids": ids} for ids in ours], "--decode")]
        lost = [i for i in range(len(texts)) if back[i] != texts[i]]
        for i in lost[:5]:
            print(f"{name}: {texts[i]!r} comes back as {back[i]!r}")
        print(f"{name}: {len(texts) - len(lost)} of {len(texts)} come back when decoded")
    return not wrong and not lost


def vectors(program, directory):
    path = os.path.join(directory, "vectors.jsonl")
    rows = [json.loads(line) for line in open(path, encoding="utf-8")]
    ours = [line["ids"] for line in run(program, directory, [{"text": r["text"]} for r in rows])]
    wrong = [r for r, ids in zip(rows, ours) if r["ids"] != ids]
    for r in wrong[:5]:
        print("vector", r)
    print(f"{len(rows) - len(wrong)} of {len(rows)} public vectors")
    return not wrong and len(rows) > 0


def added_of(directory):
    with open(os.path.join(directory, "tokenizer.json"), encoding="utf-8") as f:
        return [t["content"] for t in json.load(f)["added_tokens"]]


# ---- hand-made tokenizers ---------------------------------------------------------------------------------

V3_PUNCTUATION = ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
                  "| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
GPT4 = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
        "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
GPT4O = ("[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def byte_level(prefix=False, regex=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def token(id, content, **flags):
    return {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": False, **flags}


def byte_table():
    visible = [*range(33, 127), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table, extra = {}, 256
    for b in range(256):
        if b in visible:
            table[b] = chr(b)
        else:
            table[b] = chr(extra)
            extra += 1
    return table


def fresh_model(rng, pairs, **options):
    """All 256 bytes and merges over random but frequent text, some ending in the same token by two ways."""
    table = byte_table()
    vocab = {table[b]: b for b in range(256)}
    merges = []
    corpus = [[table[b] for b in w.encode()] for w in WORDS * 2 + [" " + w for w in WORDS] +
              ["aaaa", "abab", "  ", "    ", "\n\n", "000", "123", "!!", "=="]]
    for _ in range(400):
        counts = {}
        for w in corpus:
            for a, b in zip(w, w[1:]):
                counts[(a, b)] = counts.get((a, b), 0) + rng.choice([1, 1, 2])
        if not counts:
            break
        a, b = max(counts, key=lambda p: (counts[p], p))
        merges.append((a, b))
        vocab.setdefault(a + b, len(vocab))
        for i, w in enumerate(corpus):
            joined = []
            for s in w:
                if joined and joined[-1] == a and s == b:
                    joined[-1] = a + b
                else:
                    joined.append(s)
            corpus[i] = joined
    seen = set(merges)
    for t in rng.sample(sorted(vocab), 60):  # other ways to the same token, late in rank
        for cut in range(1, len(t)):
            if t[:cut] in vocab and t[cut:] in vocab and (t[:cut], t[cut:]) not in seen and rng.random() < 0.5:
                seen.add((t[:cut], t[cut:]))
                merges.insert(rng.randint(0, len(merges)), (t[:cut], t[cut:]))
    return {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, **options, "vocab": vocab,
            "merges": [list(m) if pairs else f"{m[0]} {m[1]}" for m in merges]}


def small_bytes():
    """No merges: the ids are the bytes."""
    return {"type": "BPE", "vocab": {c: b for b, c in byte_table().items()}, "merges": []}


def file_of(model, pre, added=(), normalizer=None, post=None):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": list(added), "normalizer": normalizer,
            "pre_tokenizer": pre, "post_processor": post, "decoder": byte_level(), "model": model}


def variants(rng):
    made = {}

    def small_model(rng, pairs, **options):  # making one takes a while: every eighth use has a new one
        uses = made.setdefault((pairs, tuple(options)), [])
        uses.append(uses[-1] if len(uses) % 8 else fresh_model(rng, pairs, **options))
        return uses[-1]

    v3 = sequence(split("\\p{N}{1,3}"), split("[一-龥\u3040-ゟ゠-ヿ]+"), split(V3_PUNCTUATION), byte_level())
    yield "v3", file_of(small_model(rng, True), v3), True
    yield "v3, string merges", file_of(small_model(rng, False), v3), True
    yield "gpt-4", file_of(small_model(rng, True, ignore_merges=True), sequence(split(GPT4), byte_level())), True
    yield "gpt-4o", file_of(small_model(rng, True), sequence(split(GPT4O), byte_level())), True
    yield "gpt-2", file_of(small_model(rng, False), byte_level(regex=True)), True
    yield "prefix space", file_of(small_model(rng, False), byte_level(prefix=True, regex=True)), False
    yield "prefix space on pieces", file_of(small_model(rng, False), sequence(split("[\r\n]"), byte_level(prefix=True))), False
    yield "digits together", file_of(small_model(rng, True), sequence({"type": "Digits", "individual_digits": False},
                                                                      byte_level())), True
    yield "digits alone", file_of(small_model(rng, True), sequence({"type": "Digits", "individual_digits": True},
                                                                   byte_level())), True
    yield "deepseek-coder", file_of(small_model(rng, True), sequence(
        split("[\r\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"), split("\\p{N}"),
        byte_level())), True
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            for pattern, kind in (("\\s+", "Regex"), ("[aeiou ]", "Regex"), ("x*", "Regex"), (" ", "String"), ("\\w+", "Regex"),
                                  ("\\s+$", "Regex"), ("^.|\\d(?=\\D)", "Regex"), ("(?<!a)b?\\W", "Regex")):
                keeps = behavior != "Removed"
                yield (f"{behavior} {pattern!r}{' inverted' if invert else ''}",
                       file_of(small_model(rng, True), sequence(split(pattern, behavior, invert, kind), byte_level())), keeps)
    base = small_model(rng, True)
    at = len(base["vocab"])
    options = [token(at, "<mask>", lstrip=True, special=True), token(at + 1, "<sep>", rstrip=True),
               token(at + 2, "cat", single_word=True), token(at + 3, "dog", single_word=True, lstrip=True, rstrip=True),
               token(at + 4, "Ω", normalized=True), token(at + 5, "<｜fim▁hole｜>"), token(at + 6, "<｜fim"),
               token(at + 7, "  x", lstrip=True), token(at + 8, "ế", normalized=True), token(at + 9, "\u212b", normalized=True),
               token(at + 10, "<|EOT|>", special=True, normalized=True), token(at + 11, "ы\u0301ы")]
    yield "added tokens", file_of(base, v3, options), False
    for form in ("NFC", "NFD"):
        yield form, file_of(base, v3, options, {"type": form}), False
        yield form + ", gpt-2", file_of(base, byte_level(regex=True), [], {"type": "Sequence", "normalizers": [{"type": form}]}), False
    in_vocab = next(t for t in sorted(base["vocab"], key=len, reverse=True) if t.isascii())
    yield "an added token of the vocab", file_of(base, v3, [token(base["vocab"][in_vocab], in_vocab)]), True


REFUSED = [
    ("WordPiece", lambda f: f["model"].update(type="WordPiece"), "WordPiece"),
    ("Unigram", lambda f: f["model"].update(type="Unigram"), "Unigram"),
    ("unk_token", lambda f: f["model"].update(unk_token="<unk>"), "unk_token"),
    ("byte_fallback", lambda f: f["model"].update(byte_fallback=True), "byte_fallback"),
    ("dropout", lambda f: f["model"].update(dropout=0.1), "dropout"),
    ("Metaspace", lambda f: f["pre_tokenizer"]["pretokenizers"].insert(0, {"type": "Metaspace"}), "Metaspace"),
    ("after ByteLevel", lambda f: f["pre_tokenizer"]["pretokenizers"].append(split("a")), "after ByteLevel"),
    ("no ByteLevel", lambda f: f.update(pre_tokenizer=split("a")), "ByteLevel"),
    ("Lowercase", lambda f: f.update(normalizer={"type": "Lowercase"}), "Lowercase"),
    ("NFKC", lambda f: f.update(normalizer={"type": "NFKC"}), "NFKC"),
    ("word boundary", lambda f: f.update(pre_tokenizer=sequence(split("\\bx"), byte_level())), "\\b"),
    ("merge", lambda f: f["model"]["merges"].insert(7, ["q", "nope"]), "merges[7]"),
    ("id twice", lambda f: f["model"]["vocab"].update(zzzz=3), "id 3"),
    ("added id taken", lambda f: f["added_tokens"].append(token(3, "<x>")), "id 3"),
    ("decoder", lambda f: f.update(decoder={"type": "WordPiece"}), "decoder"),
    ("behind the text", lambda f: f.update(post_processor={
        "type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "!", "type_id": 0}}],
        "pair": [], "special_tokens": {"!": {"id": "!", "ids": [33], "tokens": ["!"]}}}), "after the text"),
]


def check_variants(program, rng, count):
    ok = True
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "tokenizer.json")
        for name, content, decodes in variants(rng):
            with open(path, "w", encoding="utf-8") as f:
                json.dump(content, f)
            fragments = [t["content"] for t in content["added_tokens"]] + ["cats", " cat ", "dogdog", "e\u0302\u0301", "A\u030a", "Å", "\u2126", "ﬁ", "ы\u0301"]
            ok = compare(name, program, directory, texts_of(rng, count, fragments), decodes) and ok
        for name, change, words in REFUSED:
            content = file_of(fresh_model(rng, True), sequence(split("\\p{N}{1,3}"), byte_level()))
            change(content)
            with open(path, "w", encoding="utf-8") as f:
                json.dump(content, f)
            done = subprocess.run([program, directory], input=b"", capture_output=True)
            said = done.stderr.decode()
            if done.returncode != 1 or words not in said or said.count("\n") != 1:
                print(f"{name}: expected a refusal that names `{words}`, got {done.returncode}: {said}")
                ok = False
        print(f"{len(REFUSED)} files refused by name" if ok else "something differs")
    return ok


# ---- random patterns ------------------------------------------------------------------------------------------

MEMBERS = ["a-c", "x", "0-9", "\\s", "\\d", "\\w", "\\p{L}", "\\p{Lu}", "\\p{N}", "\\p{P}", "\\p{M}", "\\r\\n", "\\-", "é-ü",
           "一-龥", "\\S", "'", "\\]", " ", "\\x41", "\\u00e9", "_"]
SETS = ["\\s", "\\S", "\\d", "\\D", "\\w", "\\W", "\\p{L}", "\\P{L}", "\\p{N}", "\\p{S}", "\\p{Ll}", ".", "\\v", "\\t", "\\n"]
LITERALS = ["a", "b", "x", "1", " ", "é", "語", "'s", "\\.", "!", "-", "_", "\n", "}", "\\{"]
QUANTIFIERS = ["", "", "", "+", "*", "?", "+?", "*?", "??", "++", "?+", "*+", "{1,3}", "{2}", "{1,}", "{,2}", "{1,2}?"]
SNIPPETS = ["a", "b", "c", "A", "x", "X", "1", "9", " ", "  ", "\n", "\r\n", "\t", "é", "É", "ü", "語", "🦙", "'s", "'S", "!", ".", "-",
            "_", "{", "}", "]", "\u0301", "½", "٣", "\x0b", "\x85", "\u180e", "\u2028"]


def random_pattern(rng):
    def atom(depth):
        r = rng.random()
        if r < 0.3:
            return "[" + rng.choice(["", "^"]) + "".join(rng.sample(MEMBERS, rng.randint(1, 4))) + "]"
        if r < 0.55:
            return rng.choice(SETS)
        if r < 0.8 or depth == 3:
            return rng.choice(LITERALS)
        if r < 0.93:
            return rng.choice(["(", "(?:", "(?i:", "(?>"]) + alternatives(depth + 1) + ")"
        return rng.choice(["(?=", "(?!"]) + atom(3) + ")"

    def quantified(a):
        return a if a.startswith(("(?=", "(?!")) else a + rng.choice(QUANTIFIERS)

    def alternatives(depth):
        return "|".join("".join(quantified(atom(depth)) for _ in range(rng.randint(1, 4))) for _ in range(rng.choice([1, 1, 1, 2, 3])))

    return rng.choice(["", "", "", "^", "\\A", "(?<=a)", "(?<!\\s)"]) + alternatives(0) + rng.choice(["", "", "", "$", "\\z"])


def check_patterns(program, rng, count):
    """What a pattern matches is removed, so the ids show where it did."""
    model = small_bytes()
    equal = different = refused = 0
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "tokenizer.json")
        for _ in range(count):
            pattern, invert = random_pattern(rng), rng.random() < 0.5
            with open(path, "w", encoding="utf-8") as f:
                json.dump(file_of(model, sequence(split(pattern, "Removed", invert), byte_level())), f)
            texts = ["".join(rng.choice(SNIPPETS) for _ in range(rng.randint(0, 14))) for _ in range(25)]
            done = subprocess.run([program, directory], input="".join(json.dumps({"text": t}) + "\n" for t in texts).encode(),
                                  capture_output=True)
            try:  # a panic of the library's is no Exception
                theirs = [e.ids for e in Tokenizer.from_file(path).encode_batch(texts, add_special_tokens=False)]
            except BaseException as e:
                if isinstance(e, KeyboardInterrupt):
                    raise
                theirs = None
            if done.returncode != 0 or theirs is None:
                refused += 1
                continue
            ours = [json.loads(line)["ids"] for line in done.stdout.splitlines()]
            wrong = [i for i in range(len(texts)) if ours[i] != theirs[i]]
            equal, different = equal + (not wrong), different + bool(wrong)
            for i in wrong[:1]:
                print(f"{pattern!r}, invert {invert}, on {texts[i]!r}\n   ours   {bytes(ours[i])!r}\n   theirs {bytes(theirs[i])!r}")
    print(f"{equal} patterns match as the library's do, {different} do not, {refused} one of the two refuses")
    return different == 0 and equal > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=["real", "demo", "variants", "patterns"])
    parser.add_argument("--program", required=True)
    parser.add_argument("--real", default="../shared/reference/tokenizer")
    parser.add_argument("--demo", default="deploy/demo/model")
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    a = parser.parse_args()
    print(f"tokenizers {tokenizers.__version__}, --seed {a.seed}")
    rng = random.Random(a.seed)
    if a.which == "variants":
        return 0 if check_variants(a.program, rng, a.count or 150) else 1
    if a.which == "patterns":
        return 0 if check_patterns(a.program, rng, a.count or 2000) else 1
    directory = a.real if a.which == "real" else a.demo
    if not os.path.exists(os.path.join(directory, "tokenizer.json")):
        print(f"skipped: no tokenizer.json in {directory}")
        return 77
    ok = compare(a.which, a.program, directory, texts_of(rng, a.count or 10000, added_of(directory)))
    if a.which == "real":
        ok = vectors(a.program, directory) and ok
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
