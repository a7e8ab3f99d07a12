#!/usr/bin/env python3
"""Train the default model from nothing on generated tasks, and export it as GGUF.

    /usr/bin/python3 train.py --minutes 90 --work DIR --out tinyglm.gguf     start, or go on from DIR/checkpoint.pt
    /usr/bin/python3 train.py --export-only --work DIR --out tinyglm.gguf    only write the GGUF of the checkpoint

The learning rate follows the share of the training time used, so a slow or busy machine trains less, not wrongly.
The time used is in the checkpoint: a resumed run spends what is left. Jobs that are still weak are drawn more often.
"""
import argparse
import os
import random
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a spinning thread steals the core from its partner
import torch
import torch.nn as nn
import torch.nn.functional as F

import gguf
from jobs import JOBS, SYSTEM, make
from net import SIZES, Glm4, Muon, answer
from tokenizer import Tokenizer, train_merges


REST = 0.15  # learning rate of embeddings and norms (AdamW), as a share of that of the matrices (Muon)


class Feed:
    """Draws examples, weak jobs more often, and sorts a pool by length so that little is padding."""

    def __init__(self, tok, seed, batch):
        self.tok, self.r, self.batch, self.ready = tok, random.Random(seed), batch, []
        self.right = {j: 0.0 for j in JOBS}  # running share of examples with every answer token right

    def weights(self):
        return [0.12 + (1 - self.right[j]) for j in JOBS]

    def next(self):
        if not self.ready:
            jobs = self.r.choices(JOBS, self.weights(), k=8 * self.batch)
            pool = sorted((self.example(j) for j in jobs), key=lambda e: len(e[1]) + len(e[2]))
            self.ready = [pool[i:i + self.batch] for i in range(0, len(pool), self.batch)]
            self.r.shuffle(self.ready)
        return self.ready.pop()

    def example(self, job):
        text, want = make(self.r, job)
        system = self.r.choice(SYSTEM) if self.r.random() < .08 else ""
        return job, self.tok.chat(text, system), self.tok.encode(want) + [self.tok.special["<|user|>"]]

    def learned(self, rows, right):
        for (job, _, _), ok in zip(rows, right):
            self.right[job] += (ok - self.right[job]) * .01


def pack(rows):
    """Padded ids, the flat positions that predict answer tokens, those tokens, and whose they are."""
    T = max(len(p) + len(a) for _, p, a in rows) - 1
    ids, at, want, owner = torch.zeros(len(rows), T, dtype=torch.long), [], [], []
    for i, (_, p, a) in enumerate(rows):
        s = p + a[:-1]
        ids[i, :len(s)] = torch.tensor(s)
        at += range(i * T + len(p) - 1, i * T + len(s))
        want += a
        owner += [i] * len(a)
    return ids, torch.tensor(at), torch.tensor(want), torch.tensor(owner)


def rate(used):
    """Share of the full learning rate after a share of the time: flat, then down to a fiftieth."""
    return 1.0 if used < .35 else max(.02, (1 - used) / .65)


def check(model, tok, n, split="test", seed=0):
    """Share right per job on prompts never trained on."""
    r, stop, out = random.Random(seed), {tok.special["<|user|>"], tok.special["<|endoftext|>"]}, {}
    for j in JOBS:
        pairs = [make(r, j, split) for _ in range(n)]
        got = answer(model, [tok.chat(p) for p, _ in pairs], stop)
        out[j] = sum(tok.decode(g) == w for g, (_, w) in zip(got, pairs)) / n
    return out


def export(model, tok, path, kind):
    tensors = {k: v.detach().float().cpu().numpy() for k, v in model.state_dict().items()}
    gguf.write(path, model.c, tok, tensors, kind=kind)


def parse():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = ap.add_argument
    add("--minutes", type=float, default=90, help="training time in all, over every resume")
    add("--work", default="tinyglm-work", help="folder of the checkpoint; keep it out of version control")
    add("--out", default="tinyglm.gguf")
    add("--kind", default="q8_0", choices=sorted(gguf.KINDS))
    add("--batch", type=int, default=64)
    add("--lr", type=float, default=0.012, help="of the matrices (muon) or of everything (adamw)")
    add("--optimizer", default="muon", choices=["muon", "adamw"])
    add("--threads", type=int, default=1)
    add("--vocab", type=int, default=2048)
    add("--seed", type=int, default=1)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--check-minutes", type=float, default=8)
    add("--export-only", action="store_true")
    return ap.parse_args()


