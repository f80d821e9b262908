"""The pages keep their word: every block of configuration is valid, and the files it shows become the cases it says."""

from __future__ import annotations

import copy
import locale
import re
from pathlib import Path, PurePosixPath

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from conftest import ROOT, module_at
from PIL import Image
from snakemake.utils import update_config, validate

from lib.config import add_claims, check_meaning, put_on_bases, replace_blocks
from lib.data.certificate import certify
from lib.data.check import check_cases, require_sound
from lib.data.download import remote_files
from lib.data.formats import read_image
from lib.data.index import index_cases
from lib.data.split import split_patients

SCHEMA = yaml.safe_load((ROOT / "config/schemas/config.schema.yaml").read_text(encoding="utf-8"))
CONFIG = {}
for name in ("datasets", "config"):
    CONFIG |= {"datasets": {}} | CONFIG  # both files have some
    loaded = yaml.safe_load((ROOT / f"config/{name}.yaml").read_text(encoding="utf-8"))
    CONFIG |= loaded | {"datasets": CONFIG["datasets"] | loaded.get("datasets", {})}
add_claims(CONFIG, ROOT / "config/claims")
OF_DATASET = SCHEMA["properties"]["datasets"]["additionalProperties"]["properties"]
SHAPE = (12, 14, 3)


class Loader(yaml.SafeLoader):
    """As YAML is read, but a key that is there twice is an error: the second would silently win."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key is there twice: {keys}"
        return super().construct_mapping(node, deep)


def fences(page: Path) -> list[tuple[str, str, int]]:
    """(info, content, line) of the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```([^\n]+)\n(.*?)^```$", text, re.M | re.S)
    return [(match[1].strip(), match[2], text.count("\n", 0, match.start()) + 1) for match in found]


def blocks() -> list:
    """Each YAML block of the pages with the files that are shown before it."""
    found = []
    for page in (ROOT / "README.md", ROOT / "docs/datasets.md"):
        listing, contents = "", {}
        for info, content, line in fences(page):
            language, _, name = info.partition(" ")
            if language == "text":
                listing = content
            elif name:
                contents[name] = content
            elif language == "yaml":
                found.append(pytest.param(content, listing, contents, id=f"{page.name}:{line}"))
                listing, contents = "", {}
    return found


def validated(overlay: dict) -> dict:
    """The configuration with an overlay, as rules/common.smk merges it; it raises what a run would raise."""
    config = copy.deepcopy(CONFIG)
    update_config(config, copy.deepcopy(overlay))
    replace_blocks(config, overlay)
    put_on_bases(config, update_config)
    used = {*config["experiment"]["datasets"], *overlay.get("datasets", {})}
    config["datasets"] = {name: block for name, block in config["datasets"].items() if name in used}
    validate(config, str(ROOT / "config/schemas/config.schema.yaml"))
    for name in overlay.get("datasets", {"brain_cohort": None}):
        check_meaning(config | {"dataset": name})
    return config


@pytest.mark.parametrize(("content", "listing", "contents"), blocks())
def test_the_yaml_of_the_pages_works(content, listing, contents, tmp_path, monkeypatch):
    overlay = yaml.load(content, Loader)
    if unknown := overlay.keys() - SCHEMA["properties"].keys():  # keys of one dataset
        assert unknown <= OF_DATASET.keys()
        stand_in = {"source": {"path": "x"}, "files": {"image": "{patient}", "label": "{patient}_{site}"}}
        overlay = {"datasets": {"stand_in": stand_in | {"structures": {"organ": 1}} | overlay}}
    if "experiment" in overlay and (here := set(overlay["experiment"]["datasets"]) - CONFIG["datasets"].keys()):
        assert here == {"wounds"}  # of the tutorial, which pastes it first
        overlay["datasets"] = {"wounds": tutorial()}
    config = validated(overlay)
    monkeypatch.chdir(tmp_path)
    for name in overlay.get("datasets", {}):
        block = config["datasets"][name]
        if {"url", "urls"} & block["source"].keys():
            assert remote_files(block["source"], name)
        if listing:
            try_files(name, block, listing, contents, "splits" in overlay["datasets"][name])


