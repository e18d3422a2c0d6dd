"""Step time against link rate for all contenders of a comparison, with its two limits: arithmetic, and each contender's bytes."""
from rates import parse_rate  # launch/emulated: bits a second

from .common import COLORS, plain, save


def draw(pyplot, data, out):
    from matplotlib import ticker

    rates = list(dict.fromkeys(row["rate"] for row in data["medians"]))
    finite = [rate for rate in rates if rate != "unlimited"]
    finite.sort(key=parse_rate)
    place = {rate: parse_rate(rate) for rate in finite}
    if "unlimited" in rates:  # to the right of all others
        place["unlimited"] = 4 * max(place.values(), default=1e9)
    contenders = list(dict.fromkeys(row["contender"] for row in data["medians"]))
    colors = COLORS if len(contenders) <= len(COLORS) else [pyplot.get_cmap("turbo")(i / (len(contenders) - 1)) for i in range(len(contenders))]
    figure, axes = pyplot.subplots(figsize=(8.5, 5))
    for contender, color in zip(contenders, colors):
        rows = sorted((row for row in data["medians"] if row["contender"] == contender), key=lambda row: place[row["rate"]])
        if contender == "alone":
            axes.axhline(min(row["quiet_ms"] for row in rows), color="0.3", linestyle="--", linewidth=1.2, label="limit: arithmetic alone")
            continue
        torch = contender.startswith("torch")
        axes.plot([place[row["rate"]] for row in rows], [row["quiet_ms"] for row in rows], color=color, linewidth=1.8,
                  marker="s" if torch else "o", linestyle=(0, (4, 2)) if torch else "-", label=contender)
        limited = [row for row in rows if row["rate"] != "unlimited" and row["sent_bytes"] > 0]
        axes.plot([place[row["rate"]] for row in limited], [8e3 * row["sent_bytes"] / place[row["rate"]] for row in limited],
                  color=color, linewidth=0.9, linestyle=":")
    axes.plot([], [], color="0.4", linewidth=0.9, linestyle=":", label="limit: its bytes at the link's rate")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda ms, _: f"{ms:g}"))
    least = min(row["quiet_ms"] for row in data["medians"])
    axes.set_ylim(bottom=least / 3)
    axes.set_xticks(list(place.values()), list(place))
    axes.minorticks_off()
    axes.set_xlabel("link of each host")
    axes.set_ylabel("quiet ms a step")
    axes.set_title(f"{data['hosts']} hosts", loc="left", fontsize=10)
    plain(axes)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    save(figure, out)
