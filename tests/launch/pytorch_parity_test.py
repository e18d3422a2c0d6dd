#!/usr/bin/env python3
"""The program against PyTorch, end to end: a safetensors file that PyTorch's weights were written to is evaluated and trained from.

    python3 tests/launch/pytorch_parity_test.py build/release/tightwire      needs an interpreter with torch; exits 77 without

eval must give PyTorch's loss to 1e-4 relative, 20 steps of AdamW from the same weights must follow PyTorch's losses to 1e-3.
The training text is one window long, so that every batch is that window whatever the sampler draws; varied batches are in
tests/golden/*.json. Another interpreter than the one that runs this: TIGHTWIRE_TORCH_PYTHON.
"""
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SKIPPED = 77
MODEL = dict(vocab=256, context=32, layers=2, width=32, heads=4)
STEPS, VAL_WINDOWS, LR, WEIGHT_DECAY = 20, 20, 1e-3, 0.01


def reenter():
    """Goes on in the interpreter that TIGHTWIRE_TORCH_PYTHON names; returns when it is this one."""
    python = os.environ.pop("TIGHTWIRE_TORCH_PYTHON", "")
    if python:
        os.execv(python, [python, *sys.argv])


def write_safetensors(path, tensors):
    """The layout of https://huggingface.co/docs/safetensors, by hand, so that only torch is needed."""
    header, body = {}, b""
    for name, tensor in tensors.items():
        raw = tensor.detach().contiguous().view(torch.uint8).flatten().tolist()
        header[name] = dict(dtype="F32", shape=list(tensor.shape), data_offsets=[len(body), len(body) + len(raw)])
        body += bytes(raw)
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + body)


def loss_of(params, windows):
    logits = golden.gpt_logits(MODEL, params, windows[:, :-1])
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def run(program, *arguments):
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"FAILED: {' '.join([program, *arguments])}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def compare(what, ours, theirs, limit):
    worst = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))
    print(f"{what}: {ours[-1]:.6f}, PyTorch {theirs[-1]:.6f}; largest relative difference {worst:.1e}, limit {limit:g}")
    if not worst <= limit:
        sys.exit(f"FAILED: {what}")


def main(program):
    rng = random.Random(7)
    text = lambda n: bytes(rng.randrange(32, 127) for _ in range(n))
    context = MODEL["context"]
    train, val = text(context + 1), text(VAL_WINDOWS * context + 1)
    torch.manual_seed(1)
    params = {name: torch.nn.Parameter(0.1 * torch.randn(shape) + (1.0 if "ln" in name and name.endswith("weight") else 0.0))
              for name, shape in golden.gpt_shapes(MODEL).items()}
    with tempfile.TemporaryDirectory() as folder:
        path = lambda name: os.path.join(folder, name)
        for name, content in (("train.txt", train), ("val.txt", val)):
            with open(path(name), "wb") as file:
                file.write(content)
        write_safetensors(path("torch.safetensors"), params)
        keys = ["task.name=lm", f"data.path={path('train.txt')}", f"data.val_path={path('val.txt')}", f"data.context={context}",
                "model.name=gpt", *(f"model.{key}={MODEL[key]}" for key in ("layers", "width", "heads"))]

        windows = torch.tensor([list(val[i * context:(i + 1) * context + 1]) for i in range(VAL_WINDOWS)])
        evaluated = json.loads(run(program, "eval", *keys, f"checkpoint={path('torch.safetensors')}", "--json"))
        with torch.no_grad():
            compare("eval", [evaluated["loss"]], [loss_of(params, windows).item()], 1e-4)

        run(program, "train", *keys, f"model.init={path('torch.safetensors')}", f"train.steps={STEPS}", "train.batch_size=1",
            "train.grad_clip=0", "optimizer.name=adamw", f"optimizer.lr={LR}", f"optimizer.weight_decay={WEIGHT_DECAY}",
            "schedule.name=constant", f"run.dir={path('run')}")
        with open(path("run/metrics.jsonl"), encoding="utf-8") as file:
            ours = [json.loads(line)["loss"] for line in file]
        optimizer, theirs = torch.optim.AdamW(params.values(), lr=LR, weight_decay=WEIGHT_DECAY), []
        for _ in range(STEPS):
            loss = loss_of(params, torch.tensor([list(train)]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            theirs.append(loss.item())
        compare(f"{STEPS} steps", ours, theirs, 1e-3)


reenter()
try:
    import torch
except ImportError:
    print("skipped: this interpreter has no torch; name one that has in TIGHTWIRE_TORCH_PYTHON")
    sys.exit(SKIPPED)
sys.path.insert(0, os.path.join(HERE, "..", "golden"))
import make_model_golden as golden  # noqa: E402

if len(sys.argv) != 2:
    sys.exit(__doc__)
main(os.path.abspath(sys.argv[1]))