def try_files(name: str, block: dict, listing: str, contents: dict[str, str], splits_shown: bool) -> None:
    """Make the files that the page shows, and hold the cases to what it says of them."""
    lines = [re.fullmatch(r"(\S+)(?:\s+case (\S+), patient (\S+))?", line) for line in listing.splitlines()]
    assert all(lines), listing
    for line in lines:
        path = Path(line[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(contents.pop(line[1], ""))
    assert not contents, "contents of a file that the page does not list"
    folder = block["source"]["path"]
    cases = index_cases(folder, block)
    assert [(c.case, c.patient) for c in cases] == sorted((line[2], line[3]) for line in lines if line[2])
    shown = {case.case: line[1] for line in lines if line[2] for case in cases if case.case == line[2]}
    for case in cases:
        assert shown[case.case] in case.labels.values(), "the page marks the labels of a case"

    rng = np.random.default_rng(0)
    values = [v for value in block["structures"].values() for v in (value if isinstance(value, list) else [value])]
    for case in cases:
        for path in case.images.values():
            write(path, rng.integers(1, 200, SHAPE).astype(np.int16), np.diag([1, 1, 2, 1]))
        affine = read_image(path)[1].affine
        for structure, path in case.labels.items():
            label = rng.choice([0, *values, *block["ignore"]], SHAPE)
            if structure != "label":
                label = np.zeros(SHAPE, int)  # which may not overlap
                label[list(block["structures"]).index(structure)] = 255
            write(path, label.astype(np.uint8), affine, block["palette"])
        if case.mask:
            write(case.mask, np.ones(SHAPE, np.uint8), affine)
    check = check_cases(cases, block, name)
    require_sound(check)
    assert len(check["cases"]) == len(cases) and not check["near_duplicates"]["pairs"]
    if splits_shown:
        certify(cases, check, {"dataset": name} | split_patients(cases, block["splits"], check["groups"]))


def write(path: str, array: np.ndarray, affine: np.ndarray, palette: dict | None = None) -> None:
    """An array (X, Y, Z) in the format that the name asks for."""
    if path.endswith(".nii.gz"):
        nib.save(nib.Nifti1Image(array, affine), path)
    elif path.endswith((".nrrd", ".mha")):
        sitk.WriteImage(sitk.GetImageFromArray(array), path)
    elif path.endswith(".npz"):
        np.savez(path, **{PurePosixPath(path).stem: array, "spacing": [1, 1, 1]})
    elif Path(path).is_dir():
        write_series(Path(path), array)
    elif palette:
        colours = np.zeros((256, 3), np.uint8)
        for value, colour in palette.items():
            colours[int(value)] = colour
        Image.fromarray(colours[array[..., 0]]).save(path)
    else:
        deep = array.astype(np.uint16) * 200 if path.endswith(".tif") else array.astype(np.uint8)
        Image.fromarray(deep[..., 0]).save(path)


def write_series(folder: Path, array: np.ndarray) -> None:
    writer, before = sitk.ImageFileWriter(), locale.setlocale(locale.LC_ALL)
    writer.KeepOriginalImageUIDOn()
    for z, path in enumerate(sorted(folder.iterdir())):
        piece = sitk.GetImageFromArray(np.ascontiguousarray(array[..., z].T))
        tags = {"0008|0060": "CT", "0020|000d": "1.2.3", "0020|000e": "1.2.3.4"}
        tags |= {
            "0008|0018": f"1.2.3.4.{z + 1}",
            "0020|0013": str(z),
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0032": f"0\\0\\{2 * z}",
        }
        for tag, value in tags.items():
            piece.SetMetaData(tag, value)
        writer.SetFileName(str(path))
        writer.Execute(piece)
    locale.setlocale(locale.LC_ALL, before)  # which GDCM sets to C when it writes


def tutorial() -> dict:
    first = next(content for info, content, _ in fences(ROOT / "docs/datasets.md") if info == "yaml")
    return yaml.safe_load(first)["datasets"]["wounds"]


def test_the_tutorial_shows_every_layout_and_every_key():
    given = [yaml.load(content, Loader) for info, content, _ in fences(ROOT / "docs/datasets.md") if info == "yaml"]
    datasets = [block for overlay in given for block in overlay.get("datasets", {}).values()]
    chosen = [block["layout"] for block in datasets if "layout" in block]
    layouts = {name for layout in chosen for name in (layout if isinstance(layout, dict) else [layout])}
    assert layouts == {"nnunet", "msd", "bids", "folders", "csv"}
    assert {key for block in datasets for key in block.get("files", {})} == OF_DATASET["files"]["properties"].keys()
    assert {key for part in [*datasets, *given] for key in part} >= OF_DATASET.keys()


@pytest.mark.parametrize(
    "page", sorted(["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))])
)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#")):
            assert (ROOT / page).parent.joinpath(target.partition("#")[0]).exists(), f"{page}: {target}"


def test_an_experiment_file_changes_a_block_of_the_catalogue():
    """A second way to split, or to scale intensities, takes the place of the first; what is not named stays."""
    change = {"splits": {"test": {"split": "validation"}}, "preprocess": {"intensity": {"percentiles": [1, 99]}}}
    change |= {"files": {"image": "{patient}.png", "label": "{patient}_{split}.png"}}
    for name in ("kits19", "msd_spleen"):
        before = copy.deepcopy(CONFIG["datasets"][name])
        after = validated({"datasets": {name: change}})["datasets"][name]
        assert after["splits"].items() >= change["splits"].items() and "folds" not in after["splits"]
        assert after["preprocess"]["intensity"] == {"percentiles": [1, 99]}
        assert (after["files"], after.get("layout")) == (change["files"], None)
        assert after["preprocess"]["spacing"] == before["preprocess"]["spacing"]
        assert (after["source"], after["structures"]) == (before["source"], before["structures"])
    assert validated({"datasets": {"msd_spleen": {"tolerance_mm": 1}}})["datasets"]["msd_spleen"]["layout"] == "msd"


# The reference


def test_the_reference_is_that_of_the_schema():
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert page == module_at("docs/configuration.py").page(SCHEMA), "run `make docs`"


def test_the_reference_has_every_key_with_a_meaning():
    def keys(part: dict) -> set[str]:
        found = set(part.get("properties", {}))
        inner = [*part.get("properties", {}).values(), *part.get("oneOf", []), *part.get("anyOf", [])]
        inner += [part[key] for key in ("additionalProperties", "items") if isinstance(part.get(key), dict)]
        return found.union(*map(keys, inner))

    rows = re.findall(
        r"^\| `([^`]+)` \| (.+) \| (.*) \| (.*) \|$", module_at("docs/configuration.py").page(SCHEMA), re.M
    )
    written = {name for key, *_ in rows for name in re.split(r"\.|\[\]\.", key)}
    wanted = keys(SCHEMA).union(*map(keys, SCHEMA["$defs"].values()))
    first = {key for key, part in SCHEMA["properties"].items() if part.get("type") == "object"}
    assert wanted - first <= written
    assert [key for key, value, _, meaning in rows if not value.strip() or not meaning.strip()] == []


def test_the_reference_says_type_default_and_meaning():
    schema = {
        "$defs": {"pair": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number"}}},
        "properties": {
            "boxes": {
                "type": "object",
                "description": "See docs/splits.md.",
                "additionalProperties": {
                    "required": ["size"],
                    "properties": {
                        "size": {"$ref": "#/$defs/pair", "description": "In {unit}."},
                        "kind": {"enum": ["a", None], "default": None, "description": "a|b."},
                        "deep": {
                            "type": "object",
                            "default": {},
                            "description": "More.",
                            "properties": {
                                "n": {
                                    "type": ["integer", "null"],
                                    "minimum": 1,
                                    "exclusiveMaximum": 9,
                                    "default": 2,
                                    "description": "N.",
                                }
                            },
                        },
                    },
                },
            },
            "fast": {"type": "boolean", "default": False, "description": "Fast."},
        },
    }
    page = module_at("docs/configuration.py").page(schema)
    assert "## `boxes: NAME:`\n\nSee [splits](splits.md).\n" in page
    assert "| `size` | list of 2: number | **required** | In `{unit}`. |" in page
    assert "| `kind` | `a`, `null` | `null` | a\\|b. |" in page
    assert "| `deep` | block | `{}` | More. |\n| `deep.n` | whole number ≥ 1 and < 9 or `null` | `2` | N. |" in page
    assert "| `fast` | `true`, `false` | `false` | Fast. |" in page
