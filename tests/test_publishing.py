"""Publishing: later runs add, other recipes and other data are refused, pages say what the tables say, nothing leaks."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from fake_results import METHODS, fake_curves, fake_ledger, fake_scores
from PIL import Image
from project import Project

from lib.errors import BadInput
from lib.figures.style import read_table
from lib.files import HOST, write_table
from lib.publishing.derive import publish, tables_of
from lib.publishing.overview import catalogue, overview_page, studies_in, verdicts, write_overview
from lib.publishing.page import BEGIN, END, about_experiment, study_page
from lib.publishing.study import leaks, merge, publishable, read_study, write_study
from lib.statistics import judge, read_scores, situations

CHOSEN = dict(list(METHODS.items())[:3])
SCORES = fake_scores(CHOSEN, patients=8, seeds=5, failed=None, missing=None)
LEDGER = fake_ledger(CHOSEN, seeds=5, failed=None, missing=None).assign(
    code="c0ffee", recipe="r", data=lambda t: "hash of fold " + t["fold"].astype(str), reason=""
)
CURVES = fake_curves(CHOSEN, seeds=5)
CLAIMS = {
    "shallow_segnet_beats_segnet": {
        "source": "Shallow SegNet",
        "says": "improved by 0.11",
        "treatment": {"method": "shallow_segnet_narrow+wce"},
        "control": {"method": "segnet_narrow+ce"},
        "published": {"difference": 0.11},
    }
}
SOONER = CLAIMS["shallow_segnet_beats_segnet"] | {"metric": "iterations_to_dice", "dice": 0.5, "published": {}}
SETTINGS = {
    "experiment": {"name": "tiny", "seeds": [0, 1, 2]},
    "datasets": {
        "brain_cohort": {
            "source": {"path": "/data/of/the/hospital"},
            "files": {"image": "/data/{patient}.nii"},
            "structures": {"csf": 1, "gray_matter": 2, "white_matter": 3},
            "preprocess": {"slices": "axial", "spacing": [2, 2, None]},
            "splits": {"folds": 2},
        }
    },
    "conditions": {"clean": {}},
    "protocols": {"demo": {"iterations": 150, "batch": 4, "patch": [32, 32], "checkpoint_minutes": 10}},
    "architectures": {"segnet_narrow": {"name": "segnet", "width": 8}, "shallow_segnet_narrow": {"width": 8}},
    "losses": {"ce": {"name": "cross_entropy"}, "wce": {"name": "cross_entropy", "weights": "median_frequency"}},
    "external": {},
    "interactive": {},
    "claims": CLAIMS | {"sooner": SOONER},
    "failed_cells": "worst",
    "empty_masks": "penalise",
}


def run(seeds=(0, 1, 2), settings=None, scores=SCORES, ledger=LEDGER):
    ledger, scores, curves = (table[table["seed"].isin(seeds)] for table in (ledger, scores, CURVES))
    return publishable(settings or SETTINGS, ledger, scores, "abc123", {"curves": curves})


def changed(*keys, to) -> dict:
    settings = copy.deepcopy(SETTINGS)
    *parents, last = keys
    inner = settings
    for key in parents:
        inner = inner[key]
    inner[last] = to
    return settings


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "tiny"
    publish(folder, run(), "Of a paper.")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    keys = ["method", "fold", "seed", "case", "structure", "metric"]
    return table.sort_values(keys).reset_index(drop=True)


def test_scores_come_back_to_five_digits_with_their_fates_and_units(published):
    scores = SCORES[SCORES["seed"] < 3]
    kept = in_order(scores[scores["metric"].isin(("dice", "iou", "nsd", "hd95", "assd"))])
    back = in_order(read_study(published).scores)
    np.testing.assert_allclose(back["value"], kept["value"], rtol=5e-5)
    names = [c for c in kept if c != "value"]
    pd.testing.assert_frame_equal(back[names], kept[names], check_dtype=False)
    assert set(back["status"]) == {"scored", "missed"}
    assert (published / "scores.csv.gz").stat().st_size < len(kept) * 5


def test_publishing_twice_gives_the_same_bytes(published, tmp_path):
    again = tmp_path / "tiny"
    shutil.copytree(published, again)
    publish(again, read_study(again), "Of a paper.")
    assert contents(again) == contents(published)


def test_later_seeds_give_what_all_at_once_would(published, tmp_path):
    later = merge(read_study(published), run(seeds=(3, 4)))
    at_once = run(seeds=range(5))
    assert len(later.ledger) == len(at_once.ledger) == 3 * 2 * 5
    merged, expected = tables_of(later), tables_of(at_once)
    assert merged["claims"]["n_seeds"].tolist() == [5, 5]
    assert merged["claims"]["n_trainings"].tolist()[1] > 3 * 2  # curves of later trainings count too
    for name, table in expected.items():
        pd.testing.assert_frame_equal(merged[name], table)
    cells = ["method", "fold", "seed"]
    pd.testing.assert_frame_equal(later.ledger[cells], at_once.ledger[cells])


def test_cells_that_run_again_replace_theirs_alone(published):
    better = SCORES.assign(value=np.where(SCORES["metric"] == "dice", SCORES["value"] * 0.5, SCORES["value"]))
    only = LEDGER[(LEDGER["method"] == "segnet_narrow+ce") & (LEDGER["seed"] == 1)]
    here = better[(better["method"] == "segnet_narrow+ce") & (better["seed"] == 1)]
    merged = merge(read_study(published), publishable(SETTINGS, only, here, "def456"))
    was, now = (in_order(s.scores).query("metric == 'dice'") for s in (read_study(published), merged))
    again = (now["method"] == "segnet_narrow+ce") & (now["seed"] == 1)
    np.testing.assert_allclose(now.loc[again, "value"], 0.5 * was.loc[again, "value"], rtol=1e-4)
    np.testing.assert_array_equal(now.loc[~again, "value"], was.loc[~again, "value"])
    assert merged.ledger["commit"].value_counts().to_dict() == {"abc123": 16, "def456": 2}


def test_an_accident_replaces_nothing_and_a_divergence_does(published):
    def ended(reason):
        ledger = LEDGER.assign(state=np.where(LEDGER["seed"] == 1, "failed", "ok"))
        ledger = ledger.assign(reason=np.where(ledger["seed"] == 1, reason, ""))
        scores = SCORES if reason == "diverged" else SCORES[SCORES["seed"] != 1]
        return merge(read_study(published), run(scores=scores, ledger=ledger)).ledger

    assert (ended("out-of-memory")["state"] == "ok").all()
    assert len(ended("out-of-memory")) == 18
    assert ended("diverged").query("seed == 1")["state"].tolist() == ["failed"] * 6


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (changed("architectures", "segnet_narrow", "width", to=16), "segnet_narrow: width is 8 in what is published, 16"),
        (changed("losses", "wce", to={"name": "focal"}), "losses: wce: name is 'cross_entropy'"),
        (changed("protocols", "demo", "iterations", to=300), "protocols: demo: iterations is 150"),
        (changed("datasets", "brain_cohort", "preprocess", "spacing", to=[1, 1, None]), "preprocess: spacing is [2, 2"),
        (changed("conditions", "clean", to={"image": {"kind": "rician"}}), "conditions: clean: image is None"),
    ],
)  # fmt: skip
def test_another_recipe_of_the_same_name_is_refused(published, settings, says):
    before = contents(published)
    with pytest.raises(BadInput) as refused:
        merge(read_study(published), run(seeds=(3, 4), settings=settings))
    assert says in str(refused.value)
    assert "seeds 0, 1, 2" in str(refused.value)
    assert contents(published) == before
    merge(read_study(published), run(seeds=range(5), settings=settings))  # all of them run again


def test_another_search_of_the_same_name_is_refused():
    def of(epochs, seed):
        genotype = {"genotype": {"search": "brief"}}
        recipes = {name: recipe | genotype for name, recipe in SETTINGS["architectures"].items()}
        settings = SETTINGS | {"architectures": recipes, "searches": {"brief": {"epochs": epochs}}}
        return run(seeds=(seed,), settings=settings)

    with pytest.raises(BadInput, match="searches: brief: epochs is 6 in what is published, 9 here"):
        merge(of(6, 0), of(9, 1))
    assert merge(of(6, 0), of(6, 1)).ledger["seed"].nunique() == 2


def test_where_data_lie_and_how_often_checkpoints_are_made_may_differ(published):
    elsewhere = changed("datasets", "brain_cohort", "source", to={"path": "elsewhere"})
    elsewhere["protocols"]["demo"]["checkpoint_minutes"] = 1
    assert merge(read_study(published), run(seeds=(3, 4), settings=elsewhere)).ledger["seed"].nunique() == 5


def test_of_simulated_images_the_recipe_is_published():
    simulated = changed("datasets", "brain_cohort", "source", to={"simulate": "icbm152", "patients": 8, "spacing": 2})
    study = run(seeds=(0, 1), settings=simulated)
    assert study.settings["datasets"]["brain_cohort"]["source"]["spacing"] == 2
    page = study_page("tiny", study, tables_of(study), [], "")
    assert "simulated (simulate icbm152, patients 8, spacing 2); csf" in page
    finer = changed("datasets", "brain_cohort", "source", to={"simulate": "icbm152", "patients": 8, "spacing": 1})
    with pytest.raises(BadInput, match="datasets: brain_cohort: source: spacing is 2 in what is published, 1 here"):
        merge(study, run(seeds=(3,), settings=finer))


def test_other_images_or_test_cases_are_refused(published):
    study = read_study(published)
    with pytest.raises(BadInput, match=r"images or labels of brain_cohort \(clean, fold 1\)"):
        merge(study, run(seeds=(3,), ledger=LEDGER.assign(data=np.where(LEDGER["fold"] == 1, "other", LEDGER["data"]))))
    with pytest.raises(BadInput, match="fold 0: other test cases, such as sub00"):
        merge(study, run(seeds=(3,), scores=SCORES[SCORES["case"] != "sub00"]))


def test_another_precision_is_refused(published):
    ledger = LEDGER.assign(precision=np.where(LEDGER["seed"] < 3, "float32", "bfloat16"))
    first = run(ledger=ledger)
    with pytest.raises(BadInput, match=r"segnet_narrow\+ce was trained in float32 and in bfloat16"):
        merge(first, run(seeds=(3,), ledger=ledger))


def test_tables_that_a_study_has_no_longer_do_not_stay(tmp_path):
    write_study(tmp_path / "tiny", run())
    assert (tmp_path / "tiny/curves.csv").exists()
    write_study(tmp_path / "tiny", publishable(SETTINGS, LEDGER, SCORES, "abc123"))
    assert read_study(tmp_path / "tiny").more == {}


def test_figures_that_a_study_has_no_longer_do_not_stay(tmp_path):
    publish(tmp_path / "tiny", run())
    assert (tmp_path / "tiny/claims.png").exists()
    publish(tmp_path / "tiny", run(settings=SETTINGS | {"claims": {}}))
    assert (tmp_path / "tiny/heatmap.png").exists() and not (tmp_path / "tiny/claims.png").exists()


def test_studies_without_validations_are_merged():
    def of(seed):
        rows = [table[table["seed"] == seed] for table in (LEDGER, SCORES)]
        return publishable(SETTINGS, *rows, "abc123", {"curves": CURVES.head(0)})

    merged = merge(of(0), of(1))
    assert merged.more == {} and merged.ledger["seed"].nunique() == 2


def test_the_overview_quotes_a_claim_of_an_experiment_as_its_own_provenance_says():
    row = {"claim": "own", "source": "A paper", "says": "it helps", "provenance": "implied", "verdict": "inconclusive"}
    table = read_table(ROOT / "docs/results/bifseg/claims.csv").head(1).assign(**row, study="s")
    page = overview_page({}, table, {})
    assert "| it helps |" in page and "“it helps”" not in page


def test_what_a_person_wrote_stays(published, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(published, folder)
    page = folder / "README.md"
    text = page.read_text()
    words = "It shows little:\n\n- 8 patients."
    page.write_text(text[: text.index(BEGIN) + len(BEGIN)] + f"\n{words}\n" + text[text.index(END) :])
    (folder / "by_hand.csv").write_text("case,what\n")
    publish(folder, merge(read_study(folder), run(seeds=(3, 4))), "Of a paper.")
    assert words in page.read_text()
    assert "5 seeds" in page.read_text()
    assert (folder / "by_hand.csv").exists()


def test_a_folder_that_lacks_a_source_is_an_error(published, tmp_path):
    shutil.copytree(published, tmp_path / "tiny")
    (tmp_path / "tiny/ledger.csv").unlink()
    with pytest.raises(BadInput, match=r"lacks ledger\.csv"):
        read_study(tmp_path / "tiny")
    assert read_study(tmp_path / "none") is None


def test_numbers_of_the_page_are_those_of_the_scores(published):
    page = (published / "README.md").read_text()
    parts = situations(read_scores_of(published))
    claim = read_table(published / "claims.csv").iloc[0]
    difference = judge(parts, CLAIMS).iloc[0][["difference", "low", "high"]].astype(float)
    np.testing.assert_allclose(claim[["difference", "low", "high"]].astype(float), difference, atol=1e-9)
    row = next(line for line in page.splitlines() if line.startswith("| `shallow_segnet_beats_segnet`"))
    numbers = [float(n) for n in re.findall(r"[+-]\d\.\d{3}", row.replace("−", "-"))]
    np.testing.assert_allclose(numbers, [0.11, claim.difference, claim.low, claim.high], atol=5.1e-4)
    assert row.endswith(f"| 8 × 3 | {claim.verdict} |")
    ranking = read_table(published / "ranking.csv").query("structure == 'mean' and metric == 'dice'")
    for row in ranking.itertuples():
        assert re.search(rf"`{re.escape(row.method)}`\*{{0,2}} \| \*{{0,2}}{row.mean:.3f} \[{row.low:.3f}, ", page)
    for name in re.findall(r"!\[.*?\]\((.*?)\)", page):
        with Image.open(published / name) as image:
            assert image.width > 400
    assert (published / "README.md").stat().st_size + sum(f.stat().st_size for f in published.glob("*.png")) < 150_000


def read_scores_of(folder: Path) -> pd.DataFrame:
    """The long table of the scores, without the library's reader."""
    wide = pd.read_csv(folder / "scores.csv.gz", dtype={"patient": str})
    metrics = ["dice", "iou", "nsd", "hd95", "assd"]
    long = wide.melt([c for c in wide if c not in metrics], metrics, "metric", "value")
    return long.assign(unit=long["unit"].where(long["metric"].isin(["hd95", "assd"]), ""))


