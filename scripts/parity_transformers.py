#!/usr/bin/env python3
"""Holds the reference itself against the Hugging Face implementations of the same families.

Copies the reference's weights into GPT2LMHeadModel, LlamaForCausalLM and Qwen3ForCausalLM, built
from configurations without any download, and prints how far logits, loss and gradients of the first
step are apart. That fixes the conventions of an export: the halves that rotary embedding pairs, the
order of heads, gate before up, transposed matrices in GPT-2.
"""

import sys

import torch
from torch.nn import functional as F
from transformers import (GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config,
                          Qwen3ForCausalLM)

from parity_reference import CASES, LAYERS, LENGTH, VOCABULARY, WIDTH, Decoder, rows, visible

LIMIT = 1e-5


def gpt2(case):
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=WIDTH, n_layer=LAYERS,
        n_head=case["heads"], n_inner=case["inner"], activation_function="gelu_new",
        layer_norm_epsilon=1e-5, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        attn_implementation="eager"))


def shared(case):
    return dict(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=case["inner"],
        num_hidden_layers=LAYERS, num_attention_heads=case["heads"],
        num_key_value_heads=case["kv_heads"], head_dim=case["head_dim"], rms_norm_eps=1e-5,
        rope_theta=case["theta"], max_position_embeddings=64, tie_word_embeddings=False,
        attention_bias=case["qkv_bias"], attn_implementation="eager")


def llama(case):
    factor, low, high, original = case["stretch"]
    scaling = dict(rope_type="llama3", factor=factor, low_freq_factor=low, high_freq_factor=high,
                   original_max_position_embeddings=original)
    return LlamaForCausalLM(LlamaConfig(rope_scaling=scaling, **shared(case)))


def qwen(case):
    return Qwen3ForCausalLM(Qwen3Config(**shared(case)))


def pairs_gpt2(ours, theirs):
    """Their parameter, whether it is transposed, and ours, those below each other in a list."""
    body = theirs.transformer
    yield body.wte.weight, False, [ours.embedding.weight]
    yield body.wpe.weight, False, [ours.positions.weight]
    for mine, block in zip(ours.blocks, body.h):
        a, f = mine.attention, mine.feed_forward
        layers = [(block.attn.c_attn, [a.query, a.key, a.value]), (block.attn.c_proj, [a.output]),
                  (block.mlp.c_fc, [f.up]), (block.mlp.c_proj, [f.down])]
        for layer, parts in layers:
            yield layer.weight, True, [part.weight for part in parts]
            yield layer.bias, False, [part.bias for part in parts]
        for layer, part in [(block.ln_1, mine.attention_norm), (block.ln_2, mine.feed_forward_norm)]:
            yield layer.weight, False, [part.weight]
            yield layer.bias, False, [part.bias]
    yield body.ln_f.weight, False, [ours.final_norm.weight]
    yield body.ln_f.bias, False, [ours.final_norm.bias]


def pairs_llama(ours, theirs):
    """As `pairs_gpt2`."""
    yield theirs.model.embed_tokens.weight, False, [ours.embedding.weight]
    for mine, block in zip(ours.blocks, theirs.model.layers):
        a, f = mine.attention, mine.feed_forward
        layers = [(block.self_attn.q_proj, a.query), (block.self_attn.k_proj, a.key),
                  (block.self_attn.v_proj, a.value), (block.self_attn.o_proj, a.output),
                  (block.mlp.gate_proj, f.gate), (block.mlp.up_proj, f.up),
                  (block.mlp.down_proj, f.down), (block.input_layernorm, mine.attention_norm),
                  (block.post_attention_layernorm, mine.feed_forward_norm)]
        if hasattr(a, "q_norm"):
            layers += [(block.self_attn.q_norm, a.q_norm), (block.self_attn.k_norm, a.k_norm)]
        for layer, part in layers:
            yield layer.weight, False, [part.weight]
            if getattr(part, "bias", None) is not None:
                yield layer.bias, False, [part.bias]
    yield theirs.model.norm.weight, False, [ours.final_norm.weight]
    yield theirs.lm_head.weight, False, [ours.head.weight]


def distance(a, b):
    return ((a - b).norm() / b.norm()).item()


def compare(name, build, pairs):
    case = CASES[name]
    ours, theirs = Decoder(case), build(case).train()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.zero_()
        for parameter, transposed, parts in pairs(ours, theirs):
            values = torch.cat(parts)
            parameter.copy_(values.T if transposed else values)
    tokens, labels, positions, segments = rows(0, case["documents"])
    mask = torch.zeros(visible(segments).shape).masked_fill(~visible(segments), torch.finfo().min)
    logits = theirs(tokens, attention_mask=mask, position_ids=positions, use_cache=False).logits
    expected = ours.logits(tokens, positions, segments)
    their_loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    our_loss = F.cross_entropy(expected.flatten(0, 1), labels.flatten())
    their_loss.backward()
    our_loss.backward()
    worst = 0.0
    for parameter, transposed, parts in pairs(ours, theirs):
        gradient = parameter.grad.T if transposed else parameter.grad
        worst = max(worst, distance(gradient, torch.cat([part.grad for part in parts])))
    found = dict(logits=distance(logits, expected), loss=distance(their_loss, our_loss), gradient=worst)
    print(f"{name:<6} {type(theirs).__name__:<18} "
          + "  ".join(f"{what} {error:.2e}" for what, error in found.items()))
    return all(error <= LIMIT for error in found.values())


def main():
    good = [compare("gpt2", gpt2, pairs_gpt2), compare("llama", llama, pairs_llama),
            compare("qwen", qwen, pairs_llama)]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
