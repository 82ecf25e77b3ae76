import json
import math
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from finevote.build import build_model
from finevote.bundle.read import load_bundle
from finevote.config import config_from_values
from finevote.errors import ArgumentError, DataError, FinevoteError, RunError
from finevote.run_folder import RunFolder
from finevote.training import loop
from finevote.training.checkpoint import load_checkpoint
from finevote.training.fit import fit
from tests.training.helpers import changed, final_state, make_photographs, tiny_config, tiny_values


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return make_photographs(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(photographs, tmp_path_factory):
    return RunFolder(fit(tiny_config(), photographs, out=tmp_path_factory.mktemp("runs") / "whole"))


def rows_of(run, kind):
    rows = [json.loads(line) for line in run.metrics_jsonl.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["kind"] == kind]


def test_a_run_has_all_its_files(finished):
    names = {path.relative_to(finished.path).as_posix() for path in finished.path.rglob("*")}
    assert names >= {
        "config.yaml",
        "data.json",
        "split.json",
        "lr_groups.json",
        "metrics.jsonl",
        "curves.png",
        "checkpoints/last.pt",
        "checkpoints/best.pt",
        "bundle/model.safetensors",
    }


def test_it_learns_three_colours(finished):
    assert rows_of(finished, "epoch")[-1]["val_top1"] == 1.0


def test_every_epoch_has_a_row_of_finite_figures(finished):
    rows = rows_of(finished, "epoch")
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 3), (2, 6), (3, 9)]
    for row in rows:
        assert sum(row["budget"]) == 12
        assert row["val_num_images"] == 9
        assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))


def test_the_loss_is_the_weighted_sum_of_its_terms(finished):
    for row in rows_of(finished, "epoch"):
        expected = 0.6 * row["loss_part"] + 0.4 * row["loss_complement"] + 0.1 * row["loss_triplet"]
        assert row["loss"] == pytest.approx(expected, abs=1e-6)


def test_the_budget_moves_after_its_warm_up_only(finished):
    first, *_, last = (row["budget"] for row in rows_of(finished, "epoch"))
    assert first == [4, 4, 4]
    assert final_state(finished.path)["model"]["head.budget.rates"].tolist() != pytest.approx([1 / 3] * 3, abs=1e-6)
    assert sum(last) == 12


def test_the_rates_used_are_those_written_down(finished):
    groups = json.loads(finished.lr_groups_json.read_text(encoding="utf-8"))
    assert [group["lr"] for group in final_state(finished.path)["optimizer"]["param_groups"]] == pytest.approx(
        [group["peak_lr"] * (1 + math.cos(math.pi * 5 / 6)) / 2 for group in groups]  # the 6th of 6 steps of the cosine
    )
    peaks = {group["name"]: group["peak_lr"] for group in groups}
    assert peaks["new parts"] == 2e-3
    assert peaks["block 2"] == 1e-3
    assert peaks["embedding"] == pytest.approx(1e-3 * 0.8**3)


def test_the_bundle_holds_the_averaged_weights_of_the_best_epoch(finished):
    bundle = load_bundle(finished.bundle)
    best = load_checkpoint(finished.best_checkpoint)
    saved = bundle.model.state_dict()
    assert all(torch.equal(saved[name], value) for name, value in best["average"]["model"].items())
    assert bundle.class_names == ("blue", "green", "red")


def test_the_best_epoch_is_the_one_with_the_highest_validation_accuracy(finished):
    rows = rows_of(finished, "epoch")
    best = max(rows, key=lambda row: (row["val_top1"], -row["val_loss"]))
    assert load_checkpoint(finished.best_checkpoint)["position"]["best"]["epoch"] == best["epoch"]


@pytest.mark.parametrize(
    ("row", "best", "wins"),
    [
        ((0.5, 1.0), None, True),
        ((0.6, 2.0), (0.5, 1.0), True),
        ((0.5, 0.9), (0.5, 1.0), True),
        ((0.5, 1.0), (0.5, 1.0), False),
        ((0.4, 0.1), (0.5, 1.0), False),
    ],
)
def test_ties_go_to_the_lower_loss_then_to_the_earlier_epoch(row, best, wins):
    def named(figures):
        return figures and {"val_top1": figures[0], "val_loss": figures[1]}

    assert loop._beats(named(row), named(best)) is wins


