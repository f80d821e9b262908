"""Which process controls a run: Snakemake's lock of the folder says that there was one, not whether it still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil

from lib.files import read_json, write_json


def note_controller(note: str | Path) -> None:
    """Write down that this process controls the run."""
    write_json(note, {"host": socket.gethostname(), "pid": os.getpid(), "since": psutil.Process().create_time()})


def controller_is_gone(note: str | Path) -> bool:
    """Whether the noted controller has ended for sure; nothing is sure of one on another machine, or without a note."""
    try:
        noted = read_json(note)
    except FileNotFoundError:
        return False
    if noted["host"] != socket.gethostname():
        return False
    try:
        process = psutil.Process(noted["pid"])
        return abs(process.create_time() - noted["since"]) > 1 or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
