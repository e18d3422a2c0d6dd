"""What went over the links while a command ran, in a table and as JSON; beside it what a training run counted itself."""
import json
import os
import re
import sys

from errors import ClusterError
from rates import rate_text

# Ethernet 14, IPv4 20, TCP 20 with 12 of time stamps: of each packet that the interface counts, an acknowledgement or not.
# (An interface without a limit counts the large packets that the kernel cuts later, and their one header.)
HEADER_BYTES = 66
KEYS = ("tx_bytes", "rx_bytes", "tx_packets", "rx_packets")


def difference(before, after):
    return {label: {key: after[label][key] - before[label][key] for key in KEYS} for label in after}


def size(num_bytes):
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.2f} {unit}"
    return f"{num_bytes} B"


def link_rows(layout, moved):
    rows = []
    for kind, links in (("host", layout.host_links), ("uplink", layout.uplinks)):
        rows += [{"kind": kind, "link": link.label, "rate": rate_text(link.rate), **moved[link.label]} for link in links]
    return rows


def table(rows):
    lines = [["link", "rate", "sent", "received", "packets"]]
    lines += [[row["link"], row["rate"], size(row["tx_bytes"]), size(row["rx_bytes"]),
               str(row["tx_packets"] + row["rx_packets"])] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return ["  ".join([line[0].ljust(widths[0])] + [cell.rjust(w) for cell, w in zip(line[1:], widths[1:])]) for line in lines]


# ---- a training run's own count

class TrainCount:
    """What rank 0 of a `train` command counts in its metrics.jsonl as wire_bytes. Made before the run, asked after it."""

    def __init__(self, arguments):
        """arguments: from `train` on."""
        given = [a.split("=", 1)[1] for a in arguments if a.startswith("run.dir=")][-1:]
        config = next((a for a in arguments[1:] if "=" not in a and not a.startswith("-")), None)
        self.folder = given[0] if given else config and config_run_dir(config)
        self.before = {folder: metrics_size(folder) for folder in self.candidates()}

    def candidates(self):
        """The folder named by the user, or else all in runs/, where the program makes one."""
        if self.folder:
            return [self.folder]
        return [entry.path for entry in os.scandir("runs") if entry.is_dir()] if os.path.isdir("runs") else []

    def result(self):
        """{run_dir, steps, wire_bytes}, or None: no metrics of this run, more than one run wrote some meanwhile, or not
        every step is in them (metrics.every > 1)."""
        grown = [folder for folder in self.candidates() if metrics_size(folder) > self.before.get(folder, 0)]
        if len(grown) != 1:
            return None
        steps, total = [], 0
        with open(os.path.join(grown[0], "metrics.jsonl"), "rb") as file:
            file.seek(self.before.get(grown[0], 0))
            for line in file:
                try:
                    record = json.loads(line)
                    steps.append(record["step"])
                    total += record["wire_bytes"]
                except (ValueError, KeyError, TypeError):
                    continue  # the line that a killed run was writing
        if not steps or len(steps) != steps[-1] - steps[0] + 1:
            return None
        return {"run_dir": grown[0], "steps": len(steps), "wire_bytes": total}


def metrics_size(folder):
    try:
        return os.path.getsize(os.path.join(folder, "metrics.jsonl"))
    except OSError:
        return 0


def config_run_dir(path):
    """run.dir of a TOML file, if it stands there as a plain string; the program itself reads the file with all rigour."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            section = ""
            for line in file:
                if header := re.match(r"\s*\[\s*([\w.]+)\s*\]", line):
                    section = header[1]
                elif section == "run" and (value := re.match(r'\s*dir\s*=\s*"([^"]*)"', line)):
                    return value[1]
    except OSError:
        pass
    return None


def write(path, report):
    try:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
            file.write("\n")
    except OSError as fault:
        raise ClusterError(3, f"--report {path}: {fault.strerror}") from None


def finish(options, layout, arguments, code, seconds, moved, train):
    """The table on stderr, unless -q; the file, if there is to be one. train: TrainCount.result()."""
    rows = link_rows(layout, moved)
    report = {"hosts": layout.num_hosts, "ranks_per_host": options.ranks_per_host, "machines": layout.num_machines,
              "command": arguments, "exit_code": code, "wall_s": round(seconds, 3), "links": rows}
    lines = table(rows)
    if train:
        # Of a host with several ranks only one is counted, and what they tell each other goes through memory.
        if options.ranks_per_host == 1 and train["wire_bytes"]:
            sent = moved["h0"]
            headers = HEADER_BYTES * sent["tx_packets"]
            train.update(link_bytes=sent["tx_bytes"], header_bytes=headers,
                         link_over_expected=round(sent["tx_bytes"] / (train["wire_bytes"] + headers), 4))
            lines.append(f"rank 0 counted {size(train['wire_bytes'])} as wire_bytes in {train['steps']} steps; {size(headers)} are "
                         f"headers of {sent['tx_packets']} packets; h0 sent {train['link_over_expected']:.4f} of the sum")
        report["train"] = train
    if not options.quiet:
        for line in lines:
            say(line)
    if options.report:
        write(options.report, report)


def say(text):
    print(f"cluster: {text}", file=sys.stderr)
