"""What the tests of the whole program share: tiny configs, mpirun, rank processes, result files.

A test file ends in harness.main(). It is started as

    python3 FILE.py PROGRAM MPIRUN [unittest arguments, e.g. Class.test_name]

with label-slow sizes when TIGHTWIRE_SLOW=1. Each test has a folder of its own, every wait has a limit, and every
process is ended by its own id.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM = ""
MPIRUN = ""
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
SLOW = os.environ.get("TIGHTWIRE_SLOW") == "1"

# A model that steps in a few milliseconds; no file is read.
TINY = {
    "data.path": "synthetic",
    "data.context": "32",
    "model.layers": "1",
    "model.width": "32",
    "model.heads": "2",
    "train.steps": "10",
    "train.batch_size": "2",
    "train.threads": "1",
    "comm.check_replicas_every": "1",
    "comm.timeout_s": "30",
    "metrics.sinks": '["jsonl"]',
}

ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
    "OMP_NUM_THREADS": "1",
}


def overrides(**changes):
    """TINY with changes (run__dir="x" is run.dir=x) as command-line words."""
    keys = dict(TINY)
    for name, value in changes.items():
        keys[name.replace("__", ".")] = str(value)
    return [f"{k}={v}" for k, v in keys.items()]


def poll(condition, what, limit_s=30.0):
    """The first true value of condition(); fails after limit_s."""
    end = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {limit_s} s in vain for {what}")
        time.sleep(0.005)


def exists(pid):
    """Whether the process runs; one that only waits to be collected does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def send(pid, what):
    try:
        os.kill(pid, what)
    except ProcessLookupError:
        pass


class Job:
    """A started command. Use as a context manager: nothing of it outlives the block."""

    def __init__(self, command, folder, env=None, preexec=None):
        self.folder = folder
        self.command = command
        self.out = tempfile.TemporaryFile()
        self.err = tempfile.TemporaryFile()
        self.seen = {}
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.err,
            env={**os.environ, **ENVIRONMENT, **(env or {})}, preexec_fn=preexec)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pids = [self.process.pid, *self.descendants()]
        for what, limit_s in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 10.0)):
            for pid in pids:
                if exists(pid):
                    send(pid, signal.SIGCONT)
                    send(pid, what)
            end = time.monotonic() + limit_s
            while any(exists(p) for p in pids) and time.monotonic() < end:
                self.process.poll()
                time.sleep(0.005)
        self.process.wait()
        self.out.close()
        self.err.close()

    def descendants(self):
        """Process ids below the command, the ones seen before included while they live."""
        parents = {}
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as stat:
                    parents[int(name)] = int(stat.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        for pid in found[1:]:
            self.seen.setdefault(pid, None)
        return [pid for pid in self.seen if exists(pid)]

    def ranks(self):
        """{rank: process id} of the program's running ranks."""
        out = {}
        for pid in self.descendants():
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    text = file.read()
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    is_program = file.read().split(b"\0")[0].endswith(os.path.basename(PROGRAM).encode())
            except OSError:
                continue
            rank = re.search(rb"(?:^|\0)OMPI_COMM_WORLD_RANK=(\d+)", text)
            if rank and is_program:
                out[int(rank.group(1))] = pid
        return out

    def text(self, file):
        file.flush()
        file.seek(0)
        return file.read().decode(errors="replace")

    def wait(self, limit_s=60.0):
        """The exit code (negative: a signal's), stdout and stderr, once the command has ended."""
        try:
            code = self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"hangs: {' '.join(self.command)} after {limit_s} s\n{self.text(self.err)}") from None
        return Result(code, self.text(self.out), self.text(self.err), time.monotonic() - self.start)


class Result:
    def __init__(self, code, out, err, seconds):
        self.code, self.out, self.err, self.seconds = code, out, err, seconds

    def lines(self):
        """The program's own lines on stderr (the launcher's notices are not)."""
        return [line for line in self.err.splitlines() if re.match(r"(tightwire|launch/run|run): ", line)]


class ProgramTest(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="tightwire-test-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def command(self, ranks, arguments, wrapper=None):
        program = ([wrapper] if wrapper else []) + [PROGRAM, *arguments]
        if ranks is None:
            return program
        return [MPIRUN, "--oversubscribe", "--bind-to", "none", "-np", str(ranks), *program]

    def start(self, ranks, arguments, wrapper=None, env=None, preexec=None):
        return Job(self.command(ranks, arguments, wrapper), self.folder, env, preexec)

    def run_program(self, ranks, arguments, limit_s=60.0, **more):
        with self.start(ranks, arguments, **more) as job:
            return job.wait(limit_s)

    def train(self, ranks, expect=0, limit_s=60.0, wrapper=None, env=None, preexec=None, **changes):
        """A training run of the tiny model; fails unless it ends with `expect`."""
        result = self.run_program(ranks, ["train", *overrides(**changes)], limit_s, wrapper=wrapper,
                                  env=env, preexec=preexec)
        self.assertEqual(result.code, expect, result.err)
        return result

    def summary(self, run_dir):
        with open(self.path(run_dir, "summary.json"), encoding="utf-8") as file:
            return json.load(file)

    def metrics(self, run_dir):
        """The records written so far; a torn last line is left out."""
        try:
            with open(self.path(run_dir, "metrics.jsonl"), encoding="utf-8") as file:
                text = file.read()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text[:text.rfind("\n") + 1].splitlines()]

    def write(self, name, content, mode=0o644):
        path = self.path(name)
        with open(path, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        os.chmod(path, mode)
        return path

    def one_line(self, result, *needles):
        """Exactly one line of the program tells of the error, and it has all the needles in it."""
        telling = [line for line in result.lines()
                   if not re.match(r"tightwire: \d+ (ranks|parameters) ", line)]
        self.assertEqual(len(telling), 1, result.err)
        for needle in needles:
            self.assertRegex(telling[0], needle)
        return telling[0]


def main():
    global PROGRAM, MPIRUN
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    PROGRAM, MPIRUN = os.path.abspath(sys.argv[1]), sys.argv[2]
    unittest.main(module="__main__", argv=[sys.argv[0], *sys.argv[3:]], verbosity=2)
