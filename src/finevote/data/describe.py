"""What is known of a data set, as rows of a label and a text: published, or seen where it lies."""

import shlex
from collections import Counter

from finevote.data.published import DatasetInfo, Protocol
from finevote.data.registry import Named
from finevote.remote.download import RemoteFile
from finevote.types import DataSource

Row = tuple[str, str]


def describe_published(named: Named) -> list[Row]:
    """Return everything known of a published set; a label stands once, before the first of its rows."""
    info, root = named.info, named.find()
    rows = [("set", info.title), ("classes", f"{info.num_classes:,}")]
    rows += [("protocol", _describe_protocol(info, protocol)) for protocol in info.protocols]
    rows += [("boxes", describe_boxes(info)), ("licence", describe_licence(info)), ("source", info.source_url)]
    rows += [("mind", pitfall) for pitfall in _pitfalls(info)]
    rows += [("file", _describe_file(file)) for file in info.files]
    rows += [("here", str(root) if root else f"not yet; it belongs into {named.folder}")]
    if root is None:
        rows += [("to get it", text) for text in _how_to_get(named)]
    return _label_once(rows)


def describe_source(source: DataSource, *, published: DatasetInfo | None = None) -> list[Row]:
    """Return what is seen of a data set; `published` is the set whose layout it has."""
    rows = [("set", f"{published.title}, as `{published.name}`")] if published else []
    if source.protocol:
        rows.append(("protocol", source.protocol))
    rows.append(("classes", f"{len(source.class_names):,}"))
    for split, records in source.splits.items():
        counts = Counter(record.label for record in records)
        few, many = min(counts.values(), default=0), max(counts.values(), default=0)
        each = f"{few:,}" if few == many else f"{few:,} to {many:,}"
        groups = len({record.group for record in records if record.group is not None})
        rows.append((split, f"{len(records):,} images, {each} a class{f', {groups:,} groups' if groups else ''}"))
    rows.append(("boxes", describe_boxes(published) if published else "yes" if source.locate else "none"))
    if published:
        rows += [("licence", describe_licence(published)), *(("mind", pitfall) for pitfall in published.pitfalls)]
    return _label_once([*rows, *(("note", note) for note in source.notes)])


def describe_boxes(info: DatasetInfo) -> str:
    """Return what of the images has boxes."""
    return " + ".join(filter(None, (info.subject, info.parts))) or "none"


def describe_licence(info: DatasetInfo) -> str:
    """Return the licence with its terms."""
    return ": ".join(filter(None, (info.licence, info.terms)))


def is_by_hand(info: DatasetInfo) -> bool:
    """Tell whether some of the files have no source to fetch them from."""
    return any(not file.urls for file in info.files)


def _pitfalls(info: DatasetInfo) -> list[str]:
    return [info.caveat, *info.pitfalls] if info.caveat else list(info.pitfalls)


def _describe_protocol(info: DatasetInfo, protocol: Protocol) -> str:
    counts = ", ".join(f"{info.count(protocol, split):,} {split}" for split in protocol.lists)
    return f"{protocol.name}: {protocol.about} ({counts})"


def _describe_file(file: RemoteFile) -> str:
    size = f"{file.num_bytes:,} bytes" if file.num_bytes else "size not known"
    sums = [f"{kind} {value}" for kind, value in (("sha256", file.sha256), ("md5", file.md5)) if value]
    return f"{file.name}: {', '.join([size, *(sums[:1] or ['hash not known']), *file.urls])}"


def _how_to_get(named: Named) -> list[str]:
    info = named.info
    command = f"finevote data get {shlex.quote(named.argument.removesuffix('@'))}"
    if not is_by_hand(info):
        return [command]
    names = ", ".join(file.name for file in info.files if not file.urls)
    return [info.instructions, f"put {names} into {named.folder}", command]


def _label_once(rows: list[Row]) -> list[Row]:
    labels = [label for label, _ in rows]
    return [
        ("" if number and label == labels[number - 1] else label, text) for number, (label, text) in enumerate(rows)
    ]
