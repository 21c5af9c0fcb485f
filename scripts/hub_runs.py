#!/usr/bin/env python3
"""What Octet has exported, held against `transformers`; prints a table, fails if a row does.

  hub_runs.py tokenizers FOLDER   in each folder there, tokens.json says which tokens Octet gives
                                  texts: transformers' tokenizer must give the same
  hub_runs.py runs SCRATCH        trains small models of every family, exports them, and compares
                                  40 tokens of text that both write, always the most likely one
"""

import json
import pathlib
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from small_runs import GPT2, begin, octet, train

PROMPT, TOKENS = "The 7th line", 40

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
# Models that tell hidden tokens.
ENCODERS = {
    "bert": [],
    "bert, no row to spare": ["vocabulary=601"],
    "electra": ["embedding_width=16"],
}


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


def runs(scratch):
    begin(scratch)
    good = True
    for name, keys in RUNS.items():
        run = train(scratch, name, keys)
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
    return encoders(scratch) and good


def encoders(scratch):
    """Rows that are filled up give what they give alone, and no row of a word learns nothing."""
    good = True
    for name, keys in ENCODERS.items():
        keys = ["family=encoder", "objective.kind=masked", "vocabulary=640", *keys]
        run = train(scratch, name, keys)
        octet(scratch, "export", run, f"{run}-hf")
        tokenizer = AutoTokenizer.from_pretrained(scratch / f"{run}-hf")
        model = AutoModelForMaskedLM.from_pretrained(scratch / f"{run}-hf").eval()
        filler = tokenizer.pad_token_id if tokenizer.pad_token == "[PAD]" else None
        found = model.get_input_embeddings().padding_idx
        same = found == filler and (filler is None) == ("vocabulary=601" in keys)
        texts = [f"The 7th {tokenizer.mask_token}", f"The 12th line of {tokenizer.mask_token} says"]
        worst = 0.0
        with torch.no_grad():
            both = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
            for text, row in zip(texts, both):
                alone = model(**tokenizer(text, return_tensors="pt")).logits[0]
                worst = max(worst, ((row[:len(alone)] - alone).norm() / alone.norm()).item())
        same &= worst < 1e-5
        good &= same
        print(f"{name:<24} {type(model).__name__:<20} filled with {tokenizer.pad_token}, "
              f"padding_idx {found}: {worst:.1e} {'ok' if same else 'DIFFERS'}")
    return good


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    what, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    sys.exit(0 if {"tokenizers": tokenizers, "runs": runs}[what](folder) else 1)


if __name__ == "__main__":
    main()
