"""Model cards: that they say what was measured, and no more; that names in them stay names."""

import json
import shutil

import pytest
import yaml

from finevote.added import add_classes
from finevote.bundle.manifest import MANIFEST_NAME, WEIGHTS_NAME, content_hash, read_manifest
from finevote.errors import BundleError
from finevote.evaluation.intervals import wilson_interval
from finevote.sharing.card_text import plain
from finevote.sharing.parcel import pack
from tests.training.helpers import make_photographs


@pytest.fixture
def own(measured_run, tmp_path):
    return shutil.copytree(measured_run, tmp_path / "colours")


def describe(run, **details):
    """Put details into a run's bundle."""
    path = run / "bundle" / MANIFEST_NAME
    content = json.loads(path.read_text())
    content.pop("sha256")
    content["details"] |= details
    path.write_text(json.dumps({**content, "sha256": content_hash(content)}))


def weights(**values):
    return {"backbone": "vit", "source": "timm/vit_small", "licence": "apache-2.0", "obligations": "", **values}


def metadata(card):
    return yaml.safe_load(card.split("---\n")[1])


def report_of(run, split):
    return json.loads((run / "evaluation" / split / "report.json").read_text())


@pytest.mark.parametrize("split", ["val", "test"])
def test_accuracies_stand_with_intervals_that_follow_from_the_counts(measured_run, split):
    report = report_of(measured_run, split)
    num_right = sum(row["num_correct"] for row in report["per_class"])
    low, high = wilson_interval(num_right, report["num_images"])
    share = f"{num_right / report['num_images']:.1%} ({low * 100:.1f} to {high * 100:.1f}%)"
    name = {"val": "validation"}.get(split, split)
    assert f"| {name} | {report['num_images']} | top-1 | {share} |" in pack(measured_run).card


def test_the_metadata_has_the_test_figure_first(measured_run):
    results = metadata(pack(measured_run).card)["model-index"][0]["results"]
    assert [row["dataset"]["split"] for row in results] == ["test", "validation"]
    top_1 = report_of(measured_run, "test")["top_1"]
    assert results[0]["metrics"][0]["value"] == pytest.approx(top_1["value"], abs=1e-4)


def test_the_openings_of_the_test_split_are_counted(measured_run, own):
    assert "The test split was opened once with this model" in pack(measured_run).card
    ledger = own / "test_ledger.jsonl"
    ledger.write_text(ledger.read_text() * 3)
    assert "The test split was opened 3 times with this model" in pack(own).card


def test_nothing_is_said_of_a_split_that_was_not_measured(own):
    shutil.rmtree(own / "evaluation" / "test")
    card = pack(own).card
    assert "The test split was not measured with these weights" in card
    assert "| test |" not in card


def test_figures_of_other_weights_are_left_out(own, caplog):
    path = own / "evaluation" / "test" / "report.json"
    path.write_text(json.dumps({**report_of(own, "test"), "weights_sha256": "0" * 64}))
    card = pack(own).card
    assert "| test |" not in card
    assert "what was measured on test is of other weights" in caplog.text


def test_a_bundle_alone_has_no_figures(own, tmp_path):
    bundle = shutil.copytree(own / "bundle", tmp_path / "alone")
    card = pack(bundle).card
    assert "Nothing was measured with these weights." in card
    assert "model-index" not in metadata(card)
    assert "What that came to was not measured with these weights" in card


def test_the_bundle_of_a_run_is_told_from_a_bundle_alone(measured_run):
    assert pack(measured_run / "bundle").card == pack(measured_run).card


