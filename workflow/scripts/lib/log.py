"""The log file of a rule's script: everything it says, and the plain message of a fault of data or configuration."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from lib.errors import BadInput


@contextlib.contextmanager
def logged(path: str | Path) -> Iterator[Callable[[str], None]]:
    """Send standard output, standard error and tracebacks to the file `path`.

    The redirection is of file descriptors, so that compiled code and child processes are caught as well. On an
    exception the terminal gets one message, with the log's path, and the process exits with 1. Yields a function that
    writes a message to both.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    terminal = os.dup(2)
    with path.open("w", buffering=1) as file:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

        def say(text: str) -> None:
            print(text)
            os.write(terminal, f"{text}\n".encode())

        try:
            yield say
        except Exception as error:
            traceback.print_exc()
            message = str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}"
            os.write(terminal, f"\n{message}\n(full log: {path})\n\n".encode())
            sys.exit(1)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
