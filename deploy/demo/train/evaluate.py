"""Measure a checkpoint, greedy and without a grammar.

    python evaluate.py MODEL                       300 entries, 200 descriptions of the "choose" side, for choosing checkpoints
    python evaluate.py MODEL --documents DIR       the documents that ship (the "test" side), for the figure to publish
    --wrong N          shows N wrong answers
    --results FILE     with --documents: writes the answers as `moothall run` would, for moothall-demo-score
"""
import argparse
import json
import time

import torch
from tokenizers import Tokenizer

from corpus import FIELDS, WORK
from examples import EOS, EXTRACT, SUMMARIZE, prompt, rouge_l, words
from model import load

PROMPT_TOKENS_MAX, BATCH = 600, 25
LIMIT = {"extract": 300, "summarize": 48}


def generate(model, tokenizer, prompts, limit):
    """-> answers; and what each took, (tokens of the prompt, tokens generated)."""
    ids = [tokenizer.encode(p).ids for p in prompts]
    out, took, eos = [""] * len(ids), [(0, 0)] * len(ids), tokenizer.token_to_id(EOS)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for at in range(0, len(order), BATCH):
        mine = order[at:at + BATCH]
        for i, tokens in zip(mine, model.generate([ids[i] for i in mine], limit, eos)[0]):
            out[i], took[i] = tokenizer.decode(tokens).strip(), (len(ids[i]), len(tokens))
    return out, took


def parsed(text):
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def documents(directory):
    """The shipped ones, as held_out gives them, and their names in the same order."""
    extract, summarize, names = [], [], ([], [])
    with open(f"{directory}/truth.jsonl") as f:
        for truth in map(json.loads, f):
            with open(f"{directory}/{truth['source']}") as doc:
                text = doc.read().rstrip("\n")
            (extract if truth["task"] == "extract" else summarize).append((truth.get("record") or truth.get("synopsis"), text))
            names[truth["task"] == "summarize"].append(truth["source"])
    return extract, summarize, names[0] + names[1]


def result(name, text, took):
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": took[0], "completion_tokens": took[1], "total_tokens": sum(took)}}
    return json.dumps({"custom_id": name, "response": {"status_code": 200, "body": body}, "error": None}, ensure_ascii=False) + "\n"


def held_out(tokenizer, n_entries, n_descriptions):
    """-> extract: [(truth, text)], summarize: [(synopsis, body)]"""
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
    a.add_argument("--results")
    a.add_argument("--entries", type=int, default=300)
    a.add_argument("--descriptions", type=int, default=200)
    a.add_argument("--wrong", type=int, default=0)
    args = a.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    model, tokenizer = load(args.model), Tokenizer.from_file(f"{args.model}/tokenizer.json")
    if args.documents:
        extract, summarize, names = documents(args.documents)
    else:
        extract, summarize = held_out(tokenizer, args.entries, args.descriptions)
    begun, lines = time.time(), []
    if extract:
        answers, took = generate(model, tokenizer, [prompt(EXTRACT, text) for _, text in extract], LIMIT["extract"])
        lines += zip(answers, took)
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
        answers, took = generate(model, tokenizer, [prompt(SUMMARIZE, body) for _, body in summarize], LIMIT["summarize"])
        lines += zip(answers, took)
        n = len(summarize)
        print(f"summarize: {n} descriptions, ROUGE-L F1")
        print(f"  model {sum(rouge_l(words(x), words(syn)) for x, (syn, _) in zip(answers, summarize)) / n:.3f}")
        print(f"  first twelve words {sum(rouge_l(words(' '.join(body.split()[:12])), words(syn)) for syn, body in summarize) / n:.3f}")
        for answer, (synopsis, _) in list(zip(answers, summarize))[:args.wrong // 2]:
            print(f"  {synopsis!r} -> {answer!r}")
    if args.results:
        with open(args.results, "w") as f:
            f.writelines(result(name, *line) for name, line in zip(names, lines, strict=True))
    print(f"{time.time() - begun:.0f} s")


if __name__ == "__main__":
    main()
