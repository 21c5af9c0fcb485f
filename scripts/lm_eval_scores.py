#!/usr/bin/env python3
"""Trains a small run on a text, exports it, makes three tasks of the text, and lets the
lm-evaluation-harness score both: the export through transformers, the run through `octet serve`.
Prints a table; fails if a score differs.

  lm_eval_scores.py TEXT SCRATCH
"""

import contextlib
import json
import os
import pathlib
import random
import re
import subprocess
import sys

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

OCTET = pathlib.Path(__file__).resolve().parent.parent / "target" / "release" / "octet"
DOCUMENTS = 60
# Scores are shares of documents, which are equal, and perplexities, whose sums are taken in f32 on
# one side: relative difference.
BOUND = 1e-4
# The harness keeps logits of a request for others with the same tokens, even if these are asked
# about another part of them: a last word would get the scores of a continuation's first tokens.
THEIRS = "dtype=float32,max_length=255,logits_cache=False"

RECIPE = """
[run]
steps = 150
[data]
text = "text.txt"
tokenizer = "bpe:2000"
cache = "cache"
[batch]
micro = 4
global = 16
sequence_length = 256
[model]
layers = 3
heads = 4
width = 96
[schedule]
learning_rate = 3e-3
warmup = 20
[evaluate]
every = 0
"""

TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: {kind}
doc_to_text: "{{{{context}}}}"
doc_to_target: "{target}"
{choices}
target_delimiter: ""
metric_list:
{metrics}
"""


def passages(folder):
    """Paragraphs of at least 40 words that the model reads whole (each side cuts longer ones in its
    own way), in an order that a seed gives."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in {".txt", ".md"}:
            text = path.read_text(errors="ignore")[:400_000]
            for part in re.split(r"\n\s*\n", text):
                words = part.split()
                if 40 <= len(words) and len(" ".join(words)) <= 450 and part.isascii():
                    found.append(words)
    random.Random(1).shuffle(found)
    return found


def documents(found):
    """Of each task: what was cut off, which of two orders, which of four continuations."""
    chance = random.Random(2)
    last, order, choice = [], [], []
    for words in found[:DOCUMENTS]:
        last.append({"context": " ".join(words[:-1]), "answer": " " + words[-1]})
        sentence = words[:12]
        at = chance.randrange(1, 10)
        swapped = sentence[:at] + [sentence[at + 1], sentence[at]] + sentence[at + 2:]
        pair = [" ".join(sentence), " ".join(swapped)]
        order.append({"context": "", "choices": pair, "answer": 0})
        others = chance.sample(found[DOCUMENTS:], 3)
        ends = [" " + " ".join(end[-8:]) for end in [words, *others]]
        right = chance.randrange(4)
        ends[0], ends[right] = ends[right], ends[0]
        choice.append({"context": " ".join(words[:-8]), "choices": ends, "answer": right})
    return {"last_word": last, "word_order": order, "continuation": choice}


def write_tasks(folder, tasks):
    for name, lines in tasks.items():
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        several = "choices" in lines[0]
        metrics = ["acc", "acc_norm"] if several else ["perplexity", "acc"]
        (folder / f"{name}.yaml").write_text(TASK.format(
            name=name, file=file, target="{{answer}}",
            kind="multiple_choice" if several else "loglikelihood",
            choices='doc_to_choice: "{{choices}}"' if several else "",
            metrics="\n".join(f"  - metric: {metric}" for metric in metrics)))
    return TaskManager(include_path=str(folder), include_defaults=False)


def scores(manager, tasks, model, arguments):
    found = simple_evaluate(model=model, model_args=arguments, tasks=list(tasks),
                            task_manager=manager, batch_size=1, bootstrap_iters=0,
                            device="cpu")
    return {(task, metric.split(",")[0]): value
            for task, metrics in found["results"].items()
            for metric, value in metrics.items()
            if isinstance(value, float) and "stderr" not in metric}


@contextlib.contextmanager
def served(run):
    command = [OCTET, "serve", run, "--address", "127.0.0.1:0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield re.search(r"http://\S+", server.stdout.readline())[0]
    finally:
        server.terminate()
        assert server.wait() == 0


def main():
    text, scratch = map(pathlib.Path, sys.argv[1:])
    found = passages(text)
    (scratch / "text.txt").write_text("\n\n".join(" ".join(words) for words in found))
    (scratch / "recipe.toml").write_text(RECIPE)

    def octet(*arguments):
        subprocess.run([OCTET, *arguments], cwd=scratch, check=True, stdout=subprocess.DEVNULL)

    octet("train", "recipe.toml", "--run", "run")
    octet("export", "run", "exported")
    exported = scratch / "exported"
    (scratch / "tasks").mkdir()
    tasks = documents(found)
    manager = write_tasks(scratch / "tasks", tasks)
    theirs = scores(manager, tasks, "hf", f"pretrained={exported},{THEIRS}")
    with served(scratch / "run") as address:
        ours = scores(manager, tasks, "local-completions",
                      f"model=run,base_url={address}/completions,tokenizer={exported},"
                      "num_concurrent=4,max_retries=3,max_length=255")
    print(f"{'task':<14} {'score':<12} {'transformers':>14} {'octet serve':>14}")
    failed = theirs.keys() != ours.keys() or not theirs
    for key in sorted(theirs):
        task, metric = key
        here = ours.get(key, float("nan"))
        print(f"{task:<14} {metric:<12} {theirs[key]:>14.6f} {here:>14.6f}")
        failed |= not abs(theirs[key] - here) <= BOUND * abs(theirs[key])
    sys.exit(failed)


if __name__ == "__main__":
    main()
