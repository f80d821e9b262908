"""The catalogue of datasets: what a person relies on before the first download."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from snakemake.utils import validate

from lib.data.download import remote_files
from lib.data.index import index_cases

CATALOGUE = yaml.safe_load((ROOT / "config/datasets.yaml").read_text())["datasets"]
CONFIG = yaml.safe_load((ROOT / "config/config.yaml").read_text())
ENTRIES = dict(re.findall(r"^@\w+\{(\w+),$(.*?)^\}", (ROOT / "config/references.bib").read_text(), re.M | re.S))
# Names as they lie in the unpacked archives, of images first, and the case and patient that they are.
FLAT_T88 = "OAS1_0028_MR2_mpr_n3_anon_111_t88_masked_gfc"
FUSEG = "data/Foot Ulcer Segmentation Challenge"
BRATS19 = "MICCAI_BraTS_2019_Data_Training/HGG/BraTS19_CBICA_AAB_1/BraTS19_CBICA_AAB_1"
BRATS20 = "MICCAI_BraTS2020_TrainingData/BraTS20_Training_001/BraTS20_Training_001"
BRATS21 = "BraTS2021_00000/BraTS2021_00000"
MRBRAINS13, MRBRAINS18 = "TrainingData/1", "training/14"
ACDC = "ACDC/database/testing/patient101/patient101"
NAMES = {
    "acdc": (["patient001_ED.nii.gz", "patient001_ED_gt.nii.gz"], "patient001_ED", "patient001"),
    "acdc_full": (
        [f"{ACDC}_frame01.nii.gz", f"{ACDC}_frame01_gt.nii.gz", f"{ACDC}_4d.nii.gz"],
        "testing_patient101_01",
        "patient101",
    ),
    "ibsr18": (["IBSR_01_t1.nii.gz", "IBSR_01_seg.nii.gz"], "01", "01"),
    "ibsr18_nitrc": (
        [f"IBSR_01/IBSR_01_{x}.nii.gz" for x in ("ana_strip", "segTRI_ana", "segTRI_fill_ana", "ana")],
        "01",
        "01",
    ),
    "oasis1_fast": (
        [
            f"disc2/OAS1_0028_MR2/PROCESSED/MPRAGE/T88_111/{FLAT_T88}.nii.gz",
            f"disc2/OAS1_0028_MR2/FSL_SEG/{FLAT_T88}_fseg.nii.gz",
        ],
        "2_0028_2_3",
        "0028",
    ),
    "oasis1_neurite": (
        [f"OASIS_OAS1_0001_MR1/{x}.nii.gz" for x in ("norm", "seg4", "seg35", "orig", "aligned_norm")],
        "OAS1_0001_1",
        "OAS1_0001",
    ),
    "mrbrains13": (
        [
            f"{MRBRAINS13}/{x}.nii"
            for x in ("T1", "T1_IR", "T2_FLAIR", "T1_1mm", "LabelsForTesting", "LabelsForTraining")
        ],
        "TrainingData_1",
        "1",
    ),
    "mrbrains18": (
        [f"{MRBRAINS18}/{x}.nii.gz" for x in ("pre/reg_T1", "pre/reg_IR", "pre/FLAIR", "pre/T1", "segm")],
        "training_14",
        "14",
    ),
    "brainweb20": (["subject04_t1w.nii.gz", "subject04_crisp.nii.gz"], "04", "04"),
    "brats2013": ([f"pat0001_1_{x}.nii.gz" for x in ("flair", "t1c", "seg", "brainmask")], "pat0001_1", "pat0001_1"),
    "brats2019": (
        [f"{BRATS19}_{x}.nii.gz" for x in ("flair", "t1", "t1ce", "t2", "seg")],
        "HGG_BraTS19_CBICA_AAB_1",
        "BraTS19_CBICA_AAB_1",
    ),
    "brats2020": (
        [f"{BRATS20}_{x}.nii" for x in ("flair", "t1", "t1ce", "t2", "seg")],
        "BraTS20_Training_001",
        "BraTS20_Training_001",
    ),
    "brats2021": (
        [f"{BRATS21}_{x}.nii.gz" for x in ("flair", "t1", "t1ce", "t2", "seg")],
        "BraTS2021_00000",
        "BraTS2021_00000",
    ),
    "msseg2": (
        [
            f"training/013/{x}.nii.gz"
            for x in (
                "flair_time01_on_middle_space",
                "flair_time02_on_middle_space",
                "ground_truth",
                "ground_truth_expert1",
            )
        ],
        "013",
        "013",
    ),
    "promise12": (["Case00.mhd", "Case00_segmentation.mhd", "Case00.raw"], "00", "00"),
    "chaos_t2": ([f"Train_Sets/MR/1/T2SPIR/{x}.nii.gz" for x in ("image", "label")], "1", "1"),
    "kits19": ([f"data/case_00000/{x}.nii.gz" for x in ("imaging", "segmentation")], "case_00000", "case_00000"),
    "fetal_abdomen": (
        ["IMAGES/P01_IMG1.png", *(f"MASKS/P01_IMG1_{x}.png" for x in ("artery", "vein", "stomach", "liver"))],
        "P01_IMG1",
        "P01",
    ),
    "nerve": (["train/1_10.tif", "train/1_10_mask.tif"], "1_10", "1"),
    "usgra": (["dataset/test/images/0004.png", "dataset/test/masks/0004.png"], "0004", "0004"),
    "kvasir_seg": (["Kvasir-SEG/images/cju0qkwl.jpg", "Kvasir-SEG/masks/cju0qkwl.jpg"], "cju0qkwl", "cju0qkwl"),
    "fuseg": (["images/train_0011.png", "masks/train_0011.png"], "train_0011", "0011"),
    "fuseg_full": ([f"{FUSEG}/train/{x}/0011.png" for x in ("images", "labels")], "train_0011", "0011"),
}
each_dataset = pytest.mark.parametrize("name", CATALOGUE)
each_simulated_or_not = pytest.mark.parametrize("name", sorted(CATALOGUE | CONFIG["datasets"]))


def sources(block: dict) -> list[dict]:
    """The addresses of a block; none for a folder."""
    source = block["source"]
    return source.get("urls") or ([source] if "url" in source else [])


def patterns(block: dict) -> list[str]:
    found = []
    for kind in ("image", "label", "mask"):
        pattern = block.get("files", {}).get(kind, [])
        found += pattern.values() if isinstance(pattern, dict) else [pattern] if pattern else []
    return found


def test_a_name_is_given_once():
    lines = (ROOT / "config/datasets.yaml").read_text().splitlines()
    names = [line.split(":")[0].strip() for line in lines if re.match(r"  \w+:", line)]
    assert sorted(names) == sorted(CATALOGUE)


def test_the_schema_accepts_the_catalogue():
    merged = CONFIG | {"datasets": CONFIG["datasets"] | CATALOGUE, "claims": {}}
    validate(merged, str(ROOT / "config/schemas/config.schema.yaml"))


@each_dataset
def test_a_block_says_what_it_is_and_whose(name):
    block = CATALOGUE[name]
    assert block["structures"] and block["licence"] and block["splits"]
    assert "tolerance_mm" in block or "tolerance_px" in block  # chosen, not fallen into
    assert ("files" in block) != ("layout" in block)
    line = re.search(rf"^  {name}: # (.+)$", (ROOT / "config/datasets.yaml").read_text(), re.M)
    assert line and re.search(r"\d", line[1]), "one line of what it is, of which size"


@each_simulated_or_not
def test_a_block_cites_an_entry_of_the_references(name):
    entry = ENTRIES[(CATALOGUE | CONFIG["datasets"])[name]["cite"]]
    assert re.search(r"^  title = \{.+\},$", entry, re.M) and re.search(r"^  year = \{\d{4}\},$", entry, re.M)
    assert re.search(r"^  author = ", entry, re.M)


@each_dataset
def test_a_source_is_an_address_with_a_checksum_or_a_folder_with_instructions(name):
    source = CATALOGUE[name]["source"]
    if not sources(CATALOGUE[name]):
        assert re.fullmatch(r"data/[\w-]+", source["path"]) and source["manual"].strip()
    else:
        remote_files(source, name)  # raises where the downloader would: addresses, names, lengths of checksums
    for file in sources(CATALOGUE[name]):
        assert "sha256" in file or "md5" in file, "sha256: null says that none is published"
        assert re.fullmatch(r"[0-9a-f]{64}", file.get("sha256") or "0" * 64)
        assert re.fullmatch(r"[0-9a-f]{32}", file.get("md5", "0" * 32))
        assert re.search(r"\.(zip|tar|tgz|tar\.gz)$", file.get("name", file["url"])), "an archive is known by its name"


@each_dataset
def test_addresses_are_secure(name):
    block = CATALOGUE[name]
    texts = [file["url"] for file in sources(block)] + [block["source"].get("manual", "")]
    addresses = [address for text in texts for address in re.findall(r"\w+://[^\s,)\"]+", text)]
    assert addresses and all(address.startswith("https://") for address in addresses)


def test_no_checksum_is_given_twice():
    sums = [file.get(kind) for block in CATALOGUE.values() for file in sources(block) for kind in ("sha256", "md5")]
    sums = [checksum for checksum in sums if checksum]
    assert len(sums) == len(set(sums))


def test_the_decathlon_agrees_with_monai():
    spec = importlib.util.find_spec("monai")  # read, not imported: that takes seconds
    if spec is None:
        pytest.skip("MONAI is not installed")
    published = (Path(spec.origin).parent / "apps/datasets.py").read_text()
    for name in (name for name in CATALOGUE if name.startswith("msd_")):
        source = CATALOGUE[name]["source"]
        task = source["url"].rsplit("/", 1)[1].removesuffix(".tar")
        assert f'"{task}": "{source["url"]}"' in published
        assert f'"{task}": "{source["md5"]}"' in published


def test_the_decathlon_is_whole():
    tasks = {CATALOGUE[name]["source"]["url"].rsplit("/", 1)[1] for name in CATALOGUE if name.startswith("msd_")}
    assert sorted(task[:6] for task in tasks) == [f"Task{number:02}" for number in range(1, 11)]


@each_dataset
def test_patterns_name_the_patient_and_one_file_per_structure(name):
    block = CATALOGUE[name]
    assert all("{patient}" in pattern for pattern in patterns(block))
    assert len(set(patterns(block))) == len(patterns(block))
    if isinstance(label := block.get("files", {}).get("label"), dict):
        assert set(label) == set(block["structures"])


@each_dataset
def test_splits_use_fields_that_the_file_names_have(name):
    splits, text = CATALOGUE[name]["splits"], " ".join(patterns(CATALOGUE[name]))
    asked = [*splits.get("test", {}), *filter(None, (splits.get("stratify"), splits.get("leave_out")))]
    assert all(f"{{{field}}}" in text for field in asked)


@each_dataset
def test_instructions_are_shell_and_python_that_parse(name):
    """The manual texts hold small conversions that people paste."""
    for code in re.findall(r'python -c "\n(.*?)\n"', CATALOGUE[name]["source"].get("manual", ""), re.S):
        compile(code, name, "exec")
        assert not re.search(r'["$`\\]', code), "the shell would change it"


def test_every_block_with_patterns_is_tried():
    assert set(NAMES) == {name for name, block in CATALOGUE.items() if "files" in block}


@pytest.mark.parametrize("name", NAMES)
def test_the_patterns_find_the_case_in_the_unpacked_archive(name, tmp_path):
    names, case, patient = NAMES[name]
    for file in names:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (found,) = index_cases(tmp_path, CATALOGUE[name])
    assert (found.case, found.patient) == (case, patient)
    image = CATALOGUE[name]["files"]["image"]
    assert list(found.images) == (list(image) if isinstance(image, dict) else ["image"])
    assert next(iter(found.images.values())) == str(tmp_path / names[0])
