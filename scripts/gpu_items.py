"""The items of scripts/gpu: what the CPU makes of a text (cpu), what a GPU makes of it and of every
kernel (true), and the documents made of that (record).

An item is a function of a Bench that returns what it found. It has so many seconds; whatever happens
to it, the next one runs, and its line is in OUT/results.jsonl.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Heads of 64, some of them shared, documents, tied embeddings; and what GPT-2 has.
LLAMA = """
[run]
steps = 200
[data]
text = "text.txt"
tokenizer = "bpe:1024"
[batch]
micro = 2
global = 8
sequence_length = 128
lanes = 4
[model]
family = "dense"
layers = 4
heads = 4
kv_heads = 2
width = 256
feed_forward = 704
norm = "rms_norm"
positions = "rope"
activation = "swiglu"
tied = true
dtype = "f32"
[optimizer]
beta2 = 0.95
weight_decay = 0.1
clip_norm = 1.0
[schedule]
shape = "cosine"
learning_rate = 5e-4
minimum = 5e-5
warmup = 40
[checkpoint]
every = 100
[evaluate]
every = 100
batches = 8
"""
GPT = (
    LLAMA.replace("steps = 200", "steps = 60")
    .replace("every = 100", "every = 30")
    .replace('norm = "rms_norm"', 'norm = "layer_norm"\nbias = true')
    .replace('"rope"', '"learned"')
    .replace('"swiglu"', '"gelu"')
    .replace("kv_heads = 2", "kv_heads = 4")
)
MODELS = {"llama": LLAMA, "gpt": GPT}

# Steps over which losses are averaged before they are compared: noise of a batch is common to both.
WINDOW = 20
# By how much the means of losses may differ from those of the CPU in the same dtype: at the learning
# rate above, bf16 and f32 are nearer to each other on a CPU than the second of these.
NEAR = {"f32": 0.002, "bf16": 0.005}

# What compute-sanitizer looks at: attention and some others.
SANITIZED = [
    "ops::attention::tests::a_gpu_agrees_on_masks_windows_documents_and_shared_heads",
    "ops::linear::tests::a_gpu_agrees",
    "ops::linear_cross_entropy::gpu_tests::a_gpu_agrees_in_one_pass_and_in_two",
    "ops::layer_norm::tests::a_gpu_norms_a_sum",
    "ops::route::tests::a_gpu_has_the_same_bits",
    "ops::group_by_expert::tests::a_gpu_has_the_same_bits",
]
SPEED = ["--set", "data.tokenizer=bytes", "--set", "run.device=cuda"]


class Bench:
    """The pack, where runs lie, and what was found."""

    def __init__(self, pack, out):
        self.pack, self.out = Path(pack), Path(out)
        self.octet = str(self.pack / "octet")
        self.logs = self.out / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        for name, text in MODELS.items():
            (self.pack / f"{name}.toml").write_text(text)

    def modules(self):
        """Kernels that this pack should have, by folder."""
        return set((self.pack / "modules").read_text().split())

    def run(self, name, command, timeout, env=None):
        """Exit code and output of a command; both streams are kept under its name."""
        environment = dict(os.environ, **(env or {}))
        started = subprocess.Popen(
            command, cwd=self.pack, env=environment, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )
        try:
            said, _ = started.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            said = started.communicate()[0] + f"\nkilled after {timeout} s\n"
        (self.logs / f"{re.sub('[^A-Za-z0-9_.-]', '_', name)}.txt").write_text(said)
        return started.returncode, said

    def train(self, run, model, sets, timeout=90, env=None, octet=("train",)):
        """Trains; returns the summary and the losses by step."""
        folder = self.pack / "runs" / run
        command = [self.octet, *octet, f"{model}.toml", "--run", str(folder)]
        cache = f"data.cache={self.pack / 'cache'}"
        for one in [cache, *sets]:
            command += ["--set", one]
        code, said = self.run(f"train {run}", command, timeout, env)
        if code != 0:
            raise RuntimeError(f"exit {code}: {last(said)}")
        return json.loads((folder / "summary.json").read_text()), losses(folder)


def last(said):
    lines = [line for line in said.strip().splitlines() if line.strip()]
    return " | ".join(lines[-3:])[-600:]


def losses(folder):
    """Losses by step."""
    found = {}
    for line in (folder / "log.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "step":
            found[record["step"]] = record["loss"]
    return [found[step] for step in sorted(found)]


def smi(what):
    query = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    done = subprocess.run(query, capture_output=True, text=True)
    return done.stdout.strip()


class Watched:
    """Power, clock and memory of the GPU while something runs."""

    def __enter__(self):
        self.rows, self.stop = [], threading.Event()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def look(self):
        while not self.stop.wait(0.25):
            row = [part.strip() for part in smi("clocks.sm,power.draw,memory.used").split(",")]
            if len(row) == 3:
                self.rows.append([float(part) for part in row])

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

    def figures(self):
        if not self.rows:
            return {}
        # Not of the start, when the host works: what takes more than half of the most.
        most = max(row[1] for row in self.rows)
        busy = sorted((row for row in self.rows if row[1] > most / 2), key=lambda row: row[1])
        middle = busy[len(busy) // 2]
        return {
            "busy_samples": len(busy),
            "clock_mhz": middle[0],
            "watts": middle[1],
            "memory_mib": max(row[2] for row in self.rows),
        }


def facts(bench):
    code, doctor = bench.run("doctor", [bench.octet, "doctor"], 60)
    return {
        "ok": code == 0,
        "card": smi("name"),
        "driver": smi("driver_version"),
        "memory_mib": smi("memory.total"),
        "idle_mib": smi("memory.used"),
        "power_limit": smi("power.limit"),
        "doctor": [line for line in doctor.splitlines() if re.search("CUDA|driver|GPU|NVRTC|cuBLAS|NCCL", line)],
    }


def kernel_tests(bench):
    """Tests that hold kernels against the CPU's runs, and what multiplies in them."""
    code, listed = bench.run("list", [str(bench.pack / "kernels"), "--list", "--format", "terse"], 20)
    if code != 0:
        raise RuntimeError(f"the tests do not start: {last(listed)}")
    names = [line.removesuffix(": test") for line in listed.splitlines() if line.endswith(": test")]
    ops = [name for name in names if name.startswith("ops::") and "::a_gpu_" in name]
    step = [name for name in names if name.startswith("cuda::step::tests::")]
    left_out = ("planted", "not_there", "refused")
    step = [name for name in step if not any(word in name for word in left_out)]
    products = [name for name in ops if name.startswith("ops::linear")]
    return [(name, "own") for name in ops + step] + [(name, "library") for name in products]


