"""Runs a command on a made cluster, in one of three ways: tightwire under launch/run, one process per rank with PyTorch's
environment, or any program once in the launcher's place."""
import os
import queue
import signal
import subprocess
import sys
import threading

from errors import ClusterError, Interrupted

HERE = os.path.dirname(os.path.abspath(__file__))
LAUNCH_RUN = os.path.join(os.path.dirname(HERE), "run")
ENTER = os.path.join(HERE, "enter")
AGENT = os.path.join(HERE, "rsh_agent")
STOP_PATIENCE_S = 15

# What makes Open MPI 4 work here at all. ob1 and the tcp transport: anything cleverer (UCX) would find that all hosts share
# one kernel and go around the links. vader is for ranks of one host; Open MPI knows them by their common daemon.
OPEN_MPI = {
    "pml": "ob1",
    "btl": "self,vader,tcp",
    "btl_tcp_if_include": "eth0",
    "oob_tcp_if_include": "mgmt0",
    "plm_rsh_no_tree_spawn": "1",
}


def threads_each(num_ranks):
    return max(1, len(os.sched_getaffinity(0)) // num_ranks)


def environment(folder, num_ranks):
    env = {**os.environ, **folder.variables()}
    env.setdefault("OMP_NUM_THREADS", str(threads_each(num_ranks)))
    return env


def open_mpi_environment(folder):
    agent = f"ssh -F {folder.file('ssh', 'config')}" if folder.ssh else AGENT
    env = {f"OMPI_MCA_{key}": value for key, value in OPEN_MPI.items()}
    env.update(OMPI_MCA_plm_rsh_agent=agent, OMPI_MCA_orte_tmpdir_base=folder.file("files"))
    return env


def host_list(layout, ranks_per_host):
    return ",".join(f"{layout.host(i)}:{ranks_per_host}" for i in range(layout.num_hosts))


def launch_run(layout, options, arguments, dry_run=False):
    """The command line of launch/run."""
    command = [LAUNCH_RUN, "-n", str(layout.num_hosts * options.ranks_per_host), "--no-binding",
               "--hosts", host_list(layout, options.ranks_per_host)]
    if options.restarts is not None:
        command += ["--restarts", options.restarts]
    if options.timeout is not None:
        command += ["--timeout", options.timeout]
    command += ["-q"] * options.quiet + ["--dry-run"] * dry_run
    return command + ["--", *arguments]


def on_switch(folder, command):
    """In the launcher's place: the switch, from where mgmt0 reaches every host. Ends with the tool, even a killed one."""
    return ["setpriv", "--pdeathsig", "TERM", ENTER, folder.network.layout.switch, "switch", folder.file("hosts.mgmt"), *command]


def on_host(folder, i, command):
    layout = folder.network.layout
    return ["setpriv", "--pdeathsig", "KILL", ENTER, layout.namespace(i), layout.host(i), folder.file("hosts"), *command]


def run_tightwire(folder, options, arguments, env):
    """launch/run, which prints and returns what it always does."""
    command = launch_run(folder.network.layout, options, arguments)
    process = subprocess.Popen(on_switch(folder, command), env=env, stdin=subprocess.DEVNULL, start_new_session=True)
    return ended_code(process, "launch/run")


def ended_code(process, what):
    """Waits. The exit code, or 4 after a line when a signal ended it; on an interrupt it is stopped first."""
    try:
        code = process.wait()
    except Interrupted as interrupted:
        stop(process, interrupted.signum)
        raise
    return code if code >= 0 else killed(what, -code)


def stop(process, signum=signal.SIGTERM):
    """Ends a process and its group; STOP_PATIENCE_S for an ordered end."""
    if process.poll() is None:
        process.send_signal(signum)
        try:
            process.wait(STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            pass
    process.kill()  # nothing when it has ended
    process.wait()
    if process.pid != os.getpgrp():
        try:
            os.killpg(process.pid, signal.SIGKILL)  # what it left in its session
        except ProcessLookupError:
            pass


def run_once(folder, command, env):
    """COMMAND on the switch, with our terminal if there is one (a shell wants it). Its exit code."""
    # Elsewhere in a session of its own, so that a Ctrl-C reaches it once, from us.
    process = subprocess.Popen(on_switch(folder, command), env=env, start_new_session=not sys.stdin.isatty())
    return ended_code(process, command[0])


class Rank:
    def __init__(self, number, layout, ranks_per_host):
        self.number = number
        self.host_index, self.local = divmod(number, ranks_per_host)
        self.label = f"rank {number} on {layout.host(self.host_index)}"
        self.output = None
        self.process = None


def rank_environment(rank, layout, ranks_per_host):
    """The variables torchrun sets, and the interface for Gloo, TensorPipe and NCCL."""
    size = layout.num_hosts * ranks_per_host
    return {"RANK": str(rank.number), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank.local),
            "LOCAL_WORLD_SIZE": str(ranks_per_host), "GROUP_RANK": str(rank.host_index), "MASTER_ADDR": layout.address(0),
            "MASTER_PORT": os.environ.get("MASTER_PORT", "29500"), "GLOO_SOCKET_IFNAME": "eth0",
            "TP_SOCKET_IFNAME": "eth0", "NCCL_SOCKET_IFNAME": "eth0"}


def run_each(folder, command, env, ranks_per_host):
    """COMMAND once per rank. Rank 0 has our stdout and stderr; of the others the end is shown for the first that fails.
    When one fails the others are ended. The exit code is 0, or the first failed rank's; 4 when a signal killed it."""
    layout = folder.network.layout
    ranks = [Rank(number, layout, ranks_per_host) for number in range(layout.num_hosts * ranks_per_host)]
    ended = queue.Queue()
    try:
        for rank in ranks:
            if rank.number:
                rank.output = open(folder.file("files", f"rank{rank.number}.txt"), "w+b")
            rank.process = subprocess.Popen(
                on_host(folder, rank.host_index, command), env={**env, **rank_environment(rank, layout, ranks_per_host)},
                stdin=subprocess.DEVNULL, stdout=rank.output, stderr=rank.output and subprocess.STDOUT,
                start_new_session=True)
            threading.Thread(target=lambda r=rank: ended.put((r, r.process.wait())), daemon=True).start()
        for _ in ranks:
            rank, code = ended.get()
            if code != 0:
                return failed_rank(rank, code)
        return 0
    finally:
        for rank in ranks:
            if rank.process:
                rank.process.poll() is None and rank.process.terminate()
        for rank in ranks:
            if rank.process:
                stop(rank.process)
            if rank.output:
                rank.output.close()


def failed_rank(rank, code):
    if rank.output:
        rank.output.seek(max(0, os.fstat(rank.output.fileno()).st_size - 20000))
        for line in rank.output.read().decode(errors="replace").splitlines()[-20:]:
            print(f"[{rank.label}] {line}", file=sys.stderr)
    if code > 0:
        print(f"cluster: error: {rank.label} ended with exit code {code}", file=sys.stderr)
        return code
    return killed(rank.label, -code)


def killed(what, signum):
    print(f"cluster: error: {what} was killed by signal {signum} ({signal.Signals(signum).name})", file=sys.stderr)
    return 4


def check(folder_layout, options, arguments):
    """What launch/run would complain about, before the network is made."""
    done = subprocess.run(launch_run(folder_layout, options, arguments, dry_run=True), capture_output=True, text=True)
    if done.returncode != 0:
        line = done.stderr.strip().splitlines()
        raise ClusterError(done.returncode, line[-1].removeprefix("run: error: ") if line else "launch/run --dry-run failed")
    return done.stdout.strip()
