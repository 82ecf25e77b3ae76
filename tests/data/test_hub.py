"""Data sets of the hub: real ones of the `datasets` library, in local folders and behind a local copy of the hub."""

import gc
import io
import os
import pickle
import subprocess
import sys
import tarfile

import datasets
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from finevote.data.dataset import Draw, PhotoDataset
from finevote.data.hub_argument import parse_hub_argument
from finevote.data.images import find_unreadable
from finevote.data.registry import open_source
from finevote.data.transforms import eval_transform
from finevote.errors import ArgumentError, DataError, StorageError
from finevote.training.prepare import prepare_run
from finevote.types import Preprocessing
from tests.data.hub_server import COMMIT, serve_repository
from tests.data.hub_sets import CLASSES, columns, make_set, png, write_parquet_set, write_split
from tests.training.helpers import tiny_config

FIT = ("train", "val")
TWO_CLASSES = tiny_config(images_per_class=3)  # batches of six images from two classes


@pytest.fixture
def folder(tmp_path):
    return write_parquet_set(tmp_path / "birds")


def hub(path, options=""):
    return f"hf:{path}{options}"


@pytest.mark.parametrize(
    ("text", "place", "config", "chosen"),
    [
        ("hf:owner/name", "owner/name", None, {}),
        ("hf:owner/na.me_1:large", "owner/na.me_1", "large", {}),
        ("hf:owner/name,label=fine_label,image=img", "owner/name", None, {"label": "fine_label", "image": "img"}),
        ("hf:owner/name:v2,revision=refs/pr/1", "owner/name", "v2", {"revision": "refs/pr/1"}),
        ("hf:./a folder, with a comma", "./a folder, with a comma", None, {}),
        ("hf:../set:small,train=full", "../set", "small", {"train": "full"}),
    ],
)
def test_an_argument_is_taken_apart_and_put_together_again(text, place, config, chosen):
    argument = parse_hub_argument(text)
    assert (argument.place, argument.config) == (place, config)
    assert {option: getattr(argument, option) for option in chosen} == chosen
    assert parse_hub_argument(str(argument)) == argument


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf:", "names no data set of the hub: give hf:owner/name"),
        ("hf:name", "names no data set of the hub"),
        ("hf:a/b/c", "names no data set of the hub"),
        ("hf:owner/name?label=x", "names no data set of the hub"),
        ("hf:owner/name,lable=x", "unknown option 'lable'; did you mean 'label'?"),
        ("hf:owner/name,label=", "label= has no value"),
        ("hf:owner/name,label=a,label=b", "label= is given twice"),
        ("hf:./folder,revision=main", "a local folder has no revisions"),
    ],
)
def test_an_argument_of_another_form_is_refused(text, message):
    with pytest.raises(ArgumentError, match=message):
        parse_hub_argument(text)


def test_a_colon_in_the_name_of_a_folder_belongs_to_it(tmp_path):
    (tmp_path / "a:b").mkdir()
    assert parse_hub_argument(f"hf:{tmp_path}/a:b").config is None
    assert parse_hub_argument(f"hf:{tmp_path}/a:b:small").config == "small"


def test_parquet_files_give_splits_classes_and_images(folder):
    source = open_source(hub(folder), splits=FIT)
    assert source.class_names == CLASSES
    assert {split: len(records) for split, records in source.splits.items()} == {"train": 8, "val": 4}
    assert [record.label for record in source.splits["train"]] == [0, 1] * 4
    image = np.asarray(source.read(source.splits["val"][1]))
    with Image.open(io.BytesIO(png("red", 101))) as expected:
        assert np.array_equal(image, np.asarray(expected))


def test_the_test_split_is_opened_only_when_it_is_asked_for(folder):
    write_split(folder, "test", make_set({"image": columns(4)["image"], "label": [-1] * 4}))
    assert set(open_source(hub(folder), splits=FIT).splits) == {"train", "val"}
    with pytest.raises(DataError, match="no image of the test split has a label"):
        open_source(hub(folder), splits=("test",))


def test_an_image_folder_gives_paths_and_keeps_their_names(tmp_path, paint_classes):
    for split in ("train", "test"):
        paint_classes(tmp_path / "set" / split, {"crow": 3, "wren": 2})
    source = open_source(hub(tmp_path / "set"), splits=("train", "test"))
    assert source.class_names == ("crow", "wren")
    assert [record.image_id for record in source.splits["test"]][:2] == ["test/crow/0.png", "test/crow/1.png"]
    record = source.splits["train"][0]
    assert record.path == (tmp_path / "set" / "train" / "crow" / "0.png").resolve()
    assert source.read(record).size == (16, 12)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_image_folder_with_a_table_beside_it_gives_its_labels_and_groups(tmp_path, paint):
    rows = ["file_name,species,group"]
    for number in range(4):
        paint(tmp_path / "set" / "train" / f"{number}.png", seed=number)
        rows.append(f"{number}.png,{'wren' if number % 2 else 'crow'},nest {number // 2}")
    (tmp_path / "set" / "train" / "metadata.csv").write_text("\n".join(rows) + "\n")
    source = open_source(hub(tmp_path / "set"), splits=FIT)
    gc.collect()  # the library leaves the table open
    assert source.class_names == ("crow", "wren")
    found = [(record.image_id, record.label, record.group) for record in source.splits["train"]]
    assert found == [(f"train/{number}.png", number % 2, f"nest {number // 2}") for number in range(4)]


