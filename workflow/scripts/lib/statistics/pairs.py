"""What else there is to say on paired differences: effect size, wins, tests over patients, the study that would do.

The tests here know patients only: seeds are averaged, so they say how sure one may be of these trainings, not of the
methods. They are descriptive; `Means.p_values` decides.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import special

from lib.statistics.means import MIN_SEEDS, MIN_WITHIN_DF, Means

POWER = 0.8
MOST = 1000  # seeds or patients; a study that needs more counts as impossible
_COUNTED = 13  # patients of whom all sign flips are counted
_FLIPS = 9999  # random ones, for more patients


def over_seeds(differences: np.ndarray) -> np.ndarray:
    """Mean over common trainings: (K, seeds, patients), NaN if absent, to (K, patients); rounding errors become 0."""
    seen = ~np.isnan(differences)
    with np.errstate(invalid="ignore"):
        return np.round(np.where(seen, differences, 0.0).sum(1) / seen.sum(1), 12)


def effect_size(differences: np.ndarray) -> np.ndarray:
    """Mean over patients divided by the standard deviation, Cohen's d_z; `differences` (K, patients), NaN if absent."""
    mean, deviation = _over_patients(differences)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(mean == 0, 0.0, mean / deviation) + 0 * deviation


def wins(differences: np.ndarray, direction: int) -> np.ndarray:
    """Share of patients in whom the first is better, ties count half; `direction` 1 where higher is better, or -1."""
    sign = np.sign(direction * differences)
    with np.errstate(invalid="ignore"):
        return np.nansum((sign + 1) / 2, 1) / (~np.isnan(sign)).sum(1)


def wilcoxon(differences: np.ndarray) -> np.ndarray:
    """Two-sided p-values of SciPy's signed-rank test without zeros; 1 where all are 0, NaN without patients.

    Exact up to 50 patients without ties and up to 13 with ties (which SciPy counts too, in a second each).
    """
    from scipy import stats  # slow to import

    result = np.full(len(differences), np.nan)
    for k, row in enumerate(differences):
        present = ~np.isnan(row)
        row = row[present & (row != 0)]
        ranks = np.sign(row) * stats.rankdata(np.abs(row))
        if len(row) == 0:
            result[k] = 1.0 if present.any() else np.nan
        elif len(row) <= _COUNTED and len(np.unique(np.abs(row))) < len(row):
            result[k] = sign_flips(ranks[None])[0]
        else:
            result[k] = stats.wilcoxon(row).pvalue
    return result


