"""Writes tests/golden/gpt_tiny.json and llama_tiny.json: what PyTorch computes for two tiny language models.

    python3 tests/golden/make_model_golden.py          needs torch; llama also transformers

No weight is stored. Parameter number p in name order, element i (row-major), is
    offset + scale * sin(0.7 * i + p), in double, then rounded to float;
    norms: offset 1, scale 0.1; vectors: offset 0, scale 0.05; matrices: offset 0, scale 0.15
Each record holds the configuration, the batches, the loss and the gradient's 2-norm at those weights, and the losses
of 20 steps of AdamW and of SGD, each taken before its step. tests/core/nn/model_golden_test.cc replays them.
"""
import json
import os

import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS, BATCH, CONTEXT = 20, 2, 16


def formula(params):
    """Overwrites the named parameters in place."""
    for p, name in enumerate(sorted(params)):
        w = params[name]
        norm = name.endswith("weight") and w.dim() == 1
        offset, scale = (1.0, 0.1) if norm else (0.0, 0.05) if w.dim() == 1 else (0.0, 0.15)
        i = torch.arange(w.numel(), dtype=torch.float64)
        w.data.copy_((offset + scale * torch.sin(0.7 * i + p)).float().view_as(w))


def batches(vocab):
    """STEPS batches of BATCH windows of CONTEXT + 1 tokens."""
    start = lambda s, b: 5 * s + 13 * b
    token = lambda n: (7 * n * n + 3 * n + 11) % 89 % vocab
    return [[[token(start(s, b) + t) for t in range(CONTEXT + 1)] for b in range(BATCH)] for s in range(STEPS)]


def record(config, make, logits):
    """make() -> {name: leaf tensor}; logits(params, ids) -> [B, T, vocab]."""
    data = batches(config["vocab"])

    def loss_of(params, window):
        w = torch.tensor(window)
        return F.cross_entropy(logits(params, w[:, :-1]).flatten(0, 1), w[:, 1:].flatten())

    def train(make_optimizer):
        params = make()
        formula(params)
        optimizer, losses = make_optimizer(list(params.values())), []
        for window in data:
            loss = loss_of(params, window)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    params = make()
    formula(params)
    loss = loss_of(params, data[0])
    loss.backward()
    squares = sum(p.grad.double().square().sum() for p in params.values())
    return dict(
        made_with="torch " + torch.__version__,
        config=config,
        shapes={n: list(p.shape) for n, p in params.items()},
        batches=data,
        loss=loss.item(),
        grad_norm=float(squares.sqrt()),
        adamw=dict(lr=1e-3, weight_decay=0.01, losses=train(lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.01))),
        sgd=dict(lr=0.1, losses=train(lambda p: torch.optim.SGD(p, lr=0.1))),
    )


def gpt_shapes(c):
    d = c["width"]
    shapes = {"tok.weight": (c["vocab"], d), "pos.weight": (c["context"], d)}
    for n in range(c["layers"]):
        b = f"blocks.{n}."
        for ln in ("ln1", "ln2"):
            shapes |= {b + ln + ".weight": (d,), b + ln + ".bias": (d,)}
        for lin, (o, i) in dict(qkv=(3 * d, d), proj=(d, d), fc=(4 * d, d), out=(d, 4 * d)).items():
            shapes |= {b + lin + ".weight": (o, i), b + lin + ".bias": (o,)}
    return shapes | {"lnf.weight": (d,), "lnf.bias": (d,)}


def gpt_logits(c, p, ids):
    d, h = c["width"], c["heads"]
    batch, t = ids.shape
    lin = lambda x, n: F.linear(x, p[n + ".weight"], p[n + ".bias"])
    ln = lambda x, n: F.layer_norm(x, (d,), p[n + ".weight"], p[n + ".bias"])
    x = p["tok.weight"][ids] + p["pos.weight"][:t]
    for n in range(c["layers"]):
        b = f"blocks.{n}."
        q, k, v = lin(ln(x, b + "ln1"), b + "qkv").split(d, dim=2)
        heads = lambda m: m.reshape(batch, t, h, d // h).transpose(1, 2)
        a = F.scaled_dot_product_attention(heads(q), heads(k), heads(v), is_causal=True)
        x = x + lin(a.transpose(1, 2).reshape(batch, t, d), b + "proj")
        x = x + lin(F.gelu(lin(ln(x, b + "ln2"), b + "fc"), approximate="tanh"), b + "out")
    return ln(x, "lnf") @ p["tok.weight"].T


def gpt():
    c = dict(vocab=96, context=CONTEXT, layers=2, width=32, heads=4)
    make = lambda: {n: torch.empty(s, requires_grad=True) for n, s in gpt_shapes(c).items()}
    return record(c, make, lambda p, ids: gpt_logits(c, p, ids))


def llama():
    import transformers
    c = dict(vocab=96, context=CONTEXT, layers=2, width=32, heads=4, kv_heads=2, hidden=48, rope_theta=10000.0, rms_eps=1e-5)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=c["vocab"], hidden_size=c["width"], intermediate_size=c["hidden"], num_hidden_layers=c["layers"],
        num_attention_heads=c["heads"], num_key_value_heads=c["kv_heads"], max_position_embeddings=CONTEXT,
        rms_norm_eps=c["rms_eps"], rope_theta=c["rope_theta"], tie_word_embeddings=False, use_cache=False))

    def make():
        model.zero_grad(set_to_none=True)
        return dict(model.named_parameters())

    r = record(c, make, lambda p, ids: model(ids).logits)
    r["made_with"] += ", transformers " + transformers.__version__
    return r


def write(name, make):
    r = make()
    with open(os.path.join(HERE, name), "w") as f:
        f.write("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in r.items()) + "\n}\n")
    print(name, r["loss"], r["grad_norm"], r["adamw"]["losses"][-1], r["sgd"]["losses"][-1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    write("gpt_tiny.json", gpt)
    write("llama_tiny.json", llama)
