"""The page of a study, in Markdown: verdicts, what a person says of them, scores, figures, and what made it all."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

import pandas as pd

from lib.figures.captions import caption_of
from lib.publishing.study import Study
from lib.rates import is_tuned
from lib.report.rates import learning_rates
from lib.statistics.sentences import budget_text
from lib.typeset import DASH, claim_tables, comparison_tables, cost_tables, markdown, ranking_tables

BEGIN = "<!-- Written by hand from here on: publishing again keeps it. -->"
END = "<!-- Written by hand up to here. -->"
NOTHING = "Nobody has said yet what these numbers show, and what they do not."


def study_page(
    name: str, study: Study, tables: dict[str, pd.DataFrame], figures: list[str], about: str, written: str = ""
) -> str:
    """The page. tables: `derive.tables_of`. about: what the experiment is, a paragraph. written: the page as it was."""
    claims = tables.get("claims", pd.DataFrame())
    sections = [
        f"# {name}",
        f"{about}\n" if about else "",
        "All numbers and figures of this page are made from `scores.csv.gz`, `ledger.csv` and `settings.yaml` beside "
        "it ([how](../../publishing.md)).",
        "## Verdicts",
        _verdicts(claims),
        *(_figure(figure) for figure in figures if figure == "claims"),
        "## What this shows, and what not",
        f"{BEGIN}\n{by_hand(written)}\n{END}",
        "## Data and budget",
        _data(study),
        "## Scores",
        _demoted(markdown(ranking_tables(tables["ranking"], _units(study)))) if not study.users else _users(tables),
        *(_figure(figure) for figure in figures if figure != "claims"),
        *_pairs(tables),
        *_rates(study),
        "## What made it",
        _made(study),
    ]
    return "\n\n".join(section.strip("\n") for section in sections if section) + "\n"


def about_experiment(name: str, experiments: Path) -> str:
    """The comment at the head of an experiment's file and a link to it; empty where the folder has no such file."""
    file = experiments / f"{name}.yaml"
    if not file.exists():
        return ""
    lines = file.read_text(encoding="utf-8").splitlines()
    comment = [line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines)]
    link = f"[`config/experiments/{name}.yaml`](../../../config/experiments/{name}.yaml)"
    arguments = f"--configfile config/experiments/{name}.yaml"
    if any(line.endswith(arguments) for line in comment):
        how = "what has to be fetched by hand, that command says"
    else:
        how = f"`snakemake {arguments}` runs it, or says what has to be fetched by hand"
    larger = "[A larger one](../../publishing.md#a-larger-run-of-a-published-experiment) takes other names"
    return "\n".join([*comment, f"\nThe experiment is {link}; {how}. {larger}."])


def by_hand(page: str) -> str:
    """What a person wrote on a page; of a page that is new, a sentence that says so."""
    _, begun, rest = page.partition(BEGIN)
    text, ended, _ = rest.partition(END)
    return text.strip() if begun and ended else NOTHING


def _verdicts(claims: pd.DataFrame) -> str:
    if claims.empty:
        return "The experiment tests no claim."
    sentences = "\n".join(f"- `{row.claim}`: **{row.verdict}**. {row.sentence}" for row in claims.itertuples())
    if len(claims) > 5:
        sentences = f"<details><summary>In sentences</summary>\n\n{sentences}\n\n</details>"
    return f"{_demoted(markdown(claim_tables(claims)))}\n\n{sentences}"


def _demoted(text: str) -> str:
    """Headings of tables as bold lines: the page has its own."""
    return "\n".join(f"**{line[4:]}**" if line.startswith("### ") else line for line in text.splitlines())


def _units(study: Study) -> dict:
    units = study.scores[study.scores["unit"].fillna("") != ""].drop_duplicates(["dataset", "metric"])
    return units.set_index(["dataset", "metric"])["unit"].to_dict()


def _users(tables: dict[str, pd.DataFrame]) -> str:
    """Sessions with simulated users: what of the ranking has no place in the tables of trained methods."""
    ranking = tables["ranking"]
    shown = ranking[ranking["structure"].isin(("mean", "seen", "unseen"))]
    lines = [
        "| method | structures | metric | mean [95 % interval] | rank | patients × seeds |",
        "|:--|:--|:--|--:|--:|--:|",
    ]
    for row in shown.sort_values(["structure", "metric", "rank"], kind="stable").itertuples():
        low, high = (DASH if pd.isna(end) else f"{end:.3f}" for end in (row.low, row.high))
        position = DASH if pd.isna(row.rank) else f"{row.rank:.0f}"
        lines.append(
            f"| `{row.method}` | {row.structure} | {row.metric} | {row.mean:.3f} [{low}, {high}] | {position} | "
            f"{row.n_patients} × {row.n_seeds} |"
        )
    return "\n".join(lines)


