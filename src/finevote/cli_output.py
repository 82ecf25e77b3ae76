"""What commands print and write: tables, CSV, JSON lines, YAML. Nothing here knows a command."""

from __future__ import annotations

import csv
import io
import json
import os
from typing import TYPE_CHECKING, Any

from finevote.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pydantic import BaseModel

    from finevote.types import Ranked


def check_out(out: Path, suffixes: Sequence[str]) -> None:
    """Raise ArgumentError unless a file of one of these kinds can be written there."""
    if out.suffix not in suffixes:
        raise ArgumentError(f"--out {out} has the ending {out.suffix!r}; allowed: {', '.join(suffixes)}")
    if out.is_dir():
        raise ArgumentError(f"--out {out} is a folder: give a file in it")
    if not out.parent.is_dir():
        raise ArgumentError(f"--out {out}: there is no folder {out.parent}: make it, or choose another")
    if not os.access(out.parent, os.W_OK):
        raise ArgumentError(f"--out {out}: the folder {out.parent} cannot be written: choose another")


def answer_table(answers: Sequence[Ranked]) -> Any:
    """Return ranked answers as `rich` prints them, one image a row."""
    from rich.table import Table
    from rich.text import Text

    table = Table("image", "class", "probability", box=None)
    for answer in answers:
        pairs = list(zip(answer.class_names, answer.probabilities, strict=True))
        table.add_row(
            Text(answer.image_id, overflow="fold"),
            Text("\n".join(name for name, _ in pairs)),
            Text("\n".join(f"{probability:.4f}" for _, probability in pairs)),
        )
    return table


def label_table(rows: Sequence[tuple[str, str]]) -> Any:
    """Return rows of a label and a text as `rich` prints them."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for label, text in rows:
        table.add_row(label, Text(text))
    return table


def as_csv(answers: Sequence[Ranked]) -> str:
    """Return one row an image: image, class_1, probability_1, class_2, ..."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    ranks = range(1, len(answers[0].class_names) + 1)
    writer.writerow(["image", *(f"{name}_{rank}" for rank in ranks for name in ("class", "probability"))])
    for answer in answers:
        pairs = zip(answer.class_names, answer.probabilities, strict=True)
        writer.writerow([answer.image_id, *(value for pair in pairs for value in pair)])
    return file.getvalue()


def as_jsonl(answers: Sequence[Ranked]) -> str:
    """Return one JSON object a line: {"image": ..., "top": [{"class": ..., "probability": ...}, ...]}."""
    lines = []
    for answer in answers:
        pairs = zip(answer.class_names, answer.probabilities, strict=True)
        top = [{"class": name, "probability": probability} for name, probability in pairs]
        lines.append(json.dumps({"image": answer.image_id, "top": top}) + "\n")
    return "".join(lines)


def yaml_lines(section: BaseModel, *, indent: str = "") -> list[str]:
    """Return a section's settings as YAML, each with its description behind it."""
    from pydantic import BaseModel

    lines = []
    values: Mapping[str, Any] = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        child = getattr(section, name)
        if isinstance(child, BaseModel):
            lines += [f"{indent}{name}:", *yaml_lines(child, indent=indent + "  ")]
        else:
            about = f"  # {field.description}" if field.description else ""
            lines.append(f"{indent}{name}: {json.dumps(values[name], ensure_ascii=False)}{about}")
    return lines


def print_rich(renderable: Any) -> None:
    """Print what `rich` can draw to standard output."""
    from rich.console import Console

    Console().print(renderable)
