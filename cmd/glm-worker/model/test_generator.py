"""Invariants of the generator, the tokenizer and the GGUF writer: python3 -m unittest test_generator (no torch needed)."""
import datetime
import json
import os
import random
import re
import struct
import tempfile
import unittest
from decimal import Decimal

import jobs
from make_demo import draw

FORM = {
    "date": r"\d{4}-\d\d-\d\d", "phone": r"\+[1-9]\d{9,13}", "amount": r"\d+\.\d\d", "sentiment": "positive|negative",
    "ticket": "billing|shipping|technical|account|returns", "country": "[A-Z]{2}", "currency": "[A-Z]{3}",
    "boolean": "true|false", "clock": r"[0-2]\d:[0-5]\d", "percent": r"\d(\.\d{1,3})?", "unit": r"\d+(\.\d{1,3})?", "language": "[a-z]{2}",
}


class Generator(unittest.TestCase):
    def test_every_answer_has_its_job_s_form(self):
        r = random.Random(3)
        for job in jobs.JOBS:
            for _ in range(400):
                text, want = jobs.make(r, job)
                if want.startswith("{"):
                    want = json.loads(want)[jobs.JSON_KEY[job]]
                self.assertRegex(want, f"^({FORM[job]})$", text)
                self.assertNotRegex(text, r"[\[\]|]", "spintax left over")

    def test_dates_exist_and_numbers_agree(self):
        r = random.Random(4)
        for _ in range(500):
            datetime.date.fromisoformat(jobs.date(r)[1])
            x, y = jobs.percent(r)
            self.assertEqual(Decimal(re.match(r"[\d.]+", x).group()) / 100, Decimal(y))
            x, y = jobs.phone(r)
            self.assertTrue(y[1:].endswith(re.sub(r"\D", "", x).removeprefix("00")))

    def test_a_seed_names_a_data_set(self):
        one, two = (draw(7, 130) for _ in range(2))
        self.assertEqual(one, two)

    def test_splits_are_apart(self):
        r = random.Random(5)
        for job in jobs.JOBS:
            for split in ("train", "test"):
                for _ in range(100):
                    text, _ = jobs.make(r, job, split)
                    self.assertEqual(jobs.held(text, jobs.TEST_PROMPT), split == "test")
            jobs.make(r, job, "wording")  # ends only if some wording is held out

    def test_country_and_currency_codes_are_not_ambiguous(self):
        for table in (jobs.COUNTRIES, jobs.CURRENCIES):
            names = [n.lower() for v in table.values() for n in set(x.lower() for x in v.split("|"))]
            self.assertEqual(len(names), len(set(names)))


class Formats(unittest.TestCase):
    def setUp(self):
        try:
            import numpy  # noqa: F401
            import tokenizer
        except ImportError as e:
            self.skipTest(str(e))
        r = random.Random(6)
        self.texts = ["\n" + t for j in jobs.JOBS for t, _ in (jobs.make(r, j) for _ in range(60))]
        self.tok = tokenizer.Tokenizer(tokenizer.train_merges(self.texts, 300))

    def test_tokens_give_the_text_back(self):
        for t in self.texts + ["naïve €5 日本", "a  b\r\n\n c"]:
            self.assertEqual(self.tok.decode(self.tok.encode(t)), t)

    def test_digits_stay_single(self):
        self.assertEqual(len(self.tok.encode("20240305")), 8)

    def test_gguf_header(self):
        import numpy
        import gguf
        c = dict(d=32, layers=1, ff=32, heads=1, kv_heads=1, head_dim=32, ctx=64, eps=1e-5, rotary=.5, theta=1e4, vocab=self.tok.size)
        for kind in gguf.KINDS:
            with tempfile.TemporaryDirectory() as d:
                path = os.path.join(d, "x.gguf")
                gguf.write(path, c, self.tok, {"token_embd.weight": numpy.ones((self.tok.size, 32)), "output_norm.weight": numpy.ones(32)}, kind=kind)
                with open(path, "rb") as f:
                    self.assertEqual(struct.unpack("<4sIQ", f.read(16)), (b"GGUF", 3, 2))
                    self.assertEqual(os.path.getsize(path) % 32, 0)


if __name__ == "__main__":
    unittest.main()
