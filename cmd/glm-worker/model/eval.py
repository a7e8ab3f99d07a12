#!/usr/bin/env python3
"""Ask a running server fresh prompts of known answer, greedily, and print how many it gets right, per job.

    python3 eval.py --unix /run/glm.sock                 a glm-worker
    python3 eval.py --server http://127.0.0.1:8080       any OpenAI-compatible server
    python3 eval.py --unix ... --split wording           instructions that training never used

An answer counts only if it is equal to the expected text, white space at the ends aside. Standard library only.
"""
import argparse
import http.client
import json
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from threading import local
from urllib.parse import urlsplit

from jobs import JOBS, make

TIMEOUT = 120  # seconds for one answer
TRIES = 6


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=TIMEOUT)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self.path)


class Client:
    """One kept-open connection per thread."""

    def __init__(self, a):
        self.a, self.mine = a, local()
        self.url = urlsplit(a.server) if a.server else None

    def connection(self):
        if getattr(self.mine, "conn", None) is None:
            if self.a.unix:
                self.mine.conn = UnixConnection(self.a.unix)
            else:
                kind = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
                self.mine.conn = kind(self.url.netloc, timeout=TIMEOUT)
        return self.mine.conn

    def call(self, method, path, body=None):
        """Status and decoded body; asks again when the server is busy or a kept connection was closed."""
        for attempt in range(TRIES):
            try:
                c = self.connection()
                c.request(method, (self.url.path.rstrip("/") if self.url else "") + path, body, {"Content-Type": "application/json"})
                res = c.getresponse()
                data = res.read()
                if res.status not in (429, 503) or attempt == TRIES - 1:
                    return res.status, json.loads(data or b"null")
            except (OSError, http.client.HTTPException):
                self.mine.conn = None
                if attempt == TRIES - 1:
                    raise
            time.sleep(.1 * 2 ** attempt)

    def first_model(self):
        status, got = self.call("GET", "/v1/models")
        if status != 200 or not got.get("data"):
            raise SystemExit(f"no model to ask: status {status}, {got}")
        return got["data"][0]["id"]

    def ask(self, prompt):
        """The answer's text. A server that refuses ends the run: a share of right answers would mean nothing."""
        body = {"model": self.a.model, "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 32}
        status, got = self.call("POST", "/v1/chat/completions", json.dumps(body).encode())
        if status != 200:
            raise SystemExit(f"status {status}: {got}")
        return got["choices"][0]["message"]["content"].strip()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = ap.add_mutually_exclusive_group(required=True)
    where.add_argument("--server", help="base URL, without /v1")
    where.add_argument("--unix", help="path of a unix socket")
    ap.add_argument("--model", default="", help="default: the first that /v1/models names")
    ap.add_argument("-n", type=int, default=2000, help="prompts in all, shared evenly by the jobs")
    ap.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30), help="default: another one each time")
    ap.add_argument("--split", default="test", choices=["test", "wording"])
    ap.add_argument("--jobs", type=lambda s: s.split(","), default=list(JOBS), help="only these, as date,phone")
    ap.add_argument("--concurrency", type=int, default=16)
    ap.add_argument("--misses", type=int, default=0, help="print so many wrong answers of each job")
    a = ap.parse_args()

    r, client = random.Random(a.seed), Client(a)
    a.model = a.model or client.first_model()
    asked = [(j, *make(r, j, a.split)) for j in (a.jobs[i % len(a.jobs)] for i in range(a.n))]
    began = time.time()
    with ThreadPoolExecutor(a.concurrency) as pool:
        answers = list(pool.map(lambda q: client.ask(q[1]), asked))
    took = time.time() - began

    print(f"seed {a.seed}, split {a.split}, {a.n} prompts, {a.concurrency} at a time, {took:.1f} s, {a.n / took:.0f} answers/s\n")
    print(f"| {'job':<10} | right | of | share |\n|---|---|---|---|")
    for j in a.jobs:
        rows = [(p, w, g) for (k, p, w), g in zip(asked, answers) if k == j]
        good = sum(w == g for _, w, g in rows)
        print(f"| {j:<10} | {good} | {len(rows)} | {100 * good / max(1, len(rows)):.1f} % |")
    good = sum(w == g for (_, _, w), g in zip(asked, answers))
    print(f"| all | {good} | {a.n} | {100 * good / a.n:.2f} % |")
    left = {j: a.misses for j in a.jobs}
    for (j, p, w), g in zip(asked, answers):
        if w != g and left[j] > 0:
            left[j] -= 1
            print(f"{j}: {p!r} want {w!r} got {g!r}")


if __name__ == "__main__":
    main()
