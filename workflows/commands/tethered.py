"""Runs a command that must not outlive whoever holds the other end of our standard input, however that one ends.

A program of its own, `python -P tethered.py SCRATCH COMMAND…`, which removes the folder SCRATCH (if not empty text)
with the command's end; needs the standard library alone.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading

PATIENCE_S = 5.0


def main() -> int:
    scratch, *command = sys.argv[1:]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_wait_for_the_end_of_input, args=[process], daemon=True).start()
    code = process.wait()
    _end(process)  # its children, which would go on listening
    if scratch:
        shutil.rmtree(scratch, ignore_errors=True)
    return code


def _wait_for_the_end_of_input(process: subprocess.Popen) -> None:
    sys.stdin.buffer.read()
    _end(process)


def _end(process: subprocess.Popen) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_S)


if __name__ == "__main__":
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # what ends us is the end of our input
    sys.exit(main())
