"""A cluster's folder in /run/tightwire-cluster: its description, the lock of whoever uses it, and files for what runs in it.

    NAME/lock          held (flock) while it is made, used or removed; the kernel frees it when the holder dies, however it does
    NAME/cluster.json  the layout, the rates of now, kept (made by --up) and ready
    NAME/hosts, hosts.mgmt   /etc/hosts for the hosts and for the launcher
    NAME/files/        of one run: control socket, mpirun's session files, output of ranks
    NAME/ssh/          keys and settings of --ssh

Making the folder claims the name: mkdir is atomic. A cluster that nobody holds is a leftover unless it is kept and ready.
"""
import fcntl
import json
import os
import shutil

from errors import ClusterError
from layout import Layout
from network import Network

HOME = "/run/tightwire-cluster"


def names():
    try:
        return sorted(entry.name for entry in os.scandir(HOME) if entry.is_dir())
    except FileNotFoundError:
        return []


class ClusterFolder:
    def __init__(self, name):
        self.name = name
        self.path = os.path.join(HOME, name)
        self.network = None
        self.kept = self.ready = self.ssh = False
        self.lock = None

    def file(self, *parts):
        return os.path.join(self.path, *parts)

    @property
    def control(self):
        """Path of the control socket of the run that holds the cluster."""
        return self.file("files", "control")

    def variables(self):
        """What every process inside has in its environment."""
        return {"TIGHTWIRE_CLUSTER": self.name, "TIGHTWIRE_CLUSTER_FOLDER": self.path, "TIGHTWIRE_CLUSTER_CONTROL": self.control}

    # ---- making and opening

    @classmethod
    def claim(cls, layout, kept):
        """A new folder, locked. The name must be free, both as a folder and as namespaces."""
        folder = cls(layout.name)
        try:
            os.makedirs(HOME, exist_ok=True)
            os.mkdir(folder.path, 0o700)
        except FileExistsError:
            raise ClusterError(2, f"there is a cluster '{layout.name}' already; launch/cluster --list shows them") from None
        except OSError as fault:
            raise ClusterError(3, f"{HOME}: {fault.strerror}") from None
        folder.hold()
        folder.kept = kept
        folder.network = Network(layout, on_rates=folder.write)
        taken = folder.network.taken()
        if taken:
            shutil.rmtree(folder.path, ignore_errors=True)
            raise ClusterError(2, f"network namespace '{taken[0]}' exists and is not ours; choose another --name")
        for file, management in (("hosts", False), ("hosts.mgmt", True)):
            with open(folder.file(file), "w", encoding="utf-8") as out:
                out.write(layout.hosts_file(management))
        folder.write()
        return folder

    @classmethod
    def open(cls, name):
        """Of an existing cluster, not locked."""
        folder = cls(name)
        try:
            with open(folder.file("cluster.json"), encoding="utf-8") as file:
                saved = json.load(file)
        except FileNotFoundError:
            known = ", ".join(names()) or "none"
            raise ClusterError(2, f"there is no cluster '{name}'; known: {known}") from None
        layout = Layout(name, saved["num_hosts"], saved["num_machines"], saved["rates"], saved["inner"], saved["delay_us"])
        folder.kept, folder.ready, folder.ssh = saved["kept"], saved["ready"], saved["ssh"]
        folder.network = Network(layout, on_rates=folder.write)
        return folder

    def write(self):
        layout = self.network.layout
        saved = {"num_hosts": layout.num_hosts, "num_machines": layout.num_machines,
                 "rates": [link.rate for link in layout.outer_links], "inner": [link.rate for link in layout.inner_links],
                 "delay_us": layout.delay_us, "kept": self.kept, "ready": self.ready, "ssh": self.ssh}
        with open(self.file("cluster.json.new"), "w", encoding="utf-8") as file:
            json.dump(saved, file)
        os.replace(self.file("cluster.json.new"), self.file("cluster.json"))

    # ---- the lock

    def hold(self):
        """False when somebody else holds it. The descriptor is not inherited by what we start."""
        lock = open(self.file("lock"), "w", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        self.lock = lock
        return True

    def held(self):
        """Does somebody hold it now?"""
        if not self.hold():
            return True
        self.release()
        return False

    def release(self):
        if self.lock:
            self.lock.close()
            self.lock = None

    # ---- the end

    def fresh_files(self):
        """An empty folder for one run."""
        shutil.rmtree(self.file("files"), ignore_errors=True)
        os.mkdir(self.file("files"))

    def drop_files(self):
        shutil.rmtree(self.file("files"), ignore_errors=True)

    def remove(self):
        """REQUIRES: held. Processes, namespaces and the folder."""
        self.network.remove()
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()


def leftovers():
    """Clusters whose tool was killed, locked for the caller."""
    found = []
    for name in names():
        folder = ClusterFolder(name)
        try:
            if not folder.hold():
                continue
        except FileNotFoundError:
            continue  # removed meanwhile
        try:
            opened = ClusterFolder.open(name)
        except (ClusterError, ValueError, KeyError):
            # Killed between mkdir and the first write: nothing was made yet.
            shutil.rmtree(folder.path, ignore_errors=True)
            folder.release()
            continue
        if opened.kept and opened.ready:
            folder.release()
            continue
        opened.lock = folder.lock
        found.append(opened)
    return found
