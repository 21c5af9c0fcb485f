#!/usr/bin/env python3
"""The numbers that Octet is held against, made by PyTorch and transformers and by nothing else.

Builds tiny decoders from plain torch modules, and takes BERT and ELECTRA from transformers
(parity_encoders.py), trains each for ten steps of AdamW, and writes one JSON file: the losses, norms
and learning rates of the steps, and for the gradients of the first step and the changes of the
parameters over all steps, per tensor, the norm, eight random projections and three elements (with
--full all elements as well). `tests/parity` compares with it.

No weights and no data are stored; both sides compute them. With all arithmetic modulo 2^32:

  seed(text)  FNV-1a of the text's bytes (offset basis 2166136261, prime 16777619)
  hash(s, i)  x = s + i * 0x9E3779B9;  x ^= x >> 16;  x *= 0x7FEB352D;  x ^= x >> 15;
              x *= 0x846CA68B;  x ^= x >> 16
  unit(s, i)  (hash(s, i) >> 8) / 2^24 - 1/2, exact in f32
  weight      element i of the parameter NAME: unit(seed(NAME), i) / 4, plus 1 if the name ends
              with "norm.weight"
  token       number i of step n: hash(seed("tokens/n"), i) mod V; a row has T + 1, the last being
              a label only
  border      a document begins at place t > 0 of row b (rows of T + 1 places) if
              hash(seed("borders/n"), b (T + 1) + t) mod 7 = 0
  projection  number k of the tensor NAME: sum over i of x_i, negated where bit k of
              hash(seed("projection/NAME"), i) is 1

Names are Octet's. `qkv` stands for queries, keys and values one below the other, `gate_up` for
gate and up. NAME[a:b] is a part of a tensor: biases of keys without rotations are left out of the changes,
because they shift all scores of a query alike. Their gradient is zero but for rounding, and AdamW
makes steps of full size from it.
"""

import argparse
import fnmatch
import json
import math
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

STEPS, BATCH, LENGTH, VOCABULARY, WIDTH, LAYERS = 10, 4, 16, 61, 32, 2
PROJECTIONS = 8
LEARNING_RATE, MINIMUM, WARMUP = 1e-2, 1e-3, 3
OPTIMIZER = dict(betas=(0.9, 0.95), eps=1e-8)
WEIGHT_DECAY, CLIP_NORM = 0.1, 1.0

# What the families are made of. `stretch`: factor, low, high, original length (Llama 3.1);
# `windows`: by block, how many keys are seen at most; `groups`: by pattern of a name, the factor of
# the learning rate and the weight decay, the first that fits.
PLAIN = dict(windows=(None, None), softcap=None, z_loss=0.0, smoothing=0.0, groups={},
             parallel=False)
CASES = {
    "gpt2": dict(PLAIN, family="gpt2", heads=4, kv_heads=4, head_dim=8, inner=128,
                 documents=False, tied=True),
    # Its four frequencies turn 5.1, 1.6, 0.5 and 0.2 times: one is kept, one blended, two divided.
    "llama": dict(PLAIN, family="llama", heads=4, kv_heads=2, head_dim=8, inner=64,
                  documents=False, tied=False, theta=100.0, stretch=(8.0, 1.0, 4.0, 32),
                  qkv_bias=False, qk_norm=False),
    "qwen": dict(PLAIN, family="llama", heads=4, kv_heads=1, head_dim=16, inner=64,
                 documents=True, tied=False, theta=1000.0, stretch=None, qkv_bias=True,
                 qk_norm=True),
    # A sliding window in every other block, norms of queries and keys, capped logits.
    "gemma": dict(PLAIN, family="llama", heads=4, kv_heads=2, head_dim=8, inner=64,
                  documents=True, tied=True, theta=100.0, stretch=None, qkv_bias=False,
                  qk_norm=True, windows=(3, None), softcap=0.5),
    # Attention and feed-forward of the same rows, one key head for all query heads.
    "palm": dict(PLAIN, family="llama", heads=4, kv_heads=1, head_dim=16, inner=64,
                 documents=True, tied=True, theta=100.0, stretch=None, qkv_bias=False,
                 qk_norm=False, parallel=True, z_loss=1e-2),
    # A band of keys in every other block.
    "gpt3": dict(PLAIN, family="gpt2", heads=4, kv_heads=4, head_dim=8, inner=128,
                 documents=False, tied=True, windows=(4, None)),
    # All that a recipe can add to the loss, and groups of parameters.
    "recipe": dict(PLAIN, family="gpt2", heads=4, kv_heads=4, head_dim=8, inner=128,
                   documents=True, tied=False, softcap=2.0, z_loss=0.02, smoothing=0.1,
                   groups={"head.weight": (0.5, 0.3), "*norm.weight": (2.0, 0.2),
                           "blocks.1.*.weight": (1.5, 0.0), "positions.*": (0.1, 0.1)}),
}


