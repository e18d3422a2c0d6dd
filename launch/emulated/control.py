"""The control socket of a running cluster, for a program inside that wants other links while it runs, as a bench does that
measures 100mbit and 1gbit in alternating blocks.

TIGHTWIRE_CLUSTER_CONTROL names a stream socket in the file system (it is reached from inside every namespace). A client
connects, sends one line and reads one line:

    rate 100mbit              all links; or one rate per host (per machine): rate 100mbit,10mbit
    inner 10gbit              the links inside the machines of --topology
    bytes                     counters of every link
    ->  ok                    for bytes: ok {"h0": {"tx_bytes": .., "rx_bytes": .., "tx_packets": .., "rx_packets": ..}, ..}
    ->  error: what is wrong

The answer comes when all links have the new rate. Only one rank should ask, between two barriers.
"""
import json
import os
import socket
import threading

from errors import ClusterError


def answer(network, line):
    verb, _, rest = line.strip().partition(" ")
    try:
        if verb in ("rate", "inner"):
            network.set_rates(rest.strip(), inner=verb == "inner")
            return "ok"
        if verb == "bytes":
            return "ok " + json.dumps(network.counters())
    except ClusterError as fault:
        return f"error: {fault}"
    return f"error: '{verb}' is no request; rate, inner and bytes are"


class ControlServer:
    """Answers from a thread until close()."""

    def __init__(self, network, path):
        self.network, self.path = network, path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(path)
        self.socket.listen(8)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return  # closed
            with client:
                client.settimeout(5)  # one that says nothing must not keep the others waiting
                try:
                    line = client.makefile(encoding="utf-8").readline(1000)
                    client.sendall((answer(self.network, line) + "\n").encode())
                except (OSError, ValueError):
                    pass

    def close(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes accept()
        except OSError:
            pass
        self.socket.close()
        self.thread.join(5)
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
