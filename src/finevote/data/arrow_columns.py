"""Arrow columns of labelled images, as the hub's library writes them: encoded images, classes, plain text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finevote.data.images import decode_image
from finevote.errors import DataError, MissingExtraError, suggest

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image


def import_pyarrow() -> Any:
    """Return pyarrow. Raises MissingExtraError if it is not installed."""
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingExtraError("pyarrow", "hub") from None
    return pa


def image_columns(schema: pa.Schema) -> list[str]:
    """Return the columns declared as images; where none is, those that can hold encoded ones."""
    declared = _columns_of_kind(schema, "Image")
    return declared or [field.name for field in schema if _can_hold_images(field.type)]


def label_columns(schema: pa.Schema, *, others: Sequence[str | None] = ()) -> list[str]:
    """Return the columns declared as classes; where none is, those of text or whole numbers, less `others`.

    Names that begin with `__` are the library's own, not the set's.
    """
    declared = _columns_of_kind(schema, "ClassLabel")
    fields = [field for field in schema if field.name not in others and not field.name.startswith("__")]
    return declared or [field.name for field in fields if _can_be_text(field.type)]


def choose_column(
    candidates: Sequence[str], *, role: str, wanted: str | None, schema: pa.Schema, source: str, how: str
) -> str:
    """Return the column for a role: the wanted one, the one called like the role, or the only candidate.

    Args:
        candidates: columns that the types allow.
        role: "image" or "label".
        wanted: the user's choice.
        schema: of the table.
        source: the data set, for messages.
        how: how the user chooses, for messages.

    Raises:
        DataError: the wanted column is not there, there is no candidate, or there are several.
    """
    if wanted is not None:
        if wanted not in schema.names:
            raise DataError(f"{source} has no column {wanted!r}{suggest(wanted, schema.names)}")
        return wanted
    if role in candidates:
        return role
    if len(candidates) == 1:
        return candidates[0]
    listed = ", ".join(f"{field.name} ({field.type})" for field in schema)
    found = f"may take its {role}s from {', '.join(candidates)}" if candidates else f"has no {role} column"
    raise DataError(f"{source} {found}: choose one with {how}; its columns: {listed}")


def check_image_column(schema: pa.Schema, column: str, *, source: str) -> None:
    """Raise DataError unless the column can hold encoded images."""
    kind = schema.field(column).type
    if not _can_hold_images(kind):
        raise DataError(f"{source}: column {column!r} holds {kind}, not images: bytes, or a struct of bytes and path")


def read_texts(column: pa.ChunkedArray, schema: pa.Schema, name: str, *, source: str) -> list[str]:
    """Return a column's values as text: class names for classes, "" for what is missing (none, or below 0).

    Raises:
        DataError: the column holds neither text nor whole numbers, or a class without a name.
    """
    if not _can_be_text(column.type):
        raise DataError(f"{source}: column {name!r} holds {column.type}; allowed are text and whole numbers")
    class_names = declared_features(schema).get(name, {}).get("names")
    try:
        return [_text(value, class_names) for value in column.to_pylist()]
    except IndexError:
        raise DataError(f"{source}: column {name!r} has numbers beyond its {len(class_names)} class names") from None
    except UnicodeDecodeError:
        raise DataError(f"{source}: column {name!r} has text that is not UTF-8") from None


def read_image_cell(cell: pa.Scalar, *, place: str) -> Image.Image:
    """Return the image in a cell as RGB, upright; see `read_image`. `place` says where it is, for messages."""
    value = cell.as_py()
    content = value.get("bytes") if isinstance(value, dict) else value
    if content is None:
        raise DataError(f"cannot read the image {place}: the cell is empty")
    return decode_image(content, name=place)


def image_paths(column: pa.ChunkedArray) -> list[Path | None]:
    """Return for each row the file that holds its image, None where the image is in the cell itself."""
    if not import_pyarrow().types.is_struct(column.type) or "path" not in column.type.names:
        return [None] * len(column)
    import pyarrow.compute as pc

    is_outside = pc.is_null(pc.struct_field(column, "bytes"))
    paths = pc.if_else(is_outside, pc.struct_field(column, "path"), None).to_pylist()
    return [Path(path) if path else None for path in paths]


def file_identity(paths: Sequence[Path]) -> str:
    """Return a text that changes when one of the files does: 16 hexadecimal digits from paths, sizes and times."""
    import hashlib

    stats = [(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:16]


def declared_features(schema: pa.Schema) -> dict[str, Any]:
    """Return what the hub's library wrote of the columns into the schema, by column; empty if it did not write it."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def _columns_of_kind(schema: pa.Schema, kind: str) -> list[str]:
    features = declared_features(schema)
    return [name for name in schema.names if features.get(name, {}).get("_type") == kind]


def _can_hold_images(kind: pa.DataType) -> bool:
    types = import_pyarrow().types
    if types.is_struct(kind):
        return "bytes" in kind.names and _is_binary(kind.field("bytes").type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    types = import_pyarrow().types
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _can_be_text(kind: pa.DataType) -> bool:
    types = import_pyarrow().types
    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = (types.is_string, types.is_large_string, types.is_integer, types.is_boolean, types.is_null)
    return any(test(kind) for test in tests)


def _text(value: Any, class_names: Sequence[str] | None) -> str:
    if value is None or (isinstance(value, int) and value < 0):
        return ""
    return str(value) if class_names is None else class_names[value]
