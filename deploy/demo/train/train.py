"""Train the demo model on a few CPU cores, in the background, for as long as it is given.

    nice -n 19 python train.py --tokenizer DIR --out DIR --minutes M               from nothing, seeded
    nice -n 19 python train.py --tokenizer DIR --out DIR --minutes M --start HF     from a checkpoint, copying curriculum

Killed, it goes on when the same command is given again: OUT/state.pt holds parameters, optimizer and time spent,
saved every --save seconds, and OUT/hf is the smoothed model in Hugging Face's format at that moment.

One process steps.  The others only make gradients, from parameters that may be a step or two old, and the stepping
process takes what has come: on a shared machine a core that comes late costs nothing.  So a run is seeded, but only
with --processes 1 does it give the same bits again.
"""
import argparse
import json
import os
import random
import time

import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from tokenizers import Tokenizer

from corpus import WORK
from examples import EOS, Writer, phrase
from model import Model, config, load, look_back, save

EMA = 0.99
PROMPT_SHARE = 0.25                           # of the prompt's tokens are predicted too,
PROMPT_WEIGHT = {"entry": 0.04, "description": 0.16}    # at this mean weight; an answer's token has 1,
PHRASE_NEAR_MIN = 0.4                         # of a description to be learned from (three in five are)
SYNOPSIS_WEIGHT = 3.0                         # or this much, there being few of them

# (until this share of the time, longest sequence, shares of: copy, short entry, entry; the rest is descriptions)
FROM_NOTHING = [(0.12, 160, 0.35, 0.45, 0.10), (0.25, 256, 0.10, 0.35, 0.35), (0.50, 400, 0.03, 0.30, 0.32), (1.01, 640, 0.01, 0.34, 0.22)]
CONTINUED = [(1.01, 640, 0.01, 0.34, 0.22)]


def beginning(body, least=60):
    """The first paragraphs, as many as have the words that `phrase` looks at."""
    paragraphs = body.split("\n\n")
    n = 1
    while n < len(paragraphs) and len(" ".join(paragraphs[:n]).split()) < least:
        n += 1
    return "\n\n".join(paragraphs[:n])


class Batches:
    """Endless batches of (ids [B, T], weight of each next token [B, T-1])."""

    def __init__(self, tokenizer, seed, tokens, phases):
        with open(f"{WORK}/corpus.json") as f:
            corpus = json.load(f)
        self.entries, self.descriptions = corpus["entries"]["train"], corpus["descriptions"]["train"]
        self.with_bugs = [e for e in self.entries if len(e[1]["closes"]) > 1]
        self.writer = Writer(self.entries, corpus["packages"], corpus["people"], seed)
        self.rng = random.Random(seed + 1)
        self.tk, self.tokens, self.phases, self.ready = Tokenizer.from_file(f"{tokenizer}/tokenizer.json"), tokens, phases, []
        self.eos = self.tk.token_to_id(EOS)

    def example(self, copy, short, entry):
        k = self.rng.random()
        if k < copy:
            return "entry", *self.writer.copy()
        if k < copy + short + entry:
            _, truth, text = self.rng.choice(self.with_bugs if self.rng.random() < 0.3 else self.entries)
            if k < copy + short or self.rng.random() < 0.8:
                truth, text = self.writer.entry(truth, text, k < copy + short)
            return "entry", *self.writer.extract(truth, text)
        while True:
            _, _, synopsis, body = self.rng.choice(self.descriptions)
            taught, near = phrase(synopsis, body)
            if near >= PHRASE_NEAR_MIN:
                if self.rng.random() < 0.6:           # the rest of a long text teaches little for what it costs
                    body = beginning(body)
                if self.rng.random() < 0.4:
                    taught, body = self.writer.disguise(taught, body)
                return "description", *self.writer.summarize(taught, body)

    def next(self, done):
        if not self.ready:
            _, longest, *shares = next(p for p in self.phases if done < p[0])
            made = [self.example(*shares) for _ in range(800)]
            prompts = self.tk.encode_batch_fast([p for _, p, _ in made])
            answers = self.tk.encode_batch_fast([a[self.rng.random() < 0.05:] for _, _, a in made])   # a few without the blank
            rows = []
            for (kind, _, _), p, a in zip(made, prompts, answers):
                ids = p.ids + a.ids + [self.eos]
                weight = [PROMPT_WEIGHT[kind] / PROMPT_SHARE * (self.rng.random() < PROMPT_SHARE) for _ in p.ids[1:]]
                weight += [1.0 if kind == "entry" else SYNOPSIS_WEIGHT] * (len(a.ids) + 1)
                if len(ids) <= longest:
                    rows.append((ids, weight))
            # Few different shapes, because a product is compiled anew for every one: lengths go up in sixteens, and
            # a length's batches all have the same number of rows (the longest go first; the few left over are dropped).
            rows.sort(key=lambda r: -len(r[0]))
            while rows:
                T = -(-len(rows[0][0]) // 16) * 16
                B = self.tokens // T
                if len(rows) >= B:
                    self.ready.append((T, rows[:B]))
                rows = rows[B:]
            self.rng.shuffle(self.ready)
        T, batch = self.ready.pop()
        return (torch.tensor([ids + [self.eos] * (T - len(ids)) for ids, _ in batch]),
                torch.tensor([w + [0.0] * (T - 1 - len(w)) for _, w in batch]))


def loss(model, ids, weight):
    """-> what to minimise, the mean loss of a record's token, the share of records with every token right."""
    wanted = weight > 0
    logits = model.logits(model(ids[:, :-1])[wanted])
    each = F.cross_entropy(logits, ids[:, 1:][wanted], reduction="none")
    balance = sum(m.balance for m in model.moes()) * model.c["aux_loss_alpha"]
    with torch.no_grad():
        answer = weight[wanted] == 1                 # of entries only
        wrong = torch.zeros(len(ids)).index_add(0, wanted.nonzero()[:, 0], ((logits.argmax(-1) != ids[:, 1:][wanted]) & answer).float())
        right = (wrong == 0)[(weight == 1).any(1)]
    mean = each[answer].mean().item() if answer.any() else 0.0
    return (each * weight[wanted]).sum() / weight.sum() + balance, mean, right.float().mean().item() if len(right) else 0.0


def orthogonal(g):
    """The nearest matrix with all singular values about 1 (Newton-Schulz; Jordan et al., Muon), for stacks too."""
    tall = g.shape[-2] > g.shape[-1]
    x = g.mT if tall else g
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(torch.bfloat16)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).float()


