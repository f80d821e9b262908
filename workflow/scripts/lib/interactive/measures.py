"""What a user's sessions with a method cost and gave, from the table of their rounds. No torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

THRESHOLDS = (0.85, 0.90, 0.95)
AFTER = (0, 1, 3, 5, 10)
# Columns of rounds.csv that differ between the rounds of one session; all others say which session it is.
OF_ROUND = ("interactions", "dice", "hd95", "nsd", "seconds", "scribbled_pixels", "mark", "converged")


def curves(rounds: pd.DataFrame, budget: int, metric: str = "dice") -> pd.DataFrame:
    """`metric` after 0, 1, …, `budget` interactions, the last value carried forward; one row per session.

    `rounds`: as rounds.csv, one row per session and round. The index names the session, by all columns that are not
    OF_ROUND. Raises ValueError where the rounds of a session are not 0, 1, 2, … each once, or go beyond `budget`.
    """
    sessions, number = _sessions(rounds)
    made = rounds["interactions"].to_numpy()
    if (beyond := made > budget).any():
        raise ValueError(f"{_name(sessions, number[beyond][0])}: has more than {budget} interactions")
    times = np.zeros((len(sessions), budget + 1), int)
    np.add.at(times, (number, made), 1)
    if (broken := (np.minimum.accumulate(times, axis=1) != times).any(axis=1) | (times[:, 0] != 1)).any():
        raise ValueError(f"{_name(sessions, broken.argmax())}: its rounds are not 0, 1, 2, … each once")
    values = np.full(times.shape, np.nan)
    values[number, made] = rounds[metric]
    return pd.DataFrame(values, index=sessions).ffill(axis=1)


def measure(rounds: pd.DataFrame, budget: int, thresholds: Sequence[float] = THRESHOLDS) -> pd.DataFrame:
    """One row per session: what it needed and what it reached.

    Columns, behind those that name the session (with T = 85 for a Dice of 0.85):
    noi_T      interactions until the Dice first reaches the threshold, 0 where the box was enough, `budget` where it
               never does; the box is no interaction, and a border with a first scribble is one
    failed_T   whether it never does; the mean of this column is the failure rate
    auc        area under Dice over interactions by trapezoids, divided by `budget`: in [0, 1]
    dice_N     Dice after N of AFTER interactions within the budget, the last value carried forward
    interactions, converged   how many were made, and whether the robot had nothing left to correct
    seconds_per_round         of the machine, mean over the answers to a mark; NaN where none was needed
    scribbled_pixels          that the robot drew in all
    """
    rounds = rounds.reset_index(drop=True)
    wide = curves(rounds, budget)
    dice = wide.to_numpy()
    _, number = _sessions(rounds)
    columns = {}
    for threshold in thresholds:
        reached = dice >= threshold
        columns[f"noi_{threshold * 100:g}"] = np.where(reached.any(axis=1), reached.argmax(axis=1), budget)
        columns[f"failed_{threshold * 100:g}"] = ~reached.any(axis=1)
    columns["auc"] = np.trapezoid(dice, axis=1) / budget
    columns |= {f"dice_{after}": dice[:, after] for after in AFTER if after <= budget}
    last = rounds.loc[rounds.groupby(number)["interactions"].idxmax()]
    columns |= {"interactions": last["interactions"].to_numpy(), "converged": last["converged"].to_numpy()}
    answers = rounds["seconds"].where(rounds["interactions"] > 0)
    columns["seconds_per_round"] = answers.groupby(number).mean().to_numpy()
    columns["scribbled_pixels"] = rounds["scribbled_pixels"].groupby(number).sum().to_numpy()
    return pd.concat([wide.index.to_frame(index=False), pd.DataFrame(columns)], axis=1)


def _sessions(rounds: pd.DataFrame) -> tuple[pd.MultiIndex, np.ndarray]:
    """The sessions in sorted order, and the number of each row's session."""
    grouped = rounds.groupby([column for column in rounds.columns if column not in OF_ROUND], dropna=False)
    return grouped.size().index, grouped.ngroup().to_numpy()


def _name(sessions: pd.MultiIndex, number: int) -> str:
    values = sessions.to_frame(index=False).iloc[number]
    return ", ".join(f"{column} {value}" for column, value in values.items())