def seed(text):
    value = 2166136261
    for byte in text.encode():
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value


def hashes(text, count):
    x = (seed(text) + np.arange(count, dtype=np.uint64) * 0x9E3779B9).astype(np.uint32)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    return x ^ x >> np.uint32(16)


def weights(name, shape):
    units = (hashes(name, math.prod(shape)) >> np.uint32(8)).astype(np.float32) / 2**24
    values = (units - np.float32(0.5)) * np.float32(0.25)
    center = 1.0 if name.endswith("norm.weight") else 0.0
    return torch.from_numpy((values + np.float32(center)).reshape(shape))


def set_weights(tensors):
    """Fills parameters, by Octet's name those that lie below each other there."""
    with torch.no_grad():
        for name, parts in tensors.items():
            shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
            start, values = 0, weights(name, shape)
            for part in parts:
                part.copy_(values[start:start + part.shape[0]])
                start += part.shape[0]


def rows(step, documents):
    """Tokens, labels (-100: none), positions and segments, each [BATCH, LENGTH]."""
    places = BATCH * (LENGTH + 1)
    drawn = hashes(f"tokens/{step}", places).astype(np.int64) % VOCABULARY
    drawn = torch.from_numpy(drawn.reshape(BATCH, LENGTH + 1))
    tokens, labels = drawn[:, :-1], drawn[:, 1:].clone()
    begins = torch.zeros(BATCH, LENGTH + 1, dtype=torch.bool)
    if documents:
        borders = hashes(f"borders/{step}", places).reshape(BATCH, LENGTH + 1) % 7 == 0
        begins = torch.from_numpy(borders)
        begins[:, 0] = False
        labels[begins[:, 1:]] = -100
    segments = begins[:, :-1].long().cumsum(dim=1)
    place = torch.arange(LENGTH).expand(BATCH, LENGTH)
    first = torch.where(begins[:, :-1], place, 0).cummax(dim=1).values
    return tokens, labels, place - first, segments


def visible(segments, window=None):
    """[BATCH, 1, LENGTH, LENGTH]: who sees whom."""
    seen = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    if window is not None:
        seen &= torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1 - window)
    return (segments[:, None, :, None] == segments[:, None, None, :]) & seen