def _pairs(tables: dict[str, pd.DataFrame]) -> list[str]:
    if "comparisons" not in tables:
        return []
    pairs = _demoted(markdown(comparison_tables(tables["comparisons"])))
    return [f"<details><summary>All pairs of methods</summary>\n\n{pairs}\n\n</details>"]


def _rates(study: Study) -> list[str]:
    """What the search for learning rates came to."""
    parts = []
    for place in learning_rates(study.more["learning_rates"]) if "learning_rates" in study.more else []:
        head = ["method", *(f"{rate:g}" for rate in place["rates"])]
        lines = [f"| {' | '.join(head)} |", f"|:--|{'--:|' * len(place['rates'])}"]
        for row in place["methods"]:
            cells = [f"{cell['mean']:.3f} ({cell['chosen']})" for cell in row["cells"]]
            lines.append(f"| `{row['method']}` | {' | '.join(cells)} |")
        parts.append(f"**{place['title']}**\n\n" + "\n".join(lines))
    if parts:
        parts.insert(
            0,
            "## Learning rates\n\nMean validation Dice of each rate that was tried, and how often it was chosen; "
            "a failed trial counts as 0.",
        )
    return parts


def _figure(stem: str) -> str:
    title, caption = caption_of(stem)
    return f"![{title}]({stem}.png)\n\n*{title}.* {caption}"


def _data(study: Study) -> str:
    scores, ledger, lines = study.scores, study.ledger, []
    for dataset, rows in scores.groupby("dataset", sort=False):
        recipe = study.settings["datasets"][dataset]
        folds, seeds = (sorted(rows[key].unique()) for key in ("fold", "seed"))
        made = f"simulated ({_words(recipe['source'])}); " if "source" in recipe else ""
        lines.append(
            f"- `{dataset}`: {rows['patient'].nunique()} patients, {rows['case'].nunique()} cases, each tested once "
            f"per seed; {len(folds)} of {recipe.get('splits', {}).get('folds', len(folds))} folds, {len(seeds)} seeds; "
            f"{made}{', '.join(rows['structure'].unique())}; {_words(recipe.get('preprocess', {}))}. "
            f"Terms: {recipe.get('licence', 'not recorded')}."
        )
    for name, protocol in study.settings["protocols"].items():
        lines.append(f"- Protocol `{name}`: {budget_text(protocol) or 'no training'}; {_words(protocol)}.")
    for name in scores["condition"].unique():
        if settings := study.settings["conditions"][name]:
            lines.append(f"- Condition `{name}`: {_words(settings)}.")
    states = ledger["state"].value_counts()
    lines.append(f"- Cells: {len(ledger)}, of which {', '.join(f'{n} {state}' for state, n in states.items())}.")
    return "\n".join(lines)


def _words(settings: dict) -> str:
    said = []
    for key, value in settings.items():
        if key in ("iterations", "epochs", "minutes", "batch") or value is None:
            continue
        if value == {}:
            value = "by default"
        elif isinstance(value, dict):
            value = f"({_words(value)})"
        elif isinstance(value, list):
            value = " × ".join("as it is" if v is None else str(v) for v in value)
        said.append(f"{key} {value}")
    return ", ".join(said)


def _made(study: Study) -> str:
    ledger, lines = study.ledger, []
    costs = markdown(cost_tables(ledger)) if "parameters" in ledger and ledger["wall_seconds"].notna().any() else ""
    for column, what in (("hardware", "Made on"), ("software", "With"), ("commit", "Published from commit")):
        if column in ledger:
            counts = ledger[column].replace("", pd.NA).dropna().value_counts(sort=False)
            said = "; ".join(f"{value} ({n} cells)" for value, n in counts.items())
            lines.append(f"- {what}: {said}." if said else "")
    if "code" in ledger:
        codes = ledger.groupby("method", sort=False)["code"].agg(lambda found: sorted({*found.dropna()}))
        lines += [
            f"- Several versions of the code trained `{method}`: {', '.join(code[:12] for code in found)}."
            for method, found in codes.items()
            if len(found) > 1
        ]
    tuned = ledger["protocol"].map(is_tuned)  # these cost what the chosen trials cost
    minutes, rate = ledger.loc[~tuned, "wall_seconds"].sum() / 60, " at the common rate" if tuned.any() else ""
    lines.append(f"- Wall time of all cells together{rate}: {minutes:.0f} minutes.")
    return f"{_demoted(costs)}\n\n" + "\n".join(line for line in lines if line)
