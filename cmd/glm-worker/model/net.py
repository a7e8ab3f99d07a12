"""The GLM-4-0414 block at toy size, in plain torch. Parameter names follow the GGUF tensors they are exported to."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

SIZES = dict(d=192, layers=4, ff=512, heads=6, kv_heads=2, head_dim=32, ctx=1024, eps=1e-5, rotary=0.5, theta=10000.0)


class Norm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(c["d"])), c["eps"]

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def rope(x, cos, sin):
    """Rotate interleaved pairs in the first half of each head, as llama.cpp does for glm4."""
    n = cos.shape[-1] * 2
    a, b = x[..., 0:n:2], x[..., 1:n:2]
    return torch.cat((torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2), x[..., n:]), -1)


class Block(nn.Module):
    """Norms before and after both halves ("sandwich"); gate and up projection fused, gate rows first."""

    def __init__(self, c):
        super().__init__()
        d, q, kv = c["d"], c["heads"] * c["head_dim"], c["kv_heads"] * c["head_dim"]
        lin = lambda i, o: nn.Linear(i, o, bias=False)
        self.c = c
        self.attn_norm, self.post_attention_norm, self.ffn_norm, self.post_ffw_norm = (Norm(c) for _ in range(4))
        self.attn_q, self.attn_k, self.attn_v, self.attn_output = lin(d, q), lin(d, kv), lin(d, kv), lin(q, d)
        self.ffn_up, self.ffn_down = lin(d, 2 * c["ff"]), lin(c["ff"], d)

    def attend(self, x, cos, sin, mask):
        (B, T, _), h, k, n = x.shape, self.c["heads"], self.c["kv_heads"], self.c["head_dim"]
        q = rope(self.attn_q(x).view(B, T, h, n).transpose(1, 2), cos, sin)
        key = rope(self.attn_k(x).view(B, T, k, n).transpose(1, 2), cos, sin)
        val = self.attn_v(x).view(B, T, k, n).transpose(1, 2)
        # heads of one group share key and value: fold them into the row axis instead of copying the keys
        q = q.reshape(B, k, h // k * T, n)
        p = (q @ key.transpose(-1, -2)).view(B, k, h // k, T, T) * (1 / math.sqrt(n)) + mask
        o = torch.softmax(p, -1).view(B, k, h // k * T, T) @ val
        return self.attn_output(o.view(B, h, T, n).transpose(1, 2).reshape(B, T, h * n))

    def forward(self, x, cos, sin, mask, at=None):
        """With `at`, the half after the attention runs for those flat positions only: enough for the last block."""
        x = x + self.post_attention_norm(self.attend(self.attn_norm(x), cos, sin, mask))
        if at is not None:
            x = x.flatten(0, 1)[at]
        g, u = self.ffn_up(self.ffn_norm(x)).chunk(2, -1)
        return x + self.post_ffw_norm(self.ffn_down(F.silu(g) * u))


class Glm4(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.token_embd = nn.Embedding(c["vocab"], c["d"])
        self.blk = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.output_norm = Norm(c)
        n = int(c["head_dim"] * c["rotary"])
        f = torch.outer(torch.arange(c["ctx"]).float(), c["theta"] ** (-torch.arange(0, n, 2).float() / n))
        self.register_buffer("cos", f.cos(), False)
        self.register_buffer("sin", f.sin(), False)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                nn.init.normal_(p, 0, 0.02 if name.startswith("token") else p.shape[1] ** -.5)

    def forward(self, ids, at=None):
        """Logits at the flat positions `at` (training needs the answer's only), else at every position."""
        T = ids.shape[1]
        x, mask = self.token_embd(ids), torch.full((T, T), float("-inf"), device=ids.device).triu(1)
        for b in self.blk[:-1]:
            x = b(x, self.cos[:T], self.sin[:T], mask)
        x = self.blk[-1](x, self.cos[:T], self.sin[:T], mask, at)
        return F.linear(self.output_norm(x), self.token_embd.weight)


@torch.no_grad()
def answer(model, prompts, stop, limit=32):
    """Greedy answers for prompts (lists of ids). Right-padded: each row reads its own last position."""
    rows, live = [list(p) for p in prompts], list(range(len(prompts)))
    out = [[] for _ in prompts]
    for _ in range(limit):
        T = max(len(rows[i]) for i in live)
        ids = torch.zeros(len(live), T, dtype=torch.long)
        for j, i in enumerate(live):
            ids[j, :len(rows[i])] = torch.tensor(rows[i])
        at = torch.tensor([j * T + len(rows[i]) - 1 for j, i in enumerate(live)])
        dev = model.token_embd.weight.device
        best = model(ids.to(dev), at.to(dev)).argmax(-1).tolist()
        for i, t in zip(list(live), best):
            if t in stop:
                live.remove(i)
            else:
                rows[i].append(t)
                out[i].append(t)
        if not live:
            break
    return out


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix updates are made orthogonal (Newton-Schulz, five rounds). Matrices only.

    Same-shaped matrices are handled as one batch: at this size the calls cost more than the arithmetic.
    """

    def __init__(self, params, lr=0.02, momentum=0.95, weight_decay=0.0):
        super().__init__(list(params), dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @staticmethod
    def orthogonal(g):
        tall = g.shape[-2] > g.shape[-1]
        x = g.transpose(-1, -2) if tall else g
        x = x / (x.flatten(1).norm(dim=1).view(-1, 1, 1) + 1e-7)
        for _ in range(5):
            a = x @ x.transpose(-1, -2)
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
        return x.transpose(-1, -2) if tall else x

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                m.mul_(group["momentum"]).add_(p.grad)
                shapes.setdefault(p.shape, []).append((p, p.grad.add(m, alpha=group["momentum"])))
            for (rows, cols), pairs in shapes.items():
                scale = group["lr"] * max(1, rows / cols) ** .5
                for (p, _), u in zip(pairs, self.orthogonal(torch.stack([g for _, g in pairs]))):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(u, alpha=-scale)
