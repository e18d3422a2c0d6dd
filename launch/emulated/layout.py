"""What an emulated cluster consists of, and the ip and tc commands that make it. Pure: nothing is run here.

    host namespace tw-NAME-h0            switch namespace tw-NAME-switch
      eth0  10.87.0.1  <--- veth --->  p0 --+
    host namespace tw-NAME-h1               +-- bridge data
      eth0  10.87.0.2  <--- veth --->  p1 --+
      mgmt0 10.88.0.2  <--- veth --->  q1 ----- bridge mgmt0  10.88.0.254

A link's rate holds at both of its ends: what h0 sends waits at h0's eth0, what it is sent waits at p0. On eth0 travels what
the program sends and nothing else: mpirun, ssh and the output of ranks take mgmt0, which has no limit.

With two levels (--topology 2x2) each machine has a bridge of its own, and a limited uplink u0 -- t0 to the bridge between
the machines:

    h0, h1 -- p0, p1 -- bridge m0 -- u0 == t0 -- bridge data -- t1 == u1 -- bridge m1 -- p2, p3 -- h2, h3

All of it lies inside namespaces, the switch too: names and addresses are free of the machine's own and of other clusters',
and deleting the namespaces deletes everything. IPv6 is off on all interfaces, so that nothing but the hosts' own traffic
(and a few 42-byte ARP frames) is counted.
"""
import os
from dataclasses import dataclass

from rates import qdisc_commands, rate_text

DATA_NET, MGMT_NET = "10.87.0.", "10.88.0."
MOST_HOSTS = 200
PREFIX = "tw-"


@dataclass
class Link:
    """A limited link. Its first end is where bytes leave the host (or machine), its second where they come back."""
    label: str       # h0, or m0 for the uplink of a machine
    ends: list       # two pairs (namespace, device)
    rate: object     # bits a second, or UNLIMITED
    delay_us: int    # on the way out

    def commands(self):
        """[(namespace, words after tc)]"""
        return [(namespace, command) for (namespace, device), delay_us in zip(self.ends, (self.delay_us, 0))
                for command in qdisc_commands(device, self.rate, delay_us)]


class Layout:
    """name: of the cluster. num_machines: 0 for one flat network, else the hosts are divided over so many. rates: one per
    host, with machines one per uplink; inner: one per host, with machines only. delay_us: of what has a rate in `rates`."""

    def __init__(self, name, num_hosts, num_machines, rates, inner=None, delay_us=0):
        self.name, self.num_hosts, self.num_machines = name, num_hosts, num_machines
        self.delay_us = delay_us
        self.switch = f"{PREFIX}{name}-switch"
        host_rates = inner if num_machines else rates
        self.host_links = [Link(f"h{i}", [(self.namespace(i), "eth0"), (self.switch, f"p{i}")], host_rates[i],
                                0 if num_machines else delay_us)
                           for i in range(num_hosts)]
        self.uplinks = [Link(f"m{m}", [(self.switch, f"u{m}"), (self.switch, f"t{m}")], rates[m], delay_us)
                        for m in range(num_machines)]

    # What --rate speaks of, and what --inner does.
    @property
    def outer_links(self):
        return self.uplinks or self.host_links

    @property
    def inner_links(self):
        return self.host_links if self.num_machines else []

    def host(self, i):
        return f"h{i}"

    def namespace(self, i):
        return f"{PREFIX}{self.name}-h{i}"

    def address(self, i):
        return f"{DATA_NET}{i + 1}"

    def management_address(self, i):
        return f"{MGMT_NET}{i + 1}"

    def namespaces(self):
        return [self.switch] + [self.namespace(i) for i in range(self.num_hosts)]

    def machine(self, i):
        return i * self.num_machines // self.num_hosts

    def describe(self):
        rates = ",".join(rate_text(link.rate) for link in self.outer_links)
        if len(set(rates.split(","))) == 1:
            rates = rates.split(",")[0]
        if self.delay_us:
            rates += f" with {self.delay_us / 1000:g} ms"
        if not self.num_machines:
            return f"{self.num_hosts} hosts at {rates}"
        inner = ",".join(sorted({rate_text(link.rate) for link in self.inner_links}))
        return (f"{self.num_machines} machines of {self.num_hosts // self.num_machines} hosts, {inner} inside, "
                f"{rates} between")

    def ip_commands(self):
        """[(namespace, [words after ip])] that build the network, in order; the namespaces exist already."""
        switch = [*up("lo"), *bridge("data"), *bridge("mgmt0"), f"addr add {MGMT_NET}254/24 dev mgmt0"]
        for m in range(self.num_machines):
            switch += [*bridge(f"m{m}"), f"link add dev u{m} type veth peer name t{m}",
                       *port(f"u{m}", f"m{m}"), *port(f"t{m}", "data")]
        hosts = []
        for i in range(self.num_hosts):
            switch += [f"link add dev p{i} type veth peer name eth0 netns {self.namespace(i)}",
                       f"link add dev q{i} type veth peer name mgmt0 netns {self.namespace(i)}",
                       *port(f"p{i}", f"m{self.machine(i)}" if self.num_machines else "data"), *port(f"q{i}", "mgmt0")]
            inside = up("lo")
            for device, address in (("eth0", self.address(i)), ("mgmt0", self.management_address(i))):
                inside += [f"addr add {address}/24 dev {device}", *up(device)]
            hosts.append((self.namespace(i), inside))
        return [(self.switch, switch)] + hosts

    def hosts_file(self, management):
        """/etc/hosts inside: names are eth0's addresses for the hosts, mgmt0's for the launcher."""
        address = self.management_address if management else self.address
        lines = ["127.0.0.1 localhost", f"{MGMT_NET}254 switch"]
        return "\n".join(lines + [f"{address(i)} {self.host(i)}" for i in range(self.num_hosts)]) + "\n"


def bridge(name):
    """As plain as a switch: no spanning tree, no listening for groups, which would send frames of their own."""
    return [f"link add dev {name} type bridge stp_state 0 mcast_snooping 0", *up(name)]


def up(device):
    # Without an IPv6 address it does not send router solicitations either.
    quiet = [f"link set dev {device} addrgenmode none"] if os.path.exists("/proc/net/if_inet6") and device != "lo" else []
    return quiet + [f"link set dev {device} up"]


def port(device, master):
    return [f"link set dev {device} master {master}", *up(device)]
