"""Prove that no patient, file or near-duplicate is in two parts of a fold."""

from typing import TYPE_CHECKING

from lib.data.cases import read_index
from lib.data.certificate import certify
from lib.files import read_json, write_json
from lib.log import logged

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":
    with logged(snakemake.log[0]):
        check = read_json(snakemake.input.check)
        cases = read_index(snakemake.input.cases)
        certificate = certify(cases, check, read_json(snakemake.input.splits))
        write_json(snakemake.output.certificate, certificate)
        print(certificate["sentence"])