def kernels(bench):
    """Every kernel against its CPU sibling, each test in a process of its own; products by cuBLASLt
    too."""

    def one(test):
        name, products = test
        command = [str(bench.pack / "kernels"), name, "--exact", "--test-threads", "1"]
        started = time.time()
        env = {"OCTET_TEST_GPU": products, "OCTET_NO_SKIPS": "1", "RUST_BACKTRACE": "0"}
        code, said = bench.run(f"kernel {name} {products}", command, 60, env)
        ran = code == 0 and "1 passed" in said
        why = None if ran else last(re.sub("(?s)test result.*|note: run with.*", "", said))
        return {"name": name, "products": products, "ok": ran, "s": round(time.time() - started, 1), "why": why}

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, kernel_tests(bench)))
    # Of every folder of kernels, and of the steps.
    whole = {module for one in found for module in modules_of(one["name"])} >= bench.modules()
    return {"ok": whole and all(one["ok"] for one in found), "tests": found}


def apart(gpu, cpu):
    """The largest distance of windows' means."""
    mean = lambda values, at: sum(values[at : at + WINDOW]) / WINDOW
    places = range(0, len(cpu) - WINDOW + 1, WINDOW)
    return max(abs(mean(gpu, at) - mean(cpu, at)) for at in places)


def curve(model, dtype):
    def item(bench):
        curves = json.loads((bench.pack / "cpu.json").read_text())
        cpu, f32 = curves[f"{model}-{dtype}"], curves[f"{model}-f32"]
        run = f"{model}-{dtype}"
        summary, gpu = bench.train(run, model, ["run.device=cuda", f"model.dtype={dtype}"])
        distance = apart(gpu, cpu["losses"])
        return {
            "ok": distance <= NEAR[dtype],
            "apart": distance,
            "bound": NEAR[dtype],
            "apart_from_f32": apart(gpu, f32["losses"]),
            "cpu_apart_from_f32": apart(cpu["losses"], f32["losses"]),
            "first_loss": [gpu[0], cpu["losses"][0]],
            "last_loss": [gpu[-1], cpu["losses"][-1]],
            "held_out": [summary["evaluations"][0]["last"]["loss"], cpu["held_out"]],
            "digest": summary["digest"],
        }

    return item


