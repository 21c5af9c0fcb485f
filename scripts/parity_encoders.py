"""BERT and ELECTRA of transformers, for parity_reference.py: the models, their inputs and losses.

Names are Octet's. Beside what parity_reference.py says, with T = LENGTH places in a row:

  hidden    two places of row b of step n are told: 7 k + hash(seed("hidden/n"), 2 b + k) mod 7 for
            k = 0, 1; the first is seen as the mask, token V - 1, the second as it is
  follows   whether the second half of row b follows the first: hash(seed("follows/n"), b) mod 2
  padding   the last two places of odd rows of BERT, which see each other only

Class 1 of Octet's verdict on pairs is "follows", class 0 of the published checkpoints': their rows
are exchanged. ELECTRA's generator draws the likeliest token, so that both sides draw alike, and
shares the tables of tokens and positions; all of a window is of the first type.

`pad_token_id` is None: transformers' own default is 0, and it makes that row of the embedding a
`padding_idx`, which learns nothing where the token is read. Token 0 is a word here, first read in
the second step, so with the default both sides part in the third.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import (BertConfig, BertForPreTraining, ElectraConfig, ElectraForMaskedLM,
                          ElectraForPreTraining)

from parity_reference import BATCH, LAYERS, LENGTH, VOCABULARY, WIDTH, hashes, set_weights

CASE = dict(family="encoder", groups={})
MASK, NARROW, JUDGE_WEIGHT = VOCABULARY - 1, 16, 50.0


def shape(width, heads):
    return dict(
        vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=LAYERS,
        num_attention_heads=heads, intermediate_size=4 * width, hidden_act="gelu",
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, layer_norm_eps=1e-5,
        max_position_embeddings=LENGTH, type_vocab_size=2, pad_token_id=None,
        attn_implementation="eager")


def body(scope, embeddings, layers):
    """What both towers have but for tables: Octet's layer and those below each other there."""
    yield f"{scope}embedding_norm", [embeddings.LayerNorm]
    for number, layer in enumerate(layers):
        own = layer.attention.self
        at = f"{scope}blocks.{number}"
        yield f"{at}.attention.qkv", [own.query, own.key, own.value]
        yield f"{at}.attention.output", [layer.attention.output.dense]
        yield f"{at}.attention_norm", [layer.attention.output.LayerNorm]
        yield f"{at}.feed_forward.up", [layer.intermediate.dense]
        yield f"{at}.feed_forward.down", [layer.output.dense]
        yield f"{at}.feed_forward_norm", [layer.output.LayerNorm]


def named(layers):
    return {f"{name}.{kind}": [getattr(part, kind) for part in parts]
            for name, parts in layers for kind in ("weight", "bias")}


def inputs(step):
    """Tokens, tokens as they are seen, and places that are told, each of [BATCH, LENGTH]."""
    tokens = torch.from_numpy(hashes(f"tokens/{step}", BATCH * (LENGTH + 1)).astype("int64"))
    tokens = (tokens % VOCABULARY).view(BATCH, LENGTH + 1)[:, :-1]
    drawn = torch.from_numpy(hashes(f"hidden/{step}", 2 * BATCH).astype("int64")).view(BATCH, 2) % 7
    places = drawn + torch.tensor([0, 7])
    told = torch.zeros(BATCH, LENGTH, dtype=torch.bool).scatter(1, places, True)
    seen = tokens.clone().scatter(1, places[:, :1], MASK)
    return tokens, seen, told


class Bert(nn.Module):
    case = CASE

    def __init__(self):
        super().__init__()
        self.net = BertForPreTraining(BertConfig(**shape(WIDTH, 4)))
        set_weights(self.tensors())

    def tensors(self):
        bert, cls = self.net.bert, self.net.cls
        tables = bert.embeddings
        layers = [*body("", tables, bert.encoder.layer), ("pooler", [bert.pooler.dense]),
                  ("transform", [cls.predictions.transform.dense]),
                  ("transform_norm", [cls.predictions.transform.LayerNorm]),
                  ("next_sentence", [cls.seq_relationship])]
        return {"embedding.weight": [tables.word_embeddings.weight],
                "positions.weight": [tables.position_embeddings.weight],
                "types.weight": [tables.token_type_embeddings.weight],
                "head.bias": [cls.predictions.bias], **named(layers)}

    def step_loss(self, step):
        tokens, seen, told = inputs(step)
        place = torch.arange(LENGTH).expand(BATCH, LENGTH)
        padding = (place >= LENGTH - 2) & (torch.arange(BATCH)[:, None] % 2 == 1)
        types = ((place >= LENGTH // 2) & ~padding).long()
        mask = (padding[:, :, None] == padding[:, None, :]).long()
        follows = torch.from_numpy(hashes(f"follows/{step}", BATCH).astype("int64")) % 2
        found = self.net(seen, attention_mask=mask, token_type_ids=types, position_ids=place)
        masked = F.cross_entropy(found.prediction_logits[told], tokens[told])
        return masked + F.cross_entropy(found.seq_relationship_logits, follows)


class Electra(nn.Module):
    case = CASE

    def __init__(self):
        super().__init__()
        config = lambda width, heads: ElectraConfig(embedding_size=NARROW, **shape(width, heads))
        self.judge = ElectraForPreTraining(config(WIDTH, 4))
        self.generator = ElectraForMaskedLM(config(NARROW, 2))
        ours, theirs = self.judge.electra.embeddings, self.generator.electra.embeddings
        theirs.word_embeddings, theirs.position_embeddings = (
            ours.word_embeddings, ours.position_embeddings)
        self.generator.generator_lm_head.weight = ours.word_embeddings.weight
        set_weights(self.tensors())

    def tensors(self):
        judge, generator = self.judge, self.generator
        tables = judge.electra.embeddings
        layers = [*body("", tables, judge.electra.encoder.layer),
                  ("projection", [judge.electra.embeddings_project]),
                  ("verdict.dense", [judge.discriminator_predictions.dense]),
                  ("verdict.output", [judge.discriminator_predictions.dense_prediction]),
                  *body("generator.", generator.electra.embeddings, generator.electra.encoder.layer),
                  ("generator.transform", [generator.generator_predictions.dense]),
                  ("generator.transform_norm", [generator.generator_predictions.LayerNorm])]
        return {"embedding.weight": [tables.word_embeddings.weight],
                "positions.weight": [tables.position_embeddings.weight],
                "types.weight": [tables.token_type_embeddings.weight],
                "generator.types.weight": [
                    generator.electra.embeddings.token_type_embeddings.weight],
                "generator.head.bias": [generator.generator_lm_head.bias], **named(layers)}

    def step_loss(self, step):
        tokens, seen, told = inputs(step)
        logits = self.generator(seen).logits[told]
        guessed = F.cross_entropy(logits, tokens[told])
        corrupted = tokens.masked_scatter(told, logits.argmax(dim=-1))
        verdicts = self.judge(corrupted).logits
        judged = F.binary_cross_entropy_with_logits(verdicts, (corrupted != tokens).float())
        return guessed + JUDGE_WEIGHT * judged


MODELS = {"bert": Bert, "electra": Electra}