def optimizers(model, a):
    matrices = [p for n, p in model.named_parameters() if n.startswith("blk") and p.dim() == 2]
    rest = [p for n, p in model.named_parameters() if not (n.startswith("blk") and p.dim() == 2)]
    if a.optimizer == "adamw":
        return [torch.optim.AdamW(model.parameters(), lr=a.lr, betas=(.9, .98), weight_decay=.01)]
    return [Muon(matrices, lr=a.lr, weight_decay=.01), torch.optim.AdamW(rest, lr=a.lr * REST, betas=(.9, .98), weight_decay=0)]


def start(a):
    """Model, tokenizer, optimizers, feed and the seconds already spent: from the checkpoint if there is one."""
    path = os.path.join(a.work, "checkpoint.pt")
    old = torch.load(path, map_location="cpu") if os.path.exists(path) else None
    if old:
        tok = Tokenizer(old["merges"])
    else:
        r = random.Random(a.seed)
        texts = ["\n" + t + "\n" + w for t, w in (make(r, j) for _ in range(1200) for j in JOBS)] + ["\n" + s for s in SYSTEM * 50]
        tok = Tokenizer(train_merges(texts, a.vocab - 256 - len(gguf.SPECIALS)))
    torch.manual_seed(a.seed)
    model = Glm4(dict(SIZES, vocab=tok.size))
    if old:
        model.load_state_dict(old["model"])
    model.to(a.device)
    opts = optimizers(model, a)
    spent, step = (old["spent"], old["step"]) if old else (0.0, 0)
    feed = Feed(tok, a.seed + step, a.batch)
    if old:
        for o, s in zip(opts, old["opts"]):
            o.load_state_dict(s)
        feed.right.update({j: x for j, x in old["right"].items() if j in feed.right})
    return model, tok, opts, feed, spent, step


def save(a, model, tok, opts, feed, spent, step):
    path = os.path.join(a.work, "checkpoint.pt")
    torch.save(dict(model=model.state_dict(), merges=tok.merges, opts=[o.state_dict() for o in opts], right=feed.right,
                    spent=spent, step=step), path + ".new")
    os.replace(path + ".new", path)


def main():
    a = parse()
    torch.set_num_threads(a.threads)
    os.makedirs(a.work, exist_ok=True)
    model, tok, opts, feed, spent, step = start(a)
    say = lambda *x: print(time.strftime("%H:%M:%S"), *x, flush=True)
    say("parameters", sum(p.numel() for p in model.parameters()), "vocabulary", tok.size, "threads", a.threads, "step", step)
    full = [[a.lr], [a.lr * REST]] if a.optimizer == "muon" else [[a.lr]]
    budget, last, checked, saved, seen, tokens, mean, first = a.minutes * 60, time.time(), spent, spent, 0, 0, None, step
    began = last
    while not a.export_only and spent < budget:
        rows = feed.next()
        ids, at, want, owner = (t.to(a.device) for t in pack(rows))
        for o, rates in zip(opts, full):
            for g, lr in zip(o.param_groups, rates):
                g["lr"] = lr * rate(spent / budget) * min(1, (step + 1) / 30)
        logits = model(ids, at)
        loss = F.cross_entropy(logits, want)
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in opts:
            o.step()
        wrong = torch.zeros(len(rows), device=a.device).index_add_(0, owner, (logits.detach().argmax(-1) != want).float())
        feed.learned(rows, (wrong == 0).float().tolist())
        now = time.time()
        spent, last, step, seen, tokens = spent + now - last, now, step + 1, seen + len(rows), tokens + ids.numel()
        mean = loss.item() if mean is None else .97 * mean + .03 * loss.item()
        if step % 50 == 0:
            say(f"step {step} {spent:.0f}s loss {mean:.4f} {tokens / (now - began):.0f} tok/s {seen / (now - began):.0f} ex/s",
                " ".join(f"{j[:4]}={100 * x:.0f}" for j, x in feed.right.items()))
        if spent - saved > 60:
            saved = spent
            save(a, model, tok, opts, feed, spent, step)
        if spent - checked > a.check_minutes * 60:
            checked = spent
            score = check(model, tok, 40, seed=step)
            say("CHECK", f"{sum(score.values()) / len(score):.3f}", " ".join(f"{j}={x:.2f}" for j, x in score.items()))
            last = time.time()
    if step > first:
        save(a, model, tok, opts, feed, spent, step)
    export(model, tok, a.out, a.kind)
    say("wrote", a.out, os.path.getsize(a.out), "bytes")


if __name__ == "__main__":
    sys.exit(main())
