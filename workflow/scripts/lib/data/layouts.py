"""Ready-made layouts: which files are the images and labels of a dataset that is arranged in a common way."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lib.data.patterns import EXTENSIONS, PICTURES, Listing, Pattern, close_to, is_image, read_table, some, split_name
from lib.errors import BadInput

OPTIONS = {"nnunet": [], "msd": [], "bids": ["pipeline", "image", "label"], "folders": [], "csv": ["file"]}
# Entities of BIDS that tell label maps apart, not images.
OF_LABELS = {"space", "res", "den", "label", "desc", "seg", "atlas", "hemi"}
TEMPLATE = 'files: {image: "{patient}.nii.gz", label: "{patient}_seg.nii.gz"}'


@dataclass
class Found:
    """A case as a layout gives it: paths relative to the dataset's folder; `at` is where it stands, for messages."""

    case: str
    images: dict[str, str]
    labels: dict[str, str]
    at: str
    patient: str | None = None
    mask: str | None = None
    fields: dict[str, str] = field(default_factory=dict)


def chosen(dataset: dict) -> tuple[str | None, dict]:
    """Name and options of the dataset's layout; (None, {}) where it has patterns instead. Raises BadInput on both."""
    layout, files = dataset.get("layout"), dataset.get("files") or {}
    patterns = [key for key in ("image", "label") if key in files]
    if layout is None:
        if len(patterns) < 2:
            raise BadInput(f"files: give image and label, or a layout: {', '.join(OPTIONS)}. For example {TEMPLATE}")
        return None, {}
    if patterns:
        raise BadInput(f"files.{patterns[0]}: the layout says where the files are; give a layout or patterns, not both")
    name, options = (layout, {}) if isinstance(layout, str) else next(iter(layout.items()))
    if name not in OPTIONS:
        raise BadInput(f"layout: there is no '{name}'; close to it: {close_to(name, OPTIONS)}")
    for key in options or {}:
        if key not in OPTIONS[name]:
            raise BadInput(f"layout: {name} has no option '{key}'; it has: {some(OPTIONS[name]) or 'none'}")
    return name, options or {}


def find_cases(listing: Listing, dataset: dict) -> list[Found]:
    """The cases of a dataset with a layout; images without a label are left out. Raises BadInput on every fault."""
    name, options = chosen(dataset)
    if name == "bids":
        return list(_bids(listing, **options))
    if name == "csv":
        return list(_csv(listing, (dataset.get("files") or {}).get("missing_labels") == "empty", **options))
    return list({"nnunet": _nnunet, "msd": _msd, "folders": _folders}[name](listing))


# nnU-Net and the Medical Segmentation Decathlon


def _nnunet(listing: Listing) -> Iterator[Found]:
    """imagesTr/CASE_0000.EXT (one file per channel), labelsTr/CASE.EXT, dataset.json of version 1 or 2."""
    root, about = _dataset_json(listing, "nnunet")
    ending = about.get("file_ending", ".nii.gz")
    channels = _channels(listing, root, about)
    if isinstance(about.get("dataset"), dict):  # version 2 may name the files of each case
        cases = {}
        for case, entry in about["dataset"].items():
            at = f"{listing.path(root + 'dataset.json')}, dataset: {case}"
            cases[_case_name(case, at)] = _entry(entry, "images", root, at)
    else:
        labels = [name for name in listing.names(f"{root}labelsTr/") if name.endswith(ending)]
        cases = {
            name.removesuffix(ending): (
                [f"{root}imagesTr/{name.removesuffix(ending)}_{i:04d}{ending}" for i in range(len(channels))],
                f"{root}labelsTr/{name}",
            )
            for name in labels
        }
        _expect(listing, cases, f"{root}labelsTr/", f"a file that ends in {ending} (file_ending of dataset.json)")
        said = about.get("numTraining", len(cases))
        if said != len(cases):
            raise BadInput(
                f"layout: nnunet: {listing.path(root + 'dataset.json')} says numTraining: {said}, but labelsTr holds "
                f"{len(cases)} label maps; unpack the rest, or correct numTraining"
            )
    for case, (images, label) in cases.items():
        there = [name for name in images if _is_file(listing, name)]
        if len(images) > 1 and there == images[:1] and ending in PICTURES:
            images = there  # one colour picture holds its channels
        for name in images:
            if name not in there:
                plain = f"{root}imagesTr/{case}{ending}"
                hint = ""
                if _is_file(listing, plain):
                    hint = f" {plain} is there without a channel number: the layout may be msd."
                raise BadInput(
                    f"layout: nnunet: {listing.path(name)} does not exist, but the label map {label} needs it "
                    f"({len(channels)} channels in dataset.json: {', '.join(channels)}); add the image.{hint}"
                )
        if len(images) not in (1, len(channels)):
            raise BadInput(
                f"layout: nnunet: the case '{case}' of {listing.path(root + 'dataset.json')} has {len(images)} images, "
                f"but there are {len(channels)} channels: {', '.join(channels)}; correct one of them"
            )
        yield Found(case, _named(images, channels), {"label": label}, listing.path(label))


