"""Validation loss against wall time, a panel for each link rate."""
from .common import COLORS, plain, save


def draw(pyplot, rates, curves, target, out):
    names = list(dict.fromkeys(curve["who"] for curve in curves))
    colors = COLORS if len(names) <= len(COLORS) else [pyplot.get_cmap("turbo")(i / (len(names) - 1)) for i in range(len(names))]
    color = dict(zip(names, colors))
    figure, panels = pyplot.subplots(1, len(rates), figsize=(1.2 + 3.2 * len(rates), 4), sharey=True, squeeze=False)
    for axes, rate in zip(panels[0], rates):
        for curve in (c for c in curves if c["rate"] == rate):
            axes.plot([seconds for seconds, _ in curve["points"]], [loss for _, loss in curve["points"]], color=color[curve["who"]],
                      linewidth=1.8, linestyle=(0, (4, 2)) if curve["torch"] else "-", label=curve["who"])
        if target:
            axes.axhline(target, color="0.4", linewidth=0.9, linestyle=":")
        axes.set_xscale("log")
        axes.set_xlabel("seconds")
        axes.set_title(rate, fontsize=10)
        plain(axes)
    panels[0][0].set_ylabel("validation loss, nats a byte")
    found = {}
    for axes in panels[0]:
        found |= dict(zip(*reversed(axes.get_legend_handles_labels())))
    figure.legend(found.values(), found.keys(), loc="upper center", ncol=min(len(found), 4), frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 0.86))
    save(figure, out)
