#!/usr/bin/env python3
"""Two tasks for frozen encoders, over text that none of them has seen.

  corpus TEXT SCRATCH  cuts every file of TEXT into documents, nine of ten to SCRATCH/training.jsonl
                       and the others, cut into sentences, to SCRATCH/held_out.json
  probe SCRATCH        the rows of SCRATCH/export, of the same encoder with random weights, and of
                       n-grams, each under a logistic regression

Letters, digits and full stops are all that is left of a text, in lower case: typography is no hint.
A document is twelve paragraphs. The tasks:

  follows  whether the second of two sentences follows the first in its document or comes from
           another document of the same file, half and half
  source   which file a sentence of at most sixteen words is from, as many of each

Of held-out documents two of three train the regressions and the others measure them. An encoder is
seen through its last layer: the mean of each text's tokens, for pairs both means, their difference
and product, and the first row. N-grams are of one and two words, weighted by how rare they are; for
pairs those that both texts have, the products of their weights, and their cosine.
"""

import json
import pathlib
import random
import re
import sys

import numpy as np

PARAGRAPHS, WORDS_MIN, WORDS_MAX, EACH = 12, 6, 16, 3000
# By how much of all answers the trained rows must be ahead of random ones.
MARGIN = {"follows": 0.05, "source": 0.05}


def plain(line):
    line = re.sub(r"<unk>|@[-.,]@", " ", line.lower())
    return " ".join(re.sub(r"[^a-z0-9.]+", " ", line).replace(".", " . ").split())


def corpus(text, scratch):
    training, held_out = [], []
    for path in sorted(text.glob("*.txt")):
        lines = [plain(line) for line in path.read_text(errors="replace").splitlines()]
        lines = [line for line in lines if len(line.split()) >= 3]
        for number, at in enumerate(range(0, len(lines), PARAGRAPHS)):
            document = " . ".join(lines[at:at + PARAGRAPHS])
            if number % 10:
                training.append(json.dumps({"text": document}))
                continue
            sentences = [s.strip(" .") for s in document.split(" . ")]
            sentences = [s for s in sentences if len(s.split()) >= WORDS_MIN]
            sentences = [" ".join(s.split()[:WORDS_MAX]) for s in sentences]
            held_out.append(dict(file=path.stem.split(".")[0], sentences=sentences))
    (scratch / "training.jsonl").write_text("\n".join(training) + "\n")
    (scratch / "held_out.json").write_text(json.dumps(held_out))
    print(f"{len(training)} documents to train on, {len(held_out)} held out")


def tasks(held_out):
    """By task and part: texts, pairs of texts for one of them, and answers."""
    draw = random.Random(1)
    parts = {"train": [d for i, d in enumerate(held_out) if i % 3],
             "test": [d for i, d in enumerate(held_out) if i % 3 == 0]}
    files = sorted({d["file"] for d in held_out})
    made = {"follows": {}, "source": {}}
    for part, documents in parts.items():
        pairs, follows, singles = [], [], {name: [] for name in files}
        for own in documents:
            others = [d for d in documents if d is not own and d["file"] == own["file"]]
            others = [d for d in others if d["sentences"]]
            for first, second in zip(own["sentences"], own["sentences"][1:]):
                answer = draw.random() < 0.5
                other = second if answer else draw.choice(draw.choice(others)["sentences"])
                pairs.append((first, other))
                follows.append(int(answer))
            singles[own["file"]] += own["sentences"]
        order = draw.sample(range(len(pairs)), min(len(pairs), 2 * EACH))
        made["follows"][part] = ([pairs[i] for i in order], np.array([follows[i] for i in order]))
        least = min(EACH, *(len(found) for found in singles.values()))
        texts = [(s,) for name in files for s in draw.sample(singles[name], least)]
        made["source"][part] = (texts, np.repeat(np.arange(len(files)), least))
    return made


def encoder_rows(model, tokenizer, torch):
    def rows(texts):
        found = []
        for at in range(0, len(texts), 64):
            batch = texts[at:at + 64]
            given = tokenizer(*map(list, zip(*batch)), padding=True, truncation=True,
                              max_length=64, return_tensors="pt")
            with torch.no_grad():
                last = model(**given).last_hidden_state
            seen, types = given["attention_mask"].bool(), given["token_type_ids"]
            means = []
            for kind in range(len(batch[0])):
                own = (seen & (types == kind))[..., None]
                means.append((last * own).sum(1) / own.sum(1).clamp(min=1))
            if len(means) == 2:
                means += [(means[0] - means[1]).abs(), means[0] * means[1], last[:, 0]]
            found.append(torch.cat(means, 1).numpy())
        return np.concatenate(found)
    return rows


def ngram_rows(texts):
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    known = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", min_df=2)
    known.fit(text for given in texts for text in given)

    def rows(texts):
        sides = [known.transform(side) for side in zip(*texts)]
        if len(sides) == 1:
            return sides[0]
        both = sides[0].multiply(sides[1])
        return hstack([both, csr_matrix(both.sum(1))]).tocsr()
    return rows


def accuracy(rows, task):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler
    (texts, answers), (unseen, right) = task["train"], task["test"]
    strengths = {"logisticregression__C": [0.03, 0.3, 3.0]}
    probe = make_pipeline(MaxAbsScaler(), LogisticRegression(max_iter=2000))
    probe = GridSearchCV(probe, strengths, cv=3).fit(rows(texts), answers)
    return (probe.predict(rows(unseen)) == right).mean()


def probe(scratch):
    import torch
    import transformers
    transformers.logging.set_verbosity_error()
    torch.manual_seed(1)
    folder = scratch / "export"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    trained = transformers.BertModel.from_pretrained(folder).eval()
    untrained = transformers.BertModel(transformers.BertConfig.from_pretrained(folder)).eval()
    made = tasks(json.loads((scratch / "held_out.json").read_text()))
    print(f"{'task':<10}{'chance':>8}{'n-grams':>9}{'random':>8}{'trained':>9}  answers")
    good = True
    for name, task in made.items():
        found = [accuracy(ngram_rows(task["train"][0]), task)]
        found += [accuracy(encoder_rows(model, tokenizer, torch), task)
                  for model in (untrained, trained)]
        right = task["test"][1]
        chance = np.bincount(right).max() / len(right)
        ngrams, rand, ours = found
        good &= ours >= rand + MARGIN[name]
        print(f"{name:<10}{chance:>8.3f}{ngrams:>9.3f}{rand:>8.3f}{ours:>9.3f}  {len(right)}")
    print("ok" if good else f"FAILED: expected to be ahead of random rows by {MARGIN}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    scratch = pathlib.Path(sys.argv[-1])
    corpus(pathlib.Path(sys.argv[2]), scratch) if sys.argv[1] == "corpus" else probe(scratch)