def _msd(listing: Listing) -> Iterator[Found]:
    """The list `training` of dataset.json: [{image, label}, …]; the other values of an entry become fields."""
    root, about = _dataset_json(listing, "msd")
    file = listing.path(root + "dataset.json")
    if not isinstance(about.get("training"), list) or not about["training"]:
        hint = "; the layout may be nnunet" if "channel_names" in about or "labelsTr/" in listing.names(root) else ""
        raise BadInput(f"layout: msd: {file} has no list 'training' of images and labels{hint}")
    for number, entry in enumerate(about["training"]):
        at = f"{file}, training[{number}]"
        images, label = _entry(entry, "image", root, at)
        for name in (*images, label):
            if not _is_file(listing, name):
                raise BadInput(
                    f"layout: msd: {at} names {listing.path(name)}, which does not exist; unpack it, or correct "
                    f"dataset.json. There are: {listing.examples(str(PurePosixPath(name).parent) + '/')}"
                )
        fields = {
            k: str(v) for k, v in entry.items() if isinstance(v, str | int | float) and k not in ("image", "label")
        }
        channels = _channels(listing, root, about) if len(images) > 1 else ["image"]
        if len(channels) != len(images):
            raise BadInput(f"layout: msd: {at} has {len(images)} images, but modality names {len(channels)} channels")
        yield Found(split_name(label)[0], _named(images, channels), {"label": label}, at, fields=fields)


def _dataset_json(listing: Listing, layout: str) -> tuple[str, dict]:
    """The folder ("" or ending in "/") that holds dataset.json, and its content."""
    root = _root(listing, layout, "dataset.json", lambda names: "dataset.json" in names)
    file = listing.folder / root / "dataset.json"
    try:
        about = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise BadInput(f"layout: {layout}: {file} is not valid JSON ({error}); correct it") from None
    if not isinstance(about, dict):
        raise BadInput(f"layout: {layout}: {file} holds a {type(about).__name__}; it must be an object with labels")
    return root, about


def _entry(entry: object, key: str, root: str, at: str) -> tuple[list[str], str]:
    """Paths of the images and the label map of an entry of dataset.json."""
    images = entry.get(key) if isinstance(entry, dict) else None
    images = images if isinstance(images, list) else [images]
    label = entry.get("label") if isinstance(entry, dict) else None
    if not images or not all(isinstance(name, str) for name in (*images, label)):
        raise BadInput(f"{at} is {json.dumps(entry)}; it needs {key} and label, which are paths")
    return [root + str(PurePosixPath(name)) for name in images], root + str(PurePosixPath(label))


def _channels(listing: Listing, root: str, about: dict) -> list[str]:
    """Names of the channels in order; where names repeat, as ["CT", "CT"] may, all are numbered."""
    named = about.get("channel_names", about.get("modality"))
    if not isinstance(named, dict) or not named or not all(str(key).isdigit() for key in named):
        raise BadInput(
            f"{listing.path(root + 'dataset.json')} needs the channels, such as "
            f'"channel_names": {{"0": "T1", "1": "FLAIR"}}; it has {json.dumps(named)}'
        )
    names = [str(named[key]) for key in sorted(named, key=int)]
    return names if len(set(names)) == len(names) else [f"{name}_{i}" for i, name in enumerate(names)]


def _named(images: list[str], channels: list[str]) -> dict[str, str]:
    return {"image": images[0]} if len(images) == 1 else dict(zip(channels, images, strict=True))


# BIDS


