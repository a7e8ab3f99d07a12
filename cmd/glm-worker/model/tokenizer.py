"""Byte-level BPE as llama.cpp's "glm4" pre-tokenizer runs it, and the training of its merges.

llama.cpp splits text with PRE and merges inside each piece. Pieces with digits are kept out of the training, so every
digit stays a token of its own: numbers are then copied and shifted digit by digit.
"""
from collections import Counter, defaultdict

import regex

PRE = regex.compile(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIALS = ["<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]


def byte_alphabet():
    """GPT-2's map from byte to printable character, which GGUF token texts use."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    out, n = {b: chr(b) for b in keep}, 0
    for b in range(256):
        if b not in out:
            out[b] = chr(256 + n)
            n += 1
    return out


ALPHABET = byte_alphabet()


def _merge(seq, a, b):
    out, i = [], 0
    while i < len(seq):
        if i + 1 < len(seq) and seq[i] == a and seq[i + 1] == b:
            out.append(a + b)
            i += 2
        else:
            out.append(seq[i])
            i += 1
    return out


def train_merges(texts, wanted):
    """The most frequent pairs, in order; at most `wanted`, and none seen fewer than 3 times."""
    words = Counter(w for t in texts for w in PRE.findall(t) if not any(c.isdigit() for c in w))
    seqs = {w: [ALPHABET[b] for b in w.encode()] for w in words}
    count, where = Counter(), defaultdict(set)
    for w, s in seqs.items():
        for p in zip(s, s[1:]):
            count[p] += words[w]
            where[p].add(w)
    merges = []
    while len(merges) < wanted and count:
        (a, b), n = max(count.items(), key=lambda kv: (kv[1], kv[0]))
        if n < 3:
            break
        merges.append((a, b))
        for w in where.pop((a, b)):
            for p in zip(seqs[w], seqs[w][1:]):
                count[p] -= words[w]
            seqs[w] = _merge(seqs[w], a, b)
            for p in zip(seqs[w], seqs[w][1:]):
                count[p] += words[w]
                where[p].add(w)
        del count[(a, b)]
        count = +count if len(merges) % 200 == 0 else count
    return merges


class Tokenizer:
    def __init__(self, merges):
        self.merges = [tuple(m) for m in merges]
        self.tokens = [ALPHABET[b] for b in range(256)] + [a + b for a, b in self.merges]
        self.rank = {m: i for i, m in enumerate(self.merges)}
        self.id = {t: i for i, t in enumerate(self.tokens)}
        self.special = {t: len(self.tokens) + i for i, t in enumerate(SPECIALS)}
        self.size = len(self.tokens) + len(SPECIALS)
        self.bytes = {c: b for b, c in ALPHABET.items()}
        self.known = {}  # piece -> ids; pieces repeat

    def _piece(self, w):
        s = [ALPHABET[b] for b in w.encode()]
        while len(s) > 1:
            best = min(zip(s, s[1:]), key=lambda p: self.rank.get(p, 1 << 30))
            if best not in self.rank:
                break
            s = _merge(s, *best)
        return [self.id[x] for x in s]

    def encode(self, text):
        out = []
        for w in PRE.findall(text):
            ids = self.known.get(w)
            if ids is None:
                ids = self._piece(w)
                if len(self.known) < 200000:
                    self.known[w] = ids
            out += ids
        return out

    def decode(self, ids):
        return bytes(self.bytes[c] for i in ids if i < len(self.tokens) for c in self.tokens[i]).decode("utf-8", "replace")

    def chat(self, user, system=""):
        """A prompt up to the point where the answer starts, in GLM-4's chat form."""
        s, nl = self.special, self.encode("\n")
        head = [s["[gMASK]"], s["<sop>"]]
        if system:
            head += [s["<|system|>"]] + self.encode("\n" + system)
        return head + [s["<|user|>"]] + self.encode("\n" + user) + [s["<|assistant|>"]] + nl
