"""The simulations behind docs/statistics.md: coverage, false positives, power and sample sizes, with the truth known.

    python benchmarks/error_rates.py [TABLE ...] [--scale 1.0]

Tables: coverage, hard, shared, relabelled, folds, alternatives, best, groups, claims, separation, planning, components;
without a name all of them, in ten minutes on one core. --scale 0.1 simulates a tenth. Every table is deterministic.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when NumPy starts

import numpy as np
from scipy import optimize, special

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow/scripts"))

from lib.statistics.means import Means, estimate_means, holm
from lib.statistics.moderation import moderate, wary_of_folds
from lib.statistics.pairs import studies_needed
from lib.statistics.ranking import compare_pairs, top_group

LEVEL = 0.95
CHUNK = 500  # tables at a time
MANY = ("all alike", "spread 0.5", "one method 4 times", "one fold 4 times")  # scenarios also for 39 methods

# standard deviations of training / patient / residual, and the distribution of patients and residuals
VARIATION = {
    "alike: 0 / 1 / 1": (0, 1, 1, "normal"),
    "a little: 0.3 / 1 / 1": (0.3, 1, 1, "normal"),
    "like patients: 1 / 1 / 0.7": (1, 1, 0.7, "normal"),
    "trainings dominate: 5 / 1 / 1": (5, 1, 1, "normal"),
    "patients dominate: 0.1 / 5 / 1": (0.1, 5, 1, "normal"),
    "exponential patients: 0.7 / 1 / 1": (0.7, 1, 1, "exponential"),
}


def unit_draw(rng: np.random.Generator, size: tuple[int, ...], shape: str = "normal") -> np.ndarray:
    """Random numbers with mean 0 and variance 1."""
    if shape == "exponential":
        return rng.exponential(size=size) - 1
    if shape == "t":
        return rng.standard_t(3, size=size) / np.sqrt(3)
    if shape == "collapse":  # one training in ten fails
        return (rng.normal(size=size) * 0.3 - (rng.random(size) < 0.1) * 5 + 0.5) / 1.53
    return rng.normal(size=size)


def simulate(
    rng: np.random.Generator,
    k: int,
    seeds: int,
    folds: int,
    patients: int,
    training: float | np.ndarray,
    patient: float,
    residual: float,
    shape: str = "normal",
    trainings: str = "normal",
) -> tuple[np.ndarray, np.ndarray]:
    """k tables (k, seeds, patients) of mean 0, and the fold of each patient; `training`: number or (k, folds)."""
    fold = np.arange(patients) % folds
    effect = unit_draw(rng, (k, seeds, folds), trainings) * np.broadcast_to(training, (k, folds))[:, None]
    values = effect[..., fold] + unit_draw(rng, (k, 1, patients), shape) * patient
    return values + unit_draw(rng, (k, seeds, patients), shape) * residual, fold


def p_values(values: np.ndarray, folds: np.ndarray) -> np.ndarray:
    return np.concatenate([estimate_means(part, folds).p_values() for part in _chunks(values)])


def _chunks(values: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(values), CHUNK):
        yield values[start : start + CHUNK]


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def coverage(n: int) -> Iterator[list]:
    yield ["seeds", "folds", *VARIATION]
    for seeds in (3, 5, 10):
        for folds in (1, 2, 3, 5):
            row = []
            for *deviations, shape in VARIATION.values():
                values, fold = simulate(np.random.default_rng(1), n, seeds, folds, 20, *deviations, shape)
                row.append(percent(np.mean(p_values(values, fold) > 0.05)))
            yield [seeds, folds, *row]


def hard(n: int) -> Iterator[list]:
    """Trainings unlike the model's: coverage of the interval."""
    yield ["trainings", "1 fold", "2 folds", "5 folds"]
    alone = {folds: np.where(np.arange(folds) == 0, 2.0, 0.0) for folds in (1, 2, 5)}
    for name, training, shape in (
        ("vary in one fold alone", alone, "normal"),
        ("exponential", 2.0, "exponential"),
        ("heavy tails (t, 3 degrees of freedom)", 2.0, "t"),
        ("one in ten collapses", 2.0, "collapse"),
    ):
        row = []
        for folds in (1, 2, 5):
            sd = training[folds] if isinstance(training, dict) else training
            values, fold = simulate(np.random.default_rng(11), n, 3, folds, 30, sd, 0.3, 0.3, trainings=shape)
            row.append(percent(np.mean(p_values(values, fold) > 0.05)))
        yield [name, *row]


