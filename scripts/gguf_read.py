#!/usr/bin/env python3
"""Reads GGUF files that Octet exports with the `gguf` package, and holds their tensors against those
of the other export of the same run. Prints a row for each type; fails if one is out of its band.

  gguf_read.py SCRATCH
"""

import math
import pathlib
import sys

import gguf
import numpy as np
from safetensors.numpy import load_file

from small_runs import GPT2, begin, octet, train

# Bands: relative error of all tensors together.
TENSORS = {"f32": 0.0, "f16": 5e-4, "q8_0": 1e-2, "q4_0": 0.12, "q4_k": 0.12}
MODELS = {"gpt2": GPT2, "llama": ["kv_heads=2", "tied=false"]}


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


def read(name, kind, folder, file):
    """Whether all of a file is what it should be."""
    architecture = gguf.GGUFReader(file).get_field("general.architecture").contents()
    error = errors(file, folder)
    # Something is lost where something is rounded.
    good = error <= TENSORS[kind] and (error > 0.0) == (kind != "f32") and architecture == name
    print(f"{name:<8} {kind:<5} {architecture:<8} tensors {error:.1e} of {TENSORS[kind]:.0e}  "
          f"{'ok' if good else 'FAILED'}")
    return good


def main():
    scratch = pathlib.Path(sys.argv[1])
    begin(scratch)
    good = True
    for name, keys in MODELS.items():
        # Rows of whole blocks of every type.
        run = train(scratch, name, ["width=256", "feed_forward=512", "run.steps=2", *keys])
        octet(scratch, "export", run, f"{run}-hf")
        for kind in TENSORS:
            octet(scratch, "export", run, f"{run}-{kind}", "--to", "gguf", "--dtype", kind)
            file = scratch / f"{run}-{kind}" / f"model-{kind}.gguf"
            good &= read(name, kind, scratch / f"{run}-hf", file)
    sys.exit(not good)


if __name__ == "__main__":
    main()
