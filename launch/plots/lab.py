"""An experiment of the lab: error against rounds, uplink and all that is sent, from its curves.csv. The line is the median over seeds, the
band all of them; a column of panels for each of the three, a row for each variant."""
import csv
import json
import math
import os
import statistics

from .common import COLORS, die, plain, save

# Told apart without colour too. The first four dashes and markers look the least alike.
DASHES = ["-", (0, (5, 2)), (0, (1, 1.3)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1))]
MARKERS = ["o", "s", "^", "D", "v", "X", "P", "*"]
# So unlike any other that the index page finds them in the drawing and lets its own theme choose.
INK, GRID, PAPER = "#1a1b1c", "#d9dadb", "#fefefd"
ROW_LIMIT = 6  # as many lines go into one panel before variants get rows
POINT_LIMIT = 120  # of a line: more cannot be seen, and the page carries them all


class Series:
    """One label: points of all seeds, by round."""

    def __init__(self, label):
        self.label = label
        self.method, _, self.variant = label.partition(", ")
        self.runs = {}  # seed -> [(round, uplink, total, value)], finite values only
        self.diverged = False

    def prepare(self):
        """points: (round, uplink, total, median, least, greatest) wherever was measured. A seed that ended early counts as infinite."""
        at = {}
        for run in self.runs.values():
            for point in run:
                at.setdefault(point[0], []).append(point)
        self.diverged = self.diverged or len({run[-1][0] if run else -1 for run in self.runs.values()}) > 1
        self.points = []
        turns = sorted(at)
        if len(turns) > POINT_LIMIT:
            turns = turns[:-1:-(-len(turns) // POINT_LIMIT)] + turns[-1:]
        for turn in turns:
            values = [point[3] for point in at[turn]]
            middle = statistics.median(values + [math.inf] * (len(self.runs) - len(values)))
            if not math.isfinite(middle):
                break
            self.points.append((turn, statistics.median(p[1] for p in at[turn]), statistics.median(p[2] for p in at[turn]), middle,
                                min(values), max(values)))


def plot_of(folder):
    """What claims.json wants drawn: metric, from_start, lines, training."""
    try:
        with open(os.path.join(folder, "claims.json"), encoding="utf-8") as file:
            wanted = json.load(file).get("plot", {})
    except (OSError, ValueError, AttributeError):
        wanted = {}
    return {"metric": "", "from_start": False, "lines": [], "training": False, **wanted}


def read(path, wanted="", from_start=False):
    """({label: Series}, metric, number of tuning series) of the metric `wanted`, or of the first one of each series. from_start: less
    what each seed had at its first point."""
    series, metrics = {}, {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                label = row["series"]
                if wanted and row["metric"] != wanted and math.isfinite(float(row["value"])):
                    continue
                if metrics.setdefault(label, row["metric"]) != row["metric"]:
                    continue
                one, value = series.setdefault(label, Series(label)), float(row["value"])
                run = one.runs.setdefault(row["seed"], [])
                if math.isfinite(value):
                    run.append((int(row["round"]), 8 * int(row["uplink_bytes"]), 8 * int(row["total_bytes"]), value))
                else:
                    one.diverged = True
    except OSError as fault:
        die(3, f"{path}: {fault.strerror}")
    except (ValueError, KeyError, TypeError):
        die(3, f"{path} is not the curves.csv of an experiment")
    if wanted and not any(run for one in series.values() for run in one.runs.values()):
        die(3, f"{path} has no metric {wanted}")
    if from_start:
        for one in series.values():
            one.runs = {seed: [(*p[:3], p[3] - run[0][3]) for p in run] for seed, run in one.runs.items()}
    shown = {label: one for label, one in series.items() if not one.variant.startswith("tuning")}
    if not shown:
        shown = series
    # Two ends without a middle are no curve.
    shown = {label: one for label, one in shown.items() if max(map(len, one.runs.values())) > 2 - one.diverged}
    names = {metrics[label] for label in shown}
    metric = " or ".join(sorted(names)).replace("_", " ")
    return shown, metric + (", less that of the start" if from_start else ""), len(series) - len(shown)


def rows_of(series):
    """[(title, {name in the legend: Series})]: everything in one row, or a row for each variant. What has no variant is in each of them."""
    variants = {}
    for one in series.values():
        variants.setdefault(one.variant, {})[one.method] = one
    if len(series) <= ROW_LIMIT or len(variants) == 1 or max(len(row) for row in variants.values()) == 1:
        return [("", series)]
    common = variants.pop("", {}) if len(variants) > 1 else {}
    return [(title, {**common, **row}) for title, row in variants.items()]


def bit_unit(largest):
    for unit, scale in (("Gbit", 1e9), ("Mbit", 1e6), ("kbit", 1e3)):
        if largest >= scale:
            return unit, scale
    return "bit", 1.0


def limits(row):
    """(log, low, high) of the error axis: log where it falls far enough; what explodes leaves at the top."""
    values = [v for one in row.values() for point in one.points for v in point[3:]]
    starts = [one.points[0][3] for one in row.values() if one.points]
    positive = [v for v in values if v > 0]
    if not positive or min(values) < 0 or max(positive) < 3 * min(positive):
        return False, None, None
    top = min(max(positive), 1e3 * max(starts)) if max(starts) > 0 else max(positive)
    low = max(min(positive), 1e-24 * top)
    room = 2 if top > 100 * low else 1.2
    return True, low / room, room * top


def draw_panel(axes, row, styles, column, error, wanted):
    log_y, low, high = error
    ends = [one.points[-1][column] for one in row.values() if one.points]
    unit, scale = ("", 1.0) if column == 0 else bit_unit(max(ends, default=0))
    log_x = column > 0 and len(ends) > 1 and min(ends) > 0 and max(ends) > 4 * min(ends)
    for place, (name, one) in enumerate(row.items()):
        points = [p for p in one.points if not log_x or p[column] > 0]
        if not points:
            continue
        x = [p[column] / scale for p in points]
        # A zero leaves a log axis at the bottom.
        middle, least, greatest = ([max(v, 1e-3 * low) if log_y else v for v in (p[i] for p in points)] for i in (3, 4, 5))
        style = styles[name]
        if len(one.runs) > 1:
            axes.fill_between(x, least, greatest, color=style["color"], alpha=0.2, linewidth=0)
        # Markers of neighbours beside one another, not on top.
        every = max(1, len(x) // 6)
        axes.plot(x, middle, linewidth=1.6, markersize=4.5, markevery=(place * every // max(1, len(row)), every), **style)
        if one.diverged:
            end = next((i for i, v in enumerate(middle) if log_y and v > high), len(x) - 1)  # where it leaves
            axes.plot(x[end], min(middle[end], high / 1.3) if log_y else middle[end], marker="x", markersize=9, markeredgewidth=2,
                      color=style["color"], linestyle="none", clip_on=False)
    if log_y:
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        if high < 200 * low:  # one or two powers of ten are too few to read a value by
            axes.yaxis.get_minor_locator().set_params(subs=(2, 3, 5))
            axes.yaxis.set_minor_formatter(lambda v, _: f"{v:g}")
            axes.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
            axes.tick_params(axis="y", which="minor", labelsize=8)
    if log_x:
        axes.set_xscale("log")
    elif column == 0:
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=5)
    else:
        axes.xaxis.get_major_locator().set_params(nbins=5)
    for line in wanted["lines"]:
        axes.axhline(line, color=INK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    turn, senders = ("steps", "payloads of all ranks") if wanted["training"] else ("rounds", "uplink of all clients")
    both = f"sent by all ranks ({unit})" if wanted["training"] else f"sent in all, both ways ({unit})"
    axes.set_xlabel([turn, f"{senders} ({unit})", both][column])
    plain(axes)
    axes.grid(True, which="major", color=GRID, linewidth=0.8)


def draw(pyplot, folder, out):
    """Draws folder/curves.csv; False where it has nothing to draw."""
    wanted = plot_of(folder)
    series, metric, left_out = read(os.path.join(folder, "curves.csv"), wanted["metric"], wanted["from_start"])
    if not series:
        return False
    name = os.path.basename(os.path.normpath(folder))
    rows = rows_of(series)
    for one in series.values():
        one.prepare()
    names = list(dict.fromkeys(label for _, row in rows for label in row))
    colors = COLORS[:-1] + [INK]
    styles = {label: {"color": colors[i % len(colors)], "linestyle": DASHES[i % len(DASHES)], "marker": MARKERS[i % len(MARKERS)]}
              for i, label in enumerate(names)}
    pyplot.rcParams.update({"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"], "svg.hashsalt": name, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK,
                            "ytick.color": INK, "axes.edgecolor": INK, "axes.facecolor": PAPER, "figure.facecolor": PAPER,
                            "savefig.facecolor": PAPER})
    columns = [0, 1, 2] if any(one.points and one.points[-1][2] > 0 for one in series.values()) else [0]
    wide = 0.8 + 3.7 * len(columns)
    per_line = max(1, min(len(names), int(wide / (0.75 + 0.09 * max(map(len, names))))))
    legend_lines = -(-len(names) // per_line)
    head = 0.3 + 0.19 * legend_lines
    tall = head + (3.1 if len(rows) == 1 else 2.6 * len(rows))
    figure, panels = pyplot.subplots(len(rows), len(columns), figsize=(wide, tall), sharey="row", squeeze=False)
    for (title, row), line in zip(rows, panels):
        error = limits(row)
        for column, axes in zip(columns, line):
            draw_panel(axes, row, styles, column, error, wanted)
        line[0].set_ylabel(metric)
        if title:
            line[0].set_title(title, fontsize=10, loc="left")
    handles = [pyplot.Line2D([], [], linewidth=1.6, markersize=4.5, **styles[label]) for label in names]
    gone = {label for _, row in rows for label, one in row.items() if one.diverged}
    labels = [f"{label} (\N{MULTIPLICATION SIGN} diverges)" if label in gone else label for label in names]
    seeds = max(len(one.runs) for one in series.values())
    caption = f"{name}: " + ("one seed" if seeds == 1 else f"median of {seeds} seeds, band from least to greatest")
    if wanted["lines"]:
        caption += "; dotted: " + ", ".join(f"{line:g}" for line in wanted["lines"])
    if left_out:
        caption += f"; {left_out} more series in curves.csv"
    figure.text(0.01, 1 - 0.1 / tall, caption, fontsize=10, va="top", ha="left")
    figure.legend(handles, labels, loc="upper left", bbox_to_anchor=(0.005, 1 - 0.28 / tall), ncol=per_line, frameon=False, fontsize=9,
                  handlelength=3.2, borderaxespad=0, borderpad=0.2, labelspacing=0.35)
    # In inches, where tight_layout would draw everything once more: labels on the left, titles and the labels of axes between rows.
    top, bottom, gap = head + (0.3 if rows[0][0] else 0.1), 0.55, 0.85
    height = (tall - top - bottom - gap * (len(rows) - 1)) / len(rows)
    figure.subplots_adjust(left=0.85 / wide, right=1 - 0.15 / wide, bottom=bottom / tall, top=1 - top / tall, wspace=0.1, hspace=gap / height)
    save(figure, out, quiet=True)
    pyplot.close(figure)
    return True
