"""Every form in which data may be given goes the whole way: looked at, trained on, measured, moved."""

import shutil
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finevote.config import dump_config
from finevote.errors import DataError
from finevote.measure.evaluate import evaluate
from finevote.run_folder import RunFolder
from tests.data.hub_sets import CLASSES, make_set, png, write_split
from tests.training.helpers import changed, tiny_config

SIZES = {"train": 10, "val": 4, "test": 4}
BAD = 3  # the row of train that cannot be read


def rows() -> list[tuple[str, str, str, bytes]]:
    """Return split, class, photographer and PNG of every image; one of train is cut off."""
    found = []
    for split, size in SIZES.items():
        for number in range(size):
            name = CLASSES[number % 2]
            is_bad = (split, number) == ("train", BAD)
            content = png(name, seed=len(found))
            found.append((split, name, f"photographer {number // 2}", content[:50] if is_bad else content))
    return found


def as_hub_set(root: Path) -> str:
    for split in SIZES:
        some = [row for row in rows() if row[0] == split]
        values = {
            "image": [{"bytes": content, "path": None} for *_, content in some],
            "label": [CLASSES.index(name) for _, name, _, _ in some],
            "photographer": [group for _, _, group, _ in some],
        }
        table = make_set(values, photographer=datasets.Value("string"))
        write_split(root / "set", {"val": "validation"}.get(split, split), table)
    return f"hf:{root / 'set'},group=photographer"


def as_parquet_with_images(root: Path) -> str:
    splits, names, groups, contents = map(list, zip(*rows(), strict=True))
    table = pa.table({"image": contents, "label": names, "split": splits, "group": groups})
    root.mkdir(parents=True)
    pq.write_table(table, root / "set.parquet", row_group_size=4)
    return str(root / "set.parquet")


def as_parquet_of_paths(root: Path) -> str:
    splits, names, groups, contents = map(list, zip(*rows(), strict=True))
    paths = [f"{number}.png" for number in range(len(contents))]
    root.mkdir(parents=True)
    for path, content in zip(paths, contents, strict=True):
        (root / path).write_bytes(content)
    table = pa.table({"path": paths, "label": names, "split": splits, "group": groups})
    pq.write_table(table, root / "set.parquet")
    return str(root / "set.parquet")


def as_folder(root: Path) -> Path:
    for number, (split, name, _, content) in enumerate(rows()):
        path = root / "birds" / split / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root / "birds"


def as_zip(root: Path) -> str:
    return shutil.make_archive(str(root / "birds"), "zip", root_dir=as_folder(root).parent, base_dir="birds")


def as_tar(root: Path) -> str:
    return shutil.make_archive(str(root / "birds"), "gztar", root_dir=as_folder(root), base_dir=".")


FORMS = [as_hub_set, as_parquet_with_images, as_parquet_of_paths, as_zip, as_tar]


@pytest.mark.parametrize("write", FORMS)
def test_it_is_looked_at(write, tmp_path, run):
    code, out, err = run("data", "show", write(tmp_path / "data"), "--out", tmp_path / "sheet.png", "--per-class", 1)
    assert code == 0, err
    assert "2 classes; images: 10 train, 4 val, 4 test" in out
    assert (tmp_path / "sheet.png").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("write", FORMS)
def test_it_is_trained_on_measured_and_moved(write, tmp_path, run):
    recipe = tmp_path / "tiny.yaml"
    config = changed(tiny_config(epochs=1, batch_size=4), "data", cache="disk", num_workers=1)
    recipe.write_text(dump_config(config))
    data, folder = write(tmp_path / "data"), tmp_path / "run"
    code, _, err = run("fit", data, "--recipe", recipe, "--out", folder)
    assert (code, err.splitlines()[0]) == (2, "error: 1 image cannot be read:")
    code, _, err = run("fit", data, "--recipe", recipe, "--out", folder, "--skip-bad")
    assert code == 0, err
    saved = RunFolder(folder).read_json(folder / "data.json")
    assert saved["num_images"] == {"train": SIZES["train"] - 1, "val": SIZES["val"]}
    assert len(saved["skipped"]) == 1
    before = evaluate(folder, split="test")
    (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"not there|no folder"):
        evaluate(folder, split="test")
    after = evaluate(folder, split="test", data=data.replace(str(tmp_path / "data"), str(tmp_path / "moved")))
    assert before.num_images == after.num_images == SIZES["test"]
    assert before.top_1 == after.top_1