def test_off_a_terminal_there_is_one_line_an_epoch(photographs, tmp_path, capfd):
    fit(tiny_config(epochs=2), photographs, out=tmp_path / "run")
    written, errors = capfd.readouterr()
    assert errors == ""
    lines = [line for line in written.splitlines() if line.startswith("epoch ")]
    assert [line.partition(",")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert "best epoch" in written
    assert "95% Wilson interval" in written


def test_the_test_split_is_never_opened(photographs, tmp_path, monkeypatch):
    root = tmp_path / "data"
    root.mkdir()
    for split in ("train", "val"):
        (root / split).symlink_to(photographs / split)
    for name in ("blue", "green", "red"):
        (root / "test" / name).mkdir(parents=True)
        (root / "test" / name / "0.png").write_bytes(b"poison")
    touched = []

    def watch(original):
        def opened(path, *arguments, **options):
            if isinstance(path, str | Path) and "test" in Path(path).parts:
                touched.append(path)
            return original(path, *arguments, **options)

        return opened

    monkeypatch.setattr("builtins.open", watch(open))
    monkeypatch.setattr("os.scandir", watch(os.scandir))
    monkeypatch.setattr("os.listdir", watch(os.listdir))
    monkeypatch.setattr(Image, "open", watch(Image.open))
    run = RunFolder(fit(tiny_config(epochs=1), root, out=tmp_path / "run"))
    assert touched == []
    assert "test" not in json.loads(run.split_json.read_text(encoding="utf-8"))["splits"]


def test_a_frozen_backbone_keeps_its_bits_in_the_head_epochs(photographs, tmp_path):
    config = tiny_config(epochs=1, head_only_epochs=1)
    start = build_model(config, num_classes=3).state_dict()
    end = final_state(fit(config, photographs, out=tmp_path / "run"))["model"]
    kept = {name for name, value in end.items() if torch.equal(value, start[name])}
    assert kept >= {name for name in start if name.startswith("backbone.")}
    assert "head.classifier.weight" not in kept


def test_the_backbone_moves_after_the_head_epochs(photographs, tmp_path):
    config = tiny_config(epochs=2, head_only_epochs=1)
    start = build_model(config, num_classes=3).state_dict()
    end = final_state(fit(config, photographs, out=tmp_path / "run"))["model"]
    assert not torch.equal(end["backbone.layers.0.mlp.fc1.weight"], start["backbone.layers.0.mlp.fc1.weight"])


def test_mixup_trains_without_the_triplet(photographs, tmp_path):
    config = changed(changed(tiny_config(epochs=1), "data", mixup=0.2), "loss", triplet_weight=0.0)
    row = rows_of(RunFolder(fit(config, photographs, out=tmp_path / "run")), "epoch")[0]
    assert "loss_triplet" not in row
    assert math.isfinite(row["loss"])


def test_the_plain_backbone_trains_too(photographs, tmp_path):
    values = tiny_values(epochs=1)
    values["model"]["voting"] = {"enabled": False}
    run = RunFolder(fit(config_from_values(values, source="test"), photographs, out=tmp_path / "run"))
    assert rows_of(run, "epoch")[0]["budget"] is None


def test_a_loss_that_is_no_number_stops_with_advice_and_keeps_the_checkpoint(photographs, tmp_path, monkeypatch):
    accumulate = loop.accumulate
    num_steps = 0

    def broken(*arguments, **options):
        nonlocal num_steps
        num_steps += 1
        result = accumulate(*arguments, **options)
        if num_steps == 5:
            result.losses["total"].fill_(torch.nan)
        return result

    monkeypatch.setattr(loop, "accumulate", broken)
    with pytest.raises(
        RunError, match=r"step 2 of epoch 2 gave numbers that are not finite \(loss nan.*lower optim\.lr"
    ):
        fit(tiny_config(), photographs, out=tmp_path / "run")
    state = final_state(tmp_path / "run")
    assert state["position"]["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_a_collapse_is_told_on_the_console_and_in_the_metrics(photographs, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(loop, "CollapseWatch", lambda **_: type("Always", (), {"see": lambda *_, **__: True})())
    run = RunFolder(fit(tiny_config(epochs=1), photographs, out=tmp_path / "run"))
    assert "WARNING: the embeddings have collapsed to a point" in capfd.readouterr().out
    assert "lower optim.lr" in rows_of(run, "warning")[0]["message"]


def test_the_triplet_weight_rises_over_its_warm_up(photographs, tmp_path, monkeypatch):
    weights = []
    accumulate = loop.accumulate

    def recorded(*arguments, triplet_weight, **options):
        weights.append(triplet_weight)
        return accumulate(*arguments, triplet_weight=triplet_weight, **options)

    monkeypatch.setattr(loop, "accumulate", recorded)
    config = changed(tiny_config(epochs=4), "loss", triplet_weight=0.3, triplet_warmup_epochs=2)
    fit(config, photographs, out=tmp_path / "run")
    assert weights[::3] == pytest.approx([0.1, 0.2, 0.3, 0.3])


def test_validation_can_be_rarer_but_the_last_epoch_has_one(photographs, tmp_path):
    run = RunFolder(fit(tiny_config(epochs=3, validate_every=2), photographs, out=tmp_path / "run"))
    assert ["val_top1" in row for row in rows_of(run, "epoch")] == [False, True, True]


def test_bfloat16_trains(photographs, tmp_path):
    run = RunFolder(fit(tiny_config(epochs=1, precision="bf16"), photographs, out=tmp_path / "run"))
    assert math.isfinite(rows_of(run, "epoch")[0]["loss"])
    assert final_state(run.path)["model"]["head.classifier.weight"].dtype == torch.float32


def test_bad_photographs_stop_it_before_anything_is_made(tmp_path):
    root = make_photographs(tmp_path / "data", num_train=3, num_val=2)
    (root / "train" / "red" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 image cannot be read"):
        fit(tiny_config(), root, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("model", {"weights": "gone.pth"}, "no weight file at gone.pth"),
        ("training", {"batch_size": 8, "images_per_class": 2}, "classes"),
        ("data", {"resize": 24}, "is smaller than the image size"),
    ],
)
def test_settings_that_cannot_be_built_leave_the_name_free(section, values, message, exists, photographs, tmp_path):
    if exists:
        (tmp_path / "run").mkdir()
    with pytest.raises(FinevoteError, match=message):
        fit(changed(tiny_config(), section, **values), photographs, out=tmp_path / "run")
    assert (tmp_path / "run").exists() == exists
    assert not list((tmp_path / "run").glob("*"))
    assert RunFolder(fit(tiny_config(epochs=1), photographs, out=tmp_path / "run")).bundle.is_dir()


@pytest.mark.slow
def test_an_error_in_a_process_of_several_leaves_the_name_free(photographs, tmp_path):
    with pytest.raises(FinevoteError, match=r"no weight file at gone\.pth"):
        fit(changed(tiny_config(), "model", weights="gone.pth"), photographs, out=tmp_path / "run", devices=2)
    assert not (tmp_path / "run").exists()


def test_a_run_with_rows_is_kept_when_an_error_stops_it(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "STEPS_BETWEEN_ROWS", 1)
    monkeypatch.setattr(loop, "validate", lambda *_, **__: (_ for _ in ()).throw(DataError("gone")))
    with pytest.raises(DataError, match="gone"):
        fit(tiny_config(epochs=1), photographs, out=tmp_path / "run")
    assert len(rows_of(RunFolder(tmp_path / "run"), "step")) == 3


def test_a_folder_that_is_taken_is_refused(photographs, finished):
    with pytest.raises(RunError, match="already holds a run"):
        fit(tiny_config(), photographs, out=finished.path)


def test_step_seeds_differ_and_are_small_enough_for_the_noise():
    seeds = {loop._step_seed(0, step) for step in range(1000)}
    assert len(seeds) == 1000
    assert max(seeds) * 1_000_003 < 2**63


def compile_with(backend):
    return lambda model: setattr(model, "_compiled_call_impl", torch.compile(model._call_impl, backend=backend))


@pytest.mark.long
@pytest.mark.slow
def test_a_compiled_model_trains_to_the_same_losses(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(nn.Module, "compile", compile_with("aot_eager"))  # the compiler without machine code
    runs = [
        RunFolder(fit(tiny_config(epochs=2, compile=is_compiled), photographs, out=tmp_path / str(is_compiled)))
        for is_compiled in (False, True)
    ]
    plain, compiled = ([row["loss"] for row in rows_of(run, "epoch")] for run in runs)
    assert compiled == pytest.approx(plain, rel=1e-5)
    assert len(compiled) == 2


def test_a_machine_that_cannot_compile_says_so(photographs, tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(nn.Module, "compile", compile_with(refuse))
    with pytest.raises(ArgumentError, match=r"the model could not be compiled .*no compiler here.*compile=false"):
        fit(tiny_config(epochs=1, compile=True), photographs, out=tmp_path / "run")
