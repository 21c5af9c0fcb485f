#!/usr/bin/env python3
"""Holds GGUF files that Octet exports against the `gguf` package, llama.cpp and transformers.

Prints one row for each model and type, and fails if one is out of its band: the relative error of
tensors, the largest error of the log-probabilities of llama.cpp's five best first tokens, and the
greedy tokens that llama.cpp has equal to transformers' up to the first place where transformers'
best two are nearer to each other than that band.
"""

import json
import pathlib
import sys
import urllib.request

import torch
import transformers
import xllamacpp
from transformers import AutoModelForCausalLM, AutoTokenizer

from gguf_read import TENSORS, errors
from hub_runs import PROMPT
from small_runs import GPT2, begin, octet, train

GREEDY = 24
# Log-probabilities below this are not compared.
LIKELY = -5.0
TEXT = "The 7th line; don't,  and 日本語 👩‍👩‍👧 fn main() {\n\treturn <|endoftext|>;\n}\n"
MODELS = {
    "gpt2": GPT2,
    "llama": ["kv_heads=2", "tied=false"],
    "llama, llama3": ["rope_scaling={factor=8,low_frequency=1,high_frequency=4,"
                      "original_positions=32}"],
    "llama, linear": ["rope_scaling={kind='linear',factor=2}"],
    "qwen2": ["qkv_bias=true", "kv_heads=2"],
    "qwen3": ["qk_norm=true", "head_dim=64", "tied=false"],
}
# Error of log-probabilities.
BANDS = {"f32": 1e-3, "f16": 1e-2, "q8_0": 0.1, "q4_0": 1.0, "q4_k": 1.0}


def of_llama_cpp(file, tokens):
    """The first place's best tokens with log-probabilities, the greedy tokens, those of a text."""
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_batch, params.warmup = 96, 96, False
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    asked = json.dumps(dict(content=TEXT, add_special=False, parse_special=False)).encode()
    request = urllib.request.Request(f"{server.listening_address}/tokenize", asked,
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        read = json.load(reply)
    answer = server.handle_completions(dict(
        prompt=tokens, max_tokens=GREEDY, temperature=0.0, logprobs=5, cache_prompt=False))
    places = answer["choices"][0]["logprobs"]["content"]
    best = {entry["id"]: entry["logprob"] for entry in places[0]["top_logprobs"]}
    return best, [place["id"] for place in places], read["tokens"]


def compare(name, kind, folder, file):
    tensors, logits = TENSORS[kind], BANDS[kind]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokens = tokenizer(PROMPT)["input_ids"]
    best, greedy, read = of_llama_cpp(file, tokens)
    equal = read == tokenizer(TEXT, split_special_tokens=True)["input_ids"]
    error, same, near = 0.0, 0, False
    with torch.no_grad():
        for place, token in enumerate(greedy):
            scores = model(torch.tensor([tokens])).logits[0, -1].log_softmax(-1)
            if place == 0:
                error = max(abs(scores[i].item() - value) for i, value in best.items()
                            if value > LIKELY)
            two = scores.topk(2)
            if two.indices[0].item() != token:
                near = (two.values[0] - two.values[1]).item() <= 2 * logits
                break
            same += 1
            tokens.append(token)
    distance = errors(file, folder)
    good = equal and distance <= tensors and error <= logits and (same == len(greedy) or near)
    print(f"{name:<16} {kind:<5} tensors {distance:.1e}  log-probabilities {error:.1e}  greedy "
          f"{same}/{len(greedy)}{' (near)' if near else ''}  text {'equal' if equal else 'DIFFERS'}  {'ok' if good else 'FAILED'}", flush=True)
    return good


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    scratch = pathlib.Path(sys.argv[1])
    begin(scratch)
    good = True
    for name, keys in MODELS.items():
        # Rows of whole blocks of every type.
        run = train(scratch, name, ["width=256", "feed_forward=512", *keys])
        octet(scratch, "export", run, f"{run}-hf")
        for kind in BANDS:
            octet(scratch, "export", run, f"{run}-{kind}", "--to", "gguf", "--dtype", kind)
            file = scratch / f"{run}-{kind}" / f"model-{kind}.gguf"
            good &= compare(name, kind, scratch / f"{run}-hf", file)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
