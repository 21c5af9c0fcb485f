#!/usr/bin/env python3
"""What Octet has exported, held against `transformers`; prints a table, fails if a row does.

  hub_runs.py tokenizers FOLDER   in each folder there, tokens.json says which tokens Octet gives
                                  texts: transformers' tokenizer must give the same
  hub_runs.py runs SCRATCH        trains small models of every family, exports them, and compares
                                  40 tokens of text that both write, always the most likely one
"""

import json
import pathlib
import subprocess
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

OCTET = pathlib.Path(__file__).resolve().parent.parent / "target" / "release" / "octet"
PROMPT, TOKENS = "The 7th line", 40

GPT2 = ["norm=layer_norm", "positions=learned", "activation=gelu", "bias=true"]
RUNS = {
    "gpt2": GPT2,
    "gpt2, untied": [*GPT2, "tied=false"],
    "llama": ["kv_heads=2"],
    "llama, untied, biases": ["bias=true", "tied=false"],
    "llama, yarn": ["rope_scaling={kind='yarn',factor=4.0,original_positions=24}"],
    "llama, bf16": ["dtype=bf16", "kv_heads=1"],
    "mistral": ["window=7", "kv_heads=2"],
    "qwen2": ["qkv_bias=true", "kv_heads=2"],
    "qwen2, windows": ["qkv_bias=true", "window=7", "full_attention_every=2"],
    "qwen3": ["qk_norm=true", "head_dim=16", "kv_heads=2", "tied=false"],
}
RECIPE = """
[run]
steps = 30
threads = 1
[data]
text = "text.txt"
tokenizer = "bpe:600"
cache = "cache"
[batch]
micro = 4
global = 8
sequence_length = 96
[model]
layers = 3
heads = 4
width = 32
init_std = 0.1
[schedule]
learning_rate = 1e-2
warmup = 5
[evaluate]
every = 0
[sample]
every = 0
"""


def tokenizers(folder):
    good = True
    for place in sorted(folder.iterdir()):
        tokenizer = AutoTokenizer.from_pretrained(place)
        texts = json.loads((place / "tokens.json").read_text())
        same = 0
        for case in texts:
            # Octet reads no special token in a text.
            found = tokenizer(case["text"], add_special_tokens=False, split_special_tokens=True)
            same += found["input_ids"] == case["tokens"]
        good &= same == len(texts)
        print(f"{place.name:<16} {type(tokenizer).__name__:<26} end {tokenizer.eos_token:<15} "
              f"{same}/{len(texts)} texts equal")
    return good


def octet(scratch, *arguments):
    done = subprocess.run([OCTET, *arguments], cwd=scratch, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"octet {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def runs(scratch):
    lines = (f"The {i}th line of a text says {i * i}, and then {i % 7}.\n" for i in range(2000))
    (scratch / "text.txt").write_text("".join(lines))
    (scratch / "small.toml").write_text(RECIPE)
    good = True
    for name, keys in RUNS.items():
        run = "".join(c if c.isalnum() else "-" for c in f"run-{name}")
        sets = [word for key in keys for word in ("--set", f"model.{key}")]
        octet(scratch, "train", "small.toml", "--run", run, *sets)
        octet(scratch, "export", run, f"{run}-hf")
        ours = octet(scratch, "generate", run, "--prompt", PROMPT, "--temperature", "0",
                     "--tokens", str(TOKENS))
        tokenizer = AutoTokenizer.from_pretrained(scratch / f"{run}-hf")
        model = AutoModelForCausalLM.from_pretrained(scratch / f"{run}-hf")
        prompt = tokenizer(PROMPT, return_tensors="pt")
        written = model.generate(**prompt, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)
        theirs = tokenizer.decode(written[0], skip_special_tokens=True)
        same = ours.removesuffix("\n") == theirs
        good &= same
        print(f"{name:<24} {type(model).__name__:<20} text {'equal' if same else 'DIFFERS'}: "
              f"{theirs[len(PROMPT):60]!r}")
        if not same:
            print(f"  Octet: {ours!r}\n  theirs: {theirs!r}")
    return good


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    what, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    sys.exit(0 if {"tokenizers": tokenizers, "runs": runs}[what](folder) else 1)


if __name__ == "__main__":
    main()
