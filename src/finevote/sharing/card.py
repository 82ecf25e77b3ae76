"""A model card: README.md as the hub shows it. It states what is known and what was measured, and says what was not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from finevote.bundle.manifest import Manifest
from finevote.sharing.card_figures import calibration, figures, limits
from finevote.sharing.card_text import bullets, figure_of, plain, section, table
from finevote.sharing.facts import Facts

_NUM_CLASSES = 60  # named in the card; bundle.json has all
_HUB_LICENCES = frozenset({"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0"})  # its own ids
_MARK = "<!-- Written by `finevote push` from what the bundle and its run say; a new push writes it anew. -->"


def write_card(facts: Facts, manifest: Manifest, *, name: str, repository: str | None = None) -> str:
    """Return the card as Markdown behind YAML metadata.

    Args:
        facts: of the run or bundle.
        manifest: of what is given away, which may lack parts of the run's bundle.
        name: of the model.
        repository: where it is on the hub; None where it is not known yet.
    """
    head = yaml.safe_dump(_metadata(facts, name=name), sort_keys=False, allow_unicode=True, width=10_000)
    lines = [
        f"# {plain(name)}",
        "",
        _MARK,
        "",
        *_about(facts),
        "",
        *section("Classes", _classes(facts)),
        *section("Data and protocol", _data(facts)),
        *section("Figures", *figures(facts)),
        *section("Calibration", calibration(facts)),
        *section("Limits", limits(facts)),
        *section("Licences", _licences(facts)),
        *section("Use", _use(repository, name)),
        *section("Files", *_files(manifest)),
    ]
    return f"---\n{head}---\n\n" + "\n".join(lines).rstrip() + "\n"


def _metadata(facts: Facts, *, name: str) -> dict[str, Any]:
    weights = facts.weights
    values: dict[str, Any] = {}
    if weights is not None and weights.licence in _HUB_LICENCES:
        values["license"] = weights.licence
    elif weights is not None and weights.licence:
        values |= {"license": "other", "license_name": weights.licence}
        if link := re.search(r"https://\S+[\w/]", weights.obligations):
            values["license_link"] = link.group()
    values |= {
        "library_name": "finevote",
        "pipeline_tag": "image-classification",
        "tags": ["finevote", "fine-grained", "image-classification", "vision-transformer"],
    }
    if weights is not None and re.fullmatch(r"timm/[\w.-]+", weights.source):
        values["base_model"] = weights.source
    if results := [_result(facts, split) for split in ("test", "val") if split in facts.reports]:
        values |= {"metrics": ["accuracy"], "model-index": [{"name": name, "results": results}]}
    return values


def _result(facts: Facts, split: str) -> dict[str, Any]:
    report = facts.reports[split]
    top_1 = figure_of(report["top_1"])
    told = "" if top_1 is None else f" (95% interval {top_1.low:.4f} to {top_1.high:.4f})"
    data = facts.data_name or "not stated"
    kind = re.sub(r"[^a-z0-9]+", "-", data.lower()).strip("-") or "images"
    return {
        "task": {"type": "image-classification"},
        "dataset": {"name": data, "type": kind, "split": {"val": "validation"}.get(split, split)},
        "metrics": [{"type": "accuracy", "value": round(report["top_1"]["value"], 4), "name": f"top-1{told}"}],
    }


def _about(facts: Facts) -> list[str]:
    manifest = facts.manifest
    model = manifest.config["model"]
    rows, columns = manifest.preprocessing.image_size
    heads = "whose heads vote for the telling patches" if model["voting"]["enabled"] else "with a plain classifier"
    num_classes = len(manifest.class_names) + len(facts.added_names)
    text = (
        f"Names which of {num_classes:,} classes a photograph shows. A vision transformer "
        f"({plain(model['backbone'])}) {heads}, at {rows} x {columns} px. {_beginning(facts)}"
    )
    if facts.soup is not None:
        members = [row for row in facts.soup["ingredients"] if row["is_in"]]
        text += (
            f" The weights are the {plain(facts.soup['kind'])} average of {len(members)} of "
            f"{len(facts.soup['ingredients'])} runs, chosen on validation images."
        )
    return [text]


def _beginning(facts: Facts) -> str:
    weights = facts.weights
    if weights is None:
        return "What weights it began from is not stated."
    if weights.source == "random":
        return "Trained from random weights."
    return f"Fine-tuned from {plain(_without_folders(weights.source))}."


def _classes(facts: Facts) -> list[str]:
    names = facts.manifest.class_names
    shown = ", ".join(plain(name) for name in names[:_NUM_CLASSES])
    more = f" and {len(names) - _NUM_CLASSES:,} more, in `bundle.json`" if len(names) > _NUM_CLASSES else ""
    lines = [f"{shown}{more}."]
    if taxonomy := facts.manifest.taxonomy:
        counts = [len({names[level] for names in taxonomy.lineages}) for level in range(len(taxonomy.levels))]
        levels = ", ".join(f"{count:,} of {plain(level)}" for level, count in zip(taxonomy.levels, counts, strict=True))
        lines += ["", f"Levels of their taxonomy, by number: {levels}."]
    if facts.added_names:
        added = ", ".join(plain(name) for name in facts.added_names)
        lines += ["", f"Classes added later, from photographs without training: {added}. The figures are without them."]
    return lines


def _data(facts: Facts) -> list[str]:
    details, data = facts.manifest.details, facts.data
    items = [f"Data: {plain(facts.data_name)}" if facts.data_name else "Data: not stated"]
    if setting := details.get("setting") or data.get("setting"):
        items.append(f"Setting: {plain(setting)}")
    if protocol := details.get("protocol"):
        items.append(f"Protocol: {plain(protocol)}")
    if held_out := data.get("held_out_classes"):
        items.append(f"Classes held out of training: {len(held_out):,}")
    if skipped := data.get("skipped"):
        items.append(f"Images that could not be read and were left out: {len(skipped):,}")
    items += [f"Note: {plain(note)}" for note in data.get("notes", ())]
    if facts.published is not None:
        items += [f"To know of this data set: {plain(pitfall)}" for pitfall in facts.published.pitfalls]
    return bullets(items)


def _licences(facts: Facts) -> list[str]:
    return bullets([_weights_licence(facts), _data_licence(facts), "Code: finevote, Apache 2.0"])


def _weights_licence(facts: Facts) -> str:
    weights = facts.weights
    if weights is None:
        return "Weights: nothing is stated of what they began from"
    if weights.source == "random":
        return "Weights: trained from random ones, so no licence is inherited; whoever publishes them states one"
    began = plain(_without_folders(weights.source))
    licence = f"under {plain(weights.licence)}" if weights.licence else "of no known licence"
    terms = f": {plain(weights.obligations)}" if weights.obligations else ""
    return f"Weights: made from {began}, {licence}{terms}"


def _data_licence(facts: Facts) -> str:
    if facts.published is not None:
        terms = f" ({plain(facts.published.terms)})" if facts.published.terms else ""
        source = facts.published.source_url
        return f"Data: {plain(facts.published.title)}, licence {plain(facts.published.licence)}{terms}, from {source}"
    if facts.data_name == "synthetic":
        return "Data: drawn by finevote, no photographs"
    return "Data: no licence is known here; whoever publishes the weights states it"


def _use(repository: str | None, name: str) -> list[str]:
    place = repository or "OWNER/NAME"
    folder = place.rpartition("/")[2] if repository else name
    return [
        "```sh",
        "pip install finevote",
        f"finevote pull {place} {folder}",
        f"finevote predict {folder} PHOTOGRAPHS",
        "```",
        "",
        "```python",
        "import finevote",
        "",
        f'print(finevote.load("{folder}").predict("photo.jpg"))',
        "```",
    ]


def _files(manifest: Manifest) -> Sequence[list[str]]:
    rows = [(f"`{name}`", f"{entry.size_bytes:,}", f"`{entry.sha256}`") for name, entry in manifest.files.items()]
    made = ", ".join(f"{plain(name)} {plain(version)}" for name, version in manifest.versions.items())
    return (
        ["No file holds code. `finevote pull` checks every one of them."],
        table(("file", "bytes", "SHA-256"), rows),
        [f"Content of `bundle.json`: `{manifest.sha256}`. Made with {made}."],
    )


def _without_folders(source: str) -> str:
    """Return a name on the hub or an address as it is, and a file without the folders of the machine it lay on."""
    is_file = source.startswith(("/", "~", ".")) or "\\" in source
    return re.split(r"[\\/]", source.rstrip("/\\"))[-1] if is_file else source
