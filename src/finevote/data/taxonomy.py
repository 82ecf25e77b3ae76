"""Classes as the leaves of a tree: a table of class, parent, grandparent, ..., whose header names the levels.

species,genus,family
Corvus corax,Corvus,Corvidae
Corvus corone,Corvus,Corvidae
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from finevote.data.items import NUM_LISTED, list_some, plain_name
from finevote.data.tables import find_delimiter, read_text
from finevote.errors import DataError, suggest
from finevote.types import DataSource, Taxonomy

TAXONOMY_NAME = "taxonomy.csv"


def with_taxonomy(source: DataSource, path: Path) -> DataSource:
    """Return the source with the taxonomy of a file; Raises as `read_taxonomy`."""
    return replace(source, taxonomy=read_taxonomy(path, source.class_names))


def with_taxonomy_beside(source: DataSource, data: Path) -> DataSource:
    """Return the source with the `taxonomy.csv` in its folder, or beside its table, if there is one."""
    path = (data if data.is_dir() else data.parent) / TAXONOMY_NAME
    return with_taxonomy(source, path) if path.is_file() and path != data else source


def read_taxonomy(path: Path, class_names: Sequence[str]) -> Taxonomy:
    """Return what a UTF-8 table, separated by commas, semicolons or tabs, says of the classes.

    Raises:
        DataError: the file cannot be read, has fewer than two levels or the same twice, bad rows (all are counted, the
            first ten told), rows of other classes, none for one of the classes, or a taxon below two others.
    """
    levels, rows = _read(path)
    if levels[0] in class_names:
        raise DataError(
            f"{path} must begin with the names of levels, such as species,genus,family, but its first line is of the "
            f"class {levels[0]}: put a line with these above it"
        )
    lineages: dict[str, tuple[str, ...]] = {}
    problems = []
    for line, names in rows:
        if len(names) != len(levels) or not all(names):
            problems.append(f"line {line}: {len(levels)} names are needed, none of them blank")
        elif names[0] in lineages:
            problems.append(f"line {line}: {names[0]} is listed a second time")
        elif names[0] not in class_names:
            problems.append(f"line {line}: there is no class {names[0]!r}{suggest(names[0], class_names)}")
        else:
            lineages[names[0]] = names
    if problems:
        shown = "; ".join(problems[:NUM_LISTED])
        raise DataError(f"{path}, bad rows ({len(problems)}): {shown}{'; ...' if len(problems) > NUM_LISTED else ''}")
    if missing := [name for name in class_names if name not in lineages]:
        raise DataError(f"{path} has no row for {list_some(missing, noun='class')}: add them")
    return make_taxonomy(levels, [lineages[name] for name in class_names], source=str(path))


def make_taxonomy(levels: Sequence[str], lineages: Sequence[Sequence[str]], *, source: str) -> Taxonomy:
    """Return the taxonomy of these levels, from the class upwards, and names of each class at each of them.

    Raises:
        DataError: a taxon is below two different ones.
    """
    problems = []
    for depth in range(len(levels) - 1):
        parents: dict[str, str] = {}
        for names in lineages:
            known = parents.setdefault(names[depth], names[depth + 1])
            if known != names[depth + 1]:
                above = f"{levels[depth + 1]} {known} and {levels[depth + 1]} {names[depth + 1]}"
                problems.append(f"{levels[depth]} {names[depth]} is in {above}")
    if problems:
        shown = "; ".join(list(dict.fromkeys(problems))[:NUM_LISTED])
        raise DataError(f"{source} is no tree: {shown}: give each one parent, or tell them apart by name")
    return Taxonomy(tuple(levels), tuple(tuple(names) for names in lineages))


def lineages_from_parents(leaves: Sequence[int], parents: Mapping[int, int]) -> list[list[int]]:
    """Return the way from below the root to each leaf, the leaf last, in a tree given as {child: parent}.

    Raises:
        DataError: a way goes round in a circle.
    """
    ways = []
    for leaf in leaves:
        way = [leaf]
        while way[0] in parents:
            if parents[way[0]] in way:
                raise DataError(f"the hierarchy goes round in a circle at {way[0]}: fetch it again")
            way.insert(0, parents[way[0]])
        ways.append(way[1:] or way)
    return ways


def _read(path: Path) -> tuple[list[str], list[tuple[int, tuple[str, ...]]]]:
    """Return the levels, and the number and names of every line that is not blank."""
    text = read_text(path, called=f"the taxonomy {path}")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=find_delimiter(text))
    rows = [(reader.line_num, tuple(plain_name(cell.strip()) for cell in cells)) for cells in reader if any(cells)]
    levels = list(rows[0][1]) if rows else []
    if len(levels) < 2 or not all(levels) or len(set(levels)) < len(levels):
        raise DataError(
            f"{path} must begin with the names of two or more levels, the class first, such as species,genus,family; "
            f"it has {', '.join(levels) or 'nothing'}"
        )
    return levels, rows[1:]
