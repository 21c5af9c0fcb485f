#!/usr/bin/env python3
"""Compares Octet's filters with datatrove's, document by document.

Usage: scripts/compare_filters TEXT_OR_JSONL... (see there for the environment)

The example `clean_decisions` prints for every document what our steps decide, and its words and
sentences. Each of datatrove's filters then judges the same documents twice: given our words and
sentences, where every decision must be ours, and with its own splitter (spaCy), where the share of
decisions that differ is printed. The exit code is 1 if a decision of the first kind differs.
"""

import json
import random
import subprocess
import sys

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters import c4_filters, fineweb_quality_filter
from datatrove.pipeline.filters import gopher_quality_filter, gopher_repetition_filter

PAIRS = {
    "gopher_quality": (GopherQualityFilter, gopher_quality_filter),
    "gopher_repetition": (GopherRepetitionFilter, gopher_repetition_filter),
    "c4": (C4QualityFilter, c4_filters),
    "fineweb_quality": (FineWebQualityFilter, fineweb_quality_filter),
}


def documents(paths):
    """The given texts, and what makes filters decide: pieces repeated, shortened, shuffled."""
    rng = random.Random(1)
    texts = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            if path.endswith(".jsonl"):
                texts += [json.loads(line)["text"] for line in file]
                continue
            text = file.read()
        at = 0
        while at < len(text):
            size = rng.choice([200, 500, 1000, 2000, 4000, 8000])
            texts.append(text[at : at + size])
            at += size
    for text in list(texts):
        lines = text.split("\n")
        kind = rng.randrange(10)
        if kind == 0:
            texts.append("\n".join(lines + rng.choices(lines, k=max(1, len(lines) // 4))))
        elif kind == 1:
            texts.append("\n\n".join(rng.choices(lines, k=len(lines))))
        elif kind == 2:
            words = text.split()
            at = rng.randrange(len(words) + 1)
            texts.append(" ".join(words[:at] + words[max(0, at - rng.randrange(60)) :]))
        elif kind == 3:
            texts.append("\n".join(("- " if rng.random() < 0.92 else "") + line for line in lines))
        elif kind == 4:
            texts.append("\n".join(line + ("..." if rng.random() < 0.3 else ".") for line in lines))
        elif kind == 5:
            texts.append("".join(c + ("#" if rng.random() < 0.02 else "") for c in text))
        elif kind == 6:
            texts.append("\n".join(l[: rng.choice([20, 29, 30, 31, 40])] + "." for l in lines))
    # What both sides treat alike by design: no text at all is no document.
    return [text for text in texts if text.strip()]


def decide(name, texts):
    """Whether datatrove keeps each text."""
    filter_ = PAIRS[name][0]()
    kept = []
    for text in texts:
        verdict = filter_.filter(Document(text=text, id=""))
        kept.append(verdict is True or (isinstance(verdict, tuple) and verdict[0]))
    return kept


def main():
    program, *paths = sys.argv[1:]
    texts = documents(paths)
    given = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    ours = subprocess.run([program], input=given, capture_output=True, text=True, check=True)
    ours = [json.loads(line) for line in ours.stdout.splitlines()]
    assert len(ours) == len(texts), f"{len(ours)} decisions for {len(texts)} documents"
    words = {text: one["words"] for text, one in zip(texts, ours)}
    sentences = {line: n for one in ours for line, n in one["sentences"]}
    print(f"{len(texts)} documents, {sum(map(len, texts)) / 1e6:.1f} million characters")
    failed = False
    for name, (_, module) in PAIRS.items():
        kept = [one["decisions"][name] is None for one in ours]
        own = decide(name, texts)
        if hasattr(module, "split_into_words"):
            before, module.split_into_words = module.split_into_words, lambda text, _: words[text]
        else:
            before = module.split_into_sentences
            module.split_into_sentences = lambda line, _: [line] * sentences[line]
        same = decide(name, texts)
        if hasattr(module, "split_into_words"):
            module.split_into_words = before
        else:
            module.split_into_sentences = before
        wrong = [i for i in range(len(texts)) if kept[i] != same[i]]
        differ = sum(a != b for a, b in zip(kept, own))
        share = sum(kept) / len(kept)
        print(
            f"{name:18} keeps {share:6.2%}; given our words {len(wrong)} decisions differ; "
            f"with its own {differ / len(kept):.2%} differ"
        )
        for i in wrong[:3]:
            print(f"  ours {ours[i]['decisions'][name]}: {texts[i][:200]!r}")
        failed |= bool(wrong)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