def sign_flips(differences: np.ndarray, seed: int = 0) -> np.ndarray:
    """Two-sided p-values of the paired permutation test of the mean; NaN without patients.

    All 2^n ways to flip signs are counted up to 13 patients, otherwise 9999 random ones and the observed one.
    """
    n = differences.shape[1]
    if n <= _COUNTED:
        flips = 1.0 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    else:
        flips = np.random.default_rng(seed).choice([-1.0, 1.0], size=(_FLIPS + 1, n))
        flips[0] = 1.0
    observed = np.abs(np.nansum(differences, 1))
    scale = np.nansum(np.abs(differences), 1)
    extreme = np.zeros(len(differences))
    for some in np.array_split(flips, len(flips) // 1000 + 1):
        extreme += (np.abs(some @ np.nan_to_num(differences).T) >= observed - 1e-12 * scale).sum(0)
    return np.where(np.isnan(differences).all(1), np.nan, extreme / len(flips))


def studies_needed(pairs: Means, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Seeds (per fold), and patients, with which each pair is separated at its measured difference with 80 % power.

    As one claim, by the test of `Means.p_values` at 1 - level and the components of `pairs`, not moderated; the other
    number and the folds stay as they are. At least 3 seeds, and 5 patients more than folds, are recommended.
    Infinite where no number up to 1000 is enough, NaN where too few seeds leave the components unknown.
    """
    known = pairs.seeds_enough & (pairs.n_patients >= 2)
    seeds = pairs.value_share * pairs.n_patients
    seeds = np.where(known, 1 / np.where(seeds > 0, seeds, np.nan), np.nan)  # effective number per patient
    with np.errstate(divide="ignore", invalid="ignore"):
        folds = np.nan_to_num(np.round(1 / (pairs.training_share * seeds)))
    fewest = folds.astype(int) + MIN_WITHIN_DF
    return (
        _smallest(lambda s, k: _power(pairs, k, s, pairs.n_patients[k], seeds[k], level), known, MIN_SEEDS),
        _smallest(lambda p, k: _power(pairs, k, seeds[k], p, seeds[k], level), known, fewest),
    )


def _smallest(power, known: np.ndarray, least: int | np.ndarray) -> np.ndarray:
    """The smallest whole number from `least` to MOST with enough power, by bisection."""
    result = np.full(len(known), np.nan)
    rows = np.flatnonzero(known)
    possible = power(np.full(len(rows), float(MOST)), rows) >= POWER
    result[rows[~possible]] = np.inf
    rows = rows[possible]
    low, high = np.broadcast_to(least, len(known))[rows] - 1, np.full(len(rows), MOST)
    while len(rows) and (high - low > 1).any():
        middle = np.clip(np.sqrt(low * high).astype(int), low + 1, np.maximum(high - 1, low + 1))
        enough = power(middle.astype(float), rows) >= POWER
        high, low = np.where(enough, np.minimum(middle, high), high), np.where(enough, low, np.maximum(middle, low))
    result[rows] = high
    return result


def _power(
    pairs: Means, some: np.ndarray, seeds: np.ndarray, patients: np.ndarray, seeds_now: np.ndarray, level: float
) -> np.ndarray:
    """Power of the pairs `some` had there been this many seeds and patients, at the measured components.

    The half width of the interval at the expected components is taken for a t quantile times the standard error, which
    tells its degrees of freedom, and the power is that of a t-test with those. Exact where trainings or patients alone
    vary, and close in between (docs/statistics.md).
    """
    a, b, r = (c[some] for c in (pairs.training_variance, pairs.patient_variance, pairs.residual_variance))
    folds_alike = 1 / (pairs.training_share[some] * seeds_now)
    training = np.maximum(a - r, 0) * seeds_now / seeds
    patient = np.maximum(b - r, 0) * pairs.n_patients[some] / patients
    residual = r / pairs.value_share[some] / (seeds * patients)
    df = seeds - 1
    within = patients - np.round(folds_alike)
    planned = replace(
        pairs,
        mean=pairs.mean[some],
        training_variance=training + residual,
        patient_variance=patient + residual,
        residual_variance=residual,
        training_df=df * (df * folds_alike + 2) / (df + 2),  # the mean of Satterthwaite's, folds alike
        patient_df=np.where(within < MIN_WITHIN_DF, patients - 1, within),
        n_patients=patients,
    )
    error = np.sqrt(training + patient + residual)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = planned.half_widths(level) / error
        df = np.clip(special.stdtridf((1 + level) / 2, np.maximum(t, special.ndtri((1 + level) / 2) + 1e-6)), 1, 1e6)
        shift = np.minimum(np.abs(planned.mean) / error, 30)  # beyond, SciPy has no number
        power = 1 - special.nctdtr(df, shift, t) + np.nan_to_num(special.nctdtr(df, shift, -t))
    return np.where(error > 0, power, planned.mean != 0)


def _over_patients(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of rows; NaN where fewer than 2 patients leave none."""
    present = ~np.isnan(differences)
    n = present.sum(1)
    mean = np.nansum(differences, 1) / np.where(n, n, np.nan)
    square = np.nansum((differences - mean[:, None]) ** 2, 1)
    return mean, np.sqrt(square / np.where(n > 1, n - 1, np.nan))
