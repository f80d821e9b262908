"""With `strict: true`: fail, after the report is there, when any cell or interactive session failed or is missing."""

from typing import TYPE_CHECKING

import pandas as pd

from lib.errors import BadInput
from lib.ledger import complaint
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        ledgers = [snakemake.input.ledger, *([sessions] if (sessions := snakemake.input.get("sessions")) else [])]
        table = pd.concat([pd.read_csv(file, keep_default_na=False) for file in ledgers], ignore_index=True)
        if text := complaint(table):
            raise BadInput(f"strict: {text}")
