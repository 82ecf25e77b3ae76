"""Where the figures come from: the audit of the data, settings, versions, hashes, and the commands to make it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finevote.audit.findings import KINDS
from finevote.config import list_recipes, load_config
from finevote.data.known_leaks import KnownLeaks, recall_leaks
from finevote.data.registry import open_source, protocol_for
from finevote.errors import ConfigError, FinevoteError
from finevote.machine import machine_line
from finevote.report.blocks import Block, Cell, Column, Commands, Facts, Folded, Note, Section, Table
from finevote.report.material import Material
from finevote.report.text import share
from finevote.study.contestants import flatten
from finevote.training.prepare import SPLITS


def audit(material: Material) -> Section:
    """Return what an audit of the data found, or how to make one."""
    title, lead = "Is the data sound?", "Copies across splits, odd images and doubtful labels, as an audit tells them."
    known = _recall(material)
    if known is None:
        about = "No audit is known of these images. It looks for copies across splits and for doubtful labels:"
        command = shlex.join(["finevote", "data", "audit", str(material.data.get("data", "DATA"))])
        return Section("data", title, "Data", lead, [Commands(about, [command])])
    blocks = _leak_notes(known)
    found = _read(Path(known.report))
    if found is None:
        blocks.append(Note(f"The rest of what was found is no longer at {known.report}."))
    else:
        blocks += [_findings(found["counts"]), *_probe_notes(found.get("probe") or {})]
    return Section("data", title, "Data", lead, blocks)


def _recall(material: Material) -> KnownLeaks | None:
    """Return what an audit found of the images that the run was given, those of held-out classes too."""
    try:
        ids = _image_ids(material)
        return recall_leaks(str(material.data["data"]), ids)
    except (FinevoteError, OSError, KeyError, TypeError, AttributeError):
        return None


def _image_ids(material: Material) -> list[str]:
    if material.data.get("held_out_classes"):  # split.json has only some of their images
        place = material.data["data"]
        source = open_source(place, splits=SPLITS, protocol=protocol_for(place, material.data["protocol"]))
        return [record.image_id for split in SPLITS for record in source.splits.get(split, ())]
    splits = material.folder.read_json(material.folder.split_json)["splits"]
    return [*(image_id for split in SPLITS for image_id in splits.get(split, ())), *material.data.get("skipped", ())]


def _leak_notes(known: KnownLeaks) -> list[Block]:
    notes: list[Block] = [
        Note(
            f"{number:,} of {known.num_images.get(split, 0):,} {split} images have a copy in {other}: figures measured "
            f"on {split} flatter.",
            is_warning=True,
        )
        for split in ("test", "val")
        for other, number in known.num_leaked.get(split, {}).items()
        if other == "train" or split == "test"
    ]
    return notes or [Note("No image of validation or test has a copy in another split.")]


def _findings(counts: Mapping[str, int]) -> Block:
    there = {about: counts[kind] for kind, about in KINDS.items() if counts.get(kind)}
    rows = [[Cell(about), Cell(f"{number:,}", number)] for about, number in there.items()]
    return (
        Table("Findings", (Column("finding", is_number=False), Column("times")), rows) if rows else Note("No findings.")
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_bytes())
        return values if isinstance(values["counts"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _probe_notes(probe: Mapping[str, Any]) -> list[Block]:
    if probe.get("agreement") is None or probe.get("trial_precision") is None:
        return []
    return [
        Note(
            f"Labels judged by {probe['features']}, which agree with {share(probe['agreement'])} of them; on trial "
            f"{probe['trial_recall']:.0%} of flipped labels were found, and {probe['trial_precision']:.0%} of the "
            "labels in doubt were flipped ones."
        )
    ]


def making(material: Material) -> Section:
    """Return the commands that make the run and this page again, with settings, versions and hashes."""
    manifest = material.manifest
    rows = [
        ("Bundle", f"SHA-256 {material.report.get('bundle_sha256') or manifest.sha256}"),
        ("Weights", f"SHA-256 {material.report.get('weights_sha256') or 'not recorded'}"),
        ("Trained with", ", ".join(f"{name} {number}" for name, number in manifest.versions.items())),
        ("Page made on", machine_line()),
    ]
    settings = flatten(material.config.model_dump(mode="json"))
    config = Facts([(name, json.dumps(value, ensure_ascii=False)) for name, value in settings.items()])
    blocks: list[Block] = [
        Commands("To train it again, measure it, and make this page:", commands(material)),
        Facts(rows),
        Folded(f"All {len(settings)} settings", [config]),
    ]
    lead = "What made the figures, and how to make them again."
    return Section("reproduce", "How to make it again", "Reproduce", lead, blocks)


def commands(material: Material) -> list[str]:
    """Return the lines that train the run, measure its split, and write the page."""
    run, split = str(material.folder.path), material.split
    more = [] if split == "val" else ["--split", split]
    fit = ["finevote", "fit", str(material.data.get("data", "DATA")), "--recipe", *_recipe(material), "--out", run]
    lines = [fit, ["finevote", "evaluate", run, *more], ["finevote", "report", run, *more]]
    return [shlex.join(line).replace(" --set ", " \\\n    --set ") for line in lines]


def _recipe(material: Material) -> list[str]:
    """Return the recipe with `--set` for what differs from it, or the run's own settings as a file."""
    name = material.config.name
    if name not in list_recipes():
        return [str(material.folder.config_yaml)]
    try:
        shipped = flatten(load_config(name).model_dump(mode="json"))
    except ConfigError:
        return [str(material.folder.config_yaml)]
    own = flatten(material.config.model_dump(mode="json"))
    changed = {key: value for key, value in own.items() if shipped.get(key) != value}
    return [name, *(word for key, value in changed.items() for word in ("--set", f"{key}={_as_yaml(value)}"))]


def _as_yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
