"""Measure a checkpoint, greedy and without a grammar.

    python evaluate.py MODEL                       300 entries, 200 descriptions of the "choose" side, for choosing checkpoints
    python evaluate.py MODEL --documents DIR       the documents that ship (the "test" side), for the figure to publish
    --wrong N                                      shows N wrong answers
"""
import argparse
import json
import re
import time

import torch
from tokenizers import Tokenizer

from corpus import FIELDS, WORK
from examples import EOS, EXTRACT, SUMMARIZE, prompt
from model import load

PROMPT_TOKENS_MAX, BATCH = 600, 25
LIMIT = {"extract": 300, "summarize": 48}


def generate(model, tokenizer, prompts, limit):
    ids = [tokenizer.encode(p).ids for p in prompts]
    out, eos = [""] * len(ids), tokenizer.token_to_id(EOS)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for at in range(0, len(order), BATCH):
        mine = order[at:at + BATCH]
        for i, tokens in zip(mine, model.generate([ids[i] for i in mine], limit, eos)[0]):
            out[i] = tokenizer.decode(tokens).strip()
    return out


def rouge_l(candidate, reference):
    """F1 of the longest common subsequence of words (lower case, letters and digits)."""
    a, b = (re.findall(r"[a-z0-9]+", t.lower()) for t in (candidate, reference))
    row = [0] * (len(b) + 1)
    for x in a:
        before = row[:]
        for j, y in enumerate(b):
            row[j + 1] = before[j] + 1 if x == y else max(before[j + 1], row[j])
    return 2 * row[-1] / (len(a) + len(b)) if row[-1] else 0.0


def parsed(text):
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def documents(directory):
    """The shipped ones: (extract: [(truth, text)], summarize: [(synopsis, body)])."""
    extract, summarize = [], []
    with open(f"{directory}/truth.jsonl") as f:
        for truth in map(json.loads, f):
            with open(f"{directory}/{truth['source']}") as doc:
                text = doc.read().rstrip("\n")
            (extract if truth["task"] == "extract" else summarize).append((truth.get("record") or truth.get("synopsis"), text))
    return extract, summarize


def held_out(tokenizer, n_entries, n_descriptions):
    with open(f"{WORK}/corpus.json") as f:
        corpus = json.load(f)
    fits = lambda p: len(tokenizer.encode(p).ids) <= PROMPT_TOKENS_MAX
    extract = [(truth, text) for _, truth, text in corpus["entries"]["choose"] if fits(prompt(EXTRACT, text))]
    summarize = [(synopsis, body) for _, _, synopsis, body in corpus["descriptions"]["choose"] if fits(prompt(SUMMARIZE, body))]
    return extract[:n_entries], summarize[:n_descriptions]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("model")
    a.add_argument("--documents")
    a.add_argument("--entries", type=int, default=300)
    a.add_argument("--descriptions", type=int, default=200)
    a.add_argument("--wrong", type=int, default=0)
    args = a.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    model, tokenizer = load(args.model), Tokenizer.from_file(f"{args.model}/tokenizer.json")
    extract, summarize = documents(args.documents) if args.documents else held_out(tokenizer, args.entries, args.descriptions)
    begun = time.time()
    if extract:
        answers = generate(model, tokenizer, [prompt(EXTRACT, text) for _, text in extract], LIMIT["extract"])
        rows, n = [parsed(x) for x in answers], len(extract)
        share = lambda hits: f"{100 * sum(hits) / n:.1f} %"
        print(f"extract: {n} entries")
        print("  whole records", share(row == truth for row, (truth, _) in zip(rows, extract)))
        print("  valid JSON", share(row is not None for row in rows))
        for field in FIELDS:
            print(f"  {field}", share(row is not None and row.get(field) == truth[field] for row, (truth, _) in zip(rows, extract)))
        wrong = [(row, answer, truth) for row, answer, (truth, _) in zip(rows, answers, extract) if row != truth]
        for row, answer, truth in wrong[:args.wrong]:
            print("  wrong:", {f: (truth[f], row.get(f)) for f in FIELDS if row.get(f) != truth[f]} if row is not None else answer)
    if summarize:
        answers, n = generate(model, tokenizer, [prompt(SUMMARIZE, body) for _, body in summarize], LIMIT["summarize"]), len(summarize)
        print(f"summarize: {n} descriptions, ROUGE-L F1")
        print(f"  model {sum(rouge_l(x, syn) for x, (syn, _) in zip(answers, summarize)) / n:.3f}")
        print(f"  first twelve words {sum(rouge_l(' '.join(body.split()[:12]), syn) for syn, body in summarize) / n:.3f}")
        for answer, (synopsis, _) in list(zip(answers, summarize))[:args.wrong // 2]:
            print(f"  {synopsis!r} -> {answer!r}")
    print(f"{time.time() - begun:.0f} s")


if __name__ == "__main__":
    main()
