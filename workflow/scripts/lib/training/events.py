"""The learning curve as an event file of TensorBoard, where the package is installed, while the training runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path


def event_log(folder: str | Path, rows: list[list], seconds: float) -> Callable[[list], None]:
    """Start the event file of `folder` with the rows of the learning curve so far; returns what appends one more.

    It replaces those of the training before it was interrupted, so that no point is there twice; a TensorBoard that
    is running drops these at the mark of a new session. `seconds`: of training so far. Without the package, nothing.
    """
    if find_spec("tensorboard") is None:
        return lambda row: None
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    folder, started = Path(folder), time.time() - seconds
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    file = folder / f"events.out.tfevents.{time.time_ns()}"

    def write(**event) -> None:
        with file.open("ab") as records:
            RecordWriter(records).write(Event(**event).SerializeToString())

    def add(row: list) -> None:
        iteration, loss, rate, dice, seconds = row
        shown = {"loss": loss, "lr": rate, "validation_dice": dice}
        values = [Summary.Value(tag=k, simple_value=v) for k, v in shown.items() if v is not None]
        write(wall_time=started + seconds, step=iteration, summary=Summary(value=values))

    write(wall_time=started, file_version="brain.Event:2")
    write(wall_time=started, step=0, session_log=SessionLog(status=SessionLog.START))
    for row in rows:
        add(row)
    return add