def test_a_web_dataset_gives_images_and_labels(tmp_path):
    (tmp_path / "set").mkdir()
    with tarfile.open(tmp_path / "set" / "train-000000.tar", "w") as file:
        for number in range(4):
            for suffix, content in (("png", png("red", number)), ("cls", str(number % 2).encode())):
                member = tarfile.TarInfo(f"{number}.{suffix}")
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
    source = open_source(hub(tmp_path / "set"), splits=FIT)
    assert [record.label for record in source.splits["train"]] == [0, 1, 0, 1]
    with Image.open(io.BytesIO(png("red", 3))) as expected:
        assert source.read(source.splits["train"][3]).tobytes() == expected.tobytes()


@pytest.mark.parametrize("as_dict", [True, False])
def test_what_the_library_saved_to_disk_is_opened(tmp_path, as_dict):
    table = make_set(columns(6))
    saved = datasets.DatasetDict({"train": table, "val": make_set(columns(2, seed=50))}) if as_dict else table
    saved.save_to_disk(tmp_path / "saved")
    source = open_source(hub(tmp_path / "saved"), splits=FIT)
    assert {split: len(records) for split, records in source.splits.items()} == (
        {"train": 6, "val": 2} if as_dict else {"train": 6}
    )
    assert source.read(source.splits["train"][5]).size == (24, 20)


def test_bare_bytes_and_undeclared_columns_are_understood(tmp_path):
    values = {"photo": [png("blue", seed) for seed in range(4)], "species": ["wren", "crow"] * 2}
    table = datasets.Dataset.from_dict(values)
    table.to_parquet(tmp_path / "set" / "train.parquet")
    source = open_source(hub(tmp_path / "set"), splits=FIT)
    assert source.class_names == ("crow", "wren")
    assert source.read(source.splits["train"][0]).size == (24, 20)


def test_whole_numbers_are_class_names_in_natural_order(tmp_path):
    values = {**columns(3), "label": [10, 9, 2]}
    write_split(tmp_path, "train", make_set(values, label=datasets.Value("int16")))
    source = open_source(hub(tmp_path), splits=FIT)
    assert source.class_names == ("2", "9", "10")
    assert [record.label for record in source.splits["train"]] == [2, 1, 0]


@pytest.fixture
def many_columns(tmp_path):
    values = {**columns(4), "coarse": [0, 0, 1, 1], "bird": ["a", "b", None, " "], "mask": columns(4)["image"]}
    values["fine"] = values.pop("label")
    classes = datasets.ClassLabel(names=list(CLASSES))
    features = {"coarse": classes, "fine": classes, "bird": datasets.Value("string"), "mask": datasets.Image()}
    write_split(tmp_path, "train", make_set(values, **features))
    return tmp_path


def test_several_label_columns_must_be_chosen_from(many_columns):
    with pytest.raises(DataError, match=r"may take its labels from coarse, fine: choose one with hf:.*,label=COLUMN"):
        open_source(hub(many_columns), splits=FIT)


def test_a_chosen_label_and_group_are_used_and_the_rest_is_noted(many_columns):
    source = open_source(hub(many_columns, ",label=coarse,group=bird"), splits=FIT)
    assert [record.label for record in source.splits["train"]] == [0, 0, 1, 1]
    assert [record.group for record in source.splits["train"]] == ["a", "b", None, None]
    assert source.notes == ("columns not used: mask, fine",)


def test_no_image_column_is_told_with_the_columns_there_are(tmp_path):
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"]})
    table.to_parquet(tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"has no image column: choose one.*its columns: text \(string\), label \("):
        open_source(hub(tmp_path), splits=FIT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (",label=lable", "has no column 'lable'; did you mean 'label'?"),
        (",image=label", "column 'label' holds int64, not images"),
        (",label=image", "column 'image' holds struct.*; allowed are text and whole numbers"),
        (",group=photographer", "has no column 'photographer'"),
        (",val=valid", "has no split 'valid'; did you mean 'validation'?"),
        (":large", r"BuilderConfig 'large' not found. Available: \['default'\]: choose one with hf:.*:CONFIG"),
    ],
)
def test_wrong_choices_are_told(folder, options, message):
    with pytest.raises(DataError, match=message):
        open_source(hub(folder, options), splits=FIT)


