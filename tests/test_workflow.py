"""The workflow end to end, in a copy of the repository, on a tiny simulated cohort."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest
from project import COHORT, ROOT, Project

from lib.data.cases import read_index
from lib.figures.style import read_table
from lib.statistics.wording import overclaims, sentences_of_html, sentences_of_text
from lib.status import forget_failure

pytestmark = pytest.mark.slow

TINY = {
    "datasets": {"brain_cohort": COHORT},
    "protocols": {"smoke": {"iterations": 6, "batch": 2, "patch": [32, 32], "validate_every": 3}},
    "losses": {"explosive": {"name": "explosive"}, "broken": {"name": "broken"}, "crashing": {"name": "crashing"}},
    "experiment": {
        "name": "tiny",
        "datasets": ["brain_cohort"],
        "methods": ["unet_narrow+ce", "unet_narrow+dbce", "segnet_narrow+ce"],
        "stand_ins": {"unet": "unet_narrow"},
        "protocol": "smoke",
        "folds": [0, 1],
        "seeds": [0],
        "claims": ["dbce_beats_ce"],
    },
    "attempts": 1,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Project:
    project = Project(tmp_path_factory.mktemp("project"), TINY)
    project.snakemake()
    return project


@pytest.fixture
def project(finished: Project):
    """The finished project; what a test edits is put back afterwards, so that it is finished again."""
    kept = {
        p: p.read_bytes() for part in ("workflow", "config", "rules") for p in (finished.folder / part).rglob("*.*")
    }
    yield finished
    for path, content in kept.items():
        if path.read_bytes() != content:
            path.write_bytes(content)
    finished.configure(TINY)


def test_the_chain_ends_in_tables_figures_and_a_report(finished):
    ledger = finished.table("ledger.csv")
    assert len(ledger) == 6 and set(ledger["state"]) == {"ok"}
    scores = finished.table("scores.csv")
    # 6 cells × 3 test patients × 3 structures × 8 metrics
    assert len(scores) == 6 * 3 * 3 * 8
    assert scores.groupby(["method", "patient", "structure", "metric"]).size().eq(1).all(), "each patient tested once"
    assert finished.table("claims.csv")["verdict"].tolist() == ["one training"]
    figures = {p.name for p in (finished.folder / "results/tiny/figures").iterdir()}
    assert {"heatmap.pdf", "heatmap.png", "claims.png", "curves.png", "distributions.png"} <= figures
    page = (finished.folder / "results/tiny/report/index.html").read_text()
    assert "unet_narrow+dbce" in page or "unet_narrow × dbce" in page


def test_nothing_that_was_written_compares_methods_that_are_not_separated(finished):
    results = finished.folder / "results/tiny"
    written = [part for page in results.rglob("*.html") for part in sentences_of_html(page.read_text())]
    texts = [path for kind in ("md", "tex", "rst", "txt") for path in results.rglob(f"*.{kind}")]
    written += [part for path in texts for part in sentences_of_text(path.read_text())]
    claims, comparisons = (read_table(results / f"{name}.csv") for name in ("claims", "comparisons"))
    written += [part for text in claims["sentence"] for part in sentences_of_text(text)]
    assert len(written) > 100
    assert overclaims(written, claims, comparisons) == []


def test_a_finished_experiment_has_nothing_to_do(finished):
    assert finished.planned() == {}


def test_predictions_lie_in_the_geometry_of_their_images(finished):
    import nibabel as nib

    data = finished.folder / "results/data/brain_cohort"
    for case in read_index(data / "cases.csv"):
        (file,) = (finished.folder / "results/cells").glob(
            f"*/clean/smoke/unet_narrow/ce/*/seed0/predictions/{case.case}.*"
        )
        prediction, image = nib.load(file), nib.load(finished.folder / case.images["image"])
        assert prediction.shape == image.shape
        assert abs(prediction.affine - image.affine).max() < 1e-4


def test_verify_finds_a_prediction_and_a_table_that_were_changed(finished):
    assert "no difference" in finished.snakemake("verify").stdout
    results = finished.folder / "results"
    prediction = next((results / "cells").glob("*/clean/smoke/unet_narrow/ce/fold0/seed0/predictions/*.nii.gz"))
    other = next((results / "cells").glob(f"*/clean/smoke/unet_narrow/dbce/fold0/seed0/predictions/{prediction.name}"))
    ranking = results / "tiny/ranking.csv"
    kept = {path: (path.read_bytes(), path.stat()) for path in (prediction, ranking)}
    try:
        shutil.copy(other, prediction)
        ranking.write_text(ranking.read_text().replace("unet_narrow+ce,", "unet_narrow+other,", 1))
        run = finished.snakemake("verify", check=False)
        found = finished.table("verify.csv")
    finally:
        for path, (content, was) in kept.items():
            path.write_bytes(content)
            os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert run.returncode != 0 and "differences; all of them: results/tiny/verify.csv" in run.stdout
    case = prediction.name.removesuffix(".nii.gz")
    cells = found[found["table"].str.contains("cells")]
    assert len(cells) and cells["row"].str.contains(case).all() and cells["table"].str.contains("/ce/fold0").all()
    assert found.loc[found["table"] == "results/tiny/ranking.csv", "stored"].tolist() == ["unet_narrow+other"]
    assert finished.planned() == {}


def test_progress_diff_and_export(finished):
    assert "tiny: 6 cells: 6 done, 0 failed, 0 running, 0 waiting" in finished.snakemake("progress").stdout
    same = finished.snakemake("diff", "--config", "old=results/tiny", "new=results/tiny").stdout
    assert "No difference: 6 cells" in same
    finished.snakemake("export")
    assert {p.name for p in (finished.folder / "results/tiny/exports").iterdir()} >= {"challenger.csv", "crate.zip"}


def test_a_forecast_probes_the_methods_that_have_not_run(project):
    assert "tiny: 6 cells, 0 to run" in project.snakemake("forecast").stdout
    experiment = TINY["experiment"] | {"seeds": [0, 1]}
    project.configure(TINY | {"experiment": experiment})
    text = project.snakemake("forecast").stdout
    assert "probing unet_narrow+ce on brain_cohort" in text and "tiny: 12 cells, 6 to run" in text


def test_a_comment_or_docstring_reruns_nothing(project):
    for file in (
        "training/trainer.py",
        "losses/dilated_balanced_cross_entropy.py",
        "metrics/__init__.py",
        "models/unet.py",
    ):
        path = project.lib / file
        path.write_text(path.read_text() + "\n\n# a thought\n")
    script = project.folder / "workflow/scripts/train.py"
    script.write_text(script.read_text() + "# another\n")
    assert project.planned() == {}


def test_an_edited_loss_retrains_the_cells_that_use_it(project):
    path = project.lib / "losses/dilated_balanced_cross_entropy.py"
    path.write_text(path.read_text() + "\nANSWER = 42\n")
    plan = project.planned()
    assert (plan["train"], plan["predict"], plan["evaluate"]) == (2, 2, 2)
    assert "preprocess" not in plan


def test_an_edited_architecture_retrains_the_cells_that_use_it(project):
    path = project.lib / "models/segnet.py"
    path.write_text(path.read_text() + "\nANSWER = 42\n")
    assert project.planned()["train"] == 2


def test_an_edited_recipe_retrains_its_cells(project):
    project.configure(
        TINY | {"losses": TINY["losses"] | {"dbce": {"name": "dilated_balanced_cross_entropy", "radius": 3}}}
    )
    assert project.planned()["train"] == 2


def test_what_cannot_change_a_result_retrains_nothing(project):
    smoke = TINY["protocols"]["smoke"] | {"checkpoint_minutes": 3, "optimizer": "adamw"}
    project.configure(TINY | {"protocols": {"smoke": smoke}})
    assert project.planned() == {"write_report": 1}, "the page prints the configuration"


def test_an_edited_metric_scores_again_without_training(project):
    path = project.lib / "metrics/__init__.py"
    path.write_text(path.read_text() + "\nANSWER = 42\n")
    plan = project.planned()
    assert plan["evaluate"] == 6 and "train" not in plan and "predict" not in plan


def test_another_surface_scores_again_without_training(project):
    project.configure(TINY | {"datasets": {"brain_cohort": COHORT | {"surface": "surfels"}}})
    plan = project.planned()
    assert plan["evaluate"] == 6 and plan.keys().isdisjoint({"train", "predict", "preprocess", "split"})


def test_an_edited_figure_draws_that_figure_and_the_report(project):
    path = project.lib / "figures/heatmap.py"
    path.write_text(path.read_text() + "\nANSWER = 42\n")
    assert project.planned() == {"plot_heatmap": 1, "write_report": 1}


def test_another_seed_trains_only_what_is_new(project):
    project.configure(TINY | {"experiment": TINY["experiment"] | {"seeds": [0, 1]}})
    assert project.planned()["train"] == 6


def test_the_cluster_profile_plans(finished, tmp_path):
    shutil.copytree(ROOT / "slurm-gpu", finished.folder / "slurm-gpu", dirs_exist_ok=True)
    run = finished.snakemake("--profile", "slurm-gpu", "--dry-run", "--forceall", check=False)
    if "invalid choice: 'slurm'" in run.stdout:
        pytest.skip("the Slurm plug-in is an extra: make slurm")
    assert run.returncode == 0, run.stdout[-3000:]
    assert "gpu=1" in run.stdout


@pytest.fixture(scope="module")
def failing(tmp_path_factory) -> Project:
    """An experiment in which one loss diverges, one raises and one crashes, beside one that works."""
    project = Project(tmp_path_factory.mktemp("failing"), TINY)
    methods = [f"unet_narrow+{loss}" for loss in ("ce", "explosive", "broken", "crashing")]
    experiment = TINY["experiment"] | {"methods": methods, "claims": [], "folds": [0]}
    project.configure(TINY | {"experiment": experiment, "attempts": 2})
    project.snakemake("--retries", "1")
    return project


def test_every_failure_is_a_row_with_its_reason_and_the_report_is_there(failing):
    ledger = failing.table("ledger.csv").set_index("loss")
    assert ledger["state"].to_dict() == {"ce": "ok", "explosive": "failed", "broken": "failed", "crashing": "failed"}
    assert ledger["reason"].to_dict() == {"ce": "", "explosive": "diverged", "broken": "error", "crashing": "error"}
    assert ledger["attempts"].astype(int).to_dict() == {"ce": 1, "explosive": 1, "broken": 2, "crashing": 2}
    assert "SIGSEGV" in ledger.loc["crashing", "message"]
    page = (failing.folder / "results/tiny/report/index.html").read_text()
    for word in ("diverged", "SIGSEGV", "IndexError"):
        assert word in page


def test_a_diverged_method_scores_worst_and_an_accident_scores_nothing(failing):
    scores = failing.table("scores.csv")
    dice = scores[scores["metric"] == "dice"].groupby("loss")["value"].max()
    assert dice["explosive"] == 0 and dice["ce"] > 0
    assert set(dice.index) == {"ce", "explosive"}


def test_recorded_failures_are_not_retried_until_asked(failing):
    assert failing.planned("--retries", "0") == {}
    run = failing.snakemake("--config", "retry_failed=true", "--dry-run")
    assert "3 recorded failures" in run.stdout
    assert failing.planned() == {}, "a dry run forgets nothing"


def test_strict_turns_failures_into_an_error_after_the_report(failing):
    run = failing.snakemake("--config", "strict=true", "--retries", "0", check=False)
    assert run.returncode != 0
    assert "3 of 4 cells are not ok" in run.stdout


def test_a_forgotten_failure_runs_again(failing, monkeypatch):
    monkeypatch.chdir(failing.folder)
    forget_failure("results/cells/brain_cohort/clean/smoke/unet_narrow/explosive/fold0/seed0")
    assert failing.planned()["train"] == 1


def test_an_accident_leaves_no_older_result_behind(failing):
    losses = failing.config["losses"] | {"ce": {"name": "broken"}}
    failing.configure(failing.config | {"losses": losses})
    assert failing.snakemake("--retries", "0", check=False).returncode != 0
    assert failing.planned()["train"] == 1, "what failed last time is still to be done"
    failing.snakemake("results/tiny/ledger.csv", "--config", "partial=true")
    ledger = failing.table("ledger.csv").set_index("loss")
    assert (ledger.loc["ce", "state"], ledger.loc["ce", "reason"]) == ("missing", "error")


def test_a_partial_report_needs_no_training(tmp_path):
    project = Project(tmp_path, TINY)
    project.snakemake("--until", "preprocess", "split")
    train = "results/cells/brain_cohort/clean/smoke/unet_narrow/ce/fold0/seed0/evaluate.json"
    project.snakemake(train)
    project.snakemake("--config", "partial=true")
    assert project.table("ledger.csv")["state"].tolist().count("missing") == 5
    assert "missing" in (project.folder / "results/tiny/report/index.html").read_text()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"losses": {"ce": {"name": "cross_entropi"}}}, r"has no 'cross_entropi'. Did you mean 'cross_entropy'\?"),
        ({"experiment": TINY["experiment"] | {"folds": [7]}}, r"folds: 7 is too high"),
        ({"experiment": TINY["experiment"] | {"seed": [7]}}, r"'seed' was unexpected"),
        (
            {"datasets": {"mine": {"source": {"path": "nowhere"}, "files": {"image": "{patient}.nii", "label": "{patient}_s.nii"},
                                   "structures": {"a": 1}}},
             "experiment": TINY["experiment"] | {"datasets": ["mine"]}},
            r"datasets: mine: source: path: the folder 'nowhere' does not exist",
        ),
    ],
)  # fmt: skip
def test_a_fault_of_the_configuration_stops_before_any_job(tmp_path, config, message):
    project = Project(tmp_path, TINY)
    project.configure(TINY | config)
    run = project.snakemake(check=False)
    assert run.returncode != 0 and re.search(message, run.stdout), run.stdout[-3000:]
    assert not (tmp_path / "results").exists()


def test_bad_data_stop_before_any_training_and_name_the_file(tmp_path):
    project = Project(tmp_path, TINY)
    project.snakemake("--until", "simulate")
    data = tmp_path / "mine"
    shutil.copytree(tmp_path / "results/data/brain_cohort/raw", data)
    image = data / "sim02_t1.nii.gz"
    image.write_bytes(image.read_bytes()[:500])
    block = TINY["datasets"]["brain_cohort"] | {
        "source": {"path": "mine"},
        "files": {"image": "{patient}_t1.nii.gz", "label": "{patient}_seg.nii.gz"},
    }
    project.configure(
        TINY | {"datasets": {"mine": block}, "experiment": TINY["experiment"] | {"datasets": ["mine"], "claims": []}}
    )
    run = project.snakemake("--retries", "0", check=False)
    assert run.returncode != 0
    assert "sim02_t1.nii.gz" in run.stdout
    assert not list((tmp_path / "results").glob("cells/*"))


def test_a_record_names_what_made_it(finished):
    (file, *_) = (finished.folder / "results/cells").rglob("train.json")
    record = json.loads(file.read_text())
    assert record["versions"]["torch"] and record["hardware"]["cpu"] and len(record["identity"]) == 64