def test_nothing_of_the_machine_is_published(published, tmp_path):
    for name, content in contents(published).items():
        if not name.endswith((".png", ".gz")):
            assert "hospital" not in content.decode(), name
            assert "results/logs" not in content.decode(), name
            assert not leaks(content.decode()), name
    settings = changed("conditions", "clean", to={"note": "/mnt/share/scanner7"})
    with pytest.raises(BadInput, match="/mnt/share/scanner7"):
        publish(tmp_path / "tiny", run(settings=settings))
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("at /home/me/data.nii", ["/home/me/data.nii"]),
        ("at ~/data.nii", ["~/d"]),
        ("from file:///data", ["file:/"]),
        ('"/scratch/x"', ["/scratch/x"]),
        (r"in D:\images", ["D:\\"]),
        ("a ratio of 1/2/3, docs/results/x.md, https://host.org/a/b", []),
        ("[config](../../config/x.yaml) and </details>", []),
        (f"ran on {HOST}x", []),
    ],
)
def test_leaks(text, found):
    assert leaks(text) == found


def test_the_overview_lists_every_claim_tested_or_not(published, tmp_path):
    shutil.copytree(published, tmp_path / "tiny")
    claims = catalogue(ROOT / "config/claims")
    write_overview(tmp_path, claims)
    page = (tmp_path / "README.md").read_text()
    claim = read_table(tmp_path / "tiny/claims.csv").iloc[0]
    for name in claims:
        (line,) = (line for line in page.splitlines() if line.startswith(f"| `{name}`"))
        tested = name == claim["claim"]
        assert ("not tested" in line) != tested
        assert ("[tiny](tiny/README.md)" in line) == tested
        if tested:
            assert f"**{claim['verdict']}**" in line
            assert f"{claim['difference']:+.3f} [".replace("-", "−") in line
    assert f"{len(claims) - 1} not tested" in page
    with Image.open(tmp_path / "overview.png") as image:
        assert image.width > 400


