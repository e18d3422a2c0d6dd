#!/usr/bin/env python3
"""The GPT of a tightwire config, trained by PyTorch DistributedDataParallel on Gloo: the peer that launch/compare runs.

  gpt_ddp.py CONFIG [--hook HOOK] [--steps N] [--eval-every N] [--fused] [--ordered]

One rank a process, with torchrun's variables (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT; GLOO_SOCKET_IFNAME):

  launch/cluster --hosts 2 --rate 100mbit --each -- python3 launch/peers/gpt_ddp.py runs/mine/config.toml --hook none@4

CONFIG is a run folder's config.toml, which has every key; model, text, batch, seed, clipping, AdamW and schedule are taken from
it (constant and cosine; what this peer cannot do is refused). Gradients travel as HOOK says, not as [compressor] does.

  --hook HOOK      none | fp16 | bf16 | powersgd:RANK | powersgd_batched:RANK, with bucket_cap_mb as in none@4 (default: torch's 25)
  --steps N        stop after N steps (default: train.steps); the schedule stays that of train.steps
  --eval-every N   validation loss after every N steps and at the end, not timed
  --fused          torch's fused AdamW instead of its default
  --ordered        PowerSGD's exchange of a bucket ends before the next bucket's begins: the same numbers, and slower, but in a
                   long run. Without, ranks now and then start the collectives of two buckets in different orders, and Gloo aborts

Rank 0 prints JSON, one object a line: {"peer": "torch", ...} first, then for each step
  {"step", "loss", "step_ms", "cpu_ms", "core_wait_ms", "quiet_ms", "sent_bytes"}
with loss the mean over ranks; step_ms, cpu_ms (main thread on a core) and core_wait_ms (main thread ready, all cores taken)
lists with a number per rank; quiet_ms as launch/compare defines it; sent_bytes what left rank 0's GLOO_SOCKET_IFNAME. And
{"step", "val_loss"} after an evaluation. One thread per rank unless OMP_NUM_THREADS says otherwise.

Not as PyTorch ships it: batched_powerSGD_hook of torch 2.11 hands 2-D matrices to a function that insists on 3-D; it gets them.
Exit codes: 0; 2 usage or config; 3 no torch or no text.
"""
import argparse
import gzip
import json
import math
import os
import re
import sys
import time
import tomllib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from timing import quiet_ms  # noqa: E402


def die(code, message):
    print(f"gpt_ddp: error: {message}", file=sys.stderr)
    sys.exit(code)


try:
    import torch
    from torch import distributed, nn
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
    from torch.nn import functional
except ImportError as missing:
    die(3, f"{sys.executable}: {missing}; a Python with torch is needed")


# ---- the model, with the names and shapes of tightwire's `gpt`

