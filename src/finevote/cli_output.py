"""What commands print and write: tables, CSV, JSON lines, YAML. Nothing here knows a command."""

from __future__ import annotations

import csv
import io
import json
import os
from itertools import groupby
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from finevote.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence
    from pathlib import Path

    from pydantic import BaseModel

    from finevote.backbones.published import BackboneInfo
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
    """Return ranked answers as `rich` prints them, one image a row; with rules, what they amount to first."""
    from rich.table import Table
    from rich.text import Text

    has_rules = any(answer.answer is not None for answer in answers)
    table = Table("image", *(["answer", "likeliest"] if has_rules else ["class"]), "probability", box=None)
    for answer in answers:
        pairs = list(zip(answer.class_names, answer.probabilities, strict=True))
        table.add_row(
            Text(answer.image_id, overflow="fold"),
            *([Text(answer.answer.text if answer.answer else "")] if has_rules else []),
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
    """Return one row an image: image, class_1, probability_1, class_2, ...; a shorter answer ends in blanks.

    Where there are rules, what they amount to stands behind the image: answer, kind.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    ranks = range(1, max(len(answer.class_names) for answer in answers) + 1)
    has_rules = any(answer.answer is not None for answer in answers)
    ruled = ["answer", "kind"] if has_rules else []
    writer.writerow(["image", *ruled, *(f"{name}_{rank}" for rank in ranks for name in ("class", "probability"))])
    for answer in answers:
        pairs = zip(answer.class_names, answer.probabilities, strict=True)
        blanks = [""] * 2 * (len(ranks) - len(answer.class_names))
        said = list(answer.answer or ["", ""]) if has_rules else []
        writer.writerow([answer.image_id, *said, *(value for pair in pairs for value in pair), *blanks])
    return file.getvalue()


def as_jsonl(answers: Sequence[Ranked]) -> str:
    """Return one JSON object a line: {"image": ..., "top": [{"class": ..., "probability": ...}, ...]}.

    Where there are rules, it has also "answer" and "kind"; for several photographs of one subject "photographs".
    """
    lines = []
    for answer in answers:
        pairs = zip(answer.class_names, answer.probabilities, strict=True)
        top = [{"class": name, "probability": probability} for name, probability in pairs]
        said: dict[str, Any] = (
            {} if answer.answer is None else {"answer": answer.answer.text, "kind": answer.answer.kind}
        )
        said |= {"photographs": answer.photographs} if answer.photographs else {}
        lines.append(json.dumps({"image": answer.image_id, **said, "top": top}) + "\n")
    return "".join(lines)


def backbone_list(infos: Iterable[BackboneInfo], *, at_hand: Container[str]) -> str:
    """Return backbones by family, 79 characters wide; `at_hand` has the names whose weights need no fetching."""
    from finevote.backbones.published import obligations_of

    lines = [f"  {'backbone':20} params patch  px  weights on the hub, below timm/"]
    for (family, licence), members in groupby(infos, key=lambda info: (info.family, info.licence)):
        lines += ["", f"{family} ({licence})", *wrap(obligations_of(licence), width=79, break_on_hyphens=False)]
        lines += [
            f"{'*' if info.name in at_hand else ' '} {info.name:20} {_in_millions(info.num_parameters):>6} "
            f"{info.patch_px:>5} {info.native_px:>3}  {info.hub_id.removeprefix('timm/')}"
            for info in members
        ]
    return "\n".join(lines)


def backbone_sheet(info: BackboneInfo, *, at_hand: Path | None) -> str:
    """Return what is known of one backbone; `at_hand` is the file of its weights, None if they must be fetched."""
    terms = f": {info.obligations}" if info.obligations else ""
    absent = "not at hand; fetched the first time, or give a file by --set model.weights=FILE"
    facts = {
        "timm's name": info.timm_name,
        "parameters": f"{info.num_parameters:,}",
        "patch": f"{info.patch_px} px",
        "native size": f"{info.native_px} px",
        "source": f"https://huggingface.co/{info.hub_id}" if info.hub_id else "none are published",
        "licence": f"{info.licence}{terms}" if info.licence else "none is stated",
        "weights": str(at_hand) if at_hand else absent if info.hub_id else "none: model.weights=none, or a file",
    }
    return "\n".join(
        [f"{info.name}: {info.family} {info.size}", *(f"  {name:11}  {text}" for name, text in facts.items())]
    )


def _in_millions(number: int) -> str:
    return f"{number / 1e9:.2f} G" if number >= 1e9 else f"{number / 1e6:.0f} M"


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
