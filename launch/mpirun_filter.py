#!/usr/bin/env python3
"""Passes a job's stderr through and takes what mpirun itself says out of it.

Usage: mpirun --mca state_base_verbose 1 ... 2>&1 >/dev/null | mpirun_filter.py NOTES

mpirun frames its notices with rulers of dashes, 15 lines for what is one fact; with -q it says nothing at all, not even
that it found no program to start. And about one time in thirty it forgets to say which rank was killed; its state changes
(state_base_verbose) tell that always. Both go to the file NOTES, a line each, and launch/run says what matters in one line.
Everything else is passed on as it comes, byte by byte, so that a progress bar still moves.
"""
import os
import re
import sys

RULER = b"-" * 74 + b"\n"
# mpirun's unframed lines. They may follow a rank's unfinished line, so they are looked for anywhere.
STATE = re.compile(rb"\[[\w.-]+:\d+\] \[\[\d+,\d+\],\d+\] (?:ACTIVATE|ORTE_ERROR_LOG)[^\n]*\n"
                   rb"|\[[\w.-]+:\d+\] (?:\d+ more process(?:es)? ha|Set MCA parameter|plm:rsh: Warning)[^\n]*\n"
                   rb"|\d+ total process(?:es)? failed to start\n")
STATE_BEGINS = re.compile(rb"\[[\w.-]*(:\d*(\]( (\[[^\n]*)?)?)?)?$")
KILLED = re.compile(rb"ACTIVATE PROC \[\[\d+,\d+\],(\d+)\] STATE ABORTED BY SIGNAL")


def undecided(text: bytes) -> int:
    """How many bytes at the end of text may be the beginning of a ruler or of a state line."""
    begun = STATE_BEGINS.search(text, max(0, len(text) - 1000))
    if begun:
        return len(text) - begun.start()
    for size in range(min(len(RULER) - 1, len(text)), 0, -1):
        if RULER.startswith(text[-size:]):
            return size
    return 0


def main() -> int:
    out = sys.stderr.buffer
    with open(sys.argv[1], "ab", buffering=0) as notes:

        def note(match) -> bytes:
            killed = KILLED.search(match.group())
            if killed:
                notes.write(b"killed: rank " + killed.group(1) + b"\n")
            return b""

        text = b""
        inside = False
        while True:
            chunk = os.read(0, 65536)
            text += chunk
            while (at := text.find(RULER)) >= 0:
                piece, text = STATE.sub(note, text[:at]), text[at + len(RULER):]
                if inside:
                    notes.write(re.sub(rb"\s+", b" ", piece).strip() + b"\n")
                else:
                    out.write(piece)
                inside = not inside
            if not inside:
                held = undecided(text) if chunk else 0
                out.write(STATE.sub(note, text[: len(text) - held]))
                text = text[len(text) - held:]
            out.flush()
            if not chunk:
                return 0


if __name__ == "__main__":
    sys.exit(main())
