"""An audit as `rich` prints it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from finevote.audit.findings import ACROSS_GROUPS, ACROSS_SPLITS, DUPLICATES, KINDS, MIXED_LABELS, Audit, Finding

_TAGS = {
    ACROSS_SPLITS: "in more than one split",
    ACROSS_GROUPS: "in more than one group",
    MIXED_LABELS: "with more than one label",
}
_LOW_PRECISION = 0.3


def audit_table(audit: Audit) -> RenderableType:
    """Return the findings by kind, with numbers and an example each, and what to make of them."""
    counts = ", ".join(f"{number:,} {split}" for split, number in audit.num_images.items())
    parts: list[RenderableType] = [Text(f"{audit.data}: {counts} images of {audit.num_classes} classes", "bold"), ""]
    parts.append(_table(audit) if audit.findings else Text("nothing found"))
    parts += ["", *(Text(line) for line in (*leak_lines(audit), *_probe_lines(audit), *audit.notes))]
    return Group(*parts)


def leak_lines(audit: Audit) -> list[str]:
    """Return a sentence for each pair of splits that share pictures."""
    return [
        f"WARNING: {number:,} of {audit.num_images[split]:,} {split} images have a copy in {other}: "
        f"figures measured on {split} will flatter"
        for split in ("test", "val")
        for other, number in audit.num_leaked.get(split, {}).items()
        if other == "train" or (split, other) == ("test", "val")
    ]


def _table(audit: Audit) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("finding", overflow="fold")
    for heading in ("times", "images"):
        table.add_column(heading, justify="right")
    table.add_column("for example", overflow="fold")
    for kind, title in KINDS.items():
        found = audit.of_kind(kind)
        if not found:
            continue
        _add_row(table, title, found)
        for tag, about in _TAGS.items() if kind in DUPLICATES else ():
            tagged = [finding for finding in found if tag in finding.tags]
            if tagged:
                _add_row(table, f"  {about}", tagged)
    return table


def _add_row(table: Table, title: str, found: Sequence[Finding]) -> None:
    num_images = len({image.id for finding in found for image in finding.images})
    table.add_row(title, f"{len(found):,}", f"{num_images:,}" if num_images else "", Text(_example(found[0])))


def _example(finding: Finding) -> str:
    shown = [f"{image.id} ({image.split})" for image in finding.images[:2]]
    more = f" and {len(finding.images) - 2} more" if len(finding.images) > 2 else ""
    return ": ".join(filter(None, [" = ".join(shown) + more, finding.detail]))


def _probe_lines(audit: Audit) -> list[str]:
    judgement = audit.judgement
    if judgement.agreement is None or judgement.recall is None or judgement.precision is None:
        return ["the labels were not judged: no two classes have three images or groups that can be read"]
    told = (
        f"labels judged by {audit.features}, which out of fold agree with {judgement.agreement:.1%} of them; on trial, "
        f"{judgement.recall:.0%} of {judgement.num_flipped:,} flipped labels were found, and {judgement.precision:.0%} "
        "of the labels in doubt were flipped ones"
    )
    if judgement.precision >= _LOW_PRECISION:
        return [told]
    return [told, "most doubts are wrong here: read them from the top, or judge with --backbone dinov2_vits14"]
