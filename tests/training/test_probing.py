import json

import numpy as np
import pytest
import torch
from rich.console import Console

from finevote.config import config_from_values
from finevote.errors import ConfigError, DataError
from finevote.measure.evaluate import evaluate
from finevote.probe import run as probing
from finevote.probe.features import Extractor
from finevote.probe.fitted import load_probes
from finevote.run_folder import RunFolder
from finevote.training.fit import fit, resume
from finevote.training.launch import make_fabric
from finevote.training.parts import build_parts
from finevote.training.prepare import load_data, prepare_run
from finevote.training.probing import probe_first, starting_classifier
from tests.models import NARROW
from tests.probe.helpers import write_weights
from tests.tiny import write_photographs
from tests.training.helpers import assert_same_state, final_state, tiny_values


def make_config(weights, *, model=None, training=None, **sections):
    values = tiny_values(epochs=1, **(training or {}))
    values["model"] |= {"weights": str(weights), "backbone_args": NARROW, "drop_path": 0.0, "dropout": 0.0}
    values["model"]["voting"] |= {"num_selected": 8}
    values["model"] |= model or {}
    for section, changes in sections.items():
        values[section] |= changes
    return config_from_values(values, source="test")


def plain(weights, **training):
    model = {"voting": {"enabled": False}, "classifier_from_probe": True}
    values = tiny_values(**training)
    values["model"] |= {"weights": str(weights), "backbone_args": NARROW, "drop_path": 0.0, "dropout": 0.0, **model}
    values["loss"] = {"triplet_weight": 0.0}
    return config_from_values(values, source="test")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return photographs and a weight file."""
    root = tmp_path_factory.mktemp("made")
    return write_photographs(root / "data", num_test=2), write_weights(root / "vit.safetensors")


@pytest.fixture(scope="module")
def finished(made, tmp_path_factory):
    data, weights = made
    return RunFolder(fit(make_config(weights), data, out=tmp_path_factory.mktemp("runs") / "run"))


def load(run):
    return load_probes(arrays=run.probe_arrays, description=run.probe_json)


def test_pretrained_weights_are_probed_before_the_first_step(made, tmp_path, capsys):
    data, weights = made
    run = RunFolder(fit(make_config(weights), data, out=tmp_path / "run"))
    printed = capsys.readouterr().out
    assert printed.index("frozen vit_tiny_patch16_224") < printed.index("peak") < printed.index("epoch 1/1")
    assert json.loads(run.probe_json.read_text(encoding="utf-8"))["num_validation"] == 9
    assert run.probe_json.stat().st_mtime_ns <= run.lr_groups_json.stat().st_mtime_ns


@pytest.mark.parametrize(("weights", "probe", "is_probed"), [("none", "auto", False), ("none", "on", True)])
def test_random_weights_are_probed_only_when_asked(made, tmp_path, weights, probe, is_probed):
    run = RunFolder(fit(make_config(weights, training={"probe": probe}), made[0], out=tmp_path / "run"))
    assert run.probe_json.exists() is is_probed


def test_it_can_be_switched_off_in_the_words_of_yaml(made, tmp_path):
    data, weights = made
    config = config_from_values(make_config(weights).model_dump(), source="test", overrides=["training.probe=off"])
    assert config.training.probe == "off"
    assert not RunFolder(fit(config, data, out=tmp_path / "run")).probe_json.exists()


def test_the_plain_head_starts_with_the_logits_of_the_probe(made, tmp_path):
    data, weights = made
    config = plain(weights)
    run = prepare_run(config, data, out=tmp_path / "run", skip_bad=False, console=Console(quiet=True))
    probe_first(run, console=Console(quiet=True))
    source = load_data(run)
    fabric = make_fabric(devices=1, precision="fp32")
    classifier = starting_classifier(run, config)
    parts = build_parts(fabric, config, source, load_weights=True, classifier=classifier)
    model = parts.model.eval()
    features = Extractor(config, space=load(run).space).features(source, source.splits["val"])
    with torch.no_grad():
        logits = np.concatenate([model(batch.images).logits.numpy() for batch in parts.val_loader])
    assert logits == pytest.approx(load(run).linear["cls"].logits(features.cls), abs=1e-4)
    accuracy = load(run).accuracies[1].value
    assert (logits.argmax(1) == [record.label for record in source.splits["val"]]).mean() == accuracy


def test_the_voting_head_starts_from_the_same_weights(made, tmp_path):
    data, weights = made
    config = make_config(weights, model={"classifier_from_probe": True}, optim={"lr": 1e-9, "new_lr": 1e-9})
    run = RunFolder(fit(config, data, out=tmp_path / "run"))
    classifier = final_state(run.path)["model"]["head.classifier.weight"]
    assert classifier.numpy() == pytest.approx(load(run).linear["cls"].weight, abs=1e-5)


def test_interrupted_while_probing_it_can_be_resumed(made, tmp_path, monkeypatch, capsys):
    data, weights = made

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(probing, "fit_probes", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(plain(weights, epochs=1), data, out=tmp_path / "run")
    assert f"finevote fit --resume {tmp_path / 'run'}" in capsys.readouterr().out
    run = RunFolder(resume(tmp_path / "run"))
    whole = RunFolder(fit(plain(weights, epochs=1), data, out=tmp_path / "whole"))
    assert load(run).names == load(whole).names
    assert_same_state(final_state(run.path)["model"], final_state(whole.path)["model"])


def test_without_validation_it_is_left_out_or_refused(made, tmp_path, capsys):
    data, weights = made
    no_validation = {"validation_fraction": 0.0}
    run = RunFolder(fit(make_config(weights, data=no_validation), data / "train", out=tmp_path / "run"))
    assert not run.probe_json.exists()
    assert "the backbone is not probed: there are no validation images" in " ".join(capsys.readouterr().out.split())
    config = make_config(weights, data=no_validation, model={"classifier_from_probe": True})
    with pytest.raises(DataError, match=r"cannot start from it: set data.validation_fraction above 0"):
        fit(config, data / "train", out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.probe=off"], "starts from a probe, and none is made: set training.probe=on"),
        (["model.weights=none"], "starts from a probe, and none is made: set training.probe=on"),
        (["model.voting.block_init=random"], "block_init=random replaces that block"),
    ],
)
def test_a_classifier_from_a_probe_that_makes_no_sense_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        config_from_values({"model": {"classifier_from_probe": True}}, source="test", overrides=overrides)


def test_an_evaluation_sets_the_probes_beside_the_model(finished, capsys):
    report = evaluate(finished.path)
    section = report.sections["probes"]
    probes = load(finished)
    assert [row.top_1 for row in section.rows] == [found.value for found in probes.accuracies]
    assert report.to_dict()["probes"]["was_chosen_here"] is True
    Console(width=100).print(report.table())
    assert "frozen vit_tiny_patch16_224" in capsys.readouterr().out


def test_saved_answers_give_the_same_rows_without_the_weights(finished, made):
    rows = evaluate(finished.path).sections["probes"].rows
    moved = made[1].rename(made[1].with_suffix(".away"))
    try:
        assert evaluate(finished.path, saved=True).sections["probes"].rows == rows
    finally:
        moved.rename(made[1])


def test_the_test_split_is_opened_once_for_the_model_and_its_probes(made, tmp_path):
    data, weights = made
    run = RunFolder(fit(make_config(weights), data, out=tmp_path / "run"))
    report = evaluate(run.path, split="test")
    assert report.num_test_openings == 1
    assert len(run.test_ledger_jsonl.read_text(encoding="utf-8").splitlines()) == 1
    assert report.to_dict()["probes"]["was_chosen_here"] is False
    assert run.evaluation("test").probes_npz.is_file()


def test_probes_whose_weights_are_gone_are_left_out_with_a_warning(made, tmp_path, caplog):
    data, weights = made
    own = tmp_path / "own.safetensors"
    own.write_bytes(weights.read_bytes())
    config = make_config(own, data={"resize": 41})  # a space of its own: nothing is kept of the test images
    run = RunFolder(fit(config, data, out=tmp_path / "run"))
    own.unlink()
    report = evaluate(run.path, split="test")
    assert "probes" not in report.sections
    assert "the probes are left out of the report: no weight file at" in caplog.text
    assert not run.evaluation("test").probes_npz.exists()


@pytest.mark.slow
def test_two_processes_start_from_the_same_probe(made, tmp_path):
    data, weights = made
    values = plain(weights, epochs=1).model_dump()
    values["optim"] |= {"name": "sgd", "lr": 0.01, "new_lr": 0.01}
    config = config_from_values(values, source="test")
    one, two = (RunFolder(fit(config, data, out=tmp_path / str(n), devices=n)) for n in (1, 2))
    assert load(two).names == load(one).names
    torch.testing.assert_close(final_state(two.path)["model"], final_state(one.path)["model"], atol=1e-5, rtol=0)