def shared(n: int) -> Iterator[list]:
    """Trainings of one seed err alike in all folds, which breaks the model; and the remedy, one fold number."""
    cases = {
        "seed 1, training 1, patient 0, residual 1": (1, 1, 0, 1),
        "seed 0.7, training 0, patient 1, residual 0.7": (0.7, 0, 1, 0.7),
        "seed dominates": (5, 1, 1, 1),
    }
    yield ["seeds, folds", *(f"{name}{as_one}" for name in cases for as_one in ("", "; as one fold"))]
    for seeds, folds in ((3, 2), (3, 3), (3, 5), (5, 5)):
        row = []
        for seed, *deviations in cases.values():
            rng = np.random.default_rng(2)
            values, fold = simulate(rng, n, seeds, folds, 30, *deviations)
            values += rng.normal(size=(n, seeds, 1)) * seed
            row += [percent(np.mean(p_values(values, f) > 0.05)) for f in (fold, 0 * fold)]
        yield [f"{seeds}, {folds}", *row]


def _families(n: int, seeds: int, folds: int, patients: int, training: float | np.ndarray) -> list[str]:
    """Six names for one method: share of studies with a false positive in one claim, 5 claims, 15 pairs."""
    rng, found = np.random.default_rng(3), []
    for _ in range(n):
        values, fold = simulate(rng, 6, seeds, folds, patients, training, 0.0, 0.05)
        claims = estimate_means(values[:1] - values[1:], fold).p_values()
        pairs = compare_pairs(values, np.arange(6), fold, LEVEL)
        found.append([claims[0] <= 0.05, holm(claims).min() <= 0.05, pairs.separated.any()])
    return [percent(share) for share in np.mean(found, 0)]


def relabelled(n: int) -> Iterator[list]:
    yield ["seeds", "folds", "patients", "variation between trainings", "one claim", "5 claims", "15 pairs"]
    studies = [(3, 1, 30), (3, 2, 12), (3, 3, 30), (3, 5, 30), (5, 1, 30), (5, 5, 30)]
    for seeds, folds, patients in studies:
        for name, training in (("small", 0.01), ("equal to the residual", 0.05), ("dominates", 0.25)):
            yield [seeds, folds, patients, name, *_families(n, seeds, folds, patients, training)]


def folds(n: int) -> Iterator[list]:
    yield ["folds", "r", "one claim", "5 claims", "15 pairs"]
    for folds in (2, 5):
        for ratio in (1, 2, 4, 12):
            training = np.where(np.arange(folds) == 0, ratio, 1.0)
            yield [folds, ratio, *_families(n, 3, folds, 30, training)]


def _scenarios(methods: int, folds: int) -> dict[str, tuple[np.ndarray, str]]:
    """Standard deviations of trainings (methods, folds), and their distribution."""
    alike, rng = np.ones((methods, folds)), np.random.default_rng(4)
    spread = np.exp(rng.normal(size=(methods, 1)) * 0.5)
    first_method, first_fold = np.arange(methods)[:, None] == 0, np.arange(folds) == 0
    result = {
        "all alike": (alike, "normal"),
        "spread 0.5": (alike * spread, "normal"),
        "spread 1": (alike * spread**2, "normal"),
        "one method 4 times": (np.where(first_method, 4, alike), "normal"),
        "heavy tails (t, 3 df)": (alike, "t"),
    }
    if folds > 1:
        result["one fold 4 times"] = (np.where(first_fold, 4, alike), "normal")
        result["one method 10 times in one fold"] = (np.where(first_method & first_fold, 10, alike), "normal")
    return result


def study(rng: np.random.Generator, sd: np.ndarray, shape: str, seeds: int, truth: np.ndarray) -> tuple:
    """One simulated study of methods with true means `truth`: which are in the top group, which pairs are separated."""
    methods, folds = sd.shape
    values, fold = simulate(rng, methods, seeds, folds, 20, sd, 0.3, 0.3, trainings=shape)
    values += truth[:, None, None]
    means = estimate_means(values, fold).mean
    order = np.argsort(-means, kind="stable")
    pairs = compare_pairs(values, order, fold, LEVEL)
    return top_group(pairs, 1.0 + np.argsort(order), 1, LEVEL), pairs