def test_a_configuration_must_be_chosen_where_there_are_several(tmp_path):
    for config in ("small", "large"):
        write_parquet_set(tmp_path / config, num_train=4 if config == "small" else 6, num_val=0, num_test=0)
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n"
        "- {config_name: small, data_files: small/data/train-*}\n"
        "- {config_name: large, data_files: large/data/train-*}\n---\n"
    )
    with pytest.raises(DataError, match=r"available configs: \['small', 'large'\].*: choose one with hf:.*:CONFIG"):
        open_source(hub(tmp_path), splits=FIT)
    assert len(open_source(hub(tmp_path, ":large"), splits=FIT).splits["train"]) == 6


def test_one_split_is_not_used_as_two(folder):
    with pytest.raises(ArgumentError, match="uses one split as two"):
        open_source(hub(folder, ",train=test,test=test"), splits=FIT)
    with pytest.raises(DataError, match="has no split to train on"):
        open_source(hub(folder, ",val=train"), splits=FIT)


def test_another_split_can_be_chosen_and_the_rest_is_noted(tmp_path):
    write_split(tmp_path, "full", make_set(columns(4)))
    write_split(tmp_path, "extra", make_set(columns(2)))
    with pytest.raises(DataError, match=r"has no split to train on; its splits: .*: choose one with ,train=NAME"):
        open_source(hub(tmp_path), splits=FIT)
    source = open_source(hub(tmp_path, ",train=full"), splits=FIT)
    assert len(source.splits["train"]) == 4
    assert source.notes == ("splits not used: extra",)


def test_missing_labels_are_reported_together(tmp_path):
    values = columns(6)
    values["label"][1] = values["label"][4] = -1
    write_split(tmp_path, "train", make_set(values))
    with pytest.raises(DataError, match=r"bad rows \(2\): train/1: blank label; train/4: blank label$"):
        open_source(hub(tmp_path), splits=FIT)


def test_a_corrupt_image_is_found_by_its_row_and_can_be_left_out(tmp_path):
    values = columns(40)
    values["image"][17]["bytes"] = values["image"][17]["bytes"][:60]
    values["image"][23]["bytes"] = b"not an image"
    values["image"][31] = None
    write_split(tmp_path, "train", make_set(values))
    source = open_source(hub(tmp_path), splits=FIT)
    unreadable = find_unreadable(source, source.splits["train"])
    assert list(unreadable) == ["train/17", "train/23", "train/31"]
    assert unreadable["train/23"].startswith(f"cannot read the image train/23 of hf:{tmp_path}: not an image")
    assert unreadable["train/31"].endswith("the cell is empty")
    with pytest.raises(DataError, match=r"3 images cannot be read:\n.*train/17 of hf:"):
        prepare_run(TWO_CLASSES, hub(tmp_path), out=tmp_path / "run", skip_bad=False, console=Console(quiet=True))
    run = prepare_run(TWO_CLASSES, hub(tmp_path), out=tmp_path / "run", skip_bad=True, console=Console(quiet=True))
    assert list(run.read_json(run.data_json)["skipped"]) == list(unreadable)


def test_a_broken_parquet_file_is_told(folder):
    (folder / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"cannot load hf:.*: Parquet magic bytes not found"):
        open_source(hub(folder), splits=FIT)


def test_files_that_give_no_images_are_refused(tmp_path):
    (tmp_path / "train.csv").write_text("path,label\na.png,b\n")
    with pytest.raises(DataError, match="holds csv files, which give no images; allowed are parquet, arrow"):
        open_source(hub(tmp_path), splits=FIT)


def test_a_set_that_brings_code_is_refused_and_nothing_runs(tmp_path):
    folder = tmp_path / "birds"
    folder.mkdir()
    (folder / "birds.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(DataError, match=r"cannot load hf:.*: Dataset scripts are no longer supported"):
        open_source(hub(folder), splits=FIT)
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match=r"hf:.*gone: there is no folder .*gone"):
        open_source(hub(tmp_path / "gone"), splits=FIT)


def test_a_folder_called_like_a_set_of_the_hub_is_not_taken_for_it(tmp_path, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"could mean the folder owner/name here: give hf:\./owner/name for it"):
        open_source("hf:owner/name", splits=FIT)


def test_an_offline_machine_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"cannot load hf:owner/name: Couldn't reach .*: connect once"):
        open_source("hf:owner/name", splits=FIT)


