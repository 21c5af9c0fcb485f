"""Small runs of Octet for scripts that hold what it exports against other programs."""

import pathlib
import subprocess
import sys

OCTET = pathlib.Path(__file__).resolve().parent.parent / "target" / "release" / "octet"

GPT2 = ["norm=layer_norm", "positions=learned", "activation=gelu", "bias=true"]
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


def octet(scratch, *arguments):
    done = subprocess.run([OCTET, *arguments], cwd=scratch, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"octet {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def begin(scratch):
    """What all of them read."""
    lines = (f"The {i}th line of a text says {i * i}, and then {i % 7}.\n" for i in range(2000))
    (scratch / "text.txt").write_text("".join(lines))
    (scratch / "small.toml").write_text(RECIPE)


def train(scratch, name, keys):
    """A run with these keys; its folder's name."""
    run = "".join(c if c.isalnum() else "-" for c in f"run-{name}")
    sets = [word for key in keys for word in ("--set", key if "." in key.split("=")[0]
                                              else f"model.{key}")]
    octet(scratch, "train", "small.toml", "--run", run, *sets)
    return run