def digest_of(bench, run, sets, env=None):
    summary, _ = bench.train(run, "llama", ["run.device=cuda", "model.dtype=bf16", *sets], env=env)
    return summary["digest"]


def expected(bench):
    done = bench.pack / "runs" / "llama-bf16" / "summary.json"
    return json.loads(done.read_text())["digest"]


def repeat(bench):
    digest = digest_of(bench, "again", [])
    return {"ok": digest == expected(bench), "digest": digest}


def ranks(bench):
    digest = digest_of(bench, "two", ["run.ranks=2"], {"OCTET_RANKS_PER_GPU": "2"})
    return {"ok": digest == expected(bench), "digest": digest}


def depth(bench):
    digest = digest_of(bench, "deep", ["run.depth=2"])
    return {"ok": digest == expected(bench), "digest": digest}


def resume(bench):
    """Killed behind a checkpoint, and again."""
    folder = bench.pack / "runs" / "killed"
    sets = ["run.device=cuda", "model.dtype=bf16", "checkpoint.every=20", f"data.cache={bench.pack / 'cache'}"]
    command = [bench.octet, "train", "llama.toml", "--run", str(folder)]
    for one in sets:
        command += ["--set", one]
    log = open(bench.logs / "killed.txt", "w")
    started = subprocess.Popen(command, cwd=bench.pack, stdout=log, stderr=log, start_new_session=True)
    until = time.time() + 60
    while time.time() < until and started.poll() is None:
        if len(list((folder / "checkpoints").glob("*/manifest.json"))) >= 2:
            break
        time.sleep(0.02)
    over = started.poll() is not None
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    # Whatever is left of the engine ends with its parent.
    time.sleep(1)
    summary, after = bench.train("killed", "llama", ["run.device=cuda", "model.dtype=bf16", "checkpoint.every=20"])
    ok = summary["digest"] == expected(bench) and not over
    return {"ok": ok, "digest": summary["digest"], "finished_before_the_kill": over}


def sanitized(bench):
    def one(job):
        tool, name = job
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9",
                   str(bench.pack / "kernels"), name, "--exact", "--test-threads", "1"]
        code, said = bench.run(f"{tool} {name}", command, 75, {"OCTET_TEST_GPU": "own"})
        summary = re.findall("(?:ERROR|RACECHECK) SUMMARY:.*", said)
        return {"tool": tool, "name": name, "ok": code == 0 and "1 passed" in said, "said": summary or last(said)}

    jobs = [(tool, name) for tool in ("memcheck", "racecheck") for name in SANITIZED]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, jobs))
    return {"ok": all(one["ok"] for one in found), "runs": found}


def speed(config, sets, steps):
    """Steps of a shape on random tokens, where the time goes, and memory beside the plan's."""

    def item(bench):
        path = str(bench.pack / "configs" / config)
        each = [part for one in sets for part in ("--set", one)]
        idle = float(smi("memory.used") or 0)
        with Watched() as watched:
            command = [bench.octet, "bench", "step", path, *SPEED, *each, "--steps", str(steps), "--json"]
            code, said = bench.run(f"speed {config}", command, 100)
        if code != 0:
            raise RuntimeError(f"exit {code}: {last(said)}")
        figures = json.loads(said[said.index("{") :])
        command = [bench.octet, "plan", path, *SPEED[:2], *each, "--target", "h200", "--json"]
        _, planned = bench.run(f"plan {config}", command, 30)
        plan = json.loads(planned[planned.index("{") :])
        seen = watched.figures()
        outside = (seen.get("memory_mib", 0) - idle) - plan["arena_bytes"] / 2**20
        return {
            "ok": True,
            "tokens_per_s": figures["tokens_per_s"],
            "step_ms": figures["step_ms"],
            "mfu": figures["peak_share"],
            "watched": seen,
            "arena_mib": plan["arena_bytes"] / 2**20,
            "outside_mib": outside,
            "outside_allowed_mib": plan["outside_bytes"] / 2**20,
            "ops": figures["ops"],
        }

    return item


