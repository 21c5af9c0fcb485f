#!/usr/bin/env python3
"""What `transformers` computes for tiny models of every family that Octet exchanges folders in.

Writes one JSON file. For each case: `config.json` as `transformers` saves it, names and shapes of
the tensors that it saves, logits after some tokens of a prompt, and the 40 tokens that it goes on
with when it takes the most likely one each time. `src/hub` makes the same folder, imports it,
computes the same, and exports it again. Encoders go on with nothing; one that is trained on pairs
takes the second half of the prompt for a second text, and its verdict stands behind the logits.

No weights are stored; both sides compute them, with `hash` and `seed` of `parity_reference.py`:

  tensor  element i of the tensor NAME: ((hash(seed(NAME), i) >> 8) / 2^24 - 1/2) * SCALE, plus 1
          if it is a vector that is called weight
  prompt  token number i: hash(seed("prompt"), i) mod V

With --exports FOLDER it loads what Octet exported there, case by case, holds it against the file,
prints how far the two are apart, and fails if that is too far.
"""

import argparse
import json
import math
import pathlib
import sys
import tempfile

import numpy as np
import torch
import transformers
from transformers import (BertConfig, ElectraConfig, GPT2Config, LlamaConfig, MistralConfig,
                          Qwen2Config, Qwen3Config)

from parity_reference import hashes

VOCABULARY, WIDTH, LAYERS, POSITIONS = 61, 32, 3, 64
SCALE, PROMPT, GREEDY = 0.6, 12, 40
# Tokens of the prompt after which logits are stored.
SHOWN = (0, 5, 11)
# Relative error of logits, and how far the best two must be apart for a greedy token to count.
LIMIT, MARGIN = 1e-5, 1e-4

COMMON = dict(vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=48,
              num_hidden_layers=LAYERS, num_attention_heads=4, num_key_value_heads=4,
              max_position_embeddings=POSITIONS, rope_theta=100.0, rms_norm_eps=1e-5,
              bos_token_id=1, eos_token_id=2)
GROUPED = dict(COMMON, num_key_value_heads=2)
GPT2 = dict(vocab_size=VOCABULARY, n_positions=POSITIONS, n_embd=WIDTH, n_layer=LAYERS, n_head=4,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=2)
ENCODER = dict(vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=48,
               num_hidden_layers=LAYERS, num_attention_heads=4, max_position_embeddings=POSITIONS,
               hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, layer_norm_eps=1e-5)


def encoder(config, architecture, **more):
    return config(**ENCODER, architectures=[architecture], **more)


def scaled(**scaling):
    return dict(GROUPED, rope_scaling=scaling)


def cases():
    """Every family, with every option that changes what is computed."""
    windows = dict(use_sliding_window=True, sliding_window=5)
    every_other = ["sliding_attention", "full_attention", "sliding_attention"]
    return {
        "gpt2": GPT2Config(**GPT2),
        "gpt2, untied, inner 80": GPT2Config(**GPT2, n_inner=80, tie_word_embeddings=False),
        "llama": LlamaConfig(**COMMON),
        "llama, grouped, tied": LlamaConfig(**GROUPED, tie_word_embeddings=True),
        "llama, biases": LlamaConfig(**GROUPED, attention_bias=True, mlp_bias=True),
        "llama, heads of 16": LlamaConfig(**GROUPED, head_dim=16),
        "llama, rope linear": LlamaConfig(**scaled(rope_type="linear", factor=4.0)),
        "llama, rope dynamic": LlamaConfig(**scaled(rope_type="dynamic", factor=4.0)),
        "llama, rope llama3": LlamaConfig(**scaled(
            rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=32)),
        "llama, rope yarn": LlamaConfig(**scaled(
            rope_type="yarn", factor=4.0, original_max_position_embeddings=16)),
        "llama, rope yarn, all keys": LlamaConfig(**scaled(
            rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=2.0,
            beta_slow=0.5, attention_factor=1.3, truncate=False)),
        "mistral, window 5": MistralConfig(**GROUPED, sliding_window=5),
        "qwen2, tied": Qwen2Config(**GROUPED, tie_word_embeddings=True),
        "qwen2, windows": Qwen2Config(**GROUPED, **windows, max_window_layers=0),
        "qwen2, every 2nd full": Qwen2Config(**GROUPED, **windows, layer_types=every_other),
        "qwen2, rope yarn": Qwen2Config(**scaled(
            rope_type="yarn", factor=4.0, original_max_position_embeddings=16)),
        "qwen3, tied": Qwen3Config(**GROUPED, head_dim=16, tie_word_embeddings=True),
        "qwen3, windows": Qwen3Config(**GROUPED, head_dim=8, **windows, max_window_layers=0),
        "bert, pairs": encoder(BertConfig, "BertForPreTraining"),
        "bert, hidden tokens": encoder(BertConfig, "BertForMaskedLM"),
        "electra, judge": encoder(ElectraConfig, "ElectraForPreTraining", embedding_size=WIDTH),
        "electra, judge, narrow": encoder(ElectraConfig, "ElectraForPreTraining", embedding_size=16),
        "electra, generator": encoder(ElectraConfig, "ElectraForMaskedLM", embedding_size=16),
    }