def users_run(seeds):
    """Sessions of two methods: scores have a robot, the ledger no loss."""
    rng = np.random.default_rng(1)
    rows = [
        {
            "dataset": "brain_cohort", "condition": "clean", "protocol": "boxes", "method": method,
            "architecture": method, "loss": "interactive", "fold": 0, "seed": seed, "patient": f"p{p}", "case": f"p{p}",
            "structure": structure, "metric": metric, "value": level + rng.normal(0, 0.01), "unit": "",
            "status": "scored", "robot": "optimal",
        }
        for seed in range(5) for p in range(8) for structure in ("csf", "white_matter")
        for method, level in (("bifseg", 0.8), ("grabcut", 0.7)) for metric in ("dice_auc", "dice")
    ]  # fmt: skip
    scores = pd.DataFrame(rows).query("seed in @seeds")
    names = ["dataset", "condition", "protocol", "method", "architecture", "fold", "seed"]
    ledger = scores[names].drop_duplicates().assign(kind="session", state="ok", reason="", wall_seconds=3.0)
    users = {
        "settings": {"robots": ["optimal"], "interactions": 5}, "methods": {}, "networks": {}, "protocol": {},
        "objects": {"brain_cohort": {"seen": ["white_matter"], "unseen": ["csf"]}},
    }  # fmt: skip
    claim = {"bifseg_wins": CLAIMS["shallow_segnet_beats_segnet"] | {"metric": "dice_auc", "structure": "unseen"}}
    claim["bifseg_wins"] |= {"treatment": {"method": "bifseg"}, "control": {"method": "grabcut"}, "published": {}}
    protocols = {"boxes": {"iterations": 600, "batch": 1, "patch": [48, 48]}}
    settings = SETTINGS | {"interactive": users, "claims": claim, "protocols": protocols}
    return publishable(settings, ledger, scores, "abc123")


