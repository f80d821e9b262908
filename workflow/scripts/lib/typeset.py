"""Tables for a paper: the results as Markdown and as LaTeX (booktabs), with what a reader must know beneath."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib.figures import style

METRICS = ("dice", "nsd", "hd95", "assd")  # of those that were scored
DASH = "–"  # where there is no number
ONE_PAGE = 45  # rows; longer tables break over pages in LaTeX
IN_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "%_&#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"}
    | {"“": "``", "”": "''"}
    | {"−": "$-$", "×": r"$\times$", "÷": r"$\div$", "·": r"$\cdot$", "<": "$<$", ">": "$>$"}
)


@dataclass(frozen=True)
class Table:
    """Cells as text; the first `names` columns hold names, the others numbers."""

    title: str
    rows: pd.DataFrame
    notes: str
    bold: pd.Series | None = None  # per row: the top group
    names: int = 1


def ranking_tables(ranking: pd.DataFrame, units: dict[tuple[str, str], str]) -> list[Table]:
    """One table per dataset × condition × protocol, best rank first. units: of (dataset, metric), such as mm."""
    return [_ranking(place, style.at(ranking, place), units) for place in style.situations(ranking)]


def _ranking(place: tuple[str, str, str], ranking: pd.DataFrame, units: dict) -> Table:
    primary = style.ranked(ranking, place)
    over_structures = ranking[ranking["structure"] == "mean"].set_index(["metric", "method"])
    columns: dict[str, list[str]] = {"method": primary["method"].tolist()}
    for metric in (m for m in METRICS if m in over_structures.index.levels[0]):
        unit = units.get((place[0], metric), "")
        rows = over_structures.loc[metric].reindex(primary["method"])
        name = f"{style.METRIC_NAMES[metric]}, {unit}" if unit else style.METRIC_NAMES[metric]
        digits = 2 if unit else 3
        columns[name] = [_interval(*row, digits) for row in rows[["mean", "low", "high"]].itertuples(index=False)]
    columns["rank"] = [
        _interval(*row, 0, " to ") for row in primary[["rank", "rank_low", "rank_high"]].itertuples(index=False)
    ]
    enough = primary["seeds_enough"].astype(bool)
    columns["P(best)"] = [_number(p, 2) for p in primary["p_best"].where(enough)]
    columns["patients × seeds"] = [f"{p} × {s}" for p, s in zip(primary["n_patients"], primary["n_seeds"], strict=True)]
    statuses = [s for s in ("missed", "hallucinated", "failed") if primary[f"n_{s}"].any()]
    for status in statuses:
        columns[status] = [str(n) for n in primary[f"n_{status}"]]
    top = primary["top_group"].astype(bool) & enough.any()
    notes = "Mean over structures, patients and seeds [95 % interval]; ranks and P(best) by Dice, over redrawn ones."
    if top.any():
        notes += " Bold: the top group, a 95 % confidence set for the highest mean Dice; its members need not be equal."
        if few := primary.loc[~enough & primary["rank"].notna(), "method"].tolist():
            notes += f" With fewer than 3 seeds, and so separated from nothing: {_listed(few)}."
    else:
        notes += " Fewer than 3 seeds: single trainings, which decide nothing; no method is marked."
    if (primary["loss"] == "classical").any():
        notes += " A classical method has one run per fold, which stands under every seed."
    if statuses:
        notes += f" Counted besides: structures of cases that were {_listed(statuses)}, over all trainings."
    return Table(f"Scores: {style.situation_title(place)}", pd.DataFrame(columns), notes, top)


def comparison_tables(comparisons: pd.DataFrame) -> list[Table]:
    """One table of all pairs per dataset × condition × protocol, the better ranked method first."""
    places = style.situations(comparisons)
    return [_comparisons(place, style.at(comparisons, place).reset_index(drop=True)) for place in places]


def _comparisons(place: tuple[str, str, str], pairs: pd.DataFrame) -> Table:
    metric = style.METRIC_NAMES[pairs["metric"].iloc[0]]
    differences = pairs[["difference", "low", "high"]].itertuples(index=False)
    rows = pd.DataFrame(
        {
            "A": pairs["method_a"],
            "B": pairs["method_b"],
            f"{metric}, A − B": [_interval(*row, 3, signed=True) for row in differences],
            "effect size": [_signed(value, 2) for value in pairs["effect_size"]],
            "A ahead": [DASH if pd.isna(share) else f"{share:.0%}" for share in pairs["wins"]],
            "p": [_p(p) for p in pairs["p"]],
            "p, Holm": [_p(p) for p in pairs["p_holm"]],
            "separated": np.where(pairs["separated"].astype(bool), "yes", "no"),
            "patients × seeds": [f"{p} × {s}" for p, s in zip(pairs["n_patients"], pairs["n_seeds"], strict=True)],
        }
    )
    notes = (
        f"Difference in mean {metric} over the same patients and seeds [95 % interval, not adjusted]; effect size: "
        "difference ÷ its standard deviation over patients; A ahead: share of patients, ties half. Separated: p after "
        "Holm over all pairs at most 0.05, with at least 3 seeds. Pairs that are not separated are not thereby equal."
    )
    return Table(f"Pairs: {style.situation_title(place)}", rows, notes, names=2)


def claim_tables(claims: pd.DataFrame) -> list[Table]:
    """All claims of the experiment in one table, or none."""
    if claims.empty:
        return []
    measured = [
        f"× {row.mean_treatment / row.mean_control:.3g}"
        if row.kind == "cheaper" and pd.notna(row.difference)
        else _interval(row.difference, row.low, row.high, 0 if row.metric == "iterations_to_dice" else 3, signed=True)
        for row in claims.itertuples()
    ]
    margins = [f", margin {margin:g}" if margin > 0 else "" for margin in claims["margin"]]
    place = ["dataset", "condition", *(["protocol"] if len(claims["protocol"].dropna().unique()) > 1 else [])]
    rows = pd.DataFrame(
        {
            "claim": claims["claim"],
            "treatment − control": claims["treatment"] + " − " + claims["control"],
            "where": [
                " · ".join(filter(None, names)) or DASH for names in claims[place].fillna("").itertuples(index=False)
            ],
            "metric": claims["metric"].map(lambda name: style.METRIC_NAMES.get(name, name)),
            "claimed": "“" + claims["kind"] + "”" + margins,
            "published": [_signed(value, 3) for value in claims["published_difference"]],
            "measured": measured,
            "p, Holm": [_p(p) for p in claims["p_holm"]],
            "patients × seeds": [
                f"{row.n_trainings} trainings"
                if row.metric == "iterations_to_dice" and row.n_trainings
                else f"{row.n_patients:.0f} × {row.n_seeds:.0f}"
                if row.n_patients > 0
                else DASH
                for row in claims.itertuples()
            ],
            "verdict": claims["verdict"],
        }
    )  # fmt: skip
    notes = (
        "Difference of means over the same patients and seeds [95 % interval, 90 % of equivalent, not adjusted]; of an "
        "interaction, the change of that difference; of cheaper, the ratio of costs. Reproduced (or smaller) needs a "
        "p-value of at most 0.05 after Holm over all claims; with fewer than 3 seeds it is about patients alone, and "
        "decides nothing. Not reproduced follows the interval of the single claim."
    )
    return [Table("Claims: published and measured differences", rows, notes, names=5)]


def cost_tables(ledger: pd.DataFrame) -> list[Table]:
    """One table of what a training costs per dataset × condition × protocol; methods without any cost are left out."""
    tables = []
    for place in style.situations(ledger):
        here = style.at(ledger, place)
        done = here[(here["state"] == "ok") & here["wall_seconds"].notna()]
        if done.empty:
            continue
        groups = done.groupby("method", sort=False)
        mean = groups[["parameters", "flops", "wall_seconds", "gpu_hours", "energy_kwh", "peak_memory_mb"]].mean()
        columns = {
            "method": mean.index,
            "trainings": groups.size().astype(str),
            "parameters, M": mean["parameters"] / 1e6,
            "FLOPs, G": mean["flops"] / 1e9,
            "minutes": mean["wall_seconds"] / 60,
            "GPU-hours": mean["gpu_hours"].where(mean["gpu_hours"] > 0),
            "energy, Wh": mean["energy_kwh"] * 1000,
            "peak memory, GB": mean["peak_memory_mb"] / 1024,
            "device": groups["device"].agg(lambda names: ", ".join(dict.fromkeys(names.dropna()))),
        }
        rows = pd.DataFrame(columns).dropna(axis="columns", how="all").reset_index(drop=True)
        rows = rows.map(lambda cell: cell if isinstance(cell, str) else DASH if pd.isna(cell) else f"{cell:.3g}")
        notes = (
            "Means over trainings that ended well. FLOPs: one forward pass of one patch. Times, energy and memory "
            "compare only between equal devices."
        )
        if absent := [m for m in here["method"].unique() if m not in set(done["method"])]:
            notes += f" Unknown: {_listed(absent)}."
        tables.append(Table(f"Cost of a training: {style.situation_title(place)}", rows, notes))
    return tables


def markdown(tables: list[Table]) -> str:
    """The tables one below the other, names as code, rows of the bold group in bold."""
    return "\n".join(_markdown(table) for table in tables) or "None.\n"


def _markdown(table: Table) -> str:
    rows = table.rows.copy()
    bold = _mask(table)
    for k, column in enumerate(rows):
        cells = rows[column].astype(str).str.replace("|", "\\|", regex=False)
        cells = "`" + cells + "`" if k < table.names and column not in ("metric", "claimed") else cells
        rows[column] = np.where(bold[column], "**" + cells + "**", cells)
    lines = [list(rows.columns), [":--" if k < table.names else "--:" for k in range(rows.shape[1])], *rows.to_numpy()]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"### {table.title}\n\n{body}\n\n{table.notes}\n"


def latex(tables: list[Table]) -> str:
    """Floating tables with booktabs rules, or longtables; needs \\usepackage{booktabs,longtable}."""
    head = "% \\usepackage{booktabs,longtable}\n"
    return head + "\n".join(_latex(table, k) for k, table in enumerate(tables, 1))


def _latex(table: Table, number: int) -> str:
    long = len(table.rows) > ONE_PAGE
    escaped = table.rows.astype(str).map(lambda cell: cell.translate(IN_LATEX))
    styler = escaped.rename(columns=lambda name: name.translate(IN_LATEX)).style.hide(axis="index")
    styler = styler.apply(lambda _: np.where(_mask(table), "textbf:--rwrap;", ""), axis=None)
    return styler.to_latex(
        hrules=True,
        environment="longtable" if long else "table",
        position=None if long else "tb",
        position_float=None if long else "centering",
        column_format="l" * table.names + "r" * (escaped.shape[1] - table.names),
        caption=f"{table.title}. {table.notes}".translate(IN_LATEX),
        label=f"tab:{table.title.partition(':')[0].lower().replace(' ', '-')}-{number}",
    )


def _mask(table: Table) -> pd.DataFrame:
    """Which cells are bold: names and the first column of numbers, in rows of the bold group."""
    bold = pd.Series(False, table.rows.index) if table.bold is None else table.bold.reset_index(drop=True)
    mask = pd.DataFrame(False, table.rows.index, table.rows.columns)
    for column in table.rows.columns[: table.names + 1]:
        mask[column] = bold.to_numpy()
    return mask


def _interval(value: float, low: float, high: float, digits: int, between: str = ", ", signed: bool = False) -> str:
    write = _signed if signed else _number
    if pd.isna(value) or pd.isna(low):
        return write(value, digits)
    return f"{write(value, digits)} [{write(low, digits)}{between}{write(high, digits)}]"


def _number(value: float, digits: int) -> str:
    return DASH if pd.isna(value) else f"{value:.{digits}f}".replace("-", "−")


def _signed(value: float, digits: int) -> str:
    return DASH if pd.isna(value) else style.signed(value, digits)


def _p(value: float) -> str:
    return DASH if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