def _bids(
    listing: Listing,
    pipeline: str | None = None,
    image: str | list[str] | None = None,
    label: str | dict[str, str] | None = None,
) -> Iterator[Found]:
    """Images in sub-XX/ (or rawdata/sub-XX/), labels in derivatives/PIPELINE/sub-XX/.

    `image` and `label` are a suffix with or without entities, such as T1w or "desc-manual_dseg"; several images are
    channels, and labels by structure are binary masks. An image belongs to a label when subject and session and all
    other entities that both have agree. Entities become fields; the patient is "sub-XX", as in participants.tsv.
    """
    root = _root(listing, "bids", "derivatives/", lambda names: "derivatives/" in names)
    pipeline, files = _pipeline(listing, root, pipeline, label)
    specs = label if isinstance(label, dict) else {"label": label or ("dseg" if _of(files, "dseg") else "mask")}
    raw = [name for top in (root, f"{root}rawdata/") for name in _subjects(listing, top)]
    images = raw or files

    found: dict[str, Found] = {}
    for structure, spec in specs.items():
        labels = _of(files, spec)
        if not labels:
            raise BadInput(
                f"layout: bids: no file of derivatives/{pipeline} fits label: {spec}; name its suffix, with entities "
                f"where needed, as in layout: {{bids: {{label: desc-manual_dseg}}}}. There are: {some(files)}"
            )
        for name in labels:
            entities = {key: value for key, value in _entities(name)[0].items() if key not in OF_LABELS}
            case = "_".join(f"{key}-{value}" for key, value in entities.items())
            fields = {key: value for key, value in entities.items() if key != "sub"}
            here = found.setdefault(
                case, Found(case, {}, {}, listing.path(name), f"sub-{entities['sub']}", fields=fields)
            )
            if structure in here.labels:
                raise BadInput(
                    f"layout: bids: {here.labels[structure]} and {name} are both labels of {case}; say which, as in "
                    f"layout: {{bids: {{label: {_example(name)}}}}}"
                )
            here.labels[structure] = name
    of_subject: dict[str, list[str]] = {}
    for name in images:
        of_subject.setdefault(f"sub-{_entities(name)[0].get('sub')}", []).append(name)
    near = {case.case: _images_of(case, of_subject.get(case.patient, [])) for case in found.values()}
    wanted = [image] if isinstance(image, str) else image or [_only_suffix(near, images)]
    for case in found.values():
        paths = {spec: _bids_image(case, spec, near[case.case], of_subject) for spec in wanted}
        case.images = paths if len(paths) > 1 else {"image": next(iter(paths.values()))}
    yield from found.values()


def _pipeline(
    listing: Listing, root: str, pipeline: str | None, label: str | dict[str, str] | None
) -> tuple[str, list[str]]:
    """Name and files of the derivatives that hold the labels."""
    top = f"{root}derivatives/"
    folders = {name.rstrip("/"): f"{top}{name}" for name in listing.names(top) if name.endswith("/")}
    folders = {name: path for name, path in folders.items() if not name.startswith("sub-")} | {"": top}
    files = {name: list(_subjects(listing, path)) for name, path in folders.items()}
    files = {name: there for name, there in files.items() if there}
    if pipeline is not None:
        if pipeline not in files:
            raise BadInput(
                f"layout: bids: pipeline: {listing.path(top + pipeline)} has no images or labels in folders sub-…; "
                f"there are: {some(sorted(files)) or 'none'}"
            )
        return pipeline, files[pipeline]
    specs = list(label.values()) if isinstance(label, dict) else [label] if label else ["dseg", "mask"]
    fitting = [name for name, there in files.items() if any(_of(there, spec) for spec in specs)]
    if len(fitting) > 1:
        raise BadInput(
            f"layout: bids: several pipelines have labels: {', '.join(fitting)}; choose one, as in "
            f"layout: {{bids: {{pipeline: {fitting[0]}}}}}"
        )
    if not fitting:
        there = [name for names in files.values() for name in names]
        raise BadInput(
            f"layout: bids: no label _{' or _'.join(specs)} in {listing.path(top)}*/sub-*; name the suffix, as in "
            f"layout: {{bids: {{label: msk}}}}. There are: {some(there) or 'no images or labels'}"
        )
    return fitting[0], files[fitting[0]]


