"""What the drawing tools share: matplotlib, colours, and ending with one line."""
import os
import sys

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]


def tool():
    return os.path.basename(sys.argv[0])


def die(code, message):
    print(f"{tool()}: error: {message}", file=sys.stderr)
    sys.exit(code)


NO_MATPLOTLIB = "python3 has no matplotlib; as root run: apt-get install -y python3-matplotlib"


def find_pyplot():
    """matplotlib from this Python, else from the system's (the first in PATH is often a user's own without it), else None."""
    try:
        import matplotlib
    except ImportError:
        system = "/usr/bin/python3"
        if os.path.exists(system) and os.path.realpath(system) != os.path.realpath(sys.executable):
            os.execv(system, [system, os.path.abspath(sys.argv[0])] + sys.argv[1:])
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot
    pyplot.rcParams.update({"font.size": 10, "axes.edgecolor": "0.4"})
    return pyplot


def import_pyplot():
    return find_pyplot() or die(3, NO_MATPLOTLIB)


def plain(axes, grid="both"):
    """Axes without a box, with a light grid behind."""
    axes.grid(True, which="major", axis=grid, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def save(figure, out, quiet=False):
    try:
        figure.savefig(out, dpi=130)
    except (OSError, ValueError) as fault:
        die(3, f"cannot write {out}: {fault}")
    if not quiet:
        print(out)
