"""Methods made elsewhere, as the `external` block of the configuration names them (docs/external.md)."""

from __future__ import annotations

import zlib
from pathlib import Path

from lib.cells import Cell
from lib.data.patterns import FIELD
from lib.errors import BadInput
from lib.files import read_json
from lib.provenance import value_hash

SITUATION = ("dataset", "condition", "fold", "seed")  # placeholders of `path` and `splits`; `file` has those of a case
SPLITS = "splits_final.json"  # as nnU-Net names it
PARENTS_SEARCHED = 3


def settings_for(name: str, entry: dict, dataset: str) -> dict:
    """The entry `name` of `external` as it holds for one dataset; raises BadInput for what cannot be filled in."""
    where = f"external: {name}"
    own = entry.get("datasets", {}).get(dataset, {})
    settings = {key: value for key, value in entry.items() if key != "datasets"} | own
    if "path" not in settings:
        raise BadInput(
            f"{where}: no path to predictions for dataset '{dataset}'; give\n  {where}: {{datasets: {{{dataset}: "
            "{path: FOLDER}}}"
        )
    for key, more in (("path", ()), ("splits", ()), ("file", ("case", "patient"))):
        for field in FIELD.findall(settings.get(key) or ""):
            if field not in (*SITUATION, *more):
                known = ", ".join(f"{{{f}}}" for f in (*SITUATION, *more))
                raise BadInput(f"{where}: {key}: '{settings[key]}' has {{{field}}}, but may have {known}")
    if (file := settings.get("file")) and not {"case", "patient"} & set(FIELD.findall(file)):
        raise BadInput(f"{where}: file: '{file}' tells no case from another; write {{case}} where its name stands")
    return settings


def is_made(settings: dict, condition: dict, first_seed: bool) -> bool:
    """Whether predictions of this seed, under this condition, are what the folder holds.

    Without {seed} there is one training, shown under the experiment's first seed; without {condition} it is for the
    condition that changes nothing.
    """
    fields = _fields(settings)
    return ("seed" in fields or first_seed) and ("condition" in fields or not condition)


def _fields(settings: dict) -> list[str]:
    """The placeholders that tell one folder or file from another."""
    return FIELD.findall(settings["path"] + settings.get("file", ""))


def filled(settings: dict, cell: dict) -> dict:
    """The settings of a cell: placeholders of the situation replaced, `splits` found where it is not named.

    `per_fold` says whether each fold has predictions of its own.
    """
    values = {key: str(cell[key]) for key in SITUATION}

    def fill(text: str) -> str:
        return FIELD.sub(lambda match: values.get(match[1], match[0]), text)

    result = settings | {key: fill(settings[key]) for key in ("path", "splits", "file") if settings.get(key)}
    folder = Path(result["path"]).expanduser()
    above = [folder, *folder.absolute().parents[:PARENTS_SEARCHED]]
    splits = result.get("splits") or next((str(p / SPLITS) for p in above if (p / SPLITS).is_file()), None)
    return result | {"path": str(folder), "splits": splits, "per_fold": "fold" in _fields(settings)}


def folder_state(settings: dict) -> str:
    """A hash of names, sizes and times of the files in a filled-in folder and of its splits; "" where there is none."""
    folder = Path(settings["path"])
    files = sorted(p for p in folder.rglob("[!.]*") if p.is_file()) if folder.is_dir() else []
    files += [Path(settings["splits"])] if settings["splits"] and Path(settings["splits"]).is_file() else []
    return value_hash([[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in files]) if files else ""


def imported_state(cell: Cell) -> str:
    """The state of the folder when this cell was imported from it, if that went well; else ""."""
    record = cell.folder / "predict.json"
    job = Path("results/attempts") / cell.folder.relative_to("results/cells") / "predict.job.json"
    ended_well = record.is_file() and read_json(record)["state"] == "ok"
    return read_json(job)["state"] if ended_well and job.is_file() else ""


def nnunet_folder(dataset: str) -> str:
    """nnU-Net's name of a dataset, as Dataset684_brain_cohort: the number follows from the name alone."""
    return f"Dataset{100 + zlib.crc32(dataset.encode()) % 900}_{dataset}"
