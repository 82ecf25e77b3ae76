"""Class folders: root/<class>/*.jpg, or root/{train,val,test}/<class>/*.jpg."""

from collections.abc import Sequence
from os import DirEntry
from pathlib import Path

from finevote.data.images import IMAGE_SUFFIXES
from finevote.data.items import SPLIT_ALIASES, Item, list_folder, list_some, plain_name, source_from_items
from finevote.data.taxonomy import TAXONOMY_NAME
from finevote.errors import DataError
from finevote.types import DataSource


def open_folder(root: Path, *, splits: Sequence[str], name: str | None = None) -> DataSource:
    """Open a folder of class folders, or of train/ (val/, test/; capitals or not) with class folders in each.

    Without split folders every image is in "train". Only split folders that are asked for are listed, and train,
    which names the classes. Hidden files are passed over; other files that are not images are counted in the notes.
    `name` is what the source is called, the path unless given.

    Raises:
        DataError: the folder is empty, has no class folders or a single one, or cannot be listed.
    """
    folders = _split_folders(root)
    ignored: list[str] = []
    if folders is None:
        items = _read_classes(root, root, split="train", ignored=ignored)
    else:
        items = [
            item
            for split, folder in folders.items()
            if split == "train" or split in splits
            for item in _read_classes(root, folder, split=split, ignored=ignored)
        ]
    if not any(item.split == "train" for item in items):
        raise DataError(
            f"{folders['train'] if folders else root} holds no class folders with images: "
            f"lay the images out as <class>/<image>, with one of {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    notes = [f"ignored {list_some(ignored, noun='item')} (neither an image nor a folder of images)"] if ignored else []
    return source_from_items(name or str(root), items, splits=splits, notes=notes)


def _split_folders(root: Path) -> dict[str, Path] | None:
    """Return {split: folder} if `root` has a train folder that itself holds folders; None for plain class folders."""
    folders: dict[str, Path] = {}
    for entry in list_folder(root):
        split = SPLIT_ALIASES.get(entry.name.lower())
        if split is None or not entry.is_dir():
            continue
        if split in folders:
            raise DataError(f"{root} has both {folders[split].name}/ and {entry.name}/: keep one of them")
        folders[split] = Path(entry.path)
    if "train" not in folders or not any(entry.is_dir() for entry in list_folder(folders["train"])):
        return None
    return folders


def _read_classes(root: Path, folder: Path, *, split: str, ignored: list[str]) -> list[Item]:
    items: list[Item] = []
    for entry in list_folder(folder):
        if folder == root and entry.name == TAXONOMY_NAME:
            continue
        found = _read_class(root, entry, split=split, ignored=ignored) if entry.is_dir() else []
        if not found:
            ignored.append(_relative(root, entry))
        items += found
    return items


def _read_class(root: Path, folder: DirEntry[str], *, split: str, ignored: list[str]) -> list[Item]:
    items = []
    for entry in list_folder(Path(folder.path)):
        if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and entry.is_file():
            items.append(Item(_relative(root, entry), Path(entry.path), plain_name(folder.name), split))
        else:
            ignored.append(_relative(root, entry))
    return items


def _relative(root: Path, entry: DirEntry[str]) -> str:
    return plain_name(Path(entry.path).relative_to(root).as_posix())
