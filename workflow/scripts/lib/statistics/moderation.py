"""How much trainings vary, learnt from all methods of a situation together (docs/statistics.md, Moderated variances).

Three trainings in one fold tell the variance of a difference with 2 degrees of freedom. Seven methods have 21 such
variances, so what is plausible is known much better. This is the empirical Bayes of Smyth (2004, Stat Appl Genet Mol
Biol 3:3; "limma"): variances of pairs scatter around a common one like a scaled inverse chi-squared variable with d0
degrees of freedom, and each pair's own estimate is drawn towards the common one with the weight of d0. Three cautions
are added here, for methods do differ in stability. The scatter enters with two standard errors more than estimated
(jackknife over methods), so d0 is small unless methods are seen to be alike; the common variance is the geometric mean
over pairs without limma's reduction for d0; and a pair's variance is never reduced, only its degrees of freedom grow.

Even so a method far more unstable than all others can look calm in three trainings. Over a family of comparisons that
is seldom; in the last step of Holm, one pair at 5 %, it is not. So moderated variances make the top group only, and
"separated" takes from the other pairs no more than which folds are restless (`wary_of_folds`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import special

from lib.statistics.means import Means

MIN_METHODS = 4
_STANDARD_ERRORS = 2


def wary_of_folds(pairs: Means, a: np.ndarray, b: np.ndarray) -> Means:
    """The differences of methods `a` and `b` (K,), with no more degrees of freedom than the folds have in most pairs.

    A pair alone cannot tell well which fold is restless; all together can. Unchanged with fewer than 4 methods.
    """
    fit = _informative(pairs)
    if len(np.unique([a[fit], b[fit]])) < MIN_METHODS:
        return pairs
    df = np.minimum(pairs.training_df, _df_of_the_usual_folds(pairs, fit))
    return replace(pairs, training_df=np.where(pairs.seeds_enough, df, pairs.training_df))


def moderate(pairs: Means, a: np.ndarray, b: np.ndarray, fixed: np.ndarray | None = None) -> Means:
    """The differences of methods `a` and `b` (K,) with moderated variances and degrees of freedom of trainings.

    `pairs`: as `wary_of_folds` returns them. `fixed` (methods,): whose scores are the same for every seed. Their pairs
    tell nothing new of trainings: with each of them, another method's variance would only come once more. Unchanged
    with fewer than 4 others; pairs with too few seeds, or that differ in nothing, are left alone.
    """
    fit = _informative(pairs)
    if fixed is not None:
        fit = fit[~fixed[a[fit]] & ~fixed[b[fit]]]
    methods = np.unique([a[fit], b[fit]])
    without = [fit[(a[fit] != method) & (b[fit] != method)] for method in methods]
    if len(methods) < MIN_METHODS or min(map(len, without)) < 2:
        return pairs

    most_df = pairs.fold_df.sum(1)  # folds that are not alike add to the scatter, hence to caution
    log_variance = np.full(len(a), np.nan)
    log_variance[fit] = np.log(pairs.training_variance[fit] / pairs.training_share[fit])
    log_variance[fit] -= special.digamma(most_df[fit] / 2) - np.log(most_df[fit] / 2)
    jackknife = np.array([log_variance[rest].var(ddof=1) for rest in without])
    error = np.sqrt((len(methods) - 1) * jackknife.var())
    sampling = special.polygamma(1, most_df[fit] / 2).mean()
    prior_df = 2 * _trigamma_inverse(log_variance[fit].var(ddof=1) - sampling + _STANDARD_ERRORS * error)
    common = np.exp(log_variance[fit].mean())

    able = pairs.seeds_enough & (pairs.patient_variance > 0)
    own_df = np.where(able, pairs.training_df, 1.0)
    drawn = (prior_df * common * pairs.training_share + own_df * pairs.training_variance) / (prior_df + own_df)
    df = np.minimum(own_df + prior_df, (len(methods) - 1) * most_df)
    return replace(
        pairs,
        training_variance=np.where(able, np.maximum(drawn, pairs.training_variance), pairs.training_variance),
        training_df=np.where(able, np.maximum(df, own_df), pairs.training_df),
    )


def _informative(pairs: Means) -> np.ndarray:
    """Pairs that tell how much trainings vary."""
    some = pairs.training_variance > 1e-12 * pairs.training_variance.max(initial=0.0)
    return np.flatnonzero(pairs.seeds_enough & (pairs.patient_variance > 0) & some)


def _df_of_the_usual_folds(pairs: Means, fit: np.ndarray) -> np.ndarray:
    """Satterthwaite's degrees of freedom where the folds' parts of A are as in most pairs (geometric means)."""
    known = (pairs.fold_variance[fit] > 0) & (pairs.fold_df[fit] > 0)
    part = np.where(known, np.log(np.where(known, pairs.fold_variance[fit], 1.0)), 0.0).sum(0)
    part = np.where(known.any(0), np.exp(part / np.maximum(known.sum(0), 1)), 0.0)
    part = np.where(pairs.fold_df > 0, part, 0.0)  # (K, folds)
    spread = (part**2 / np.where(pairs.fold_df > 0, pairs.fold_df, 1.0)).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > 0, part.sum(1) ** 2 / spread, np.inf)


def _trigamma_inverse(value: float) -> float:
    """The x with trigamma(x) = value, by the Newton steps of Smyth's appendix; infinite for value <= 0."""
    if value <= 1e-9:
        return 1e9
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = special.polygamma(1, x)
        step = trigamma * (1 - trigamma / value) / special.polygamma(2, x)
        x += step
        if abs(step) < 1e-9 * x:
            break
    return float(x)
