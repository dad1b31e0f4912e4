"""Child processes of a benchmark."""

from __future__ import annotations

import subprocess


def end(process: subprocess.Popen[str]) -> None:
    """Kill ``process`` where it still runs, and close its pipes: nothing goes on behind the user's back."""
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