def peer(arguments):
    """PyTorch, doing the same."""

    def item(bench):
        script = bench.pack / "torch_gpt.py"
        if not script.exists():
            return {"ok": None, "why": "this pack has no torch_gpt.py"}
        command = ["python3", str(script), "--random", "--device", "cuda", "--dtype", "bf16",
                   "--peak-tflops", "989.4", "--warmup", "4", "--eval-iters", "0", "--bf16-residual",
                   "--compile", *arguments.split()]
        code, said = bench.run(f"peer {arguments[:20]}", command, 120)
        if code != 0:
            raise RuntimeError(f"exit {code}: {last(said)}")
        return {"ok": True, "result": json.loads([line for line in said.splitlines() if line.startswith("{")][-1])}

    return item


GPT2_PEER = ("--arch gpt2 --layers 12 --heads 12 --dim 768 --seq 1024 --vocab 50304 --batch 32 "
             "--steps 60 --attention cudnn")
ITEMS = {
    "facts": facts,
    "kernels": kernels,
    "llama f32": curve("llama", "f32"),
    "llama bf16": curve("llama", "bf16"),
    "gpt f32": curve("gpt", "f32"),
    "gpt bf16": curve("gpt", "bf16"),
    "same bits again": repeat,
    "same bits on 2 ranks": ranks,
    "same bits with 2 steps in flight": depth,
    "same bits when killed and resumed": resume,
    "speed of gpt2_124m": speed("gpt2_124m_1xh200.toml", ["batch.global=32"], 10),
    "peer of gpt2_124m": peer(GPT2_PEER),
    "compute-sanitizer": sanitized,
    "speed of llama_1b": speed("llama_1b_1xh200.toml", ["batch.micro=4", "batch.global=4"], 4),
}


def true(pack, out, names):
    bench = Bench(pack, out)
    commit = (bench.pack / "commit").read_text().strip()
    started = time.time()
    with open(bench.out / "results.jsonl", "w") as results:
        for name in names or ITEMS:
            began = time.time()
            try:
                found = ITEMS[name](bench)
            except Exception as error:
                found = {"ok": False, "why": f"{type(error).__name__}: {error}"}
            record = {"item": name, "commit": commit, "date": time.strftime("%Y-%m-%d"),
                      "s": round(time.time() - began, 1), **found}
            results.write(json.dumps(record) + "\n")
            results.flush()
            short = {key: value for key, value in found.items() if key not in ("tests", "runs", "ops")}
            print(f"[{time.time() - started:5.0f} s] {name}: {json.dumps(short)}"[:700], flush=True)
            for one in found.get("tests", []) + found.get("runs", []):
                if not one["ok"]:
                    print(f"    {json.dumps(one)}"[:700], flush=True)
            for one in found.get("ops", [])[:14]:
                print("    {op:<28}{times:>6}{ms:>10.3f} ms{gflops_per_s:>12.0f}{gb_per_s:>10.0f}".format(**one), flush=True)
    # Small, and all of it.
    subprocess.run(["tar", "-C", str(bench.out), "-czf", str(bench.out / "logs.tar.gz"), "logs"])
    subprocess.run(["rm", "-rf", str(bench.logs)])


def cpu(pack):
    """What the GPU's curves are held against."""
    bench = Bench(pack, Path(pack) / "cpu")
    found = {}
    for name in [f"{model}-{dtype}" for model in MODELS for dtype in NEAR]:
        model, dtype = name.split("-")
        sets = ["run.device=cpu", f"model.dtype={dtype}"]
        summary, curve = bench.train(name, model, sets, timeout=3600)
        held_out = summary["evaluations"][0]["last"]["loss"]
        found[name] = {"losses": curve, "held_out": held_out}
    (bench.pack / "cpu.json").write_text(json.dumps(found))
    for folder in ("runs", "cache", "cpu"):
        subprocess.run(["rm", "-rf", str(bench.pack / folder)])


# Which kernels that no op asks for a test holds.
OF_A_STEP = {
    "every_element_is_added_once": ["fold"],
    "pieces_are_joined_in_the_order_of_the_tree": ["fold"],
    "squares_of_blocks_are_summed_in_one_order": ["global_norm"],
    "a_decision_is_the_cpus": ["global_norm"],
    "every_rule_gives_the_cpus_bits_however_its_state_is_stored": ["adamw", "lion"],
}


def modules_of(test):
    part = test.split("::")
    return [part[1]] if part[0] == "ops" else OF_A_STEP[part[-1]]