def test_sessions_of_users_are_published_and_added_to(tmp_path):
    write_study(tmp_path / "users", users_run((0, 1, 2)))
    merged = merge(read_study(tmp_path / "users"), users_run((3, 4)))
    publish(tmp_path / "users", merged)
    (claim,) = read_table(tmp_path / "users/claims.csv").itertuples()
    assert (claim.verdict, claim.n_patients, claim.n_seeds) == ("reproduced", 8, 5)
    assert abs(claim.difference - 0.1) < 0.01
    assert re.search(r"\| `bifseg` \| unseen \| dice_auc \| 0\.(79|80)", (tmp_path / "users/README.md").read_text())


def published_here() -> list[str]:
    return [*studies_in(ROOT / "docs/results")]


def test_the_overview_of_this_repository_is_up_to_date():
    from lib.publishing.overview import measured

    folder, claims = ROOT / "docs/results", catalogue(ROOT / "config/claims")
    studies = studies_in(folder)
    found = measured(folder, list(studies))
    assert (folder / "README.md").read_text() == overview_page(studies, found, claims), "make docs"
    assert len(verdicts(found, claims)) >= len(claims)


@pytest.mark.slow
@pytest.mark.parametrize("name", published_here())
def test_tables_and_pages_of_this_repository_follow_from_its_scores(name, tmp_path):
    folder = ROOT / "docs/results" / name
    study, page = read_study(folder), (folder / "README.md").read_text()
    tables = tables_of(study)
    claims = ["claims"] if study.settings["claims"] else []
    assert ("claims" in tables) == (folder / "claims.csv").exists() == bool(claims)
    for file in (*claims, "ranking", "comparisons"):
        write_table(tmp_path / f"{file}.csv", tables[file])
        there, here = read_table(folder / f"{file}.csv"), read_table(tmp_path / f"{file}.csv")
        pd.testing.assert_frame_equal(there, here, check_dtype=False, rtol=1e-6)
    figures = [path.stem for path in folder.glob("*.png")]
    about = about_experiment(name, ROOT / "config/experiments")
    written = study_page(name, study, tables, figures, about, page)
    assert sorted(written.splitlines()) == sorted(page.splitlines()), "make docs"
    packed, rows = (folder / "scores.csv.gz").stat().st_size, len(pd.read_csv(folder / "scores.csv.gz"))
    assert packed < min(25 * rows, 1_000_000), "too much for a repository"


