"""The gallery of a run: made at the end of training or later, kept in the bundle, and used by `evaluate`."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from finevote.bundle.gallery import read_gallery
from finevote.bundle.manifest import MANIFEST_NAME, content_hash, read_manifest
from finevote.bundle.read import load_bundle
from finevote.bundle.record import record_gallery, record_keep_rate
from finevote.config import config_from_values
from finevote.data.images import read_image
from finevote.data.transforms import eval_transform, read_resized
from finevote.errors import ArgumentError, BundleError, DataError, StorageError
from finevote.files import sha256_of
from finevote.measure.evaluate import evaluate
from finevote.measure.gallery import collect, remove
from finevote.training.checkpoint import config_hash
from finevote.training.fit import fit, resume
from tests.tiny import CLASSES, make_config, write_photographs, write_run
from tests.training.helpers import changed, tiny_config


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return an untrained run with six training images a class, and their gallery with thumbnails in its bundle."""
    root = tmp_path_factory.mktemp("made")
    run = write_run(root / "run", data=write_photographs(root / "data", num_test=4))
    collect(run, thumbnail_px=16)
    return run


@pytest.fixture
def finished(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def data_of(run):
    return Path(json.loads((run / "data.json").read_text())["data"])


def resign(bundle):
    """Seal a bundle again, as a program would that changed its files."""
    path = bundle / MANIFEST_NAME
    content = json.loads(path.read_text())
    del content["sha256"]
    for name in content["files"]:
        size_bytes = (bundle / name).stat().st_size
        content["files"][name] = {"size_bytes": size_bytes, "sha256": sha256_of(bundle / name)}
    content["sha256"] = content_hash(content)
    path.write_text(json.dumps(content))


def edit_names(bundle, **changes):
    path = bundle / "gallery.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    resign(bundle)


def edit_arrays(bundle, **changes):
    save_file({**load_file(bundle / "gallery.safetensors"), **changes}, bundle / "gallery.safetensors")
    resign(bundle)


def test_the_gallery_holds_what_the_bundled_model_sees_of_every_training_image(finished):
    gallery, bundle = read_gallery(finished / "bundle"), load_bundle(finished / "bundle")
    assert gallery.image_ids == tuple(f"train/{name}/{number}.png" for name in CLASSES for number in range(6))
    assert gallery.labels.tolist() == [label for label in range(3) for _ in range(6)]
    assert (gallery.metric, gallery.keep_rate, gallery.embeddings.dtype) == ("euclidean", 1.0, np.float16)
    cut = eval_transform(bundle.preprocessing)
    for row in (0, 11):
        path = data_of(finished) / gallery.image_ids[row]
        assert gallery.path(row) == path
        image = cut(read_resized(lambda path=path: read_image(path), bundle.preprocessing))
        with torch.inference_mode():
            expected = bundle.model(image[None]).embedding[0].numpy()
        assert gallery.embeddings[row] == pytest.approx(expected, abs=2e-3)


def test_the_gallery_is_marked_with_the_weights_that_made_it(finished):
    sha256 = read_manifest(finished / "bundle").files["model.safetensors"].sha256
    assert read_gallery(finished / "bundle").weights_sha256 == sha256


def test_thumbnails_are_of_the_images_in_their_order(finished):
    gallery = read_gallery(finished / "bundle")
    assert (gallery.thumbnail_px, len(gallery.thumbnails)) == (16, 18)
    for row in (0, 7, 17):
        small = np.asarray(Image.open(io.BytesIO(gallery.thumbnails[row])).convert("RGB"), np.float64)
        whole = np.asarray(Image.open(gallery.path(row)), np.float64)
        assert small.shape == (16, 16, 3)
        assert small.mean(axis=(0, 1)) == pytest.approx(whole.mean(axis=(0, 1)), abs=4)


def test_the_end_of_training_makes_the_gallery(tmp_path):
    data = write_photographs(tmp_path / "data")
    run = fit(changed(tiny_config(epochs=1), "gallery", thumbnail_px=12, max_images=10), data, out=tmp_path / "run")
    gallery = read_gallery(run / "bundle")
    assert np.bincount(gallery.labels).tolist() == [3, 3, 3]
    assert (gallery.thumbnail_px, gallery.root) == (12, str(data))
    again = collect(run).gallery  # by the settings of the run
    assert again.image_ids == gallery.image_ids
    assert again.thumbnails == gallery.thumbnails
    assert again.embeddings == pytest.approx(gallery.embeddings, abs=2e-3)


def test_a_training_that_is_stopped_while_it_makes_the_gallery_goes_on_with_that(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    data = write_photographs(tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr("finevote.training.validate.collect_gallery", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(tiny_config(epochs=1), data, out=tmp_path / "run")
    assert not (tmp_path / "run" / "bundle").exists()
    resume(tmp_path / "run")
    assert len(read_gallery(tmp_path / "run" / "bundle").labels) == 18


def test_training_can_leave_the_gallery_out_and_it_can_be_made_later(tmp_path):
    config = changed(tiny_config(epochs=1), "gallery", enabled=False)
    run = fit(config, write_photographs(tmp_path / "data"), out=tmp_path / "run")
    assert read_gallery(run / "bundle") is None
    assert "retrieval" not in evaluate(run).sections
    assert len(collect(run).gallery.labels) == 18
    assert evaluate(run).sections["retrieval"].num_gallery == 18


def test_a_gallery_with_fewer_images_than_classes_is_refused_before_training(tmp_path):
    config = changed(tiny_config(epochs=1), "gallery", max_images=2)
    with pytest.raises(ArgumentError, match="max_images=2 is fewer than the 3 classes"):
        fit(config, write_photographs(tmp_path / "data"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    fit(changed(config, "gallery", enabled=False), data=tmp_path / "data", out=tmp_path / "run")


def test_a_run_without_validation_has_a_gallery_too(tmp_path):
    data = write_photographs(tmp_path / "data", num_test=2)
    shutil.rmtree(data / "val")
    config = changed(tiny_config(epochs=1), "data", validation_fraction=0.0)
    run = fit(config, data, out=tmp_path / "run")
    assert len(collect(run).gallery.labels) == 18
    assert evaluate(run, split="test").sections["retrieval"].num_queries == 6


def test_the_metric_is_the_one_that_the_triplet_loss_shapes(tmp_path):
    config = changed(tiny_config(epochs=1), "loss", triplet_normalize=True)
    run = fit(config, write_photographs(tmp_path / "data"), out=tmp_path / "run")
    assert read_gallery(run / "bundle").metric == "cosine"


def test_settings_of_the_gallery_do_not_keep_a_run_from_going_on():
    config = make_config()
    assert config_hash(changed(config, "gallery", thumbnail_px=64)) == config_hash(config)
    assert config_hash(changed(config, "optim", lr=1.0)) != config_hash(config)


def test_settings_from_before_there_was_a_gallery_are_read():
    values = make_config().model_dump(mode="json")
    del values["gallery"]
    assert config_from_values(values, source="an old run").gallery.thumbnail_px == 0


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluate_tells_retrieval_the_same_from_saved_predictions(finished, split):
    figures = evaluate(finished, split=split).sections["retrieval"]
    assert (figures.num_gallery, figures.num_queries) == (18, {"val": 9, "test": 12}[split])
    assert evaluate(finished, split=split, saved=True).sections["retrieval"] == figures


def test_a_gallery_of_another_keep_rate_is_not_used_and_that_is_said(finished, caplog):
    evaluate(finished)
    record_keep_rate(finished / "bundle", 0.5, details={})
    assert "retrieval" not in evaluate(finished).sections
    assert "the gallery is of keep rate 1, so retrieval is left out" in caplog.text
    collect(finished)
    assert read_gallery(finished / "bundle").keep_rate == 0.5
    assert "retrieval" in evaluate(finished).sections


def test_a_file_of_training_that_is_measured_again_does_not_find_itself(tmp_path):
    data = write_photographs(tmp_path / "data", num_test=2)
    shutil.copy(data / "train" / "red" / "0.png", data / "test" / "red" / "0.png")
    run = write_run(tmp_path / "run", data=data)
    collect(run)
    report = evaluate(run, split="test")
    assert report.seen["test/red/0.png"] == "train/red/0.png"
    in_train = [first for first in report.seen.values() if first.startswith("train/")]
    assert report.sections["retrieval"].num_themselves == len(in_train)


def test_a_bundle_without_a_gallery_loads_and_measures_as_before(finished):
    before = evaluate(finished)
    assert remove(finished) > 0
    assert remove(finished) == 0
    assert not list((finished / "bundle").glob("gallery*"))
    assert load_bundle(finished / "bundle").manifest.files.keys() == {"model.safetensors"}
    after = evaluate(finished)
    assert "retrieval" not in after.sections
    assert after.top_1 == before.top_1


@pytest.mark.parametrize("name", ["gallery.safetensors", "gallery.json"])
def test_a_damaged_gallery_is_told_with_the_command_that_makes_it_anew(finished, name):
    path = finished / "bundle" / name
    path.write_bytes(path.read_bytes()[:-9])
    remedy = rf"gallery\.\w+ has [\d,]+ bytes instead of [\d,]+.*`finevote gallery {finished}`"
    for read in (read_gallery, load_bundle):
        with pytest.raises(BundleError, match=remedy):
            read(finished / "bundle")
    collect(finished)
    load_bundle(finished / "bundle")


def test_a_missing_part_of_the_gallery_can_be_made_anew(finished):
    (finished / "bundle" / "gallery.json").unlink()
    with pytest.raises(BundleError, match=r"gallery\.json is missing.*`finevote gallery"):
        load_bundle(finished / "bundle")
    collect(finished)
    assert read_gallery(finished / "bundle") is not None


def test_damage_to_gallery_and_calibration_is_mended_by_the_two_commands_that_are_named(finished, run):
    assert run("calibrate", finished)[0] == 0
    for name in ("gallery.safetensors", "calibration.safetensors"):
        (finished / "bundle" / name).write_bytes(b"")
    code, _, err = run("predict", finished, data_of(finished) / "test")
    assert code == 2
    assert f"`finevote calibrate {finished}` and `finevote gallery {finished}`" in err
    assert run("calibrate", finished)[0] == 0
    assert run("gallery", finished)[0] == 0
    assert run("predict", finished, data_of(finished) / "test")[0] == 0


def test_a_gallery_of_other_weights_is_refused(finished):
    edit_names(finished / "bundle", weights_sha256="0" * 64)
    with pytest.raises(BundleError, match=r"was made with other weights than the bundle has: .*`finevote gallery"):
        read_gallery(finished / "bundle")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_ids": ["one"]}, r"embeddings \(18, 24\) of 1 images"),
        ({"paths": []}, "0 paths of 18 images"),
        ({"metric": "manhattan"}, "the metric 'manhattan' is not known"),
        ({"code": "print()"}, "Extra inputs are not permitted"),
        ({"thumbnail_px": 0, "keep_rate": None}, "valid number"),
    ],
)
def test_names_that_do_not_fit_are_refused(finished, changes, message):
    edit_names(finished / "bundle", **changes)
    with pytest.raises(BundleError, match=rf"cannot read the gallery of .*{message}.*`finevote gallery"):
        read_gallery(finished / "bundle")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.full(18, 3)}, r"has labels from 3 to 3, the bundle 3 classes"),
        ({"labels": np.zeros(18)}, "labels of float64"),
        ({"thumbnail_sizes": np.ones(18, np.int64)}, "thumbnails of 18 bytes in"),
        ({"embeddings": np.full((18, 24), np.inf, np.float16)}, "not finite"),
        ({"embeddings": np.zeros((18, 24), np.int8)}, "embeddings of int8"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(finished, changes, message):
    edit_arrays(finished / "bundle", **changes)
    with pytest.raises(BundleError, match=rf"{message}.*`finevote gallery"):
        read_gallery(finished / "bundle")


def test_images_that_moved_are_missing_until_the_command_is_told_where_they_are(tmp_path):
    data = write_photographs(tmp_path / "data")
    run = write_run(tmp_path / "run", data=data)
    collect(run)
    moved = data.rename(tmp_path / "moved")
    gallery = read_gallery(run / "bundle")
    assert [gallery.path(row) for row in range(18)] == [None] * 18
    with pytest.raises(DataError, match=str(data)):
        collect(run)
    assert read_gallery(run / "bundle").embeddings.shape == (18, 24)
    collect(run, data=moved)
    gallery = read_gallery(run / "bundle")
    assert gallery.path(0) == moved / "train" / "blue" / "0.png"
    assert replace(gallery, root=str(data)).path(0) is None


def test_an_image_that_is_gone_is_named_and_the_gallery_stays(finished, tmp_path):
    data = shutil.copytree(data_of(finished), tmp_path / "data")
    (data / "train" / "red" / "3.png").write_bytes(b"gone")
    with pytest.raises(DataError, match=r"cannot read the image .*red/3\.png"):
        collect(finished, data=data)
    assert read_gallery(finished / "bundle").thumbnail_px == 16


def test_a_full_disk_leaves_the_old_gallery(finished, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("finevote.bundle.gallery.save_file", fail)
    with pytest.raises(StorageError, match="the disk is full"):
        collect(finished, thumbnail_px=0)
    assert read_gallery(finished / "bundle").thumbnail_px == 16
    assert not list(finished.glob("*.tmp"))


WRITE_FOR_EVER = """
import sys
from dataclasses import replace
from pathlib import Path
from finevote.bundle.gallery import read_gallery
from finevote.bundle.record import record_gallery

bundle = Path(sys.argv[1])
gallery = read_gallery(bundle)
print("started", flush=True)
while True:
    record_gallery(bundle, gallery)
"""


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_a_whole_bundle_and_the_next_one_tidies_up(finished):
    gallery = read_gallery(finished / "bundle")
    for delay in (0.01, 0.02, 0.03):
        with subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, finished / "bundle"], stdout=subprocess.PIPE
        ) as writer:
            writer.stdout.readline()
            time.sleep(delay)
            os.kill(writer.pid, signal.SIGKILL)
        if not (finished / "bundle").exists():  # between the two renames: the old one still lies beside
            next(finished.glob(".bundle.*.tmp")).rename(finished / "bundle")
        assert read_gallery(finished / "bundle").image_ids == gallery.image_ids
    (finished / f".bundle.{'0' * 32}.tmp").mkdir()
    record_gallery(finished / "bundle", gallery)
    assert not list(finished.glob(".bundle.*.tmp"))


def test_the_command_tells_sizes_and_what_thumbnails_mean(finished, run):
    code, out, err = run("gallery", finished, "--max-images", 6)
    assert code == 0, err
    assert "6 training images of 3 classes at keep rate 1" in out
    assert "embeddings of 24 numbers, 288 bytes" in out
    assert "thumbnails" not in out
    assert f"next: finevote evaluate {finished}" in out
    assert "thumbnails of 16 px" in (out := run("gallery", finished, "--thumbnails", 16)[1])
    assert "whoever gets the bundle can see these photographs" in out
    assert "less in the bundle" in run("gallery", finished, "--remove")[1]
    assert "there was no gallery" in run("gallery", finished, "--remove")[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--remove", "--thumbnails", 32), "--remove takes the gallery out"),
        (("--max-images", 2), "max_images=2 is fewer than the 3 classes"),
        (("--max-images", 0), "max-images"),
        (("--thumbnails", 5000), "thumbnails"),
        (("--data", "nowhere"), "nowhere"),
    ],
)
def test_the_command_refuses_what_makes_no_sense_in_one_line(finished, run, options, message):
    code, _, err = run("gallery", finished, *options)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_a_folder_that_is_no_run_is_refused(tmp_path, run):
    code, _, err = run("gallery", tmp_path)
    assert code == 2
    assert "is not a run of finevote" in err
    assert not list(tmp_path.iterdir())