def _subjects(listing: Listing, top: str) -> Iterator[str]:
    """Images and label maps in the folders sub-XX of a folder whose names begin with the subject."""
    for subject in listing.names(top):
        if subject.startswith("sub-") and subject.endswith("/"):
            names = listing.walk(top + subject)
            yield from (n for n in names if is_image(n) and PurePosixPath(n).name.startswith("sub-"))


def _entities(name: str) -> tuple[dict[str, str], str]:
    """Entities and suffix of a file name, or of a selection such as desc-manual_dseg."""
    *parts, suffix = split_name(name)[0].split("_")
    return dict(part.split("-", 1) for part in parts if "-" in part), suffix


def _of(names: list[str], spec: str) -> list[str]:
    """The files that have the suffix and the entities."""
    wanted, suffix = _entities(spec)
    parsed = {name: _entities(name) for name in names}
    return [name for name, (entities, end) in parsed.items() if end == suffix and wanted.items() <= entities.items()]


def _images_of(case: Found, images: list[str]) -> list[str]:
    """Images of the case's subject whose session is the same and whose other entities do not contradict the label's."""
    own = {"sub": case.patient.removeprefix("sub-"), **case.fields}
    labels, near = set(case.labels.values()), []
    for name in images:
        entities = _entities(name)[0]
        same = name not in labels and entities.get("ses") == own.get("ses")
        if same and all(own.get(key, value) == value for key, value in entities.items() if key not in OF_LABELS):
            near.append(name)
    return near


def _only_suffix(near: dict[str, list[str]], images: list[str]) -> str:
    suffixes = sorted({_entities(name)[1] for names in near.values() for name in names})
    if len(suffixes) != 1:
        raise BadInput(
            f"layout: bids: the labels have images of {len(suffixes)} kinds ({some(suffixes) or 'none'}); say which, "
            f"as in layout: {{bids: {{image: {suffixes[0] if suffixes else 'T1w'}}}}}, or list the channels. "
            f"Images there: {some(images) or 'none'}"
        )
    return suffixes[0]


def _bids_image(case: Found, spec: str, near: list[str], of_subject: dict[str, list[str]]) -> str:
    fitting = _of(near, spec)
    if len(fitting) > 1:  # without the entities that only an image has
        own = {"sub", *case.fields}
        fitting = [n for n in fitting if {k for k in _entities(n)[0] if k not in OF_LABELS} == own] or fitting
    if len(fitting) != 1:
        raise BadInput(
            f"layout: bids: the label {case.at} needs one image '{spec}' of the same entities, and there are "
            f"{len(fitting)}; correct image, with entities where needed, as in acq-mprage_T1w. There are: "
            f"{some(fitting or of_subject.get(case.patient, [])) or 'none of this subject'}"
        )
    return fitting[0]


def _example(name: str) -> str:
    entities, suffix = _entities(name)
    return "_".join([*(f"{key}-{value}" for key, value in entities.items() if key in OF_LABELS), suffix])


# Folders and tables


def _folders(listing: Listing) -> Iterator[Found]:
    """images/ and masks/ or labels/, with the same names; a label may add _mask, _seg, _label or _gt.

    Folders inside them become part of the case's name. A folder of DICOM files is one image.
    """
    images_folder, labels_folder = _image_folders(listing)
    images: dict[str, str] = {}
    for name in listing.walk(images_folder):
        if is_image(name) and (other := images.setdefault(_stem(name, images_folder), name)) != name:
            raise BadInput(f"layout: folders: {other} and {name} have one name; remove one, or use files: patterns")
    found: dict[str, Found] = {}
    for name in filter(is_image, listing.walk(labels_folder)):
        stem = _stem(name, labels_folder)
        if stem not in images:
            stem = re.sub(r"_(mask|seg|label|gt)$", "", stem, flags=re.IGNORECASE)
        if stem not in images:
            raise BadInput(
                f"layout: folders: no image in {listing.path(images_folder)} has the name of {listing.path(name)}; add "
                f"{stem} with one of {', '.join(EXTENSIONS)}. Close to it: {close_to(stem, images)}"
            )
        if stem in found:
            raise BadInput(f"layout: folders: {found[stem].at} and {name} are both labels of {images[stem]}; keep one")
        found[stem] = Found(stem.replace("/", "_"), {"image": images[stem]}, {"label": name}, listing.path(name))
    _expect(listing, found, labels_folder, f"a label map ({', '.join(EXTENSIONS)})")
    yield from found.values()