def frequencies(case):
    """Radians per position, by pair of elements."""
    d = case["head_dim"]
    exact = [case["theta"] ** (-2.0 * i / d) for i in range(d // 2)]
    if case["stretch"] is None:
        return torch.tensor(exact)
    factor, low, high, original = case["stretch"]
    result = []
    for f in exact:
        turns = original * f / (2 * math.pi)
        blend = min(1.0, max(0.0, (turns - low) / (high - low)))
        result.append((1 - blend) * f / factor + blend * f)
    return torch.tensor(result)


def rotated(x, positions, case):
    """Element i of a head and element i + head_dim / 2 are a pair. x: [B, heads, T, head_dim]."""
    angles = positions[:, None, :, None].float() * frequencies(case)
    a, b = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def norm(case, size):
    return nn.LayerNorm(size, eps=1e-5) if case["family"] == "gpt2" else nn.RMSNorm(size, eps=1e-5)


class Attention(nn.Module):
    def __init__(self, case):
        super().__init__()
        self.case = case
        gpt2, d = case["family"] == "gpt2", case["head_dim"]
        bias = gpt2 or case["qkv_bias"]
        self.query = nn.Linear(WIDTH, case["heads"] * d, bias=bias)
        self.key = nn.Linear(WIDTH, case["kv_heads"] * d, bias=bias)
        self.value = nn.Linear(WIDTH, case["kv_heads"] * d, bias=bias)
        self.output = nn.Linear(case["heads"] * d, WIDTH, bias=gpt2)
        if not gpt2 and case["qk_norm"]:
            self.q_norm, self.k_norm = nn.RMSNorm(d, eps=1e-5), nn.RMSNorm(d, eps=1e-5)

    def forward(self, x, positions, mask):
        case = self.case
        split = lambda y, heads: y.view(BATCH, LENGTH, heads, case["head_dim"])
        q, k = split(self.query(x), case["heads"]), split(self.key(x), case["kv_heads"])
        v = split(self.value(x), case["kv_heads"])
        if hasattr(self, "q_norm"):
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if case["family"] != "gpt2":
            q, k = rotated(q, positions, case), rotated(k, positions, case)
        group = case["heads"] // case["kv_heads"]
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        scores = q @ k.transpose(-2, -1) / math.sqrt(case["head_dim"])
        seen = scores.masked_fill(~mask, -math.inf).softmax(dim=-1) @ v
        return self.output(seen.transpose(1, 2).reshape(BATCH, LENGTH, -1))


class FeedForward(nn.Module):
    def __init__(self, case):
        super().__init__()
        gpt2, inner = case["family"] == "gpt2", case["inner"]
        self.gate = None if gpt2 else nn.Linear(WIDTH, inner, bias=False)
        self.up = nn.Linear(WIDTH, inner, bias=gpt2)
        self.down = nn.Linear(inner, WIDTH, bias=gpt2)

    def forward(self, x):
        if self.gate is None:
            return self.down(F.gelu(self.up(x), approximate="tanh"))
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self, case):
        super().__init__()
        self.attention_norm, self.attention = norm(case, WIDTH), Attention(case)
        self.feed_forward = FeedForward(case)
        if not case["parallel"]:
            self.feed_forward_norm = norm(case, WIDTH)

    def forward(self, x, positions, mask):
        if not hasattr(self, "feed_forward_norm"):
            normed = self.attention_norm(x)
            return x + self.attention(normed, positions, mask) + self.feed_forward(normed)
        x = x + self.attention(self.attention_norm(x), positions, mask)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Decoder(nn.Module):
    def __init__(self, case):
        super().__init__()
        self.case = case
        gpt2 = case["family"] == "gpt2"
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(LENGTH, WIDTH) if gpt2 else None
        self.blocks = nn.ModuleList(Block(case) for _ in range(LAYERS))
        self.final_norm = norm(case, WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        if case["tied"]:
            self.head.weight = self.embedding.weight
        set_weights(self.tensors())

    def tensors(self):
        """Octet's names with the parameters that lie below each other there."""
        merged = {"query": "qkv", "key": "qkv", "value": "qkv", "gate": "gate_up"}
        if self.positions is None:
            merged["up"] = "gate_up"
        found = {}
        for name, parameter in self.named_parameters():
            path = [merged.get(part, part) for part in name.split(".")]
            found.setdefault(".".join(path), []).append(parameter)
        return found

    def logits(self, tokens, positions, segments):
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions(positions)
        for block, window in zip(self.blocks, self.case["windows"]):
            x = block(x, positions, visible(segments, window))
        logits = self.head(self.final_norm(x))
        cap = self.case["softcap"]
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def loss(self, tokens, labels, positions, segments):
        logits = self.logits(tokens, positions, segments).flatten(0, 1)
        labels = labels.flatten()
        squares = logits[labels >= 0].logsumexp(dim=-1).square()
        smooth = F.cross_entropy(logits, labels, label_smoothing=self.case["smoothing"])
        return smooth + self.case["z_loss"] * squares.mean()

    def step_loss(self, step):
        return self.loss(*rows(step, self.case["documents"]))


def rate(step):
    if step < WARMUP:
        return LEARNING_RATE * (step + 1) / WARMUP
    done = (step - WARMUP) / (STEPS - WARMUP)
    return MINIMUM + 0.5 * (LEARNING_RATE - MINIMUM) * (1 + math.cos(math.pi * done))


def group(case, name, parameter):
    """The factor of the learning rate and the weight decay of a parameter."""
    for pattern, treated in case["groups"].items():
        if fnmatch.fnmatchcase(name, pattern):
            return treated
    return 1.0, WEIGHT_DECAY if parameter.dim() >= 2 else 0.0


def described(name, values, full):
    """What is kept of a tensor."""
    values = values.detach().flatten()
    wide = values.double().numpy()
    bits = hashes(f"projection/{name}", len(wide))
    signs = [1.0 - 2.0 * ((bits >> np.uint32(k)) & np.uint32(1)) for k in range(PROJECTIONS)]
    probes = [0, len(wide) // 2, len(wide) - 1]
    kept = dict(
        norm=float(f"{np.linalg.norm(wide):.9g}"),
        projections=[float(f"{sign @ wide:.9g}") for sign in signs],
        probes=[[i, float(f"{wide[i]:.9g}")] for i in probes],
    )
    if full:
        kept["elements"] = [float(f"{x:.9g}") for x in wide]
    return kept


def changes(case, tensors):
    """What training has added to the first weights."""
    for name, parts in tensors.items():
        now = torch.cat([part.detach() for part in parts])
        change = now - weights(name, now.shape)
        if case["family"] != "llama" and name.endswith("qkv.bias"):
            size = len(parts[0])
            yield f"{name}[0:{size}]", change[:size]
            yield f"{name}[{2 * size}:{3 * size}]", change[2 * size:]
        else:
            yield name, change


def trained(model, full):
    case, tensors = model.case, model.tensors()
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    treated = [(p, *group(case, name, p)) for name, p in named]
    optimizer = torch.optim.AdamW(
        [dict(params=[p], factor=factor, weight_decay=decay) for p, factor, decay in treated],
        lr=LEARNING_RATE, **OPTIMIZER)
    result = dict(losses=[], norms=[], rates=[], gradients={}, changes={})
    for step in range(STEPS):
        for own in optimizer.param_groups:
            own["lr"] = own["factor"] * rate(step)
        optimizer.zero_grad(set_to_none=True)
        loss = model.step_loss(step)
        loss.backward()
        if step == 0:
            for name, parts in tensors.items():
                gradient = torch.cat([part.grad for part in parts])
                result["gradients"][name] = described(name, gradient, full)
        total = nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        result["losses"].append(float(f"{loss.item():.9g}"))
        result["norms"].append(float(f"{total.item():.9g}"))
        result["rates"].append(rate(step))
    for name, change in changes(case, tensors):
        result["changes"][name] = described(name, change, full)
    return result


def text(result):
    """JSON with one line per tensor, so that a change can be read."""
    compact = lambda value: json.dumps(value, separators=(",", ":"))
    lines = ["{", f'"made_by":{compact("PyTorch " + torch.__version__.split("+")[0])},', '"cases":{']
    for case, (name, numbers) in enumerate(result.items()):
        lines.append(f'"{name}":{{')
        lines += [f'"{key}":{compact(numbers[key])},' for key in ("losses", "norms", "rates")]
        for which in ("gradients", "changes"):
            entries = [f'"{n}":{compact(kept)}' for n, kept in numbers[which].items()]
            lines += [f'"{which}":{{', ",\n".join(entries), "}," if which == "gradients" else "}"]
        lines.append("}," if case + 1 < len(result) else "}")
    return "\n".join(lines + ["}", "}"]) + "\n"


def farthest(result, committed):
    """The largest relative difference between two results of this program."""
    worst = 0.0
    for name, numbers in result.items():
        other = committed[name]
        for key in ("losses", "norms", "rates"):
            worst = max(worst, *(abs(a - b) / abs(b) for a, b in zip(numbers[key], other[key])))
        for which in ("gradients", "changes"):
            assert numbers[which].keys() == other[which].keys(), f"{name}: other {which}"
            for tensor, kept in numbers[which].items():
                was = other[which][tensor]
                both = zip(kept["projections"], was["projections"])
                square = sum((a - b) ** 2 for a, b in both) / PROJECTIONS
                worst = max(worst, math.sqrt(square) / was["norm"])
    return worst


def main():
    arguments = argparse.ArgumentParser(description="Writes the reference of tests/parity.")
    arguments.add_argument("output")
    arguments.add_argument("--full", action="store_true", help="all elements of all tensors")
    arguments.add_argument("--against", metavar="FILE", help="fails if FILE says something else")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # Encoders ask this program for its formulas.
    from parity_encoders import MODELS
    models = {name: lambda case=case: Decoder(case) for name, case in CASES.items()} | MODELS
    result = {name: trained(build(), options.full) for name, build in models.items()}
    with open(options.output, "w") as file:
        file.write(text(result))
    if options.against:
        with open(options.against) as file:
            worst = farthest(result, json.load(file)["cases"])
        print(f"{options.against}: largest relative difference {worst:.2e} of 1e-05")
        sys.exit(0 if worst <= 1e-5 else 1)


if __name__ == "__main__":
    main()
