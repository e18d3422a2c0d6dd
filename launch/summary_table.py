#!/usr/bin/env python3
"""A table of finished runs from their summary.json. Usage: launch/summary_table.py RUN... (run folders; the first is the one to compare with)

Only the standard library. Exit codes: 0 done; 2 usage; 3 a file is missing or no summary.
"""
import json
import os
import sys


def die(code: int, message: str) -> None:
    print(f"summary_table: error: {message}", file=sys.stderr)
    sys.exit(code)


def read(run: str) -> dict:
    path = os.path.join(run, "summary.json")
    try:
        with open(path, encoding="utf-8") as file:
            summary = json.load(file)
        if not isinstance(summary, dict):
            raise ValueError("is no summary")
        return summary
    except FileNotFoundError:
        die(3, f"{path} is missing: the run is not finished, or {run} is no run folder")
    except (OSError, ValueError) as fault:
        die(3, f"{path}: {fault}")


def size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000 or unit == "GB":
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.2f} {unit}"
        num_bytes /= 1000


def cell(value, form) -> str:
    return "-" if value is None else form(value)


def gap(value, first) -> str:
    if value is None or not first:
        return "-"
    return f"{100 * (value / first - 1):+.1f} %"


def labels(runs: list, summaries: list) -> list:
    """The runs' names, or their folders' where two have the same name."""
    names = [s.get("name") or "" for s in summaries]
    if len(set(names)) == len(names) and all(names):
        return names
    return [os.path.basename(os.path.normpath(run)) for run in runs]


def row(label: str, summary: dict, first: dict) -> list:
    loss = summary.get("final_loss")
    return [
        label,
        cell(loss, lambda v: f"{v:.3f}"),
        gap(loss, first.get("final_loss")),
        cell(summary.get("val_loss"), lambda v: f"{v:.3f}"),
        cell(summary.get("wire_bytes_per_step"), size),
        cell(summary.get("compression_ratio"), lambda v: f"{v:.1f} x"),
        cell(summary.get("step_ms_median"), lambda v: f"{v:.0f}"),
        cell(summary.get("wall_s"), lambda v: f"{v:.0f}"),
    ]


def main(runs: list) -> int:
    if not runs or runs[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if runs else 2
    summaries = [read(run) for run in runs]
    head = ["run", "loss", "gap", "val loss", "bytes a step", "ratio", "ms a step", "seconds"]
    table = [head] + [row(label, s, summaries[0]) for label, s in zip(labels(runs, summaries), summaries)]
    widths = [max(len(line[i]) for line in table) for i in range(len(head))]
    for number, line in enumerate(table):
        print("  ".join([line[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(line[1:], widths[1:])]).rstrip())
        if number == 0:
            print("  ".join("-" * w for w in widths))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
