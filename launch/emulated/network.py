"""Makes, changes, reads and removes the namespaces of a Layout with iproute2. A Network never touches a namespace that is
not in its layout."""
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

from errors import ClusterError
from rates import parse_rates

NAMESPACES = "/run/netns"  # where `ip netns` keeps the names


def require_tools():
    for tool, package in (("ip", "iproute2"), ("tc", "iproute2"), ("unshare", "util-linux"), ("setpriv", "util-linux")):
        if not shutil.which(tool):
            raise ClusterError(3, f"no {tool}; as root run: apt-get install -y {package}")
    if os.geteuid() != 0:
        raise ClusterError(2, "network namespaces need root; run it as root or with sudo")


def run_tool(command, text=None):
    """The output of ip or tc; its first complaint becomes the error."""
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode == 0:
        return done.stdout
    said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("Command failed")]
    fault = said[0] if said else f"exit code {done.returncode}"
    if "not permitted" in done.stderr or "ermission denied" in done.stderr:
        raise ClusterError(3, f"this machine does not let root make network namespaces ({fault}); a container needs "
                              "CAP_SYS_ADMIN and CAP_NET_ADMIN")
    if "netem" in (text or "") and "qdisc" in done.stderr:
        raise ClusterError(3, f"--delay: this kernel has no network emulator (sch_netem): {fault}")
    if "qdisc" in done.stderr or "No such file" in done.stderr and command[0] == "tc":
        raise ClusterError(3, f"this kernel has no token bucket filter (sch_tbf): {fault}")
    raise ClusterError(70, f"{' '.join(command)}: {fault}")


def batch(tool, namespace, commands):
    if commands:
        run_tool([tool, "-n", namespace, "-batch", "-"], "\n".join(commands) + "\n")


def by_namespace(pairs):
    grouped = {}
    for namespace, command in pairs:
        grouped.setdefault(namespace, []).append(command)
    return grouped.items()


class Network:
    def __init__(self, layout, on_rates=lambda: None):
        """on_rates is called after the rates have changed."""
        self.layout = layout
        self.on_rates = on_rates
        self.changing = threading.Lock()

    def script(self):
        """The commands of create(), to be read by people."""
        lines = [f"ip netns add {namespace}" for namespace in self.layout.namespaces()]
        for namespace, commands in self.layout.ip_commands():
            lines += [f"ip -n {namespace} {command}" for command in commands]
        return lines + [f"tc -n {namespace} {command}" for namespace, command in self.rate_commands()]

    def rate_commands(self):
        return [pair for link in self.layout.host_links + self.layout.uplinks for pair in link.commands()]

    def create(self):
        """REQUIRES: taken() was empty. On failure call remove()."""
        for namespace in self.layout.namespaces():
            run_tool(["ip", "netns", "add", namespace])
        for namespace, commands in self.layout.ip_commands():
            batch("ip", namespace, commands)
        self.apply_rates()

    def taken(self):
        """Names of ours that exist, made by whomever."""
        return [name for name in self.layout.namespaces() if os.path.exists(os.path.join(NAMESPACES, name))]

    def apply_rates(self):
        for namespace, commands in by_namespace(self.rate_commands()):
            batch("tc", namespace, commands)

    def set_rates(self, text, inner=False):
        """Thread safe; when it returns, every link has its new rate. What waits in a queue stays there, but for a link
        that becomes unlimited or limited: TCP then sends it again."""
        with self.changing:
            links = self.layout.inner_links if inner else self.layout.outer_links
            if not links:
                raise ClusterError(2, "inner rates belong to --topology; this cluster is flat")
            each = "host" if inner or not self.layout.num_machines else "machine"
            for link, rate in zip(links, parse_rates(text, len(links), each, "inner" if inner else "rate")):
                link.rate = rate
            for namespace, commands in by_namespace(pair for link in links for pair in link.commands()):
                batch("tc", namespace, commands)
            self.on_rates()

    def counters(self):
        """Per link {label: {tx_bytes, rx_bytes, tx_packets, rx_packets}} since it was made, as its host (its
        machine, for an uplink) sends and receives."""
        found = {}
        links = self.layout.host_links + self.layout.uplinks
        for namespace in {link.ends[0][0] for link in links}:
            for device in json.loads(run_tool(["ip", "-n", namespace, "-s", "-j", "link", "show"])):
                found[namespace, device["ifname"]] = device.get("stats64", {})
        out = {}
        for link in links:
            stats = found[link.ends[0]]
            out[link.label] = {f"{way}_{what}": stats[way][what] for what in ("bytes", "packets") for way in ("tx", "rx")}
        return out

    def processes(self):
        pids = set()
        for namespace in self.taken():
            pids.update(int(pid) for pid in run_tool(["ip", "netns", "pids", namespace]).split())
        return pids - {os.getpid()}

    def end_processes(self):
        """Ends what still runs in the namespaces: TERM, after two seconds KILL."""
        for signum, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
            limit = time.monotonic() + patience
            pids = self.processes()
            for pid in pids:
                try:
                    os.kill(pid, signum)
                except ProcessLookupError:
                    pass
            while pids and time.monotonic() < limit:
                time.sleep(0.02)
                pids = self.processes()
            if not pids:
                return

    def remove(self):
        """Ends the processes inside and deletes the namespaces; what is in them goes with them. Idempotent."""
        self.end_processes()
        for namespace in self.taken():
            try:
                run_tool(["ip", "netns", "del", namespace])
            except ClusterError as fault:
                print(f"cluster: {fault}", file=sys.stderr)