class Optimizer:
    """Muon for matrices; Adam for embedding, router and norms."""

    def __init__(self, model, rate_muon, rate_adam, decay):
        named = list(model.named_parameters())
        self.matrices = [(n, p) for n, p in named if p.dim() > 1 and "embed" not in n and "mlp.gate.weight" not in n]
        held = {n for n, _ in self.matrices}
        self.momentum = [torch.zeros_like(p) for _, p in self.matrices]
        self.adam = torch.optim.AdamW([p for n, p in named if n not in held], lr=rate_adam, betas=(0.9, 0.98), weight_decay=0.0)
        self.rate_muon, self.rate_adam, self.decay = rate_muon, rate_adam, decay

    @torch.no_grad()
    def step(self, factor):
        rate = self.rate_muon * factor
        for (_, p), m in zip(self.matrices, self.momentum):
            m.lerp_(p.grad, 0.05)
            out, inp = (p.shape[-1], p.shape[-2]) if p.dim() == 3 else p.shape
            p.mul_(1 - rate * self.decay).add_(orthogonal(p.grad.lerp(m, 0.95)), alpha=-rate * max(1.0, out / inp) ** 0.5)
        for group in self.adam.param_groups:
            group["lr"] = self.rate_adam * factor
        self.adam.step()


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors])


def unflatten(vector, like):
    return [v.view_as(p) for v, p in zip(vector.split([p.numel() for p in like]), like)]


