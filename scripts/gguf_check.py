#!/usr/bin/env python3
"""Holds GGUF files that Octet exports against the `gguf` package, llama.cpp and transformers.

Prints one row for each model and type, and fails if one is out of its band: the relative error of
tensors, the largest error of the log-probabilities of llama.cpp's five best first tokens, and the
greedy tokens that llama.cpp has equal to transformers' up to the first place where transformers'
best two are nearer to each other than that band.
"""

import json
import math
import pathlib
import sys
import urllib.request

import gguf
import numpy as np
import torch
import transformers
import xllamacpp
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from hub_runs import GPT2, PROMPT, RECIPE, octet

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
# Bands: relative error of all matrices together, error of log-probabilities.
BANDS = {"f32": (0.0, 1e-3), "f16": (5e-4, 1e-2), "q8_0": (1e-2, 0.1), "q4_0": (0.12, 1.0),
         "q4_k": (0.12, 1.0)}


def errors(file, folder):
    """The relative error of all tensors that need no rows turned."""
    theirs = load_file(folder / "model.safetensors")
    by_size = {}
    for name, tensor in theirs.items():
        by_size.setdefault(tensor.size, []).append((name, tensor))
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    error = norm = 0.0
    for name, tensor in found.items():
        if name == "rope_freqs.weight":
            continue
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).ravel()
        wanted = theirs[hugging_face(name, theirs)]
        if hugging_face(name, theirs).endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            wanted = wanted.T
        # In what order rows are does not matter here: what is computed is compared below.
        a, b = np.sort(values), np.sort(wanted.astype(np.float32).ravel())
        assert a.size == b.size, name
        error, norm = error + float(((a - b) ** 2).sum()), norm + float((b ** 2).sum())
    return math.sqrt(error / norm)


def hugging_face(name, theirs):
    gpt2 = any(key.startswith("transformer.") for key in theirs)
    block = name.split(".")[1] if name.startswith("blk.") else ""
    last = name.removeprefix(f"blk.{block}.") if block else name
    module, kind = last.rsplit(".", 1)
    if gpt2:
        names = dict(token_embd="wte", position_embd="wpe", output_norm="ln_f", attn_norm="ln_1",
                     ffn_norm="ln_2", attn_qkv="attn.c_attn", attn_output="attn.c_proj",
                     ffn_up="mlp.c_fc", ffn_down="mlp.c_proj")
        return f"transformer.{f'h.{block}.' if block else ''}{names[module]}.{kind}"
    if module == "output":
        return f"lm_head.{kind}"
    names = dict(token_embd="embed_tokens", output_norm="norm", attn_norm="input_layernorm",
                 ffn_norm="post_attention_layernorm", attn_q="self_attn.q_proj",
                 attn_k="self_attn.k_proj", attn_v="self_attn.v_proj",
                 attn_output="self_attn.o_proj", attn_q_norm="self_attn.q_norm",
                 attn_k_norm="self_attn.k_norm", ffn_gate="mlp.gate_proj", ffn_up="mlp.up_proj",
                 ffn_down="mlp.down_proj")
    return f"model.{f'layers.{block}.' if block else ''}{names[module]}.{kind}"


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
    tensors, logits = BANDS[kind]
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
    lines = (f"The {i}th line of a text says {i * i}, and then {i % 7}.\n" for i in range(2000))
    (scratch / "text.txt").write_text("".join(lines))
    (scratch / "small.toml").write_text(RECIPE)
    good = True
    for name, keys in MODELS.items():
        run = "".join(c if c.isalnum() else "-" for c in name)
        # Rows of whole blocks of every type.
        keys = ["width=256", "feed_forward=512", *keys]
        sets = [word for key in keys for word in ("--set", f"model.{key}")]
        octet(scratch, "train", "small.toml", "--run", run, *sets)
        octet(scratch, "export", run, f"{run}-hf")
        for kind in BANDS:
            octet(scratch, "export", run, f"{run}-{kind}", "--to", "gguf", "--dtype", kind)
            file = scratch / f"{run}-{kind}" / f"model-{kind}.gguf"
            good &= compare(name, kind, scratch / f"{run}-hf", file)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
