"""From a folder and a dataset's block of the configuration to its cases."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lib.data.cases import Case
from lib.data.layouts import Found, chosen, find_cases
from lib.data.patterns import FIELD, Listing, Pattern, close_to, read_table, some
from lib.errors import BadInput

RESERVED = ("case", "patient", "mask")  # columns of index.csv
PATIENT_IS_CASE = ("nnunet", "msd", "folders")  # layouts that say nothing of patients


def index_cases(source_folder: str | Path, dataset: dict) -> list[Case]:
    """Return the cases in a folder, sorted by name; images without a label are left out.

    `dataset` is the block of the configuration, of which `files`, `layout` and the names in `structures` are read:
    - files.image: a pattern (lib.data.patterns), a pattern per channel, or one pattern with {channel}, whose values
      are then the channels, sorted, the same for every case;
    - files.label: a pattern, or one per structure for binary masks. Its field {case}, or else all of them joined by
      "_", names the case; filled into the other patterns they name the other files;
    - files.missing_labels: empty, when the absence of a structure's file means that the structure is absent;
    - files.mask: a pattern, which may hold {case}, {patient} and all other fields;
    - files.patient: a pattern that finds {patient}, and further fields, in the name of the case;
    - files.table: {file, match: {column: template}, fields: {field: column}}, fields from a CSV or TSV;
    - layout: instead of image and label (lib.data.layouts).
    Where a layout does not tell patients apart (nnunet, msd, folders), and nothing else does, each case is a patient.

    Raises BadInput, which names the key, the file and the fix, on every fault: a pattern that cannot work, nothing or
    not all found, a name that can be read in two ways, two label maps of one case, no patient, no row of the table.
    """
    listing = Listing(source_folder)
    layout, _ = chosen(dataset)
    files = dataset.get("files") or {}
    found = find_cases(listing, dataset) if layout else _by_patterns(listing, files)
    _check_names(found)
    _check_labels(found, dataset.get("structures") or {}, files.get("missing_labels") == "empty")
    if "patient" in files:
        _patient_of_case(found, files["patient"])
    if "table" in files:
        _join_table(listing, found, files["table"], layout in PATIENT_IS_CASE)
    for f in found:
        f.patient = f.patient or (f.case if layout in PATIENT_IS_CASE else None)
        if not f.patient:
            raise BadInput(
                f"no patient is known for {f.at}, and cases are split by patient: write {{patient}} into files.label, "
                'or find it in the name of the case, as in files: {patient: "{patient}_*"}, or take it from a table, '
                "as in files: {table: {file: subjects.csv, match: {image: …}, fields: {patient: COLUMN}}}"
            )
    if "mask" in files:
        _add_masks(listing, found, Pattern.parse(files["mask"], "files.mask"))
    names = list(dict.fromkeys(name for f in found for name in f.fields))
    return sorted((_case(listing, f, names) for f in found), key=lambda case: case.case)


def _case(listing: Listing, found: Found, fields: list[str]) -> Case:
    return Case(
        found.case,
        found.patient,
        {name: listing.path(file) for name, file in found.images.items()},
        {name: listing.path(file) for name, file in found.labels.items()},
        found.mask and listing.path(found.mask),
        {name: found.fields.get(name, "") for name in fields},
    )


# Patterns


@dataclass
class _Candidate:
    """What the label patterns find for one set of values of the fields."""

    values: dict[str, str]
    labels: dict[str, str]
    images: dict[str, str] = field(default_factory=dict)  # by channel, as far as they are there
    masks: list[str] = field(default_factory=list)


def _by_patterns(listing: Listing, files: dict) -> list[Found]:
    label_patterns = _parse(files["label"], "files.label", "label")
    image_patterns = _parse(files["image"], "files.image", "image")
    fields = _fields(label_patterns, image_patterns)
    candidates = _candidates(listing, label_patterns, fields)
    by_channel = "channel" in next(iter(image_patterns.values())).fields
    find = _images_by_channel if by_channel else _images_by_pattern
    find(listing, candidates, image_patterns)
    if "mask" in files and set((mask := Pattern.parse(files["mask"], "files.mask")).fields) <= set(fields):
        for c in candidates:
            c.masks = listing.match(mask.fill(c.values))
    # A loose label pattern, such as {patient}.nii.gz, also matches the images and masks themselves.
    taken = {n: c for c in candidates for n in (*c.images.values(), *c.masks) if n not in c.labels.values()}
    candidates = [
        c for c in candidates if c.images or not all(taken.get(label, c) is not c for label in c.labels.values())
    ]
    if not candidates:
        texts = " or ".join(pattern.text for pattern in label_patterns.values())
        raise BadInput(
            f"files.label: no file matches {texts} in {listing.folder}; correct the pattern. "
            f"There are: {listing.examples()}"
        )
    if by_channel:
        _settle_channels(listing, candidates)
    else:
        _need_images(listing, candidates, image_patterns)
    found = []
    for c in candidates:
        others = {name: value for name, value in c.values.items() if name not in ("case", "patient")}
        at = listing.path(next(iter(c.labels.values())))
        case = c.values.get("case", "_".join(c.values.values()))
        found.append(Found(case, c.images, c.labels, at, c.values.get("patient"), fields=others))
    return found


def _parse(given: str | dict[str, str], key: str, single: str) -> dict[str, Pattern]:
    if isinstance(given, str):
        return {single: Pattern.parse(given, key)}
    return {name: Pattern.parse(text, f"{key}.{name}") for name, text in given.items()}


def _fields(labels: dict[str, Pattern], images: dict[str, Pattern]) -> list[str]:
    """Fields of the label patterns in order; raises BadInput on patterns that cannot work together."""
    first = next(iter(labels.values()))
    fields = first.fields
    for pattern in labels.values():
        if not pattern.fields:
            raise BadInput(f"{pattern.key}: '{pattern.text}' has no field, such as {{patient}}, to tell cases apart")
        if set(pattern.fields) != set(fields):
            raise BadInput(
                f"{pattern.key}: '{pattern.text}' and {first.key} '{first.text}' must have the same fields, for they "
                "name the same cases"
            )
        for name in pattern.fields:
            if name in ("channel", "mask"):
                raise BadInput(
                    f"{pattern.key}: '{pattern.text}': {{{name}}} has a meaning of its own; rename the field"
                )
    for pattern in images.values():
        if not set(pattern.fields) & set(fields):
            raise BadInput(
                f"{pattern.key}: '{pattern.text}' has no field of {first.key} '{first.text}' to tell cases apart"
            )
        for name in pattern.fields:
            if name in fields or (name == "channel" and len(images) == 1 and "image" in images):
                continue
            raise BadInput(
                f"{pattern.key}: '{pattern.text}' has {{{name}}}, which {first.key} '{first.text}' lacks; an image is "
                "found with the fields of its label map. Where the text does not matter, write * for it"
            )
    return fields


def _candidates(listing: Listing, patterns: dict[str, Pattern], fields: list[str]) -> list[_Candidate]:
    found: dict[tuple[str, ...], _Candidate] = {}
    for structure, pattern in patterns.items():
        for name, values in listing.find(pattern).items():
            values = {field: values[field] for field in fields}
            candidate = found.setdefault(tuple(values.values()), _Candidate(values, {}))
            if structure in candidate.labels:
                raise BadInput(
                    f"{pattern.key}: {listing.path(candidate.labels[structure])} and {listing.path(name)} both give "
                    f"the case '{'_'.join(values.values())}'; make the pattern's fields tell them apart"
                )
            candidate.labels[structure] = name
    return list(found.values())


def _images_by_pattern(listing: Listing, candidates: list[_Candidate], patterns: dict[str, Pattern]) -> None:
    for c in candidates:
        for channel, pattern in patterns.items():
            names = listing.match(pattern.fill(c.values))
            if len(names) > 1:
                raise BadInput(
                    f"{pattern.key}: '{pattern.text}' matches {len(names)} files for the label map "
                    f"{listing.path(next(iter(c.labels.values())))}: {some(names)}; make it match one"
                )
            if names:
                c.images[channel] = names[0]


def _need_images(listing: Listing, candidates: list[_Candidate], patterns: dict[str, Pattern]) -> None:
    missing = [(c, channel) for c in candidates for channel in patterns if channel not in c.images]
    for c, channel in missing:
        pattern = patterns[channel].fill(c.values)
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise BadInput(
            f"{pattern.key}: {listing.path(pattern.text)} {_why_not(listing, pattern)}, but the label map "
            f"{listing.path(next(iter(c.labels.values())))} needs it{more}; add the image, or correct {pattern.key}"
        )


def _why_not(listing: Listing, pattern: Pattern) -> str:
    path = Path(listing.path(pattern.text))
    if path.is_dir():
        empty = not any(path.iterdir())
        return (
            "is an empty folder" if empty else "is a folder without .dcm files (if all are DICOM, end the pattern in /)"
        )
    return "is a link to a file that is not there" if path.is_symlink() else "does not exist"


def _images_by_channel(listing: Listing, candidates: list[_Candidate], patterns: dict[str, Pattern]) -> None:
    pattern = patterns["image"]
    for c in candidates:
        for name, values in listing.find(pattern.fill(c.values)).items():
            if name in c.labels.values():
                continue
            if (channel := values["channel"]) in c.images:
                raise BadInput(
                    f"{pattern.key}: '{pattern.text}': {c.images[channel]} and {name} are both channel '{channel}' "
                    "of one case; make the pattern match one"
                )
            c.images[channel] = name


def _settle_channels(listing: Listing, candidates: list[_Candidate]) -> None:
    """Give each image to one case and require the same channels of all."""
    owner = {name: c for c in candidates for name in (*c.labels.values(), *c.masks)}
    shortest: dict[str, int] = {}
    for c in candidates:
        for channel, name in c.images.items():
            # p1_x_flair is channel flair of p1_x, and not x_flair of p1.
            if name not in owner or len(channel) < shortest.get(name, 0):
                owner[name], shortest[name] = c, len(channel)
    for c in candidates:
        c.images = {
            channel: name for channel, name in sorted(c.images.items()) if owner[name] is c and name not in c.masks
        }
    holders: dict[str, list[_Candidate]] = {}
    for c in candidates:
        for channel in c.images:
            holders.setdefault(channel, []).append(c)
    if not holders:
        raise BadInput(f"files.image: no image has a label map of the same fields; there are: {listing.examples()}")
    for channel, having in sorted(holders.items(), key=lambda item: -len(item[1])):
        lacking = [next(iter(c.labels.values())) for c in candidates if channel not in c.images]
        if lacking:
            raise BadInput(
                f"files.image: all cases need the same channels, and {len(having)} of {len(candidates)} have "
                f"'{channel}' (such as {having[0].images[channel]}); the images of these labels lack it: "
                f"{some(lacking)}. Add them, or list the channels: image: {{NAME: PATTERN, …}}"
            )


# What patterns and layouts share


def _check_names(found: list[Found]) -> None:
    seen: dict[str, Found] = {}
    images = {image for f in found for image in f.images.values()}
    for f in found:
        if f.case in seen:
            raise BadInput(
                f"files.label: {seen[f.case].at} and {f.at} both give the case '{f.case}'; make the pattern's fields "
                "tell them apart ({case}, where there is one, names the case alone)"
            )
        seen[f.case] = f
        if both := images & set(f.labels.values()):
            raise BadInput(f"files: {both.pop()} is both image and label; the two patterns must differ")
        for name in f.fields:
            if name in RESERVED or ":" in name:
                raise BadInput(f"{f.at}: a field cannot be called '{name}', which index.csv uses; rename it")


def _check_labels(found: list[Found], structures: dict, may_be_missing: bool) -> None:
    """Where labels are binary masks per structure, they are those of `structures`, and all are there."""
    given = dict.fromkeys(name for f in found for name in f.labels)
    if set(given) == {"label"}:
        return
    unknown, absent = [n for n in given if n not in structures], [n for n in structures if n not in given]
    if unknown or absent:
        raise BadInput(
            f"labels of single structures must have the names in structures ({', '.join(structures) or 'none'}); "
            + (f"'{unknown[0]}' is not one of them" if unknown else f"there is none of '{absent[0]}'")
            + "; correct files.label or structures"
        )
    lacking = [(f, name) for f in found for name in structures if name not in f.labels]
    for f, name in [] if may_be_missing else lacking:
        raise BadInput(
            f"files.label: the case '{f.case}' has no file of the structure '{name}' ({len(lacking)} missing in all; "
            f"it has {some(list(f.labels.values()))}); add it, or set files: missing_labels: empty, if no file means "
            "that the structure is absent"
        )


def _patient_of_case(found: list[Found], text: str) -> None:
    pattern = Pattern.parse(text, "files.patient")
    if "patient" not in pattern.fields:
        raise BadInput(f"files.patient: '{text}' has no {{patient}}, which it must find in the name of the case")
    for f in found:
        if f.patient is not None:
            raise BadInput(f"files.patient: {f.at} has a patient already, '{f.patient}'; remove one of the two")
        if (values := pattern.read(f.case)) is None:
            raise BadInput(f"files.patient: '{text}' does not match the case '{f.case}'; correct the pattern")
        f.patient = values.pop("patient")
        if both := set(values) & set(f.fields):
            raise BadInput(f"files.patient: {f.at} has the field '{both.pop()}' already; rename it")
        f.fields |= values


def _values(f: Found, patient_is_case: bool) -> dict[str, str]:
    patient = f.patient or (f.case if patient_is_case else None)
    return {**f.fields, "case": f.case} | ({"patient": patient} if patient else {})


def _join_table(listing: Listing, found: list[Found], table: dict, patient_is_case: bool) -> None:
    """Add the table's fields to each case from the one row that matches (or from several that agree)."""
    key, file = "files.table", listing.folder / table["file"]
    match, fields = table["match"], table["fields"]
    if not file.is_file():
        raise BadInput(f"{key}: {file} does not exist; correct file. There are: {listing.examples()}")
    rows = read_table(file, key)
    columns = [name for name in rows[0] if name]
    for what, column in [("match", c) for c in match] + [("fields", c) for c in fields.values()]:
        if column not in columns:
            raise BadInput(f"{key}.{what}: {file} has no column '{column}'; close to it: {close_to(column, columns)}")
    for name in fields:
        if name in ("case", "mask") or ":" in name:
            raise BadInput(f"{key}.fields: a field cannot be called '{name}', which index.csv uses; rename it")
    by_key: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        by_key.setdefault(tuple(row[column] for column in match), []).append(row)

    wanted = [tuple(_fill(text, _values(f, patient_is_case)) for text in match.values()) for f in found]
    missing = [i for i, values in enumerate(wanted) if values not in by_key]
    if missing:
        f, values = found[missing[0]], wanted[missing[0]]
        raise BadInput(
            f"{key}: the case '{f.case}' needs the row of {file} with {_pairs(match, values)}, which is not there"
            f"{f' (nor for {len(missing) - 1} more cases)' if len(missing) > 1 else ''}; add it, or correct match. "
            f"Close to it: {close_to(' '.join(values), [' '.join(k) for k in by_key])}"
        )
    for f, values in zip(found, wanted, strict=True):
        first, *others = by_key[values]
        for row in others:
            for column in fields.values():
                if row[column] != first[column]:
                    raise BadInput(
                        f"{key}: lines {first['']} and {row['']} of {file} both have {_pairs(match, values)}, which "
                        f"the case '{f.case}' needs, and differ in {column} ('{first[column]}', '{row[column]}'); make "
                        "match tell them apart"
                    )
        for name, column in fields.items():
            if name in f.fields or (name == "patient" and f.patient is not None):
                raise BadInput(f"{key}.fields: {f.at} has the field '{name}' already, from its name; rename one")
            if name == "patient":
                if not first[column]:
                    raise BadInput(f"{key}: {file}, line {first['']}: {column} is empty; the case needs a patient")
                f.patient = first[column]
            else:
                f.fields[name] = first[column]