def best(n: int) -> Iterator[list]:
    """All methods are equally good, hence each is a best one."""
    yield ["methods", "folds", "trainings' standard deviations", "the first", "any other one", "anything", "any pair"]
    for methods in (4, 7, 39):
        for folds in (1, 2, 5):
            for name, (sd, shape) in _scenarios(methods, folds).items():
                if methods > 20 and name not in MANY:
                    continue
                rng, out, separated = np.random.default_rng(5), [], []
                for _ in range(n if methods < 20 else n // 10):
                    top, pairs = study(rng, sd, shape, 3, np.zeros(methods))
                    out.append(~top)
                    separated.append(pairs.separated.any())
                out = np.array(out)
                shares = (out[:, 0].mean(), out[:, 1:].mean(), out.any(1).mean(), np.mean(separated))
                yield [methods, folds, name, *map(percent, shares)]


def alternatives(n: int) -> Iterator[list]:
    """Ways to know how much trainings vary, where they alone vary: t-tests in the M - 1 comparisons of each method."""
    yield [
        "methods",
        "folds",
        "trainings' standard deviations",
        "pair alone",
        "pooled",
        "limma",
        "moderated",
        "moderated, 1 pair",
    ]
    for methods, folds in ((7, 1), (7, 2), (39, 1), (39, 2)):
        a, b = np.triu_indices(methods, 1)
        for name, (sd, shape) in _scenarios(methods, folds).items():
            rng, out, first_pair = np.random.default_rng(12), [], []
            for _ in range(n if methods < 20 else n // 4):
                trainings = unit_draw(rng, (methods, 3, folds), shape) * sd[:, None]
                fold = np.arange(6 * folds) % folds
                values = trainings[..., fold]
                own = estimate_means(values[a] - values[b] + np.linspace(-1e-6, 1e-6, 6 * folds), fold)
                rows = []
                for variance, df in _known_variances(own, trainings, a, b):
                    p = 2 * special.stdtr(df, -np.abs(own.mean) / np.sqrt(variance))
                    beaten = p * (methods - 1) <= 0.05
                    left_out = np.zeros(methods, bool)
                    left_out[np.where(own.mean > 0, b, a)[beaten]] = True
                    rows.append((left_out[0], left_out[1:].mean()))
                out.append(rows)
                first_pair.append(p[0] <= 0.05)
            shares = (*np.mean(out, 0).max(1), np.mean(first_pair))
            yield [methods, folds, name, *map(percent, shares)]


def _known_variances(own: Means, trainings: np.ndarray, a: np.ndarray, b: np.ndarray) -> Iterator[tuple]:
    """Variance and degrees of freedom of each difference: by itself, pooled over methods, as limma, as used here."""
    methods, seeds, folds = trainings.shape
    yield own.training_variance, own.training_df
    rest = trainings - trainings.mean(0) - trainings.mean(1, keepdims=True) + trainings.mean((0, 1))
    df = (methods - 1) * (seeds - 1)
    parts = 2 * (rest**2).sum((0, 1)) / df / seeds / folds**2
    yield np.full(len(a), parts.sum()), np.full(len(a), df * parts.sum() ** 2 / (parts**2).sum())
    df = folds * (seeds - 1)
    log = np.log(own.training_variance) - special.digamma(df / 2) + np.log(df / 2)
    excess = log.var(ddof=1) - special.polygamma(1, df / 2)
    prior = optimize.brentq(lambda d: special.polygamma(1, d / 2) - excess, 1e-3, 1e6) if excess > 1e-5 else 1e6
    common = np.exp(log.mean() + special.digamma(prior / 2) - np.log(prior / 2))
    drawn = (prior * common + df * own.training_variance) / (prior + df)
    yield drawn, np.full(len(a), min(prior + df, df * (methods - 1)))
    moderated = moderate(wary_of_folds(own, a, b), a, b)
    yield moderated.training_variance, moderated.training_df


def groups(n: int) -> Iterator[list]:
    """The best, some rivals just behind, the rest far behind: where stepping down might cost the best its place."""
    yield ["methods", "rivals", "folds", "trainings' standard deviations", "best is left out", "a false separation"]
    for methods, rivals in ((7, 1), (7, 3), (15, 2), (15, 8)):
        for folds in (1, 2, 5):
            for name, (sd, shape) in _scenarios(methods, folds).items():
                if name not in ("all alike", "one method 4 times", "one fold 4 times"):
                    continue
                truth = np.where(np.arange(methods) <= rivals, 0.0, -1000.0 * np.arange(methods))
                rng, out = np.random.default_rng(6), []
                for _ in range(n):
                    top, pairs = study(rng, sd, shape, 3, truth)
                    false = pairs.separated & (truth[pairs.a] == truth[pairs.b])
                    out.append((not top[0], false.any()))
                yield [methods, rivals, folds, name, *map(percent, np.mean(out, 0))]


def _found_at(differences: np.ndarray, shares: Iterable[float]) -> str:
    """The differences found with probability one half, and (in brackets) 0.8."""
    shares = np.maximum.accumulate(np.array([*shares]))
    half, most = (
        f"{np.interp(s, shares, differences):.1f}" if shares[-1] > s else f"> {differences[-1]:.0f}" for s in (0.5, 0.8)
    )
    return f"{half} ({most})"


def claims(n: int) -> Iterator[list]:
    yield ["seeds", "folds", "one claim", "one of 5 claims", "one of 20 claims"]
    grid = np.geomspace(0.3, 60, 25)
    for seeds, folds in ((3, 1), (3, 2), (3, 3), (3, 5), (5, 1), (5, 2), (5, 5), (10, 1)):
        values, fold = simulate(np.random.default_rng(7), n, seeds, folds, 20, np.sqrt(2), 0.1, 0.1)
        p = np.array([p_values(values + difference, fold) for difference in grid])
        yield [seeds, folds, *(_found_at(grid, (p <= 0.05 / k).mean(1)) for k in (1, 5, 20))]


def separation(n: int) -> Iterator[list]:
    yield ["methods", "seeds", "folds", "alike: out of top group", "separated", "spread 0.5: out", "separated"]
    grid = np.geomspace(0.7, 30, 11)
    for methods in (7, 39):
        for seeds in (3, 5):
            for folds in (1, 2, 5):
                row = []
                for name in ("all alike", "spread 0.5"):
                    sd, shape = _scenarios(methods, folds)[name]
                    sd = np.where(np.arange(methods)[:, None] == 0, 1, sd)
                    shares = []
                    for difference in grid:
                        rng, found = np.random.default_rng(8), []
                        truth = np.where(np.arange(methods) == 0, difference, 0.0)
                        for _ in range(max(n if methods < 20 else n // 8, 1)):
                            top, pairs = study(rng, sd, shape, seeds, truth)
                            with_best = (pairs.a == 0) | (pairs.b == 0)
                            found.append(((~top[1:]).mean(), pairs.separated[with_best].mean()))
                        shares.append(np.mean(found, 0))
                        if min(shares[-1]) > 0.85:
                            break
                    known = grid[: len(shares)]
                    row += [_found_at(known, [s[k] for s in shares]) for k in (0, 1)]
                yield [methods, seeds, folds, *row]


def _with_components(means: Means, training: float, patient: float, residual: float, difference: float) -> Means:
    """The first row of `means`, with the true components in place of the estimates."""
    share, values, patients = means.training_share[:1], means.value_share[:1], means.n_patients[:1]
    rest = residual**2 * values
    return replace(
        means,
        mean=np.array([difference]),
        training_variance=training**2 * share + rest,
        patient_variance=patient**2 / patients + values * residual**2,
        residual_variance=rest,
    )


def planning(n: int) -> Iterator[list]:
    """Power of the recommended study, by simulation, when the components are known."""
    yield ["folds", "training / patient / residual; difference", "patients: seeds needed: power",
           "seeds: patients needed: power"]  # fmt: skip
    plans = [
        (1, (1, 0.2, 0.5), 1.0, 30), (1, (0.3, 1, 1), 0.5, 60), (1, (0.1, 1, 0.3), 0.45, 50),
        (1, (0.3, 0.3, 1), 0.3, 30), (1, (0.5, 0.5, 0.5), 0.4, 40), (2, (1, 0.2, 0.5), 0.6, 30),
        (2, (0.3, 1, 1), 0.5, 60), (2, (0.1, 1, 0.3), 0.45, 50), (2, (0.3, 0.3, 1), 0.3, 30),
        (5, (1, 0.2, 0.5), 0.45, 30), (5, (0.3, 1, 1), 0.4, 60), (5, (0.3, 0.3, 1), 0.3, 30),
        (5, (0.5, 0.5, 0.5), 0.35, 40),
    ]  # fmt: skip
    for folds, components, difference, patients in plans:
        rng = np.random.default_rng(9)
        values, fold = simulate(rng, 1, 3, folds, patients, *components)
        plan = _with_components(estimate_means(values, fold), *components, difference)
        cells = []
        for (needed,), fixed, by_seeds in zip(studies_needed(plan), (patients, 3), (True, False), strict=True):
            if not np.isfinite(needed):
                cells.append(f"{fixed}: none")
                continue
            seeds, count = (int(needed), fixed) if by_seeds else (fixed, int(needed))
            total, done = 0.0, 0
            while done < n:
                values, fold = simulate(rng, CHUNK, seeds, folds, count, *components)
                total += np.sum(estimate_means(values + difference, fold).p_values() <= 0.05)
                done += CHUNK
            cells.append(f"{fixed}: {int(needed)}: {percent(total / done)}")
        yield [folds, f"{' / '.join(map(str, components))}; {difference}", *cells]


def components(n: int) -> Iterator[list]:
    yield ["seeds", "folds", "patients", "training / patient / residual", "training", "patient", "residual"]
    for seeds, folds, patients in ((3, 1, 30), (3, 2, 30), (3, 5, 30), (5, 1, 12), (5, 5, 50), (10, 1, 20)):
        for truth in ((0.5, 1, 0.5), (1, 0.2, 0.5), (0.1, 1, 1)):
            values, fold = simulate(np.random.default_rng(10), n, seeds, folds, patients, *truth)
            cells = []
            for (estimate, low, high), true in zip(
                estimate_means(values, fold).components(LEVEL).values(), truth, strict=True
            ):
                covered = np.mean((low <= true) & (true <= high))
                cells.append(f"{np.sqrt(np.mean(estimate**2)):.2f}, {percent(covered)} %")
            yield [seeds, folds, patients, " / ".join(map(str, truth)), *cells]


TABLES: dict[str, tuple[Callable[[int], Iterator[list]], int, str]] = {
    "coverage": (coverage, 2000, "Coverage (%) of the 95 % interval, 20 patients"),
    "hard": (hard, 2000, "Coverage (%), 3 seeds, 30 patients"),
    "shared": (shared, 2000, "Coverage (%) where trainings share a seed effect across folds, 30 patients"),
    "relabelled": (relabelled, 1000, "Six names for one method: studies (%) with anything separated"),
    "folds": (folds, 1500, "The same, 3 seeds, trainings of one fold with r times the standard deviation"),
    "alternatives": (
        alternatives,
        2000,
        "All methods equal, 3 seeds, trainings alone vary: a best one is left out (%)",
    ),
    "best": (best, 800, "All methods equal, 3 seeds: left out of the top group (%), any pair separated (%)"),
    "groups": (groups, 300, "A best one, equal rivals, others far behind, 3 seeds (%)"),
    "claims": (claims, 3000, "Difference found in half (80 %) of studies, in training standard deviations"),
    "separation": (separation, 100, "One method ahead of all others: the same"),
    "planning": (planning, 4000, "Recommended numbers of seeds and patients, and their power (%)"),
    "components": (components, 2000, "Root mean square of estimated standard deviations, coverage of intervals"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", choices=[*TABLES, []], default=[])
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    for name in arguments.tables or TABLES:
        make, n, title = TABLES[name]
        n = max(round(n * arguments.scale), 4)
        print(f"\n{title} [{name}, {n} simulations]\n")
        for k, row in enumerate(make(n)):
            print("| " + " | ".join(map(str, row)) + " |", flush=True)
            if k == 0:
                print("|" + "---|" * len(row))


if __name__ == "__main__":
    main()
