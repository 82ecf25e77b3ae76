"""Photographs explained by a run or a bundle: for each a figure and a JSON file, written as they come."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Unpack

from finevote.errors import ArgumentError
from finevote.explain.record import as_record
from finevote.explaining import Asked
from finevote.explanation.explain_figure import explain_figure
from finevote.explanation.explained import Explanation
from finevote.explanation.figures import save_figure
from finevote.explanation.telling import finding
from finevote.files import atomic_write
from finevote.predictor import Predictor
from finevote.run_folder import RunFolder

_LONGEST_STEM = 50  # a name has at most 255 bytes, and a letter up to four


class Explained(NamedTuple):
    """A photograph that was explained: what was found, in a line, and the figure; its JSON lies beside that."""

    image_id: str
    finding: str
    figure: Path


def explain_files(
    predictor: Predictor,
    paths: Sequence[Path | str],
    *,
    out: Path,
    layer: int | None = None,
    unreadable: dict[str, str],
    advance: Callable[[int], None] | None = None,
    **asked: Unpack[Asked],
) -> list[Explained]:
    """Write a figure and a JSON file for each photograph that can be read; return what was written.

    Args:
        predictor: of the run or the bundle.
        paths: photographs, and folders of them.
        out: the folder to write to; it is made.
        layer: whose strongest heads are drawn, from 1; the one with most key tokens of each image if None.
        unreadable: filled with why the others cannot be read.
        advance: called with the number of photographs just done.
        asked: as `Question` has it.

    Raises:
        ArgumentError: `out` is a file, there is no such layer, or as `Predictor.explain`.
        StorageError: `out` cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise ArgumentError(f"--out {out} is a file: give a folder")
    explanations = predictor.explain_files(paths, unreadable=unreadable, advance=advance, **asked)
    num_layers = len(predictor.model.budget or ())
    if layer is not None and not 1 <= layer <= num_layers:
        raise ArgumentError(
            f"--layer {layer}: the classifier has {num_layers} layers that vote: give 1 to {num_layers}"
        )
    return [_write(explanation, out, layer=layer) for explanation in explanations]


def default_out(path: Path) -> Path:
    """Return where explanations of a run, or of a bundle by itself, are written unless it is said."""
    return (path if RunFolder(path).config_yaml.is_file() else Path()) / "explanations"


def file_stem(image_id: str) -> str:
    """Return a name for the files of a photograph: that of its own, and a mark of the folder it lies in.

    Photographs of one name in different folders get different names, always the same ones.
    """
    path = Path(image_id)
    letters = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in path.stem[:_LONGEST_STEM])
    mark = hashlib.sha256(str(path.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{letters}-{mark}"


def _write(explanation: Explanation, out: Path, *, layer: int | None) -> Explained:
    """Write the figure, then the JSON that vouches for it."""
    stem = out / file_stem(explanation.image_id)
    figure = save_figure(
        explain_figure(explanation, layer=None if layer is None else layer - 1), stem.with_name(f"{stem.name}.png")
    )
    record = {**as_record(explanation), "figure": figure.name}
    atomic_write(figure.with_suffix(".json"), json.dumps(record) + "\n")
    return Explained(explanation.image_id, finding(explanation), figure)
