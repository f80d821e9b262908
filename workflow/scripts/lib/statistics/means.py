"""Mean of a seeds x patients table, its interval and its p-value, when trainings and patients are random samples.

Model: value[s, p] = mean + training[s, fold of p] + patient[p] + residual[s, p]. The random streams of a training come
from its seed and its fold, so the trainings of one seed in two folds are independent: seeds are nested in folds. Within
a fold every training is tested on the same patients. The variance of the mean is A + B - R with
    A = sum over trainings of (share in the mean)^2 x variance of trainings within the fold
    B = variance of the patients' means within folds / number of patients
    R = residual variance / number of values, contained in both A and B
Folds may differ in how much trainings vary, so the degrees of freedom of A are Satterthwaite's for a sum over folds,
between seeds - 1 (one fold varies) and folds x (seeds - 1) (all alike); B has patients - folds.
Interval and p-value come from the generalised pivot of Weerahandi (1993, JASA 88:899): the unknown components take
the values that the data allow (A times df/chi2, B likewise), |mean| is normal given them. Satterthwaite's t for the sum
A + B - R is not used: with 3 trainings it rejects up to 9 % true null hypotheses at level 5 %, and 2 % at 0.2 %
(docs/statistics.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

MIN_SEEDS = 3
MIN_WITHIN_DF = 5  # with fewer degrees of freedom within folds than this, patients of all folds are compared
_TINY = 1e-300


@dataclass(frozen=True)
class Means:
    """K means with their variance components; arrays of shape (K,) unless said otherwise."""

    mean: np.ndarray
    training_variance: np.ndarray  # A; 0 where there are too few seeds to know it
    patient_variance: np.ndarray  # B; NaN with fewer than 2 patients
    residual_variance: np.ndarray  # R
    training_df: np.ndarray  # inf where seeds are too few: then the interval is about patients only
    patient_df: np.ndarray
    residual_df: np.ndarray
    training_share: np.ndarray  # sum over trainings of their squared share in the mean, 1 / trainings if all are alike
    value_share: np.ndarray  # the same of the values, 1 / (seeds x patients) without holes
    fold_variance: np.ndarray  # (K, folds), the parts of A
    fold_df: np.ndarray  # (K, folds), their degrees of freedom, seeds - 1 without holes
    n_seeds: np.ndarray
    n_patients: np.ndarray
    seeds_enough: np.ndarray
    trainings_seen: np.ndarray  # (K, seeds, folds), which trainings have values
    training_effects: np.ndarray  # (K, seeds, folds), parts of the mean; their squares add up to A; 0 if absent
    patient_effects: np.ndarray  # (K, patients), scaled so that their mean square estimates the patients' variance
    strata: np.ndarray  # (K, patients), the strata used for patients, -1 if absent

    def p_values(self) -> np.ndarray:
        """Two-sided p-values of mean = 0; NaN without an interval; where nothing varies, 1 if mean = 0, else 0."""
        return self._solve(lambda some, nodes: _tail(np.abs(self.mean[some]), *nodes), exact=lambda m: m == 0)

    def half_widths(self, level: float) -> np.ndarray:
        """Half the width of the interval mean +- h at `level`; it excludes 0 exactly where p < 1 - level."""
        return self._solve(lambda some, nodes: _quantile(1 - level, *nodes), exact=lambda m: m * 0)

    def components(self, level: float) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Standard deviations (estimate, low, high) of "training", "patient" and "residual"; NaN with too few seeds.

        NaN for "patient" also where patients of all folds are compared, since B then holds the trainings' differences.
        The intervals treat R as known and A and B as multiples of chi-squared variables.
        """
        a, b, r = self.training_variance, self.patient_variance, self.residual_variance
        known = self.seeds_enough & (self.n_patients >= 2)
        within_folds = self.patient_df <= self.n_patients - self.trainings_seen.any(1).sum(1)
        tail = (1 - level) / 2
        parts = {
            "training": (a, self.training_df, r, self.training_share),
            "patient": (b, np.where(within_folds, self.patient_df, 0), r, 1 / np.maximum(self.n_patients, 1)),
            "residual": (r, self.residual_df, 0 * r, self.value_share),
        }
        result = {}
        for name, (variance, df, contained, share) in parts.items():
            df = np.where(known & (df > 0), df, np.nan)
            scales = (1.0, df / special.chdtri(df, tail), df / special.chdtri(df, 1 - tail))
            share = np.where(np.isnan(df), np.nan, share)  # 0 where there is no value
            result[name] = tuple(np.sqrt(np.maximum(variance * scale - contained, 0) / share) for scale in scales)
        return result

    def _solve(self, solver, exact) -> np.ndarray:
        """Apply `solver` to quadrature nodes of the rows; few rows at a time, since each has up to 64 x 64 nodes."""
        result = np.full(len(self.mean), np.nan)
        known = self.n_patients >= 2
        constant = known & (self.training_variance + self.patient_variance + self.residual_variance < _TINY)
        result[constant] = exact(self.mean[constant])
        kind = np.stack([_node_count(self.training_df), _node_count(self.patient_df)], 1)
        for counts in np.unique(kind[known & ~constant], axis=0):
            rows = np.flatnonzero(known & ~constant & (kind == counts).all(1))
            for some in np.array_split(rows, len(rows) // 256 + 1):
                result[some] = solver(some, self._nodes(some, *counts))
        return result

    def _nodes(self, some: np.ndarray, training_nodes: int, patient_nodes: int) -> tuple[np.ndarray, np.ndarray]:
        """Standard deviations of the mean that the data allow (len(some), nodes), and their weights."""
        x, w = _scale_nodes(self.training_df[some], training_nodes)
        y, v = _scale_nodes(self.patient_df[some], patient_nodes)
        a, b, r = (c[some, None] for c in (self.training_variance, self.patient_variance, self.residual_variance))
        excess = np.maximum(a * x - r, 0)  # what trainings add beyond the residual, which b holds already
        rest = np.maximum(b * y, r)
        variance = excess[:, :, None] + rest[:, None, :]
        weights = w[:, :, None] * v[:, None, :]
        return np.sqrt(variance + _TINY).reshape(len(some), -1), weights.reshape(len(some), -1)


def estimate_means(values: np.ndarray, folds: np.ndarray) -> Means:
    """Means and variance components of K tables `values` (K, seeds, patients), NaN where there is no value.

    `folds` (patients,): integers, the fold that tested each patient. Trainings are compared within folds, and so are
    patients. The mean is the mean over patients of each patient's mean over its seeds. Tables with holes are weighted
    accordingly; a fold where one training is left borrows the variance of the others.
    """
    seen = ~np.isnan(values)
    filled = np.where(seen, values, 0.0)
    seeds_of = seen.sum(1)  # (K, P)
    present = seeds_of > 0
    n_patients = present.sum(1)
    per_patient = filled.sum(1) / np.maximum(seeds_of, 1)
    mean = per_patient.sum(1) / np.where(n_patients, n_patients, np.nan)

    in_fold = ((folds[:, None] == np.unique(folds)) & present[:, :, None]).astype(float)  # (K, P, F)
    within_df = n_patients - in_fold.any(1).sum(1)
    pooled = within_df < MIN_WITHIN_DF  # then B holds differences of trainings too: cautious, A is kept whole
    whole = present[:, :, None] & (np.arange(in_fold.shape[2]) == 0)
    members = np.where(pooled[:, None, None], whole, in_fold)
    patient_df = np.where(pooled, n_patients - 1, within_df).astype(float)
    centre = (per_patient[:, None] @ members) / np.maximum(members.sum(1, keepdims=True), 1)  # (K, 1, F)
    deviation = np.where(present, per_patient - (members * centre).sum(2), 0.0)
    scale = n_patients / np.where(patient_df > 0, patient_df, np.nan)
    patient_effects = deviation * np.sqrt(scale)[:, None]
    patient_variance = (patient_effects**2).sum(1) / np.maximum(n_patients, 1) ** 2

    weights = seen / np.maximum(seeds_of * n_patients[:, None], 1)[:, None, :]  # (K, S, P), sums to 1
    share = weights @ in_fold  # (K, S, F), of each training in the mean
    square = (share**2).sum(1)  # (K, F)
    effective = (share.sum(1) ** 3 / np.maximum(square, _TINY)).sum(1)  # trainings of a fold, mean over patients
    informative = seen & (seeds_of >= 2)[:, None, :]  # a patient with one seed says nothing about trainings
    residual = np.where(informative, filled - per_patient[:, None, :], 0.0)
    inflate = np.sqrt(seeds_of / np.maximum(seeds_of - 1, 1))[:, None, :]
    compared = (weights * informative) @ in_fold  # (K, S, F)
    effects = share * ((weights * residual * inflate) @ in_fold) / np.maximum(compared, _TINY)
    known = np.where(compared > 0, share**2, 0.0)
    expected = known.sum(1)  # (K, F), parts of A where every training varies alike
    found = (effects**2).sum(1)
    fold_df = np.maximum(expected**2 / np.maximum((known**2).sum(1), _TINY) - 1, 0)  # seeds - 1 where shares are equal
    seeds_enough = (effective >= MIN_SEEDS - 0.5 - 1e-9) & (fold_df.sum(1) >= 1 - 1e-9)
    # folds may differ in how much trainings vary: Satterthwaite's degrees of freedom for the sum over folds
    part = np.where(found.any(1, keepdims=True), found, expected)
    part = part / np.maximum(part.sum(1, keepdims=True), _TINY)
    training_df = 1 / np.maximum((part**2 / np.maximum(fold_df, _TINY)).sum(1), _TINY)
    effects *= np.sqrt(square.sum(1) / np.maximum(expected.sum(1), _TINY))[:, None, None]  # holes borrow

    cells = informative @ in_fold  # (K, S, F) values per training
    residual = np.where(informative, residual - (residual @ in_fold / np.maximum(cells, 1)) @ in_fold.swapaxes(1, 2), 0)
    patients_used = (informative.any(1)[:, None] @ in_fold)[:, 0]  # (K, F)
    trainings_used = (cells > 0).sum(1)
    residual_df = (cells.sum(1) - patients_used - np.maximum(trainings_used - 1, 0)).sum(1)
    residual_variance = (residual**2).sum((1, 2)) / np.maximum(residual_df, 1) * (weights**2).sum((1, 2))

    return Means(
        mean=mean,
        training_variance=np.where(seeds_enough, (effects**2).sum((1, 2)), 0.0),
        patient_variance=patient_variance,
        residual_variance=np.where(seeds_enough & (residual_df > 0), residual_variance, 0.0),
        training_df=np.where(seeds_enough, training_df, np.inf),
        patient_df=patient_df,
        residual_df=np.where(seeds_enough, residual_df, 0),
        training_share=square.sum(1),
        value_share=(weights**2).sum((1, 2)),
        fold_variance=np.where(seeds_enough[:, None], (effects**2).sum(1), 0.0),
        fold_df=fold_df,
        n_seeds=seen.any(2).sum(1),
        n_patients=n_patients,
        seeds_enough=seeds_enough,
        trainings_seen=share > 0,
        training_effects=np.where(seeds_enough[:, None, None], effects, 0.0),
        patient_effects=patient_effects,
        strata=np.where(present, members.argmax(2), -1),
    )


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p-values (1979) of the family `p`; NaN stays and does not count."""
    p = np.asarray(p, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def _node_count(df: np.ndarray) -> np.ndarray:
    return np.where(np.isinf(df), 1, np.where(df < 6, 64, 24))


def _scale_nodes(df: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Quadrature of df/chi2(df): nodes and weights (rows, n) by the trapezoid rule in log chi2, from tail to tail."""
    if n == 1:
        return np.ones((len(df), 1)), np.ones((len(df), 1))
    df, row = np.unique(df, return_inverse=True)
    low = np.log(2 * special.gammaincinv(df / 2, 1e-12))
    high = np.log(2 * special.gammainccinv(df / 2, 1e-12))
    u = np.linspace(low, high, n, axis=1)
    log_density = df[:, None] / 2 * u - np.exp(u) / 2
    weights = np.exp(log_density - log_density.max(1, keepdims=True))
    return (df[:, None] / np.exp(u))[row], (weights / weights.sum(1, keepdims=True))[row]


def _tail(h: np.ndarray, sigma: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """P(|N(0, sigma^2)| > h) averaged over sigma."""
    return 2 * np.einsum("kn,kn->k", special.ndtr(-h[:, None] / sigma), weights)


def _quantile(p: float, sigma: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The h with tail probability p, by Newton's method, which cannot overshoot: the tail is convex in h > 0."""
    h = -special.ndtri(p / 2) * sigma.min(1)  # the tail here is at least p
    for _ in range(200):
        density = np.exp(-((h[:, None] / sigma) ** 2) / 2) / sigma * np.sqrt(2 / np.pi)
        step = (_tail(h, sigma, weights) - p) / np.einsum("kn,kn->k", density, weights)
        h += step
        if np.all(np.abs(step) <= 1e-10 * h):
            break
    return h
