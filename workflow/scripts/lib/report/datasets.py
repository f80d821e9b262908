"""What the page says about the data: images, structures, near duplicates, leakage, and what conditions changed."""

from __future__ import annotations

from lib.report.summary import is_simulated


def dataset_facts(check: dict, config: dict) -> dict:
    """What the report says about the images of one dataset."""
    cases = check["cases"]
    entry = config.get("datasets", {}).get(check["dataset"], {})
    shapes = sorted({" × ".join(str(n) for n in case["shape"]) for case in cases})
    spacings = sorted({" × ".join(f"{s:g}" for s in case["spacing"]) for case in cases})
    voxels = {}
    for name, labels in entry.get("structures", {}).items():
        values = [str(v) for v in (labels if isinstance(labels, list) else [labels])]
        voxels[name] = sum(case["labels"].get(v, 0) for case in cases for v in values)
    foreground = sum(voxels.values())
    return {
        "name": check["dataset"],
        "simulated": is_simulated(config, check["dataset"]),
        "cases": len(cases),
        "patients": len({case["patient"] for case in cases}),
        "shapes": shapes,
        "spacings": spacings,
        "shares": {name: n / foreground for name, n in voxels.items()} if foreground else {},
        "warnings": check["warnings"],
        "dropped": check["dropped"],
        "groups": len(set(check["groups"].values())),
        "hash": check["data_hash"],
        "licence": entry.get("licence", ""),
        "cite": entry.get("cite", ""),
    }


def noise_of(stores: list[dict]) -> list[dict]:
    """Per condition that changes a dataset: the settings, and the means over cases of what was measured.

    stores: contents of the store.json of each condition, one per condition.
    """
    result = []
    for store in stores:
        measured: dict[str, list[float]] = {}
        for entry in store["cases"].values():
            for part, record in entry.get("noise", {}).items():
                for name, value in record.items():
                    if isinstance(value, int | float) and not isinstance(value, bool):
                        measured.setdefault(f"{part}: {name}", []).append(value)
        if store["condition_settings"]:
            means = {name: sum(values) / len(values) for name, values in measured.items()}
            result.append({"name": store["condition"], "settings": store["condition_settings"], "measured": means})
    return result