def gradients(args, c, phases, index, shared, gradient, note, lock, stop):
    """A helper: parameters in, gradient out, for ever.  note: [gradients waiting, share of time done, tokens]."""
    torch.set_num_threads(1)
    torch.manual_seed(args.seed + index)
    model = Model(c).train()
    parameters = list(model.parameters())
    batches = Batches(args.tokenizer, args.seed + 1000 * index + int(time.time()) % 997, args.tokens, phases)
    parent = os.getppid()
    while not stop.is_set() and os.getppid() == parent:      # a killed parent says nothing
        if note[0] >= 3:
            time.sleep(0.005)
            continue
        for p, v in zip(parameters, unflatten(shared.clone(), parameters)):
            p.data.copy_(v)
            p.grad = None
        ids, weight = batches.next(float(note[1]))
        loss(model, ids, weight)[0].backward()
        g = flat([p.grad for p in parameters])
        with lock:
            gradient.add_(g)
            note[0] += 1
            note[2] += ids.numel()


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--tokenizer", required=True)
    a.add_argument("--out", required=True)
    a.add_argument("--minutes", type=float, required=True, help="of training in all, resumed or not")
    a.add_argument("--start", help="a checkpoint in Hugging Face's format")
    a.add_argument("--rate", type=float, default=0.02)
    a.add_argument("--tokens", type=int, default=4096, help="a batch, padding included")
    a.add_argument("--processes", type=int, default=2)
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--save", type=float, default=180, help="seconds")
    args = a.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    os.makedirs(args.out, exist_ok=True)
    phases = CONTINUED if args.start else FROM_NOTHING
    if args.start:
        model = load(args.start)
        c = model.c
    else:
        c = config(Tokenizer.from_file(f"{args.tokenizer}/tokenizer.json").get_vocab_size())
        model = Model(c)
        look_back(model)
    model.train()
    parameters = list(model.parameters())
    optimizer = Optimizer(model, args.rate, args.rate / 5, 0.02)
    smooth, spent, step, tokens = flat([p.data for p in parameters]), 0.0, 0, 0
    state_path = f"{args.out}/state.pt"
    if os.path.exists(state_path):
        state = torch.load(state_path)
        model.load_state_dict(state["model"])
        optimizer.momentum, smooth = state["momentum"], state["smooth"]
        optimizer.adam.load_state_dict(state["adam"])
        spent, step, tokens = state["spent"], state["step"], state["tokens"]
        print(f"going on at step {step}, minute {spent / 60:.1f}", flush=True)
    batches = Batches(args.tokenizer, args.seed + step, args.tokens, phases)

    def keep():
        torch.save({"model": model.state_dict(), "momentum": optimizer.momentum, "smooth": smooth, "adam": optimizer.adam.state_dict(),
                    "spent": spent, "step": step, "tokens": tokens}, state_path + ".part")
        os.replace(state_path + ".part", state_path)
        names = [n for n, _ in model.named_parameters()]
        save(dict(zip(names, unflatten(smooth, parameters))), c, f"{args.out}/hf", args.tokenizer)

    ctx = mp.get_context("spawn")
    shared = flat([p.data for p in parameters]).share_memory_()
    gradient, note = torch.zeros_like(shared).share_memory_(), torch.zeros(3, dtype=torch.float64).share_memory_()
    lock, stop = ctx.Lock(), ctx.Event()
    helpers = [ctx.Process(target=gradients, args=(args, c, phases, i, shared, gradient, note, lock, stop), daemon=True) for i in range(1, args.processes)]
    for h in helpers:
        h.start()

    begun, saved, shown, sums, taken, warm = time.time() - spent, time.time(), (time.time(), tokens), [0, 0.0, 0.0], 0, 0
    while spent < args.minutes * 60:
        done = spent / (args.minutes * 60)
        note[1] = done
        ids, weight = batches.next(done)
        for p in parameters:
            p.grad = None
        l, mean, right = loss(model, ids, weight)
        l.backward()
        tokens += ids.numel()
        if note[0] > 0:
            with lock:
                g, n = gradient.clone(), int(note[0])
                tokens += int(note[2])
                gradient.zero_()
                note[0] = note[2] = 0
            taken += n
            for p, more in zip(parameters, unflatten(g, parameters)):
                p.grad.add_(more).div_(1 + n)
        warm, step, spent = warm + 1, step + 1, time.time() - begun
        fall = 1 - done if args.start else min(1.0, (1 - done) / 0.65)
        optimizer.step(max(0.003, fall * min(1.0, warm / 40)))
        with torch.no_grad():
            shared.copy_(flat([p.data for p in parameters]))
            smooth.lerp_(shared, 1 - min(EMA, step / (step + 10)))
        sums = [sums[0] + 1, sums[1] + mean, sums[2] + right]
        if step % 50 == 0:
            now = time.time()
            print(f"step {step} minute {spent / 60:.1f} tokens {tokens / 1e6:.2f} M, {(tokens - shown[1]) / (now - shown[0]):.0f}/s, records: loss {sums[1] / sums[0]:.4f}, "
                  f"all right {sums[2] / sums[0]:.3f}; gradients from helpers {taken}, rate {args.rate * fall:.4f}", flush=True)
            shown, sums, taken = (now, tokens), [0, 0.0, 0.0], 0
        if time.time() - saved > args.save:
            keep()
            saved = time.time()
    stop.set()
    keep()
    for h in helpers:
        h.join(30)


if __name__ == "__main__":
    main()
