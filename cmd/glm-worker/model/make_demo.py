#!/usr/bin/env python3
"""Write the demo: tasks to submit, and in a file of their own the answers to expect.

    python3 make_demo.py --seed 2024 --count 420 --out ../../autoglm/demo

The prompts are of the "test" split, so the model was never trained on any of them. Answers stay out of the task file
so that nothing on the way to the model can see them.
"""
import argparse
import json
import os
import random

from jobs import JOBS, make

TOKENS_MAX = 32  # the longest answer, JSON around a date, is under 20 tokens


def draw(seed, count, jobs=JOBS):
    """Tasks and answers, jobs in equal shares and mixed order, no prompt twice."""
    r, seen, out = random.Random(seed), set(), []
    for i in range(count):
        job = jobs[i % len(jobs)]
        text, want = make(r, job, "test")
        while text in seen:
            text, want = make(r, job, "test")
        seen.add(text)
        out.append((job, text, want))
    r.shuffle(out)
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--seed", type=int, default=2024)
    ap.add_argument("--count", type=int, default=420)
    ap.add_argument("--out", default=".")
    a = ap.parse_args()
    with open(os.path.join(a.out, "tasks.jsonl"), "w", encoding="utf-8") as tasks, \
            open(os.path.join(a.out, "expected.jsonl"), "w", encoding="utf-8") as answers:
        for i, (job, text, want) in enumerate(draw(a.seed, a.count), 1):
            name = f"demo-{i:04d}"
            task = {"task_id": name, "prompt": text, "max_tokens": TOKENS_MAX, "metadata": {"job": job}}
            tasks.write(json.dumps(task, ensure_ascii=False) + "\n")
            answers.write(json.dumps({"task_id": name, "expected": want}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
