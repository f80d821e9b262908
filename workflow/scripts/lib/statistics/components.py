"""How much trainings, patients and the rest vary: the table of variance components."""

from __future__ import annotations

import pandas as pd

from lib.statistics.means import estimate_means
from lib.statistics.table import SITUATION, Situation

COMPONENTS = [
    *SITUATION, "method", "architecture", "loss", "structure", "metric", "n_seeds", "n_patients", "sd_training",
    "sd_training_low", "sd_training_high", "sd_patient", "sd_patient_low", "sd_patient_high", "sd_residual",
    "sd_residual_low", "sd_residual_high",
]  # fmt: skip


def components(parts: list[Situation], level: float = 0.95) -> pd.DataFrame:
    """Standard deviations between trainings, between patients and of the rest, with intervals at `level`.

    One row per method, structure and metric, in the metric's units; NaN where fewer than 3 seeds cannot tell. Patients
    are compared within folds, so their component is NaN where folds are so small that this leaves fewer than 5 degrees
    of freedom.
    """
    rows = []
    for part in parts:
        for i, structure in enumerate(part.structures):
            for j, metric in enumerate(part.metrics):
                each = estimate_means(part.scores[j, i], part.folds)
                table = part.methods.assign(**part.name, structure=structure, metric=metric)
                table = table.assign(n_seeds=each.n_seeds, n_patients=each.n_patients)
                for name, values in each.components(level).items():
                    for suffix, value in zip(("", "_low", "_high"), values, strict=True):
                        table[f"sd_{name}{suffix}"] = value
                rows.append(table[table["n_patients"] > 0])
    return pd.concat(rows, ignore_index=True)[COMPONENTS] if rows else pd.DataFrame(columns=COMPONENTS)
