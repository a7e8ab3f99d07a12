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
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import local
from urllib.parse import urlsplit

from jobs import JOBS, make

TIMEOUT = 120  # seconds for one answer


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

    def ask(self, prompt):
        """The answer's text, or what went wrong in angle brackets, which no expected answer starts with."""
        body = json.dumps({"model": self.a.model, "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 32})
        path = (self.url.path.rstrip("/") if self.url else "") + "/v1/chat/completions"
        for attempt in range(3):
            try:
                c = self.connection()
                c.request("POST", path, body.encode(), {"Content-Type": "application/json"})
                res = c.getresponse()
                data = res.read()
                if res.status in (429, 503):  # busy: the server asks us to wait
                    time.sleep(.2 * (attempt + 1))
                    continue
                if res.status != 200:
                    return f"<status {res.status}: {data[:200].decode('utf-8', 'replace')}>"
                return json.loads(data)["choices"][0]["message"]["content"]
            except (OSError, http.client.HTTPException) as e:
                self.mine.conn = None
                fault = e
        return f"<no answer: {fault!r}>" if "fault" in locals() else "<server busy>"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = ap.add_mutually_exclusive_group(required=True)
    where.add_argument("--server", help="base URL, without /v1")
    where.add_argument("--unix", help="path of a unix socket")
    ap.add_argument("--model", default="default")
    ap.add_argument("-n", type=int, default=2000, help="prompts in all, shared evenly by the jobs")
    ap.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30), help="default: another one each time")
    ap.add_argument("--split", default="test", choices=["test", "wording"])
    ap.add_argument("--concurrency", type=int, default=16)
    ap.add_argument("--misses", type=int, default=0, help="print so many wrong answers of each job")
    a = ap.parse_args()

    r, client = random.Random(a.seed), Client(a)
    asked = [(j, *make(r, j, a.split)) for j in (JOBS[i % len(JOBS)] for i in range(a.n))]
    began = time.time()
    with ThreadPoolExecutor(a.concurrency) as pool:
        answers = list(pool.map(lambda q: client.ask(q[1]).strip(), asked))
    took = time.time() - began

    print(f"seed {a.seed}, split {a.split}, {a.n} prompts, {a.concurrency} at a time, {took:.1f} s, {a.n / took:.0f} answers/s\n")
    print(f"| {'job':<10} | right | of | share |\n|---|---|---|---|")
    for j in JOBS:
        rows = [(p, w, g) for (k, p, w), g in zip(asked, answers) if k == j]
        good = sum(w == g for _, w, g in rows)
        print(f"| {j:<10} | {good} | {len(rows)} | {100 * good / max(1, len(rows)):.1f} % |")
    good = sum(w == g for (_, _, w), g in zip(asked, answers))
    print(f"| all | {good} | {a.n} | {100 * good / a.n:.2f} % |")
    left = {j: a.misses for j in JOBS}
    for (j, p, w), g in zip(asked, answers):
        if w != g and left[j] > 0:
            left[j] -= 1
            print(f"{j}: {p!r} want {w!r} got {g!r}")
    return 0 if not any(g.startswith("<") for g in answers) else 1


if __name__ == "__main__":
    sys.exit(main())
