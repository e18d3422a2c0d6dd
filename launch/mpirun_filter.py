#!/usr/bin/env python3
"""Passes a job's stderr through and takes mpirun's own notices out of it.

Usage: mpirun ... 2>&1 >/dev/null | mpirun_filter.py NOTES

mpirun frames its notices with rulers of dashes, 15 lines for what is one fact; with -q it says nothing at all, not even
that it found no program to start. Here the notices go to the file NOTES, each as one line, and launch/run says what
matters in one line. Everything else is passed on as it comes, byte by byte, so that a progress bar still moves.
"""
import os
import re
import sys

RULER = b"-" * 74 + b"\n"
# Unframed remarks of mpirun about its own insides; the framed notice beside them says the same better.
REMARK = re.compile(rb"^(\[[\w.-]+:\d+\] (.*ORTE_ERROR_LOG|\d+ more process(es)? ha|Set MCA parameter).*"
                    rb"|\d+ total process(es)? failed to start)\n", re.M)
REMARK_BEGINS = re.compile(rb"\[[\w.-]*(:(\d+(\].*)?)?)?|\d+( [a-z ]*)?")


def undecided(text: bytes) -> int:
    """How many bytes at the end of text may be the beginning of a ruler or of a remark."""
    line = text[text.rfind(b"\n") + 1:]
    if line and len(line) < 1000 and REMARK_BEGINS.fullmatch(line):
        return len(line)
    for size in range(min(len(RULER) - 1, len(text)), 0, -1):
        if RULER.startswith(text[-size:]):
            return size
    return 0


def main() -> int:
    out = sys.stderr.buffer
    with open(sys.argv[1], "ab", buffering=0) as notes:
        text = b""
        inside = False
        while True:
            chunk = os.read(0, 65536)
            text += chunk
            while (at := text.find(RULER)) >= 0:
                piece, text = text[:at], text[at + len(RULER):]
                if inside:
                    notes.write(re.sub(rb"\s+", b" ", piece).strip() + b"\n")
                else:
                    out.write(REMARK.sub(b"", piece))
                inside = not inside
            if not inside:
                held = undecided(text) if chunk else 0
                out.write(REMARK.sub(b"", text[: len(text) - held]))
                text = text[len(text) - held:]
            out.flush()
            if not chunk:
                return 0


if __name__ == "__main__":
    sys.exit(main())
