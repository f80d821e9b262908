"""Divide the patients of a dataset into folds with training, validation and test parts."""

from pathlib import Path
from typing import TYPE_CHECKING

from lib.data.cases import read_index
from lib.data.split import PARTS, split_patients
from lib.files import read_json, write_json
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        check = read_json(snakemake.input.check)
        cases = read_index(snakemake.input.cases)
        # Snakemake deletes an output before the rule runs, so the assignments are kept in a second file.
        kept = Path(snakemake.params.kept)
        previous = read_json(kept) if kept.exists() else None
        splits = split_patients(cases, snakemake.params.settings, check["groups"], previous)
        splits = {"dataset": check["dataset"], **splits}
        write_json(snakemake.output.splits, splits)
        write_json(kept, splits)
        for note in splits["notes"]:
            print(f"note: {note}")
        for number, parts in enumerate(splits["folds"]):
            name = f" ({parts['name']})" if "name" in parts else ""
            print(f"fold {number}{name}:", ", ".join(f"{len(parts[part])} {part}" for part in PARTS))
