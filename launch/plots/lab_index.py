"""runs/lab/index.html: every verdict and every picture of the lab in one file that needs neither a server nor a network."""
import glob
import html
import json
import os
import re

from .common import COLORS, die
from .lab import GRID, INK, PAPER

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --dim: #57606a; --line: #d8dee4; --soft: #f6f8fa; --link: #0550ae;
  --good: #116329; --bad: #b3151c; --warn: #7d4e00; GOODCOLORS }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e4e8ec; --dim: #9aa4ae; --line: #363d45; --soft: #1d2227;
  --link: #79b8ff; --good: #5fd07a; --bad: #ff8080; --warn: #e8b14a; DARKCOLORS } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 74rem; padding: 1.5rem 1.2rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 0; }
a { color: var(--link); } p { margin: .3rem 0; } .dim { color: var(--dim); }
section { border-top: 1px solid var(--line); margin-top: 2.2rem; padding-top: 1.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .8rem 0; font-size: .92em; }
th { text-align: left; font-weight: 600; color: var(--dim); } th, td { padding: .28rem .9rem .28rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.v { white-space: nowrap; font-weight: 600; } .PASS { color: var(--good); } .FAIL { color: var(--bad); } .not { color: var(--warn); }
.reported { color: var(--dim); font-weight: 400 !important; }
code { font: .9em ui-monospace, "DejaVu Sans Mono", monospace; background: var(--soft); padding: .1em .35em; border-radius: 3px; }
figure { margin: 1rem 0 0; overflow-x: auto; } svg { width: 100%; min-width: 44rem; height: auto; } svg text { fill: currentColor; }
""".strip()
# The colours of the drawings, and what they are on a dark page.
DARK = ["#4aa8e8", "#f0803c", "#2fc79a", "#e29cc6", "#f0b429", "#8ccdf5"]
VERDICTS = [("PASS", "PASS"), ("FAIL", "FAIL"), ("does not hold here", "not"), ("reported", "reported")]


def read_records(folder):
    """What each experiment left, by name; files that are none of ours are named and passed over by the caller."""
    records, broken = [], []
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "*", "claims.json"))):
        try:
            with open(path, encoding="utf-8") as file:
                record = json.load(file)
            for claim in record["claims"]:
                claim["claim"], claim["verdict"], claim["threshold"], claim["measured"], claim["values"]  # noqa: B018
            record["folder"] = os.path.dirname(path)
            record["experiment"], record["paper"], record["arxiv"], record["command"], record["seconds"]  # noqa: B018
            records.append(record)
        except (OSError, ValueError, KeyError, TypeError):
            broken.append(path)
    return records, broken


def text(value):
    return html.escape(str(value), quote=True)


def short(value):
    """A measured number, which JSON has as text where it is not finite."""
    return text(value) if isinstance(value, str) else f"{value:.4g}"


def spread(claim):
    """Over the seeds; nothing of one."""
    return f"± {short(claim['std'])}" if claim.get("seeds", 1) > 1 and isinstance(claim.get("std"), (int, float)) else ""


def worst(claim):
    return short(claim["worst"]) if claim.get("seeds", 1) > 1 and "worst" in claim else ""


def what(claim):
    """The claim, and what of the seeds was judged or told where it is not their mean."""
    return claim["claim"] + ("" if claim.get("of", "mean") == "mean" else f" ({claim['of']})")


def seeds_of(claim):
    values = claim["values"]
    if len(values) == 1:
        return "1 seed" if claim.get("seeds", 1) == 1 else f"{claim['seeds']} seeds"
    if len(values) <= 6:
        return ", ".join(short(v) for v in values)
    finite = [v for v in values if not isinstance(v, str)]
    return f"{len(values)} values, {short(min(finite))} to {short(max(finite))}" if finite else f"{len(values)} values"


def counts(records):
    """'5 PASS, 1 FAIL' with colours."""
    parts = []
    for verdict, style in VERDICTS:
        n = sum(claim["verdict"] == verdict for record in records for claim in record["claims"])
        if n:
            parts.append(f'<span class="{style}">{n} {"do not hold here" if verdict[0] == "d" and n > 1 else verdict}</span>')
    broken = sum("error" in record for record in records)
    if broken:
        parts.append(f'<span class="FAIL">{broken if len(records) > 1 else ""} could not run</span>')
    return ", ".join(parts) or '<span class="dim">no claims</span>'


def inline(path):
    """The drawing in the page's own colours, which are dark where the reader's are."""
    try:
        with open(path, encoding="utf-8") as file:
            svg = file.read()
    except OSError:
        return ""
    svg = svg[svg.find("<svg"):]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'^<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" xmlns:xlink="http://www.w3.org/1999/xlink" role="img">', svg, flags=re.S)
    for i, color in enumerate(COLORS[:-1]):
        svg = svg.replace(color.lower(), f"var(--c{i})")
    svg = svg.replace(INK, "currentColor").replace(GRID, "var(--line)").replace(PAPER, "var(--paper)")
    # A hundredth of a point is less than a pixel.
    svg = re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m.group(0)):.2f}", svg)
    # Names are of one drawing each; only those that are pointed at stay.
    pointed = set(re.findall(r'#([\w-]+)', svg))
    svg = re.sub(r' id="([\w.-]+)"', lambda m: m.group(0) if m.group(1) in pointed else "", svg)
    return f"<figure>{svg.strip()}</figure>"


def arxiv_numbers(record):
    return [number for number in re.split(r"[,;\s]+", record["arxiv"]) if number]


def paper_of(record):
    links = ", ".join(f'<a href="https://arxiv.org/abs/{text(number)}">{text(number)}</a>' for number in arxiv_numbers(record))
    link = f" (arXiv {links})" if links else ""
    return text(record["paper"]) + link


def section(record):
    name = text(record["experiment"])
    out = [f'<section id="{name}"><h2>{name}</h2>', f"<p>{paper_of(record)}</p>",
           f'<p class="dim"><code>{text(record["command"])}</code> {record["seconds"]:.1f} s{", quick: one seed" if record.get("quick") else ""}</p>']
    if "error" in record:
        out.append(f'<p class="FAIL">Could not run: {text(record["error"])}</p>')
    if record["claims"]:
        out.append('<div class="scroll"><table><tr><th>verdict</th><th>claim</th><th class="n">measured</th><th class="n">std</th><th class="n">worst</th><th>wanted</th><th>each seed</th></tr>')
        styles = dict(VERDICTS)
        for claim in record["claims"]:
            why = claim.get("does_not_hold_here", "")
            why = f'<br><span class="dim">{text(why)}</span>' if why and not claim.get("pass") else ""
            wanted = "" if claim["verdict"] == "reported" else text(claim["threshold"])
            out.append(f'<tr><td class="v {styles.get(claim["verdict"], "not")}">{text(claim["verdict"])}</td><td>{text(what(claim))}{why}</td>'
                       f'<td class="n">{short(claim["measured"])}</td><td class="n">{spread(claim)}</td><td class="n">{worst(claim)}</td><td>{wanted}</td><td class="dim">{seeds_of(claim)}</td></tr>')
        out.append("</table></div>")
    out.append(inline(os.path.join(record["folder"], "plot.svg")))
    return "\n".join(out) + "</section>"


def write(folder, records):
    style = STYLE.replace("GOODCOLORS", " ".join(f"--c{i}: {c};" for i, c in enumerate(COLORS[:-1])))
    style = style.replace("DARKCOLORS", " ".join(f"--c{i}: {c};" for i, c in enumerate(DARK)))
    claims = sum(len(record["claims"]) for record in records)
    rows = [f'<tr><td><a href="#{text(r["experiment"])}">{text(r["experiment"])}</a></td><td>{counts([r])}</td><td>{paper_of(r)}</td>'
            f'<td class="n">{r["seconds"]:.1f} s</td></tr>' for r in records]
    page = ["<!doctype html>", '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>tightwire lab</title><style>{style}</style></head><body>", "<h1>tightwire lab</h1>",
            f"<p>{len(records)} experiments, {claims} claims: {counts(records)}</p>",
            '<p class="dim">Measured is the mean over the seeds, and that is judged; beside it the standard deviation and the worst value. A claim with several problems is as bad as the worst of their means. "(every seed)": each value is judged. A claim that does not hold here is known not to hold at this scale; its row says why.</p>',
            '<div class="scroll"><table><tr><th>experiment</th><th>verdicts</th><th>paper</th><th class="n">time</th></tr>', *rows, "</table></div>",
            *[section(record) for record in records], "</body></html>"]
    path = os.path.join(folder, "index.html")
    try:
        with open(path + ".tmp", "w", encoding="utf-8") as file:
            file.write("\n".join(page) + "\n")
        os.replace(path + ".tmp", path)
    except OSError as fault:
        die(3, f"cannot write {path}: {fault.strerror}")
    print(path)
