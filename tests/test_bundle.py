import errno
import json
import shutil
from importlib.metadata import version

import pytest
import torch

from finevote.bundle.manifest import MANIFEST_NAME, WEIGHTS_NAME
from finevote.bundle.read import load_bundle
from finevote.bundle.write import save_bundle
from finevote.config import Config
from finevote.errors import BundleError, StorageError
from tests.tiny import CLASSES, make_config, make_model, write_bundle


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("original") / "bundle")


@pytest.fixture
def bundle(original, tmp_path):
    return shutil.copytree(original, tmp_path / "bundle")


def edit(path, change, *, resign=False):
    """Change bundle.json; with `resign`, as a program would that writes its hash anew."""
    from finevote.bundle.manifest import content_hash

    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    if resign:
        content.pop("sha256")
        content["sha256"] = content_hash(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_a_loaded_model_predicts_bit_for_bit_as_the_saved_one(tmp_path):
    config = make_config()
    model, preprocessing = make_model(config)
    folder = save_bundle(
        tmp_path / "bundle", model, config=config, class_names=CLASSES, preprocessing=preprocessing, details={}
    )
    loaded = load_bundle(folder).model
    images = torch.rand(4, 3, 32, 32)
    with torch.inference_mode():
        expected, got = model(images), loaded(images)
    assert got.votes.budget == expected.votes.budget != (4, 4, 4)
    assert torch.equal(got.logits, expected.logits)
    assert torch.equal(got.complement, expected.complement)
    assert torch.equal(got.embedding, expected.embedding)
    assert torch.equal(got.votes.per_patch(), expected.votes.per_patch())


def test_what_was_saved_beside_the_weights_comes_back(bundle):
    loaded = load_bundle(bundle)
    assert loaded.class_names == CLASSES
    assert loaded.config == make_config()
    assert loaded.preprocessing == make_model(loaded.config)[1]
    assert loaded.manifest.details == {"data": "colours"}
    assert loaded.manifest.versions["torch"] == version("torch")
    assert not loaded.model.training


def test_a_bundle_from_before_there_was_a_choice_decodes_exactly(bundle):
    assert load_bundle(bundle).preprocessing.decoding == "fast"
    edit(bundle / MANIFEST_NAME, lambda content: content["preprocessing"].pop("decoding"), resign=True)
    edit(bundle / MANIFEST_NAME, lambda content: content["config"]["data"].pop("decoding"), resign=True)
    assert load_bundle(bundle).preprocessing.decoding == "exact"


def test_a_plain_backbone_is_bundled_too(tmp_path):
    config = make_config()
    voting = config.model.voting.model_copy(update={"enabled": False})
    plain = Config.model_validate(
        config.model_dump() | {"model": config.model.model_copy(update={"voting": voting}).model_dump()}
    )
    assert load_bundle(write_bundle(tmp_path / "bundle", config=plain)).model.budget is None


def test_a_bundle_takes_the_place_of_an_older_one(bundle):
    config = make_config()
    model, preprocessing = make_model(config)
    save_bundle(bundle, model, config=config, class_names=CLASSES, preprocessing=preprocessing, details={"new": 1})
    assert load_bundle(bundle).manifest.details == {"new": 1}


def test_details_with_tuples_and_numbered_keys_still_match_their_hash(tmp_path):
    config = make_config()
    model, preprocessing = make_model(config)
    details = {"sizes": (1, 2), "counts": {10: "b", 2: "a"}}
    folder = save_bundle(
        tmp_path / "bundle", model, config=config, class_names=CLASSES, preprocessing=preprocessing, details=details
    )
    assert load_bundle(folder).manifest.details == {"sizes": [1, 2], "counts": {"10": "b", "2": "a"}}


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_weights_cut_short_are_named_with_both_sizes(bundle, share):
    path = bundle / WEIGHTS_NAME
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(
        BundleError, match=r"model\.safetensors has [\d,]+ bytes instead of [\d,]+.*copy the bundle again"
    ):
        load_bundle(bundle)


def test_one_changed_byte_of_the_weights_is_noticed(bundle):
    path = bundle / WEIGHTS_NAME
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.safetensors was changed \(its SHA-256 differs\)"):
        load_bundle(bundle)


def test_missing_weights_are_named(bundle):
    (bundle / WEIGHTS_NAME).unlink()
    with pytest.raises(BundleError, match=r"model\.safetensors is missing"):
        load_bundle(bundle)


def test_a_file_that_is_not_listed_is_refused(bundle):
    (bundle / "weights.bin").write_bytes(b"who am I?")
    with pytest.raises(BundleError, match=r"weights\.bin is not listed in bundle\.json: remove it"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db"])
def test_what_a_file_manager_leaves_is_ignored(bundle, name):
    (bundle / name).write_bytes(b"icons")
    load_bundle(bundle)


def test_all_problems_are_told_at_once(bundle):
    (bundle / WEIGHTS_NAME).unlink()
    (bundle / "other").mkdir()
    with pytest.raises(BundleError, match=r"is missing; other is not listed"):
        load_bundle(bundle)


def test_an_edited_manifest_is_noticed(bundle):
    edit(bundle / MANIFEST_NAME, lambda content: content["class_names"].reverse())
    with pytest.raises(BundleError, match=r"bundle\.json was changed after it was written"):
        load_bundle(bundle)


def test_a_manifest_cut_short_is_named(bundle):
    path = bundle / MANIFEST_NAME
    path.write_text(path.read_text()[:200])
    with pytest.raises(BundleError, match=r"cannot read .*bundle\.json"):
        load_bundle(bundle)


@pytest.mark.parametrize("content", ["{}", '{"format_version": 99}'])
def test_another_format_is_refused(bundle, content):
    (bundle / MANIFEST_NAME).write_text(content)
    with pytest.raises(BundleError, match=r"has format version (None|99), but this finevote reads 1"):
        load_bundle(bundle)


def test_a_manifest_that_is_no_description_is_refused(bundle):
    (bundle / MANIFEST_NAME).write_text("[]")
    with pytest.raises(BundleError, match=r"bundle\.json is not a bundle description, it holds a list"):
        load_bundle(bundle)


def test_a_field_that_is_not_known_is_refused(bundle):
    edit(bundle / MANIFEST_NAME, lambda content: content.update(pickle="code"), resign=True)
    with pytest.raises(BundleError, match=r"is not valid \(pickle: Extra inputs"):
        load_bundle(bundle)


def test_settings_that_this_version_does_not_know_are_named_with_the_versions(bundle):
    edit(bundle / MANIFEST_NAME, lambda content: content["config"].update(newer={}), resign=True)
    with pytest.raises(BundleError, match=r"was written by finevote .* cannot be rebuilt .*unknown setting 'newer'"):
        load_bundle(bundle)


def test_weights_that_do_not_fit_the_settings_are_refused(bundle):
    edit(bundle / MANIFEST_NAME, lambda content: content["class_names"].append("fourth"), resign=True)
    with pytest.raises(
        BundleError, match=r"describe: 2 tensors differ \(head\.classifier\.bias is \(3,\) instead of \(4,\), head"
    ):
        load_bundle(bundle)


def test_of_many_tensors_that_do_not_fit_a_few_are_named(bundle):
    edit(
        bundle / MANIFEST_NAME, lambda content: content["config"]["model"]["backbone_args"].update(depth=6), resign=True
    )
    with pytest.raises(
        BundleError, match=r"does not fit .*: \d\d tensors differ \(.* is missing instead of \(.*, \.\.\.\): copy"
    ) as caught:
        load_bundle(bundle)
    assert len(str(caught.value)) < 700


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match=r"is not a bundle: it has no bundle\.json"):
        load_bundle(tmp_path)


def test_a_full_disk_keeps_the_old_bundle_and_leaves_nothing_else(bundle, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("finevote.bundle.write.save_file", full)
    with pytest.raises(StorageError, match=r"No space left on device .*MiB free"):
        write_bundle(bundle)
    assert load_bundle(bundle).class_names == CLASSES
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]
