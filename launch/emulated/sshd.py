"""A real sshd on every host (--ssh), for a program that wants to be started over ssh: mpirun as it is used on a true cluster.

Keys, settings and the list of known hosts are made for the cluster and lie in its folder; nothing of ~/.ssh is read or
written. The servers listen on mgmt0 at a port of their own. They end with the namespaces' processes.
"""
import os
import shutil
import subprocess
import time

from errors import ClusterError

PORT = 2222  # of a network that nobody else is in
PATIENCE_S = 10


def find_sshd():
    found = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if not found or not shutil.which("ssh-keygen") or not shutil.which("ssh"):
        raise ClusterError(3, "--ssh: no sshd; as root run: apt-get install -y openssh-server openssh-client")
    return found


def write(path, text, mode=0o600):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        file.write(text)


def make_files(folder, ranks_per_host):
    """Keys and settings. The client's are in ssh/config: ssh -F ssh/config h0."""
    layout = folder.network.layout
    os.makedirs(folder.file("ssh"), mode=0o700, exist_ok=True)
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"tightwire {folder.name}", "-f", folder.file("ssh", key)],
                       check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    shutil.copy(folder.file("ssh", "user_key.pub"), folder.file("ssh", "authorized_keys"))
    with open(folder.file("ssh", "host_key.pub"), encoding="utf-8") as file:
        public = " ".join(file.read().split()[:2])
    names = ",".join(f"[{name}]:{PORT}" for i in range(layout.num_hosts) for name in (layout.host(i), layout.management_address(i)))
    write(folder.file("ssh", "known_hosts"), f"{names} {public}\n")
    write(folder.file("ssh", "config"), "\n".join([
        "Host *", f"  Port {PORT}", "  User root", f"  IdentityFile {folder.file('ssh', 'user_key')}", "  IdentitiesOnly yes",
        f"  UserKnownHostsFile {folder.file('ssh', 'known_hosts')}", "  GlobalKnownHostsFile /dev/null",
        "  StrictHostKeyChecking yes", "  BatchMode yes", "  LogLevel ERROR"]) + "\n")
    for i in range(layout.num_hosts):
        write(folder.file("ssh", f"sshd_config.{layout.host(i)}"), "\n".join([
            f"Port {PORT}", f"ListenAddress {layout.management_address(i)}", f"HostKey {folder.file('ssh', 'host_key')}",
            f"AuthorizedKeysFile {folder.file('ssh', 'authorized_keys')}", f"PidFile {folder.file('ssh', layout.host(i) + '.pid')}",
            "PermitRootLogin prohibit-password", "PasswordAuthentication no", "KbdInteractiveAuthentication no", "UsePAM no",
            "StrictModes no", "PrintMotd no", "Subsystem sftp internal-sftp",
            # ssh carries no environment; what every process of a cluster has, these have too.
            "SetEnv " + " ".join(f"{key}={value}" for key, value in folder.variables().items())]) + "\n")
    write(folder.file("ssh", "hostfile"), "".join(f"{layout.host(i)} slots={ranks_per_host}\n" for i in range(layout.num_hosts)))


def start(folder, enter, ranks_per_host):
    """Makes the files, the host file with so many slots each, and starts the servers; returns when all of them answer."""
    sshd = find_sshd()
    # sshd's own folder of privilege separation; its package makes it at boot.
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    make_files(folder, ranks_per_host)
    layout = folder.network.layout
    for i in range(layout.num_hosts):
        config, log = folder.file("ssh", f"sshd_config.{layout.host(i)}"), folder.file("ssh", f"{layout.host(i)}.log")
        done = subprocess.run([enter, layout.namespace(i), layout.host(i), folder.file("hosts"), sshd, "-f", config, "-E", log],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise ClusterError(3, f"--ssh: sshd on {layout.host(i)}: {last_line(log) or done.stderr.strip()}")
    for i in range(layout.num_hosts):
        wait_until_listening(folder, layout.host(i))


def wait_until_listening(folder, host):
    """sshd goes into the background before it listens; it writes its process id after."""
    limit = time.monotonic() + PATIENCE_S
    while not os.path.exists(folder.file("ssh", f"{host}.pid")):
        if time.monotonic() > limit:
            fault = last_line(folder.file("ssh", f"{host}.log")) or "it wrote no log"
            raise ClusterError(3, f"--ssh: sshd on {host} did not start: {fault}")
        time.sleep(0.01)


def last_line(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return (file.read().strip().splitlines() or [""])[-1]
    except OSError:
        return ""
