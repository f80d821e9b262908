"""Tables for papers: every number of the CSV found again, in Markdown and in LaTeX that LaTeX can read."""

from __future__ import annotations

import re

import fake_results as fake
import numpy as np
import pandas as pd
import pytest

from lib import typeset
from lib.figures import style
from lib.files import write_table

PLACE = ("brain_cohort", "clean", "demo")
UNITS = {("brain_cohort", "hd95"): "mm", ("brain_cohort", "assd"): "mm"}


@pytest.fixture(scope="module")
def ranking() -> pd.DataFrame:
    return fake.fake_ranking(fake.fake_scores())


def markdown_rows(text: str) -> list[dict[str, str]]:
    lines = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("|")
    ]
    header, _, *rows = lines
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_ranking_holds_means_intervals_and_n_best_first(ranking):
    rows = markdown_rows(typeset.markdown(typeset.ranking_tables(ranking, UNITS)))
    primary = style.ranked(ranking, PLACE)
    assert [row["method"].strip("*`") for row in rows] == primary["method"].tolist()
    hd95 = ranking[(ranking["structure"] == "mean") & (ranking["metric"] == "hd95")].set_index("method")
    for row, expected in zip(rows, primary.itertuples(), strict=True):
        assert row["Dice"].strip("*") == f"{expected.mean:.3f} [{expected.low:.3f}, {expected.high:.3f}]"
        other = hd95.loc[expected.method]
        assert row["HD95, mm"] == f"{other['mean']:.2f} [{other['low']:.2f}, {other['high']:.2f}]".replace("-", "−")
        assert row["patients × seeds"] == f"{expected.n_patients} × {expected.n_seeds}"
        assert row["missed"] == str(expected.n_missed) and row["failed"] == str(expected.n_failed)
        assert row["rank"] == f"{expected.rank} [{expected.rank_low} to {expected.rank_high}]"


def test_bold_is_the_top_group_and_the_note_says_so(ranking):
    (table,) = typeset.ranking_tables(ranking, UNITS)
    primary = style.ranked(ranking, PLACE)
    top = primary.loc[primary["top_group"], "method"].tolist()
    rows = markdown_rows(typeset.markdown([table]))
    assert 0 < len(top) < len(rows)
    assert [row["method"].strip("*`") for row in rows if row["method"].startswith("**")] == top
    assert [row["method"] for row in rows if "**" in row["Dice"]] == [f"**`{method}`**" for method in top]
    assert not any("**" in row["NSD"] for row in rows)
    latex = typeset.latex([table])
    assert re.findall(r"^\\textbf\{(\S+)\} & \\textbf", latex, re.M) == [m.replace("_", r"\_") for m in top]
    assert "confidence set for the highest mean Dice; its members need not be equal" in table.notes
    first = ranking.loc[ranking["rank"] == 1, "method"].iloc[0]
    (mixed,) = typeset.ranking_tables(ranking.assign(seeds_enough=ranking["method"] != first), UNITS)
    assert mixed.notes.count(f"fewer than 3 seeds, and so separated from nothing: {first}.") == 1
    assert dict(zip(mixed.rows["method"], mixed.rows["P(best)"] == "–", strict=True))[first]
    assert (mixed.rows["P(best)"] == "–").sum() == (table.rows["P(best)"] == "–").sum() + 1
    (few,) = typeset.ranking_tables(ranking.assign(seeds_enough=False), UNITS)
    assert "**" not in typeset.markdown([few]) and "decide nothing" in few.notes and "Bold" not in few.notes


def test_pairs_say_separated_in_a_word_and_are_not_bold(ranking):
    pairs = fake.fake_comparisons(ranking)
    pairs.loc[1, ["low", "high"]] = np.nan
    text = typeset.markdown(typeset.comparison_tables(pairs))
    rows = markdown_rows(text)
    assert "**" not in text and len(rows) == 21
    for row, pair in zip(rows, pairs.itertuples(), strict=True):
        assert (row["A"], row["B"]) == (f"`{pair.method_a}`", f"`{pair.method_b}`")
        interval = "" if np.isnan(pair.low) else f" [{style.signed(pair.low)}, {style.signed(pair.high)}]"
        assert row["Dice, A − B"] == style.signed(pair.difference) + interval
        assert row["separated"] == ("yes" if pair.separated else "no")