def test_a_full_disk_is_told_as_such(folder, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("datasets.arrow_writer.ArrowWriter.write_table", fail)
    with pytest.raises(
        StorageError,
        match=r"no room for hf:.*: No space left on device: free some space, or set HF_HOME to a larger disk",
    ):
        open_source(hub(folder), splits=FIT)


def test_the_reader_can_be_pickled_and_both_caches_give_the_same_image(folder, tmp_path):
    source = open_source(hub(folder), splits=FIT)
    read = pickle.loads(pickle.dumps(source.read))
    preprocessing = Preprocessing((16, 16), (16, 16), (0.5,) * 3, (0.5,) * 3)
    photos = {
        cache: PhotoDataset(
            source.splits["train"],
            read=read,
            preprocessing=preprocessing,
            transform=eval_transform(preprocessing),
            cache=cache,
            cache_folder=tmp_path / "cache",
            seed=0,
        )
        for cache in ("none", "memory", "disk", "disk")
    }
    for index in range(8):
        images = [dataset[Draw(0, index)][0] for dataset in photos.values()]
        assert all(image.equal(images[0]) for image in images)
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 8


def test_a_changed_set_is_not_answered_from_the_cache(tmp_path):
    write_split(tmp_path, "train", make_set(columns(4)))
    before = open_source(hub(tmp_path), splits=FIT).splits["train"][0].cell
    assert open_source(hub(tmp_path), splits=FIT).splits["train"][0].cell == before
    write_split(tmp_path, "train", make_set(columns(4, seed=9)))
    assert open_source(hub(tmp_path), splits=FIT).splits["train"][0].cell != before


def test_the_run_can_be_opened_from_another_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    run = prepare_run(TWO_CLASSES, "hf:./birds", out=tmp_path / "run", skip_bad=False, console=Console(quiet=True))
    assert run.read_json(run.data_json)["data"] == f"hf:{folder}"


def test_a_missing_library_is_told_with_the_extra(tmp_path):
    code = (
        "import sys; sys.modules.update(datasets=None, pyarrow=None)\n"
        "from finevote.data.registry import open_source\n"
        "from finevote.errors import MissingExtraError\n"
        "for data in sys.argv[1:]:\n"
        "    try:\n        open_source(data, splits=('train',))\n"
        "    except MissingExtraError as error:\n        print(error)\n"
    )
    (tmp_path / "set.parquet").write_bytes(b"PAR1")
    command = [sys.executable, "-c", code, f"hf:{tmp_path}", "hf:owner/name", str(tmp_path / "set.parquet")]
    done = subprocess.run(command, capture_output=True, text=True)
    install = "is not installed: pip install 'finevote[hub]'"
    assert done.stdout.splitlines() == [f"datasets {install}", f"datasets {install}", f"pyarrow {install}"], done.stderr


OPEN = """
import sys
from finevote.data.registry import open_source
source = open_source(sys.argv[1], splits=("train", "val"))
print(source.argument, len(source.splits["train"]), source.read(source.splits["train"][0]).size, source.notes[-1])
"""


@pytest.fixture
def on_the_hub(folder, tmp_path):
    """Serve a data set as owner/birds; give a function that opens an argument in a process of its own."""
    with serve_repository(folder, name="owner/birds") as (address, asked):

        def open_in_process(argument, *, offline=False):
            environment = {
                **os.environ,
                "HF_ENDPOINT": address,
                "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_OFFLINE": "1" if offline else "0",
                "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            }
            command = [sys.executable, "-c", OPEN, argument]
            return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)

        yield open_in_process, asked


@pytest.mark.slow
def test_a_set_of_the_hub_is_fetched_once_and_its_revision_is_kept(on_the_hub):
    open_in_process, asked = on_the_hub
    pinned = f"hf:owner/birds,revision={COMMIT}"
    expected = f"{pinned} 8 (24, 20) revision {COMMIT}\n"
    assert open_in_process("hf:owner/birds").stdout == expected
    files = [line for line in asked if line.startswith("GET") and line.endswith(".parquet")]
    assert len(files) == 3
    assert open_in_process(pinned).stdout == expected
    assert [line for line in asked if line.startswith("GET") and line.endswith(".parquet")] == files
    assert open_in_process(pinned, offline=True).stdout == expected
    other = open_in_process("hf:owner/birds,revision=abc", offline=True)
    assert f"the hub cannot be reached, and the cache has revision {COMMIT}, not abc" in other.stderr


@pytest.mark.slow
def test_what_is_not_on_the_hub_is_told(on_the_hub):
    open_in_process, _ = on_the_hub
    gone = open_in_process("hf:owner/gone")
    assert "DataError: cannot load hf:owner/gone: Dataset 'owner/gone' doesn't exist on the Hub" in gone.stderr
    assert "check the name; if it is private or asks for consent, log in with `hf auth login`" in gone.stderr
    revision = open_in_process("hf:owner/birds,revision=v9")
    assert "cannot load hf:owner/birds: Revision 'v9' doesn't exist" in revision.stderr
