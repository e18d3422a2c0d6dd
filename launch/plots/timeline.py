"""One step of a run as rows of bars: what the main thread, the lane thread and each bucket on the wire did, from trace.rank*.json."""
import glob
import json
import os
import re

from .common import die, plain, save

# In the order of the legend.
COLORS = {"forward": "#56B4E9", "backward": "#0072B2", "wait": "#D55E00", "optimizer": "#CC79A7", "check": "0.75", "encode": "#009E73",
          "wire": "#E69F00", "decode": "#9AD0B8", "agree": "0.45"}
MEANING = {"wait": "wait (exposed)", "check": "check for NaN", "agree": "agree (all ranks finite)"}
MAIN, LANE = 0, 1


class Trace:
    """spans: dicts name, row (MAIN, LANE or None for the wire), bucket, begin, end in ms from the step's start."""

    def __init__(self, folder, rank, step):
        path = os.path.join(folder, f"trace.rank{rank}.json")
        try:
            with open(path, encoding="utf-8") as file:
                events = [event for event in json.load(file)["traceEvents"] if event["ph"] == "X"]
        except OSError as fault:
            others = sorted(re.findall(r"trace\.rank(\d+)\.json", " ".join(glob.glob(os.path.join(folder, "trace.rank*.json")))))
            hint = f"; there are those of ranks {', '.join(others)}" if others else "; train with metrics.trace_steps=100:103 to have it written"
            die(3, f"{path}: {fault.strerror}{hint}")
        except (ValueError, KeyError, TypeError):
            die(3, f"{path} is not a trace of tightwire")
        whole = {event["args"]["step"]: event for event in events if event["name"] == "step"}
        if not whole:
            die(3, f"{path} has no whole step")
        # Without a wish the one of median length: the first may still make connections.
        self.step = step or sorted(whole, key=lambda s: whole[s]["dur"])[len(whole) // 2]
        if self.step not in whole:
            die(2, f"--step is {self.step}; {path} has {', '.join(map(str, sorted(whole)))}")
        start = whole[self.step]["ts"]
        self.ms = whole[self.step]["dur"] / 1e3
        self.spans = [{"name": e["name"], "row": e["tid"] if e["tid"] in (MAIN, LANE) else None, "bucket": e["args"].get("bucket"),
                       "begin": (e["ts"] - start) / 1e3, "end": (e["ts"] + e["dur"] - start) / 1e3}
                      for e in events if e["args"]["step"] == self.step and e["name"] != "step"]

    def sum_ms(self, name):
        return sum(span["end"] - span["begin"] for span in self.spans if span["name"] == name)


def wire_rows(trace):
    """{bucket: row}: as few rows as there are buckets on the wire at once."""
    first, last = {}, {}
    for span in trace.spans:
        if span["row"] is None:
            first[span["bucket"]] = min(first.get(span["bucket"], span["begin"]), span["begin"])
            last[span["bucket"]] = max(last.get(span["bucket"], span["end"]), span["end"])
    rows, free_at = {}, []
    for bucket in sorted(first, key=first.get):
        row = next((i for i, at in enumerate(free_at) if at <= first[bucket]), len(free_at))
        free_at[row:row + 1] = [last[bucket]]
        rows[bucket] = row
    return rows


def draw(pyplot, folder, rank, step, out):
    trace = Trace(folder, rank, step)
    rows = wire_rows(trace)
    count = 2 + max(rows.values(), default=-1) + 1
    figure, axes = pyplot.subplots(figsize=(11, 1.5 + 0.55 * count))
    for span in trace.spans:
        row = span["row"] if span["row"] is not None else 2 + rows[span["bucket"]]
        width = span["end"] - span["begin"]
        axes.barh(row, width, left=span["begin"], height=0.7, color=COLORS[span["name"]], edgecolor="white", linewidth=0.4)
    for bucket, row in rows.items():
        mine = [span for span in trace.spans if span["row"] is None and span["bucket"] == bucket]
        begin, end = min(s["begin"] for s in mine), max(s["end"] for s in mine)
        if end - begin > trace.ms / 40:
            axes.text((begin + end) / 2, 2 + row, str(bucket), ha="center", va="center", fontsize=8)
    axes.set_yticks(range(count), ["main thread", "lane thread", *(f"bucket on the wire" if i == 0 else "another" for i in range(count - 2))])
    axes.invert_yaxis()
    axes.set_xlim(0, trace.ms)
    axes.set_xlabel("ms from the start of the step")
    plain(axes, grid="x")
    names = [name for name in COLORS if any(span["name"] == name for span in trace.spans)]
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=COLORS[name]) for name in names]
    labels = [f"{MEANING.get(name, name)} {trace.sum_ms(name):.1f} ms" for name in names]
    figure.legend(handles, labels, loc="lower center", ncol=5, frameon=False, fontsize=9)
    name = os.path.basename(os.path.normpath(folder))
    axes.set_title(f"{name}, rank {rank}, step {trace.step}: {trace.ms:.1f} ms", loc="left", fontsize=10)
    figure.tight_layout(rect=(0, 0.1 if count > 3 else 0.13, 1, 1))
    save(figure, out or os.path.join(folder, "timeline.png"))