def test_every_file_stands_with_its_hash(measured_run):
    manifest = read_manifest(measured_run / "bundle")
    card = pack(measured_run).card
    assert all(f"`{entry.sha256}`" in card for entry in manifest.files.values())
    assert manifest.sha256 in card


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (weights(), {"license": "apache-2.0", "base_model": "timm/vit_small"}),
        (
            weights(
                source="timm/x",
                licence="dinov3-license",
                obligations="read https://example.org/licence/ before you use it",
            ),
            {
                "license": "other",
                "license_name": "dinov3-license",
                "license_link": "https://example.org/licence/",
                "base_model": "timm/x",
            },
        ),
        (weights(source="random", licence=""), {}),
        (weights(source="/srv/me/weights.safetensors"), {"license": "apache-2.0"}),
    ],
)
def test_the_licence_is_that_of_the_pretrained_weights(own, origin, expected):
    describe(own, weights=origin)
    card = pack(own).card
    found = metadata(card)
    names = ("license", "license_name", "license_link", "base_model")
    assert {name: found[name] for name in names if name in found} == expected
    assert origin["obligations"] in card
    assert "/srv/me" not in card


def test_what_the_licence_asks_is_told_before_it_is_public(own):
    describe(own, weights=weights(licence="cc-by-nc-4.0", obligations="no commercial use"))
    assert "the weights: no commercial use" in pack(own).notes


def test_a_place_of_this_machine_is_told_before_it_is_public(own):
    describe(own, data="/srv/me/birds")
    parcel = pack(own)
    assert "bundle.json says where the data lay on this machine: /srv/me/birds" in parcel.notes
    assert "/srv/me" not in parcel.card
    assert "- Data: birds" in parcel.card


def test_a_published_set_is_named_with_its_terms(own):
    describe(own, data="flowers102")
    card = pack(own / "bundle").card
    assert "Data: Oxford Flowers-102, licence not stated (do not redistribute)" in card


def test_a_soup_tells_its_ingredients(own):
    row = {"run": "a", "is_in": True, "num_test_openings": 2}
    describe(own, soup={"kind": "greedy", "ingredients": [row, {**row, "is_in": False, "num_test_openings": 0}]})
    card = pack(own).card
    assert "the greedy average of 1 of 2 runs, chosen on validation images" in card
    assert "opened 2 times before with the runs that were averaged" in card


@pytest.mark.parametrize("name", ["<script>x</script>", "a|b", "*bold*", "[link](http://x)", "two\nlines", "`code`"])
def test_a_name_stays_a_name(name):
    shown = plain(name)
    assert "<" not in shown
    assert "\n" not in shown
    assert all(f"\\{mark}" in shown for mark in "|*[]`" if mark in name)


def test_hostile_names_reach_neither_the_table_nor_the_metadata(own):
    describe(own, data="x\n---\nlicense: mit\n---\n<img src=x onerror=alert(1)>|")
    card = pack(own).card
    assert "license" not in metadata(card)
    assert "<img" not in card.split("---\n", 2)[2]


def test_what_it_must_not_be_used_for_is_said(measured_run):
    assert "Do not use it where a wrong name does harm" in pack(measured_run).card


def test_a_run_without_a_bundle_has_no_card(own):
    shutil.rmtree(own / "bundle")
    with pytest.raises(BundleError, match="has no bundle yet"):
        pack(own)


def test_the_command_prints_the_card_alone(run, measured_run):
    code, out, _ = run("card", measured_run)
    assert code == 0
    assert out == pack(measured_run).card


def test_classes_that_were_added_are_named_and_promise_nothing(own, tmp_path):
    make_photographs(tmp_path / "new", num_train=3, num_val=1)
    (tmp_path / "new" / "train" / "red").rename(tmp_path / "teal")
    add_classes(own, tmp_path / "teal")
    parcel = pack(own)
    assert "Names which of 4 classes" in parcel.card
    assert "Classes added later, from photographs without training: teal. The figures are without them." in parcel.card
    assert "promise nothing now" in parcel.card
    assert "added-1.safetensors" in parcel.files
    assert any("names and places of their photographs" in note for note in parcel.notes)


def test_an_uncalibrated_bundle_promises_nothing(own):
    content = json.loads((own / "bundle" / MANIFEST_NAME).read_text())
    content.pop("sha256")
    content["files"] = {WEIGHTS_NAME: content["files"][WEIGHTS_NAME]}
    (own / "bundle" / MANIFEST_NAME).write_text(json.dumps({**content, "sha256": content_hash(content)}))
    (own / "bundle" / "calibration.safetensors").unlink()
    assert "The model is not calibrated" in pack(own).card