def _image_folders(listing: Listing) -> tuple[str, str]:
    def among(names: list[str], *wanted: str) -> list[str]:
        return [name for name in names if name.lower().rstrip("/") in wanted and name.endswith("/")]

    def has_both(names: list[str]) -> bool:
        return bool(among(names, "images")) and bool(among(names, "masks", "labels"))

    root = _root(listing, "folders", "images/ and masks/ (or labels/)", has_both)
    labels = among(listing.names(root), "masks", "labels")
    if len(labels) > 1:
        raise BadInput(
            f"layout: folders: {listing.path(root)} has {' and '.join(labels)}; say which holds the labels, as in "
            'files: {image: "images/{patient}.png", label: "masks/{patient}.png"}'
        )
    return root + among(listing.names(root), "images")[0], root + labels[0]


def _stem(name: str, folder: str) -> str:
    inner = name.removeprefix(folder)
    return inner.removesuffix(PurePosixPath(inner).name + "/" * name.endswith("/")) + split_name(name)[0]


def _csv(listing: Listing, missing_labels: bool, file: str = "cases.csv") -> Iterator[Found]:
    """A table with the columns case, patient, image or image:NAME…, label or label:NAME…, mask; the others are fields.

    Paths are relative to the table, or absolute.
    """
    table = listing.folder / file
    if not table.is_file():
        raise BadInput(
            f"layout: csv: {table} does not exist; write it with the columns case, patient, image, label, or name it "
            f"in layout: {{csv: {{file: NAME}}}}. There are: {listing.examples()}"
        )
    rows = read_table(table, "layout: csv")
    columns = [name for name in rows[0] if name]
    kinds = {kind: _columns(columns, kind, table) for kind in ("image", "label")}
    if "case" not in columns:
        raise BadInput(f"layout: csv: {table} has no column case; add one. It has: {', '.join(columns)}")
    known = {"case", "patient", "mask", *kinds["image"].values(), *kinds["label"].values()}
    for row in rows:
        at = f"{table}, line {row['']}"

        def path(column: str, optional: bool, row: dict = row, at: str = at) -> str | None:
            if not row[column]:
                if optional:
                    return None
                hint = "; or set files: missing_labels: empty, if it has none" if column.startswith("label:") else ""
                raise BadInput(f"layout: csv: {at}: {column} is empty; write the path{hint}")
            whole = table.parent / Path(row[column]).expanduser()
            if not whole.exists():
                raise BadInput(
                    f"layout: csv: {at}: {column}: {whole} does not exist; paths are relative to the table. "
                    f"Close to it: {_near(whole)}"
                )
            return str(Path(file).parent / Path(row[column]).expanduser())

        images = {name: path(column, False) for name, column in kinds["image"].items()}
        labels = {name: path(column, missing_labels and ":" in column) for name, column in kinds["label"].items()}
        yield Found(
            _case_name(row["case"], at),
            images,
            {name: value for name, value in labels.items() if value},
            at,
            row["patient"] if "patient" in columns else None,
            path("mask", True) if "mask" in columns else None,
            {name: row[name] for name in columns if name not in known},
        )


def _columns(columns: list[str], kind: str, table: Path) -> dict[str, str]:
    """Name and column of each file of a kind."""
    found = {c.removeprefix(f"{kind}:"): c for c in columns if c == kind or c.startswith(f"{kind}:")}
    if not found or (kind in found and len(found) > 1) or "" in found:
        raise BadInput(
            f"layout: csv: {table} needs either the column {kind} or columns {kind}:NAME; it has: {', '.join(columns)}"
        )
    return found


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f"none, for there is no folder {path.parent}"
    return close_to(path.name, sorted(p.name for p in path.parent.iterdir()))


# Shared


def _root(listing: Listing, layout: str, what: str, fits: Callable[[list[str]], bool]) -> str:
    """The folder itself or the only folder in it (or in its folders) that fits, as archives often hold one."""
    level = [""]
    for _ in range(3):
        roots = [name for name in level if fits(listing.names(name))]
        if len(roots) > 1:
            raise BadInput(
                f"layout: {layout}: {listing.folder} holds several datasets: {some(roots)}; set source.path to one"
            )
        if roots:
            return roots[0]
        level = [name + inner for name in level for inner in listing.names(name) if inner.endswith("/")]
    raise BadInput(f"layout: {layout}: {listing.folder} has no {what}; there are: {listing.examples()}")


