"""The process that does a supervised stage of a cell: `python -m lib.child MODULE:FUNCTION JOB.json OUTCOME.json`.

The same line, as found at the head of a stage's log, repeats the stage by hand.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import os
import signal
import sys
import traceback
from pathlib import Path

from lib.errors import BadInput, Diverged
from lib.files import read_json, write_json

PR_SET_PDEATHSIG = 1
DISK_FULL = os.EX_IOERR  # exit status: there may be no room for an outcome


def main(target: str, job: str, outcome: str) -> int:
    _die_with_parent()
    module, _, function = target.partition(":")
    try:
        result = getattr(importlib.import_module(module), function)(read_json(job))
    except Exception as error:
        traceback.print_exc()
        if is_disk_full(error):
            return DISK_FULL
        write_json(outcome, {"ok": False, "reason": _reason(error), "message": f"{error}" or type(error).__name__})
        return 1
    write_json(outcome, {"ok": True, "result": result})
    return 0


def _reason(error: Exception) -> str:
    if isinstance(error, Diverged):
        return "diverged"
    if isinstance(error, BadInput):
        return "bad-input"
    # torch.OutOfMemoryError by name, because most stages never import torch; its CPU allocator raises RuntimeError.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out-of-memory"
    if isinstance(error, RuntimeError) and "not enough memory" in str(error):
        return "out-of-memory"
    return "error"


def is_disk_full(error: BaseException | None) -> bool:
    """Whether the error, or one that it came from, is for want of space or quota."""
    while error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def _die_with_parent() -> None:
    """Have Linux send SIGTERM when the supervisor is killed, so that no orphan trains on beside its successor."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == 1:
            sys.exit("the supervisor is gone")


if __name__ == "__main__":
    Path(sys.argv[3]).unlink(missing_ok=True)
    sys.exit(main(*sys.argv[1:4]))