def record(out):
    """The documents, from what `true` has found."""
    found = {}
    for line in (Path(out) / "results.jsonl").read_text().splitlines():
        one = json.loads(line)
        found[one["item"]] = one
    facts = found["facts"]
    where = f"{facts['date']}, {facts['card']}, {facts['commit']}"
    folder = Path("docs/gpu")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "RESULTS.md").write_text(results(found, where))
    seen = {}
    # Of kernels of our own; what a library multiplies is in RESULTS.md.
    own = [test for test in found["kernels"]["tests"] if test["products"] == "own"]
    for test in own:
        for module in modules_of(test["name"]):
            seen[module] = seen.get(module, True) and test["ok"]
    rows = [f"{module}\t{where}\n" for module, ok in sorted(seen.items()) if ok]
    (folder / "kernels.tsv").write_text("".join(rows))
    readme = Path("README.md")
    cell = lambda row: where if seen.get(row[1]) else "not yet"
    row = re.compile(r"^(\| `(\w+)` \| .* \| .* \| )[^|]* \|$", re.M)
    text = row.sub(lambda m: f"{m[1]}{cell(m.group(0, 2))} |", readme.read_text())
    readme.write_text(text)


def results(found, where):
    """RESULTS.md."""
    facts = found["facts"]
    lines = [
        "# What a GPU has run",
        "",
        f"{where}; driver {facts['driver']}, {facts['power_limit']} W at most. Made by",
        "`scripts/gpu record`; what each item does is in `scripts/gpu_items.py`.",
        "",
        "| Item | | Seconds | |",
        "|---|---|---|---|",
    ]
    for name, one in found.items():
        state = {True: "right", False: "**wrong**", None: "left out"}[one.get("ok")]
        lines.append(f"| {name} | {state} | {one['s']:.0f} | {said_of(one)} |")
    for name, one in found.items():
        if "ops" in one:
            lines += ["", f"## {name.capitalize()}, by op", ""]
            lines += ["| Op | Times a step | ms a step | TFLOP/s | GB/s |", "|---|---|---|---|---|"]
            for op in one["ops"]:
                lines.append(
                    "| {op} | {times} | {ms:.3f} | {tflops:.1f} | {gb_per_s:.0f} |".format(
                        tflops=op["gflops_per_s"] / 1e3, **op
                    )
                )
    for name, one in found.items():
        wrong = [test for test in one.get("tests", []) + one.get("runs", []) if not test["ok"]]
        if wrong:
            lines += ["", f"## What is wrong in {name}", ""]
            lines += [f"- {test['name']}: {test.get('why') or test.get('said')}" for test in wrong]
    return "\n".join(lines) + "\n"


def said_of(one):
    """An item in a line."""
    if one.get("why"):
        return one["why"].replace("|", "/")
    if "tests" in one or "runs" in one:
        all_of_it = one.get("tests") or one["runs"]
        return f"{sum(test['ok'] for test in all_of_it)} of {len(all_of_it)}"
    if "apart" in one:
        return (
            f"losses {one['apart']:.0e} from the CPU's at most, {one['bound']} allowed; "
            f"{one['apart_from_f32']:.0e} from its f32, as it is by {one['cpu_apart_from_f32']:.0e}; "
            f"held-out loss {one['held_out'][0]:.4f}, the CPU's {one['held_out'][1]:.4f}"
        )
    if "tokens_per_s" in one:
        seen = one["watched"]
        under_load = f"{seen['clock_mhz']:.0f} MHz, {seen['watts']:.0f} W; " if "busy_samples" in seen else ""
        return (
            f"{one['tokens_per_s']:,.0f} tokens/s, {one['step_ms']:.1f} ms a step, MFU "
            f"{100 * one['mfu']:.1f} %; {under_load}"
            f"arena {one['arena_mib']:,.0f} MiB, beside it {one['outside_mib']:,.0f} "
            f"of {one['outside_allowed_mib']:,.0f} MiB allowed for"
        )
    if "result" in one:
        result = one["result"]
        return ", ".join(f"{key} {result[key]}" for key in ("tokens_per_s", "ms_per_step", "mfu") if key in result)
    if "digest" in one:
        return f"`{one['digest'][:16]}`"
    return facts_of(one)


def facts_of(one):
    lines = [line.removeprefix("ok").strip() for line in one.get("doctor", []) if "verdict" not in line]
    return "; ".join(re.sub(r" at /\S+.*", "", line) for line in lines)


if __name__ == "__main__":
    if sys.argv[1] == "cpu":
        cpu(sys.argv[2])
    elif sys.argv[1] == "true":
        true(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        record(sys.argv[2])