def _case_name(case: str, at: str) -> str:
    if not case or "/" in case or "\\" in case:
        raise BadInput(f"{at}: the case '{case}' cannot name a file; write a name without slashes")
    return case


def _is_file(listing: Listing, name: str) -> bool:
    path = PurePosixPath(name)
    return listing.holds("" if str(path.parent) == "." else f"{path.parent}/", path.name)


def _expect(listing: Listing, found: dict, folder: str, what: str) -> None:
    if not found:
        there = listing.examples(folder)
        raise BadInput(f"{listing.path(folder)} must hold {what}, and does not; there are: {there}")


# What planning and messages need


def source_files(folder: str | Path, dataset: dict) -> list[Path]:
    """The files that make up the dataset as far as the folder's listing tells, sorted: what to watch for changes.

    Opens nothing but the table of the layout csv, and leaves faults inside the files to `index_cases`.
    """
    listing = Listing(folder)
    layout, options = chosen(dataset)
    files = dataset.get("files") or {}
    patterns = [Pattern.parse(files["mask"], "files.mask")] if "mask" in files else []
    if layout is None:
        for key in ("image", "label"):
            texts = files[key].values() if isinstance(files[key], dict) else [files[key]]
            patterns += [Pattern.parse(text, f"files.{key}") for text in texts]
        names = set()
    elif layout == "csv":
        names = _csv_files(listing, options.get("file", "cases.csv"))
    else:
        wanted = ("sub-",) if layout == "bids" else ("",)
        names = {n for n in listing.walk() if is_image(n) and PurePosixPath(n).name.startswith(wanted)}
        names |= {n for n in listing.walk() if PurePosixPath(n).name == "dataset.json" and n.count("/") < 3}
    names |= {name for pattern in patterns for name in listing.match(pattern)}
    if "table" in files:
        names.add(files["table"]["file"])
    inner = {file for name in names if name.endswith("/") for file in listing.walk(name)}
    inner |= {name + n for name in names if name.endswith("/") for n in listing.names(name)}
    paths = {listing.folder / name for name in names | inner if not name.endswith("/")}
    return sorted(path for path in paths if path.is_file())


def _csv_files(listing: Listing, file: str) -> set[str]:
    try:
        rows = read_table(listing.folder / file, "layout: csv")
    except (BadInput, OSError):
        return {file}
    columns = [c for c in rows[0] if c.split(":")[0] in ("image", "label", "mask")]
    paths = {Path(file).parent / Path(row[c]).expanduser() for row in rows for c in columns if row[c]}
    return {file} | {f"{p}/" if (listing.folder / p).is_dir() else str(p) for p in paths}


def declared_structures(folder: str | Path, layout: str | dict | None) -> dict[str, int | list[int]]:
    """Structures and label values that the dataset's own files declare, for suggestions; {} where they declare none.

    `labels` of dataset.json (nnunet, msd) without background and ignore, or index and name of a *dseg.tsv (bids).
    Names are made to fit the configuration: "Left Kidney" -> left_kidney.
    """
    listing = Listing(folder)
    name = chosen({"layout": layout})[0] if layout else None
    labels: dict[str, object] = {}
    if name in ("nnunet", "msd"):
        about = _dataset_json(listing, name)[1].get("labels")
        about = about if isinstance(about, dict) else {}
        turned = all(str(key).isdigit() for key in about)  # version 1: {"1": "liver"}
        labels = {str(value): int(key) for key, value in about.items()} if turned else dict(about)
    elif name == "bids":
        tables = [n for n in listing.walk() if n.endswith("dseg.tsv")]
        for row in read_table(listing.folder / tables[0], "layout: bids") if tables else []:
            if row.get("index", "").isdigit() and row.get("name"):
                labels[row["name"]] = int(row["index"])
    kept = {key: value for key, value in labels.items() if key.lower() != "ignore" and value not in (0, [0])}
    return {_as_name(key): value for key, value in kept.items()}


def _as_name(text: str) -> str:
    name = re.sub(r"\W+", "_", text.strip().lower(), flags=re.ASCII).strip("_")
    return name if name[:1].isalpha() else f"label_{name}"