class Block(nn.Module):
    """Attention, then two linear layers, each on a layer norm of its input and added to it. [B, T, D] -> [B, T, D]"""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln1 = nn.LayerNorm(width)
        self.ln2 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.fc = nn.Linear(width, 4 * width)
        self.out = nn.Linear(4 * width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        per_head = self.qkv(self.ln1(x)).unflatten(2, (3, self.heads, width // self.heads))
        query, key, value = per_head.transpose(1, 3).unbind(2)  # each [B, heads, T, D / heads]
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.out(functional.gelu(self.fc(self.ln2(x)), approximate="tanh"))


class Gpt(nn.Module):
    """Loss of windows of `context` + 1 bytes, ids [B, T + 1]: the mean nats of each next byte."""

    def __init__(self, layers, width, heads, context, vocab=256):
        super().__init__()
        self.tok = nn.Embedding(vocab, width)
        self.pos = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.lnf = nn.LayerNorm(width)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                onto_residual = ".proj." in name or ".out." in name
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if onto_residual else 0.02)
            elif name.endswith(".bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids):
        x = self.tok(ids[:, :-1]) + self.pos.weight
        for block in self.blocks:
            x = block(x)
        scores = functional.linear(self.lnf(x), self.tok.weight)
        return functional.cross_entropy(scores.flatten(0, 1), ids[:, 1:].flatten())


# ---- the config

def read_config(path):
    try:
        with open(path, "rb") as file:
            config = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as fault:
        die(3 if isinstance(fault, OSError) else 2, f"{path}: {fault}")
    refused = {"task.name": ["lm"], "data.shard": ["iid"], "data.val_path": [""], "model.name": ["gpt"], "model.init": [""],
               "train.accumulate": [1], "train.precision": ["fp32"], "optimizer.name": ["adamw"],
               "schedule.name": ["constant", "cosine"]}
    try:
        for key, allowed in refused.items():
            section, name = key.split(".")
            if config[section][name] not in allowed:
                die(2, f"{path}: {key} = {config[section][name]!r}; this peer knows {' and '.join(map(repr, allowed))} only")
    except KeyError as missing:
        die(2, f"{path} has no {missing}; give the config.toml of a run folder, which has every key")
    return config


def read_text(data):
    """Bytes as a uint8 tensor: the training part and the validation part, cut as tightwire cuts them."""
    path = data["path"]
    if path == "kjv":
        path = os.path.expanduser("~/.cache/tightwire/kjv.txt")
    try:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
            text = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
    except OSError as fault:
        hint = " (tightwire writes it when it first trains on kjv)" if data["path"] == "kjv" else ""
        die(3, f"data.path: {path}: {fault.strerror}{hint}")
    held = math.floor(len(text) * data["val_fraction"])
    return text[:len(text) - held], text[len(text) - held:]


def rate_factor(schedule, step, total):
    warmup = schedule["warmup_steps"]
    if step < warmup:
        return (step + 1) / warmup
    if schedule["name"] == "constant":
        return 1.0
    least = schedule["min_factor"]
    return least + (1 - least) * (1 + math.cos(math.pi * min(1, (step - warmup) / max(1, total - warmup)))) / 2


# ---- data parallel

def parse_hook(text):
    """(name, rank of PowerSGD or None, bucket_cap_mb or None)"""
    name, _, cap_mb = text.partition("@")
    name, colon, rank = name.partition(":")
    low_rank = name in ("powersgd", "powersgd_batched")
    known = low_rank and re.fullmatch(r"[1-9]\d*", rank) or name in ("none", "fp16", "bf16") and not colon
    if not known or "@" in text and not re.fullmatch(r"\d+(\.\d+)?", cap_mb):
        die(2, f"--hook is '{text}'; none, fp16, bf16, powersgd:RANK or powersgd_batched:RANK, with @MB behind, is allowed")
    return name, int(rank) if low_rank else None, float(cap_mb) if cap_mb else None


def in_order(hook):
    """The same exchange, over before the next bucket's begins."""
    def run(state, bucket):
        future = hook(state, bucket)
        future.wait()
        return future
    return run


def parallel(model, hook, ordered):
    """The model under DDP with its hook; itself when alone."""
    if not distributed.is_initialized():
        return model
    name, rank, cap_mb = hook
    model = nn.parallel.DistributedDataParallel(model, bucket_cap_mb=cap_mb)
    if name in ("fp16", "bf16"):
        model.register_comm_hook(None, getattr(default_hooks, f"{name}_compress_hook"))
    elif rank:
        state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=rank, start_powerSGD_iter=2)
        if name == "powersgd_batched":
            three_dimensional = powerSGD_hook._orthogonalize
            powerSGD_hook._orthogonalize = lambda m, epsilon=0: three_dimensional(m.view(-1, *m.shape[-2:]), epsilon)
            low_rank = powerSGD_hook.batched_powerSGD_hook
        else:
            low_rank = powerSGD_hook.powerSGD_hook
        model.register_comm_hook(state, in_order(low_rank) if ordered else low_rank)
    return model


def mean_over_ranks(value):
    value = torch.tensor(value, dtype=torch.float64)
    if distributed.is_initialized():
        distributed.all_reduce(value)
        value /= distributed.get_world_size()
    return value.item()


def sent_bytes():
    try:
        with open(f"/sys/class/net/{os.environ.get('GLOO_SOCKET_IFNAME', 'none')}/statistics/tx_bytes", encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return 0


def core_wait_ms():
    try:
        with open("/proc/thread-self/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) / 1e6
    except OSError:
        return math.nan


class Training:
    def __init__(self, config, options, rank, size):
        self.config, self.rank, self.size = config, rank, size
        self.text, self.held = read_text(config["data"])
        train, model = config["train"], config["model"]
        self.context, self.batch, self.steps = config["data"]["context"], train["batch_size"], train["steps"]
        torch.manual_seed(train["seed"])
        self.model = parallel(Gpt(model["layers"], model["width"], model["heads"], self.context), parse_hook(options.hook), options.ordered)
        adamw = config["optimizer"]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=adamw["lr"], betas=adamw["betas"], eps=adamw["eps"],
                                           weight_decay=adamw["weight_decay"], fused=options.fused or None)
        self.draws = torch.Generator().manual_seed(1_000_003 * train["seed"] + rank)
        self.rows = []  # of each step: loss, wall, cpu, wait for a core (ms), bytes sent

    def windows(self, text, starts):
        return text[starts.unsqueeze(1) + torch.arange(self.context + 1)].long()

    def step(self, number):
        """Batch, forward, backward with its exchange, update; what it took."""
        before = time.perf_counter(), time.thread_time(), core_wait_ms(), sent_bytes()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config["optimizer"]["lr"] * rate_factor(self.config["schedule"], number, self.steps)
        starts = torch.randint(0, len(self.text) - self.context, (self.batch,), generator=self.draws)
        loss = self.model(self.windows(self.text, starts))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.config["train"]["grad_clip"] > 0:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config["train"]["grad_clip"])
        self.optimizer.step()
        value = loss.item()
        after = time.perf_counter(), time.thread_time(), core_wait_ms(), sent_bytes()
        wall, cpu, wait, sent = (end - start for start, end in zip(before, after))
        self.rows.append([value, 1e3 * wall, 1e3 * cpu, wait, sent])

    @torch.no_grad()
    def validation_loss(self):
        """All windows of the held part in order, without overlap, divided over the ranks."""
        count = (len(self.held) - 1) // self.context
        mine = torch.arange(count * self.rank // self.size, count * (self.rank + 1) // self.size) * self.context
        module = getattr(self.model, "module", self.model)
        total = sum(module(self.windows(self.held, part)).item() * len(part) for part in mine.split(self.batch))
        return mean_over_ranks(total) * self.size / count

    def records(self):
        """Of all ranks, a dict a step; collective."""
        mine = torch.tensor(self.rows, dtype=torch.float64)
        every = [torch.empty_like(mine) for _ in range(self.size)]
        if self.size > 1:
            distributed.all_gather(every, mine)
        else:
            every = [mine]
        for i, ranks in enumerate(torch.stack(every, 1).tolist()):
            loss, wall, cpu, wait, _ = ([rank[k] for rank in ranks] for k in range(5))
            yield {"step": i + 1, "loss": sum(loss) / self.size, "step_ms": wall, "cpu_ms": cpu, "core_wait_ms": wait,
                   "quiet_ms": quiet_ms(wall, cpu, wait), "sent_bytes": int(ranks[0][4])}


def main():
    parser = argparse.ArgumentParser(usage=__doc__, add_help=False)
    parser.error = lambda message: die(2, f"{message}; see gpt_ddp.py --help")
    parser.add_argument("config", nargs="?")
    parser.add_argument("--hook", default="none")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--eval-every", type=int, default=0)
    parser.add_argument("--fused", action="store_true")
    parser.add_argument("--ordered", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    options = parser.parse_args()
    if options.help or not options.config:
        print(__doc__.strip())
        return
    config = read_config(options.config)
    hook = parse_hook(options.hook)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if size > 1:
        distributed.init_process_group("gloo", rank=rank, world_size=size)
    training = Training(config, options, rank, size)
    lines = [{"peer": "torch", "version": torch.__version__, "hook": options.hook, "bucket_cap_mb": hook[2] or 25, "ranks": size,
              "threads": torch.get_num_threads(), "params": sum(p.numel() for p in training.model.parameters())}]
    steps, evaluations = options.steps or training.steps, []
    for number in range(steps):
        training.step(number)
        if options.eval_every and ((number + 1) % options.eval_every == 0 or number + 1 == steps):
            evaluations.append({"step": number + 1, "val_loss": training.validation_loss()})
    lines += list(training.records()) + evaluations
    if rank == 0:
        print("\n".join(map(json.dumps, lines)), flush=True)
    if size > 1:
        distributed.barrier()
        os._exit(0)  # destroying the group, or the interpreter's own exit, now and then ends in an abort of Gloo's threads


if __name__ == "__main__":
    main()