def test_claims_hold_published_and_measured_and_dashes_for_what_is_missing():
    claims = fake.fake_claims()
    rows = markdown_rows(typeset.markdown(typeset.claim_tables(claims)))
    assert [row["verdict"] for row in rows] == claims["verdict"].tolist()
    assert rows[0]["published"] == "+0.110" and rows[0]["measured"] == "+0.105 [+0.060, +0.149]"
    assert rows[-1]["measured"] == rows[-1]["p, Holm"] == rows[-1]["patients × seeds"] == "–"
    assert typeset.markdown(typeset.claim_tables(claims.iloc[:0])) == "None.\n"


def test_a_claim_that_was_measured_nowhere_is_a_row_of_dashes(tmp_path):
    claims = fake.fake_claims()
    claims.loc[1, ["dataset", "condition", "protocol"]] = ""
    write_table(tmp_path / "claims.csv", claims)
    rows = markdown_rows(typeset.markdown(typeset.claim_tables(style.read_table(tmp_path / "claims.csv"))))
    assert rows[1]["where"] == "`–`" and "·" in rows[0]["where"]


def test_cost_is_the_mean_per_training_and_names_methods_without_cost():
    ledger = fake.fake_ledger()
    external = {
        "method": "folder",
        "architecture": "folder",
        "loss": "external",
        "wall_seconds": np.nan,
        "device": None,
    }
    cells = pd.concat([ledger, ledger[ledger["method"] == "unet_narrow+ce"].assign(**external)])
    (table,) = typeset.cost_tables(cells)
    rows = {row["method"].strip("`"): row for row in markdown_rows(typeset.markdown([table]))}
    assert list(rows) == list(fake.METHODS)
    assert table.notes.endswith("Unknown: folder.")
    failed = rows[fake.FAILED[0]]
    ok = ledger[(ledger["method"] == fake.FAILED[0]) & (ledger["state"] == "ok")]
    assert failed["trainings"] == str(len(ok)) == "5"
    assert float(failed["minutes"]) == pytest.approx(ok["wall_seconds"].mean() / 60, rel=0.005)
    assert "GPU-hours" not in failed and "energy, Wh" not in failed, "columns that nothing is known of are left out"
    assert typeset.cost_tables(ledger.assign(state="failed")) == []


def test_latex_is_escaped_balanced_and_has_booktabs_rules(ranking):
    strange = ranking.assign(method=ranking["method"] + r"_50%&#{x}$y^~\z")
    (table,) = typeset.ranking_tables(strange, UNITS)
    text = typeset.latex([table])
    body = text.partition(r"\midrule")[2].partition(r"\bottomrule")[0]
    rows = [row for row in body.split(r"\\" + "\n") if row.strip()]
    assert len(rows) == len(fake.METHODS)
    for row in rows:
        assert len(re.findall(r"(?<!\\)&", row)) == table.rows.shape[1] - 1
        assert not re.search(r"(?<!\\)[%#_]", row)
        assert r"\_50\%\&\#\{x\}\$y\textasciicircum{}\textasciitilde{}\textbackslash{}z" in row
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert all(text.count(rf"\{rule}rule") == 1 for rule in ("top", "mid", "bottom"))
    assert text.isascii(), "plain LaTeX needs no further package"
    caption = re.search(r"\\caption\{(.*)\}\n", text).group(1)
    assert "brain\\_cohort" in caption and r"95 \%" in caption


def test_a_long_table_breaks_over_pages(ranking):
    pairs = fake.fake_comparisons(ranking)
    many = pd.concat([pairs, pairs, pairs])
    text = typeset.latex(typeset.comparison_tables(many))
    assert r"\begin{longtable}" in text and r"\endhead" in text and r"\begin{table}" not in text
    assert r"\begin{table}" in typeset.latex(typeset.comparison_tables(pairs))