def _pairs(match: dict[str, str], values: tuple[str, ...]) -> str:
    return " and ".join(f"{column} '{value}'" for column, value in zip(match, values, strict=True))


def _fill(text: str, values: dict[str, str]) -> str:
    for name in FIELD.findall(text):
        if name not in values:
            raise BadInput(f"files.table.match: '{text}': there is no field {{{name}}}; there are: {', '.join(values)}")
    return FIELD.sub(lambda match: values[match[1]], text)


def _add_masks(listing: Listing, found: list[Found], pattern: Pattern) -> None:
    for f in found:
        values = _values(f, False)
        if f.mask is not None:
            raise BadInput(f"files.mask: {f.at} has a mask already; remove one of the two")
        for name in pattern.fields:
            if name not in values:
                raise BadInput(
                    f"files.mask: '{pattern.text}' has {{{name}}}, which the cases lack; they have: {', '.join(values)}"
                )
        names = listing.match(pattern.fill(values))
        if len(names) != 1:
            wrong = f"matches {len(names)} files: {some(names)}" if names else "does not exist"
            raise BadInput(
                f"files.mask: {listing.path(pattern.fill(values).text)} {wrong}, but the case '{f.case}' needs one "
                "mask; add it, or correct files.mask"
            )
        f.mask = names[0]