def values(name, shape):
    units = (hashes(name, math.prod(shape)) >> np.uint32(8)).astype(np.float32) / 2**24
    center = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0
    found = (units - np.float32(0.5)) * np.float32(SCALE) + np.float32(center)
    return torch.from_numpy(found.reshape(shape))


def prompt():
    return (hashes("prompt", PROMPT).astype(np.int64) % VOCABULARY).tolist()


def class_of(config):
    """The class of a configuration; a decoder's has the head of a language model."""
    decoder = f"{type(config).__name__.removesuffix('Config')}ForCausalLM"
    name = config.architectures[0] if config.architectures else decoder
    return getattr(transformers, {"GPT2ForCausalLM": "GPT2LMHeadModel"}.get(name, name))


def told(model):
    """What an encoder tells of the prompt: of every token, and at the end of the pair."""
    tokens = torch.tensor([prompt()])
    if type(model).__name__ != "BertForPreTraining":
        logits = model(tokens).logits[0]
        return list(logits.reshape(len(prompt()), -1))
    types = (torch.arange(PROMPT) >= PROMPT // 2).long()[None]
    found = model(tokens, token_type_ids=types)
    return [*found.prediction_logits[0], found.seq_relationship_logits[0]]


@torch.no_grad()
def computed(model):
    """Rows of logits, the tokens that follow, and the smallest lead of one of them."""
    model = model.eval()
    tokens, lead = prompt(), math.inf
    if model.config.model_type in ("bert", "electra"):
        rows = told(model)
        return [rows[at] for at in SHOWN] + rows[PROMPT:], [], lead
    first = model(torch.tensor([tokens]), use_cache=False).logits[0]
    for _ in range(GREEDY):
        last = model(torch.tensor([tokens]), use_cache=False).logits[0, -1]
        best = last.topk(2)
        lead = min(lead, (best.values[0] - best.values[1]).item())
        tokens.append(best.indices[0].item())
    return [first[at] for at in SHOWN], tokens[PROMPT:], lead


def generated(model):
    """The same tokens as people ask for them, from the cache."""
    if model.config.model_type in ("bert", "electra"):
        return []
    ends = dict(eos_token_id=None, pad_token_id=0, suppress_tokens=None)
    found = model.generate(torch.tensor([prompt()]), max_new_tokens=GREEDY, do_sample=False, **ends)
    return found[0, PROMPT:].tolist()


def reference(name, config):
    config._attn_implementation = "eager"
    model = class_of(config)(config)
    with torch.no_grad():
        # What is tied has the first of its names.
        for tensor, parameter in model.named_parameters():
            parameter.copy_(values(tensor, tuple(parameter.shape)))
    logits, greedy, lead = computed(model)
    assert lead > MARGIN, f"{name}: two tokens are {lead} apart: change SCALE"
    assert generated(model) == greedy, f"{name}: with and without a cache"
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        stored = json.loads((pathlib.Path(folder) / "config.json").read_text())
        from safetensors import safe_open
        with safe_open(pathlib.Path(folder) / "model.safetensors", "pt") as file:
            tensors = {key: list(file.get_tensor(key).shape) for key in sorted(file.keys())}
    rounded = [[float(f"{x:.9g}") for x in row.tolist()] for row in logits]
    return dict(name=name, config=stored, tensors=tensors, logits=rounded, greedy=greedy)


def slug(name):
    return "".join(c if c.isalnum() else "-" for c in name)


def check(case, folder):
    """Loads an export and holds it against a case; whether it is near enough."""
    ours = json.loads((folder / "figures.json").read_text())[case["name"]]
    folder = folder / slug(case["name"])
    model, info = class_of(transformers.AutoConfig.from_pretrained(folder)).from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True)
    clean = not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    logits, greedy, _ = computed(model)
    expected = torch.cat([torch.tensor(row) for row in case["logits"]])
    found = torch.cat(logits)
    error = ((found - expected).norm() / expected.norm()).item()
    same = sum(a == b for a, b in zip(greedy, case["greedy"]))
    cached = generated(model) == greedy
    good = clean and error <= LIMIT and same == len(case["greedy"]) and cached
    verdict = "ok" if good else "FAILED"
    print(f"{case['name']:<28} {type(model).__name__:<20} logits: Octet {ours:.1e}, its export "
          f"{error:.1e}  greedy {same}/{len(case['greedy'])}  all tensors {'yes' if clean else 'NO'}  {verdict}")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("golden", type=pathlib.Path)
    parser.add_argument("--exports", type=pathlib.Path)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.manual_seed(1)
    torch.set_num_threads(1)
    if arguments.exports is None:
        made = [reference(name, config) for name, config in cases().items()]
        shown = dict(scale=SCALE, vocabulary=VOCABULARY, prompt=prompt(), shown=SHOWN, cases=made)
        shown["transformers"] = transformers.__version__
        arguments.golden.write_text(json.dumps(shown, indent=None, separators=(",", ":"))
                                    .replace('{"name"', '\n{"name"') + "\n")
        return
    golden = json.loads(arguments.golden.read_text())
    good = [check(case, arguments.exports) for case in golden["cases"]]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
