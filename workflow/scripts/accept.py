"""Stop on the problems that a check found; list the cases that are to be used."""

from typing import TYPE_CHECKING

from lib.data.cases import read_index, write_index
from lib.data.check import case_hash, require_sound
from lib.files import read_json
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        check = read_json(snakemake.input.check)
        require_sound(check, page=f"results/data/{snakemake.wildcards.dataset}/check.html")
        for warning in check["warnings"]:
            print(f"warning: {warning}")
        for entry in check["dropped"]:
            print(f"left out: {entry['case']}: {'; '.join(entry['reasons'])}")
        sound = {entry["case"]: case_hash(entry) for entry in check["cases"]}
        write_index(snakemake.output.cases, [c for c in read_index(snakemake.input.index) if c.case in sound], sound)
        print(f"{len(sound)} cases are used")
