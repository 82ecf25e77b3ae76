import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

from finevote.audit.findings import KINDS
from finevote.audit.run import audit, audit_source
from finevote.data.known_leaks import recall_leaks
from finevote.data.registry import open_source
from finevote.data.synthetic import synthetic_source
from finevote.errors import ArgumentError, DataError, StorageError
from finevote.evaluation import patch_codes
from tests.audit.planting import plant

FEW = {"train": 6, "val": 2, "test": 3}


@pytest.fixture
def quick_codes(monkeypatch):
    make_quick(monkeypatch)


def make_quick(monkeypatch):
    monkeypatch.setattr(patch_codes, "NUM_CODES", 16)
    monkeypatch.setattr(patch_codes, "_NUM_SAMPLED", 400)


@pytest.fixture
def birds(tmp_path, quick_codes):  # noqa: ARG001 - it acts by being there
    return plant(tmp_path / "birds", images_per_class={"train": 2, "val": 1, "test": 1}, num_exact=2, seed=3)


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """Return what was planted, what was found, and the folders of the audit and of the cache."""
    root = tmp_path_factory.mktemp("audited")
    planted = plant(root / "birds", images_per_class=FEW, num_exact=6, num_altered=12, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        found, folder = audit(planted.table, out=root / "out")
    return planted, found, folder, root / "cache"


def families(found, *kinds):
    return [{image.id for image in finding.images} for kind in kinds for finding in found.of_kind(kind)]


def test_all_planted_copies_are_found_and_no_others(audited):
    planted, found, _, _ = audited
    for kind, pairs in (("same_file", planted.exact), ("near_duplicate", planted.altered)):
        assert sorted(map(sorted, families(found, kind))) == sorted(map(sorted, pairs.items()))
    assert families(found, "same_pixels", "similar_embedding") == []


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("quick_codes")
def test_plain_birds_have_no_copies_and_nothing_odd():
    source = synthetic_source(splits=("train", "val", "test"))
    found = audit_source(source)
    assert {finding.kind for finding in found.findings} <= {"label_error"}
    assert found.num_images == {"train": 960, "val": 240, "test": 480}
    assert found.num_leaked == {}


def test_the_files_hold_what_is_returned_and_the_sheet_is_drawn(audited):
    _, found, folder, _ = audited
    saved = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    assert saved == json.loads(json.dumps(found.to_dict()))
    assert set(saved["counts"]) == set(KINDS)
    assert saved["splits_opened"] == ["train", "val", "test"]
    with Image.open(folder / "audit.png") as sheet:
        assert sheet.width > 1000


def test_copies_across_splits_are_counted_and_kept_for_fit(audited, monkeypatch):
    planted, found, folder, cache = audited
    splits = {image.id: image.split for finding in found.findings for image in finding.images}
    pairs = [{splits[copy], splits[original]} for copy, original in {**planted.exact, **planted.altered}.items()]
    assert found.num_leaked["test"]["train"] == sum(pair == {"test", "train"} for pair in pairs) > 0
    source = open_source(planted.table, splits=("train", "val"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    leaks = recall_leaks(str(planted.table), [record.image_id for split in source.splits.values() for record in split])
    assert leaks.num_leaked == found.num_leaked
    assert leaks.report == str(folder / "audit.json")


def test_an_unreadable_image_is_told_and_the_rest_is_audited(birds, tmp_path):
    broken = tmp_path / "birds" / "train" / "Corvella_alba" / "0000.jpg"
    broken.write_bytes(broken.read_bytes()[:500])
    found, _ = audit(birds.table, out=tmp_path / "out")
    (finding,) = found.of_kind("unreadable")
    assert finding.images[0].id == "train/Corvella_alba/0000.jpg"
    assert "cannot read the image" in finding.detail
    assert found.of_kind("same_file")


def test_data_without_a_readable_image_is_an_error(paint_broken, tmp_path):
    with pytest.raises(DataError, match="none of its 4 images can be read"):
        audit(paint_broken, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def paint_broken(tmp_path):
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"):
        (tmp_path / "broken" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "broken" / name).write_bytes(b"not an image")
    return tmp_path / "broken"


def test_a_folder_that_holds_something_else_is_refused_before_anything_is_read(paint_broken, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    with pytest.raises(StorageError, match="is there and holds no audit: give another --out"):
        audit(paint_broken, out=tmp_path / "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["mine.txt"]


def test_an_earlier_audit_is_replaced(birds, tmp_path):
    audit(birds.table, out=tmp_path / "out")
    table = birds.table.read_text(encoding="utf-8").splitlines()
    birds.table.write_text("\n".join(line for line in table if not line.startswith("copies/")), encoding="utf-8")
    found, folder = audit(birds.table, out=tmp_path / "out")
    assert families(found, "same_file", "near_duplicate") == []
    assert json.loads((folder / "audit.json").read_text())["counts"]["same_file"] == 0


def test_weights_need_a_backbone_and_a_backbone_needs_weights(birds, tmp_path):
    with pytest.raises(ArgumentError, match="needs the --backbone that they are of"):
        audit(birds.table, out=tmp_path / "out", weights="some.pth")
    with pytest.raises(ArgumentError, match="with random weights sees nothing"):
        audit(birds.table, out=tmp_path / "out", backbone="dinov2_vits14", weights="none")


@pytest.mark.slow
def test_a_backbone_from_a_weight_file_judges_and_finds_likenesses(birds, tmp_path):
    vit = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    save_file(vit.state_dict(), tmp_path / "tiny.safetensors")
    found, _ = audit(
        birds.table,
        out=tmp_path / "out",
        backbone="vit_tiny_patch16_224",
        weights=str(tmp_path / "tiny.safetensors"),
    )
    assert found.features == "embeddings of vit_tiny_patch16_224"
    assert found.judgement.agreement is not None
    similar = families(found, "similar_embedding")
    assert similar  # random weights hardly tell anything apart
    assert not [pair for pair in similar if pair in families(found, "same_file", "near_duplicate")]


@pytest.mark.slow
@pytest.mark.long
def test_four_in_five_planted_flips_to_sister_species_are_found_on_the_whole_set(tmp_path):
    planted = plant(tmp_path / "birds", flipped_share=0.05, within_genus=True, seed=4)
    found, _ = audit(planted.table, out=tmp_path / "out")
    told = [finding.images[0].id for finding in found.of_kind("label_error")]
    num_found = sum(image_id in planted.flips for image_id in told)
    assert num_found >= 0.8 * len(planted.flips)
    assert num_found >= 0.4 * len(told)
    suggested = {finding.images[0].id: finding.classes[0] for finding in found.of_kind("label_error")}
    assert len(suggested.items() & planted.flips.items()) >= 0.85 * num_found


@pytest.mark.usefixtures("quick_codes")
def test_the_copies_across_splits_of_flowers102_are_found():
    root = Path(os.environ.get("FINEVOTE_FLOWERS102", Path(__file__).parents[3] / "shared" / "flowers102"))
    if not root.is_dir():
        pytest.skip(
            "Flowers-102 is not in ../shared/flowers102: put it there, or set FINEVOTE_FLOWERS102 to its folder"
        )
    copies = {"jpg/image_07307.jpg": "train", "jpg/image_07309.jpg": "test"}
    copies |= {"jpg/image_08077.jpg": "val", "jpg/image_08067.jpg": "test"}
    source = open_source(root, splits=("train", "val", "test"))
    some = {
        split: tuple(record for record in records if record.image_id in copies or record.label < 2)
        for split, records in source.splits.items()
    }
    found = audit_source(replace(source, splits=some))
    present = {record.image_id for records in some.values() for record in records} & set(copies)
    pairs = [pair for pair in (set(list(copies)[:2]), set(list(copies)[2:])) if pair <= present]
    assert families(found, "same_file") == pairs
    assert {image.id: image.split for image in found.of_kind("same_file")[-1].images}.items() <= copies.items()
