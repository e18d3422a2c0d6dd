#!/usr/bin/env python3
"""What tightwire must reach on a GPU, measured: the benches with device=cuda, and a few steps of train against the same on the host.

  gpu_numbers.py [--program FILE] [--python FILE] [--backend NAME] [--ranks N] [--out FOLDER] [--tiny] [--limit S]

  --program FILE   tightwire (default: build/release/tightwire)
  --python FILE    interpreter with PyTorch for CUDA, the peer; without one its columns are empty (default: python3)
  --backend NAME   what gradients travel by in train (default: nccl)
  --ranks N        with so many GPUs, more than one: train on them too, by that backend and by mpi (default: 1)
  --out FOLDER     for numbers.json, a line a command with its rows, and numbers.txt, the table (default: build/gpu; $OUT gets a copy)
  --tiny           sizes that take seconds on an emulated device, where no number means anything
  --mpirun WORDS   how ranks are started (default: mpirun --oversubscribe --bind-to none)
  --limit S        after so many seconds no further command starts (default: 540)

Examples
  tests/gpu_numbers.py
  tests/gpu_numbers.py --python ~/torch/bin/python --out runs/h200

Exit codes: 0 all commands ran, however fast; 1 one failed, was not reached in time, or what must be equal is not; 2 usage; 3 no program.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

FULL = {"encode": ["numel=268435456"], "products": ["rows=16384", "cols=16384"], "optimizer": ["rows=16384", "cols=16384", "queued=10"],
        "step": ["blocks=9", "block_steps=8"], "head": ["tokens=8192", "width=768", "vocab=128000", "chunks=64", "repetitions=3"],
        "model": ["model.layers=12", "model.width=768", "model.heads=12", "data.context=1024", "data.vocab=50304", "train.batch_size=8"],
        "train": ["train.steps=5", "data.val_fraction=0.001"]}
TINY = {"encode": ["numel=4096", "repetitions=7"], "products": ["rows=64", "cols=64", "repetitions=7"],
        "optimizer": ["rows=72", "cols=64", "queued=2", "repetitions=7"], "step": ["blocks=1", "block_steps=2"],
        "head": ["tokens=64", "width=16", "vocab=512", "chunks=8", "repetitions=1"],
        "model": ["model.layers=1", "model.width=32", "model.heads=2", "data.context=32", "data.vocab=300", "train.batch_size=2"],
        "train": ["train.steps=3", "data.val_fraction=0.001", "model.layers=1", "model.width=32", "model.heads=2", "data.context=32", "train.batch_size=2"]}


class Figure:
    """A line of the table: what it is, how to read it off a row, and what it must be: ('>=' or '<=', number), or None. Where it
    `must`, another number is a failure."""

    def __init__(self, what, value, limit=None, form="{:.2f}", must=False):
        self.what, self.value, self.limit, self.form, self.must = what, value, limit, form, must

    def line(self, row):
        value = self.value(row) if row else None
        text = "-" if value is None else self.form.format(value)
        if self.limit is None:
            return [self.what, text, "", ""]
        sign, bound = self.limit
        verdict = "?" if value is None else "ok" if (value >= bound if sign == ">=" else value <= bound) else "missed"
        return [self.what, text, f"{sign} {bound:g}", verdict]


def get(key):
    return lambda row: row.get(key)


def over(key, other, factor=1.0):
    return lambda row: factor * row[key] / row[other] if row.get(key) and row.get(other) else None


# A row's bound is that of 12 bytes an element and the body: error and gradient read, error written. What must go over the numbers more
# than once has more, docs/adr/0023 says how much.
def of_bytes(each):
    return lambda row: row["of_bound"] * (each * row["numel"] + row["wire_bytes"]) / (12 * row["numel"] + row["wire_bytes"])


def commands(sizes, peer):
    """[(words of tightwire, figures)] in the order of worth."""
    cuda = ["device=cuda", *peer]
    model = ["bench", "step", *cuda, *sizes["step"], *sizes["model"]]
    gpt = [*model, "train.precision=bf16"]

    def encode(words, *figures):
        return ["bench", "encode", *cuda, *sizes["encode"], *words], list(figures)

    def optimizer(state, *figures):
        return ["bench", "optimizer", *cuda, *sizes["optimizer"], "name=adamw", f"state={state}"], list(figures)

    return [
        encode(["name=blockquant", "bits=8"], Figure("blockquant 8, EF14: part of the bound", get("of_bound"), (">=", 0.7))),
        encode(["name=blockquant", "bits=4"], Figure("blockquant 4, EF14: part of the bound", get("of_bound"), (">=", 0.7)),
               Figure("  time of PyTorch's over ours", over("peer_ms", "ms"))),
        encode(["name=sign"], Figure("sign, EF14: part of the bound of two passes", of_bytes(20), (">=", 0.7)),
               Figure("  time of PyTorch's over ours", over("peer_ms", "ms"))),
        # A read of EF14's message is one of two buffers: as many bytes as a copy moves.
        encode(["name=topk", "ratio=0.01"], Figure("topk 1 %, EF14: reads of error and gradient", get("copy_ratio"), ("<=", 3)),
               Figure("  time of torch.topk's over ours", over("peer_ms", "ms"))),
        encode(["name=topk", "ratio=0.01", "feedback=none"], Figure("topk 1 %, alone: reads of the message", over("ms", "copy_ms", 2), ("<=", 3))),
        (["bench", "encode", *cuda, *sizes["products"], "products=4"],
         [Figure("powersgd 4: its products over cuBLAS's", get("peer_ratio"), ("<=", 1.2))]),
        (["bench", "encode", *cuda, *sizes["products"], "name=powersgd", "rank=4"],
         [Figure("powersgd 4, EF14: ms", get("ms")), Figure("  part of the bound of its passes", of_bytes(24)),
          Figure("  time of PyTorch's over ours", over("peer_ms", "ms"))]),
        optimizer("int4", Figure("AdamW int4: part of the bound", get("of_bound"), (">=", 0.8)),
                  Figure("  over torch's fused AdamW in fp32", get("peer_ratio"), ("<=", 1)),
                  Figure("  bytes a parameter", lambda row: 12 + 2 * row["state_bytes_per_param"])),
        optimizer("int8", Figure("AdamW int8: part of the bound", get("of_bound"))),
        optimizer("fp32", Figure("AdamW fp32: part of the bound", get("of_bound")),
                  Figure("  over torch's fused AdamW in fp32", get("peer_ratio"))),
        (gpt, [Figure("GPT 124 M bf16: step over PyTorch's", get("plain_peer_ratio"), ("<=", 1.03), "{:.3f}"),
               Figure("  with the reducer, nothing compressed, over without", get("ratio"), form="{:.3f}"),
               Figure("  ms", get("plain_ms")),
               Figure("  peak MB", over("plain_peak_bytes", "one", 2**-20), form="{:.0f}"),
               Figure("  PyTorch's peak MB", over("peer_peak_bytes", "one", 2**-20), form="{:.0f}")]),
        ([*gpt, "compressor.name=topk", "compressor.ratio=0.01", "feedback.name=ef14"],
         [Figure("  with reducer and topk 1 % EF14, over without", get("ratio"), ("<=", 1.05), "{:.3f}")]),
        ([*gpt, "optimizer.state=int4", "memory.head_chunks=0"],
         [Figure("  peak MB with int4 states and head in pieces", over("plain_peak_bytes", "one", 2**-20), form="{:.0f}"),
          Figure("  that step over PyTorch's plain one", get("plain_peer_ratio"), form="{:.3f}")]),
        ([*model, "train.precision=bf16_pure", "train.weights=bf16"],
         [Figure("GPT 124 M without autocast: step over PyTorch's model.to(bfloat16)", get("plain_peer_ratio"), form="{:.3f}"),
          Figure("  peak MB", over("plain_peak_bytes", "one", 2**-20), form="{:.0f}")]),
        (["bench", "memory", "name=head", "form=fused", "device=cuda", *sizes["head"]],
         [Figure("LM head 8192 x 128k in pieces: peak over plain", over("extra_peak_bytes", "plain_extra_peak_bytes"), ("<=", 0.05), "{:.4f}"),
          Figure("  time over plain", over("ms", "plain_ms"))]),
    ]


class Numbers:
    def __init__(self, options, scratch):
        self.options, self.scratch = options, scratch
        self.end = time.monotonic() + options.limit
        self.lines, self.kept, self.failed = [], [], 0

    def run(self, words, launcher=()):
        """Rows of JSON; None when it failed or there was no time left."""
        shown = " ".join([*launcher, "tightwire", *words])
        left = self.end - time.monotonic()
        if left <= 0:
            self.failed += 1
            print(f"gpu_numbers: no time left for: {shown}", file=sys.stderr)
            return None
        print(f"gpu_numbers: {shown}", file=sys.stderr, flush=True)
        try:
            done = subprocess.run([*launcher, self.options.program, *words, "--json"], capture_output=True, text=True, timeout=max(60, left), cwd=self.scratch)
            fault = None if done.returncode == 0 else f"exit {done.returncode}: {(done.stderr.strip().splitlines() or ['nothing said'])[-1]}"
        except subprocess.TimeoutExpired:
            fault = "took too long"
        if fault:
            self.failed += 1
            print(f"gpu_numbers: failed: {shown}: {fault}", file=sys.stderr)
            self.kept.append({"command": shown, "fault": fault})
            return None
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        self.kept.append({"command": shown, "rows": rows})
        return rows

    def measure(self, words, figures):
        rows = self.run(words)
        if rows is not None and not rows:
            self.failed += 1
            print("gpu_numbers: failed: it printed no row", file=sys.stderr)
        row = {**rows[0], "one": 1} if rows else None
        for figure in figures:
            self.add(figure, row)

    def add(self, figure, row):
        self.lines.append(figure.line(row))
        self.failed += figure.must and self.lines[-1][3] != "ok"

    def losses(self, sizes):
        """The last loss of a few steps on the GPU and on the host, by gradients of topk under EF14."""
        found = []
        for device, backend in (("cuda", self.options.backend), ("cpu", "auto")):
            self.run(["train", "data.path=synthetic", *sizes["train"], f"train.device={device}", f"comm.backend={backend}", f"run.dir={device}",
                      "compressor.name=topk", "feedback.name=ef14", 'metrics.sinks=["jsonl"]'])
            try:
                with open(f"{self.scratch}/{device}/summary.json", encoding="utf-8") as file:
                    found.append(json.load(file)["final_loss"])
            except (OSError, KeyError):
                found.append(None)
        row = {"difference": abs(found[0] - found[1]) / found[1]} if None not in found else None
        figure = Figure(f"train by {self.options.backend}, one rank: loss off the host's by", get("difference"), ("<=", 1e-3), "{:.1e}", must=True)
        self.add(figure, row)


    def replicas(self, sizes, ranks, mpirun):
        """The parameters of a few steps on all GPUs, by the backend and by mpi behind pinned memory."""
        found = []
        for backend in (self.options.backend, "mpi"):
            folder = f"ranks_{len(found)}"
            self.run(["train", "data.path=synthetic", *sizes["train"], "train.device=cuda", f"comm.backend={backend}", f"run.dir={folder}",
                      "comm.check_replicas_every=1", "compressor.name=topk", "feedback.name=ef14", 'metrics.sinks=["jsonl"]'],
                     [*mpirun.split(), "-np", str(ranks)])
            try:
                with open(f"{self.scratch}/{folder}/summary.json", encoding="utf-8") as file:
                    found.append(json.load(file)["params_hash"])
            except (OSError, KeyError):
                found.append(None)
        row = {"same": int(found[0] == found[1])} if None not in found else None
        self.add(Figure(f"train on {ranks} GPUs: parameters by {self.options.backend} those by mpi", get("same"), (">=", 1), "{}", must=True), row)


def has_torch(python, tiny):
    if tiny:
        return False
    check = "import torch, sys; sys.exit(not torch.cuda.is_available())"
    try:
        return subprocess.run([python, "-c", check], capture_output=True).returncode == 0
    except OSError:
        return False


def table(lines):
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    return "".join("  ".join(cell.rjust(w) if i in (1, 2) else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths))).rstrip() + "\n"
                   for line in lines)


def main():
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--program", default=os.path.join(ROOT, "build", "release", "tightwire"))
    parser.add_argument("--python", default="python3")
    parser.add_argument("--backend", default="nccl")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--mpirun", default="mpirun --oversubscribe --bind-to none")
    parser.add_argument("--out", default=os.path.join(ROOT, "build", "gpu"))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--limit", type=float, default=540)
    parser.add_argument("-h", "--help", action="store_true")
    options = parser.parse_args()
    if options.help:
        print(__doc__.strip())
        return 0
    if not os.access(options.program, os.X_OK):
        print(f"gpu_numbers: error: no program at {options.program}", file=sys.stderr)
        return 3
    options.program = os.path.abspath(options.program)
    sizes, peer = (TINY if options.tiny else FULL), []
    if has_torch(options.python, options.tiny):
        peer = ["peer=torch", f"python={shutil.which(options.python)}"]
    else:
        print(f"gpu_numbers: {options.python} has no PyTorch for CUDA: no peer; name one with --python", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="tightwire-gpu-") as scratch:
        numbers = Numbers(options, scratch)
        for words, figures in commands(sizes, peer):
            numbers.measure(words, figures)
        numbers.losses(sizes)
        if options.ranks > 1:
            numbers.replicas(sizes, options.ranks, options.mpirun)
    text = table([["figure", "measured", "limit", ""], *numbers.lines])
    for folder in filter(None, (options.out, os.environ.get("OUT"))):
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "numbers.json"), "w", encoding="utf-8") as file:
            file.writelines(json.dumps(kept) + "\n" for kept in numbers.kept)
        with open(os.path.join(folder, "numbers.txt"), "w", encoding="utf-8") as file:
            file.write(text)
    print(text, end="")
    return 1 if numbers.failed else 0


if __name__ == "__main__":
    sys.exit(main())
