"""With `strict: true`: fail, after the report is there, when any cell failed or is missing."""

from typing import TYPE_CHECKING

import pandas as pd

from lib.errors import BadInput
from lib.ledger import complaint
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        if text := complaint(pd.read_csv(snakemake.input.ledger, keep_default_na=False)):
            raise BadInput(f"strict: {text}")