@pytest.mark.slow
def test_the_command(tmp_path):
    """On tables that lie there: the rules that would make them are not allowed, so their inputs may lack."""
    config = {
        "datasets": {"brain_cohort": {"splits": {"folds": 2}}},
        "protocols": {"demo": {"iterations": 150, "batch": 4, "patch": [32, 32]}},
        "experiment": {
            "name": "tiny", "datasets": ["brain_cohort"], "methods": [*CHOSEN], "protocol": "demo", "folds": [0, 1],
            "seeds": [0, 1, 2], "claims": ["shallow_segnet_beats_segnet"],
            "stand_ins": {"segnet": "segnet_narrow", "shallow_segnet": "shallow_segnet_narrow"},
        },
    }  # fmt: skip
    project = Project(tmp_path, config)
    results = tmp_path / "results/tiny"
    results.mkdir(parents=True)
    ledger = LEDGER[LEDGER["seed"] < 3]
    SCORES[SCORES["seed"] < 3].to_csv(results / "scores.csv", index=False)
    ledger.to_csv(results / "ledger.csv", index=False)
    CURVES[CURVES["seed"] < 3].to_csv(results / "curves.csv", index=False)
    for row in ledger.itertuples():
        place = tmp_path / "results/cells/brain_cohort/clean/demo" / row.architecture / row.loss
        place = place / f"fold{row.fold}/seed{row.seed}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "evaluate.json").write_text("{}")
    command = ("publish", "--allowed-rules", "publish", "--nolock")
    text = project.snakemake(*command).stdout
    assert "18 cells of this run; published: 0 before, 18 now" in text
    folder = tmp_path / "docs/results"
    claims = read_table(folder / "tiny/claims.csv")
    expected = judge(situations(read_scores(results / "scores.csv")), CLAIMS)
    np.testing.assert_allclose(claims["difference"], expected["difference"], atol=1e-5)
    assert "[tiny](tiny/README.md)" in (folder / "README.md").read_text()
    config["protocols"]["demo"]["iterations"] = 300
    config["experiment"]["seeds"] = [0, 1]
    project.configure(config)
    ledger[ledger["seed"] < 2].to_csv(results / "ledger.csv", index=False)
    before = contents(folder / "tiny")
    refused = project.snakemake(*command, check=False)
    assert refused.returncode == 1
    assert "protocols: demo: iterations is 150 in what is published, 300 here" in refused.stdout
    assert contents(folder / "tiny") == before
    assert yaml.safe_load(before["settings.yaml"])["experiment"]["name"] == "tiny"
