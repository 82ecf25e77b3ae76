import csv
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image

import finevote.training.fit
from finevote import cli, cli_data, predictor
from finevote.backbones.catalogue import create_vit
from finevote.backbones.published import PUBLISHED
from finevote.config import dump_config, load_config
from finevote.data.images import read_image
from finevote.errors import RunError
from finevote.measure import evaluate as measuring
from finevote.training import loop
from finevote.types import Ranked
from tests import legacy_files
from tests.training.helpers import changed, make_photographs, tiny_config


@pytest.fixture
def fitted(monkeypatch, tmp_path):
    """Replace `fit` by a recorder of its arguments."""
    calls = []
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "split.json").write_text('{"splits": {"train": [], "val": []}}')

    def record(config, data, **options):
        calls.append((config, data, options))
        return tmp_path / "run"

    monkeypatch.setattr(finevote.training.fit, "fit", record)
    return calls


def test_commands_read_photographs_with_a_broken_exif_block_without_a_word(run, tmp_path):
    path, block = tmp_path / "a.jpg", b"Exif\0\0MM\0*\0\0\0\x08\0\xff"
    Image.new("RGB", (9, 9), (255, 0, 0)).save(path, exif=block)
    run("recipes")
    assert read_image(path).size == (9, 9)  # warnings are errors here, unless a command silences them


class TestErrors:
    def test_a_users_mistake_is_one_line_and_exit_code_2(self, run, fitted):
        code, out, err = run("fit", "synthetic", "--set", "training.epoch=3")
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1
        assert err.startswith("error: ")
        assert "did you mean 'training.epochs'" in err
        assert not fitted

    def test_an_unexpected_error_is_one_line_that_names_debug_and_exit_code_1(self, run, monkeypatch):
        monkeypatch.setattr(measuring, "evaluate", fail_with(ZeroDivisionError("two\nlines")))
        code, _, err = run("evaluate", "a-run")
        assert code == 1
        assert err == "error: unexpected ZeroDivisionError: two lines (run it again with --debug for the trace)\n"

    def test_a_list_in_a_message_keeps_its_lines(self, run, monkeypatch):
        monkeypatch.setattr(measuring, "evaluate", fail_with(RunError("2 images cannot be read\n  a.png\n  b.png")))
        assert run("evaluate", "a-run")[2] == "error: 2 images cannot be read\n  a.png\n  b.png\n"

    def test_a_path_without_permission_is_named(self, run, monkeypatch):
        monkeypatch.setattr(measuring, "evaluate", fail_with(PermissionError(13, "Permission denied", "a-run")))
        message = "error: cannot open a-run: Permission denied: check its permissions\n"
        assert run("evaluate", "a-run") == (2, "", message)

    def test_an_error_in_a_loader_process_is_its_plain_sentence(self, run, monkeypatch, tmp_path):
        photographs, build_parts = make_photographs(tmp_path / "photographs"), loop.build_parts

        def build_then_delete(*arguments, **options):
            (photographs / "train" / "red" / "0.png").unlink()
            return build_parts(*arguments, **options)

        monkeypatch.setattr(loop, "build_parts", build_then_delete)
        (tmp_path / "tiny.yaml").write_text(dump_config(changed(tiny_config(epochs=1), "data", num_workers=1)))
        code, _, err = run("fit", photographs, "--recipe", tmp_path / "tiny.yaml", "--out", tmp_path / "run")
        assert code == 2
        assert err == f"error: cannot read the image {photographs}/train/red/0.png: No such file or directory\n"

    @pytest.mark.parametrize("arguments", [("--debug", "evaluate", "a-run"), ("evaluate", "a-run", "--debug")])
    def test_debug_shows_the_trace_wherever_it_stands(self, monkeypatch, arguments):
        monkeypatch.setattr(measuring, "evaluate", fail_with(RunError("no such run")))
        monkeypatch.setattr(sys, "argv", ["finevote", *arguments])
        with pytest.raises(RunError, match="no such run"):
            cli.main()

    def test_an_interrupt_is_exit_code_130(self, run, monkeypatch):
        monkeypatch.setattr(measuring, "evaluate", fail_with(KeyboardInterrupt()))
        assert run("evaluate", "a-run")[0] == 130

    @pytest.mark.skipif(os.name == "nt", reason="pipes close differently there")
    def test_a_reader_that_leaves_early_is_no_error(self):
        code = "import sys; sys.argv = ['finevote', 'recipes', 'demo']; from finevote.cli import main; main()"
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            process.stdout.close()
            assert process.stderr.read() == ""


def fail_with(error):
    def fail(*_, **__):
        raise error

    return fail


def test_the_package_is_a_command_too():
    done = subprocess.run([sys.executable, "-m", "finevote", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("finevote 0.")


def test_version(run):
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("finevote 0.")


class TestFit:
    def test_it_hands_on_the_settings_and_says_what_comes_next(self, run, fitted, tmp_path):
        out_folder = tmp_path / "out"
        options = ("--recipe", "demo", "--set", "training.epochs=3", "--out", out_folder, "--devices", 2, "--skip-bad")
        code, out, _ = run("fit", tmp_path, *options)
        ((config, data, keywords),) = fitted
        assert code == 0
        assert (config.name, config.training.epochs, data) == ("demo", 3, str(tmp_path))
        assert keywords == {"out": out_folder, "devices": 2, "skip_bad": True}
        assert f"finevote evaluate {tmp_path / 'run'}" in out

    @pytest.mark.usefixtures("fitted")
    @pytest.mark.parametrize(("rank", "printed"), [("0", True), ("1", False)])
    def test_of_the_processes_of_torchrun_one_says_what_comes_next(self, run, monkeypatch, rank, printed):
        monkeypatch.setenv("RANK", rank)
        assert bool(run("fit", "synthetic")[1]) is printed

    def test_without_a_recipe_it_takes_the_default(self, run, fitted):
        run("fit", "synthetic")
        assert fitted[0][0] == load_config(cli.DEFAULT_RECIPE)

    def test_mistakes_are_told_before_training_is_imported(self, run, monkeypatch, tmp_path):
        monkeypatch.setitem(sys.modules, "finevote.training", None)  # importing it fails now
        (tmp_path / "taken").write_text("")
        assert "unknown setting" in run("fit", "synthetic", "--set", "training.epoch=3")[2]
        assert "nowhere is not there: give a folder" in run("fit", tmp_path / "nowhere")[2]
        assert "already exists" in run("fit", "synthetic", "--out", tmp_path / "taken")[2]

    def test_the_later_processes_of_torchrun_find_the_run_folder_taken(self, run, fitted, monkeypatch, tmp_path):
        monkeypatch.setenv("RANK", "1")
        (tmp_path / "run" / "config.yaml").write_text("")
        assert run("fit", "synthetic", "--out", tmp_path / "run")[0] == 0
        assert fitted

    def test_without_data_it_says_what_data_can_be(self, run):
        code, _, err = run("fit")
        assert code == 2
        assert "fit needs DATA" in err

    def test_resume_goes_on_with_a_run(self, run, monkeypatch, tmp_path):
        calls = []
        monkeypatch.setattr(
            finevote.training.fit, "resume", lambda path, **options: calls.append((path, options)) or path
        )
        (tmp_path / "split.json").write_text('{"splits": {"train": []}}')
        code, out, _ = run("fit", "--resume", tmp_path)
        assert code == 0
        assert f"next: finevote evaluate {tmp_path} --split test\n" in out  # it has no validation
        assert calls == [(tmp_path, {"devices": 1, "data": None})]

    def test_resume_refuses_other_settings(self, run, tmp_path):
        code, _, err = run("fit", "--resume", tmp_path, "--recipe", "demo", "--skip-bad")
        assert code == 2
        assert "leave out --recipe, --skip-bad" in err


class TestEvaluate:
    def test_the_split_must_be_val_or_test(self, run):
        code, _, err = run("evaluate", "a-run", "--split", "train")
        assert code == 2
        assert "'val', 'test'" in err

    def test_it_measures_validation_unless_told_otherwise(self, run, monkeypatch):
        calls = []

        def record(path, *, split, data, on_report, **_):
            calls.append((str(path), split, data))
            on_report(SimpleNamespace(to_dict=dict))

        monkeypatch.setattr(measuring, "evaluate", record)
        run("evaluate", "a-run", "--json")
        run("evaluate", "a-run", "--json", "--split", "test", "--data", "moved")
        assert calls == [("a-run", "val", None), ("a-run", "test", "moved")]

    def test_json_is_the_report_and_nothing_else(self, run, monkeypatch):
        report = SimpleNamespace(to_dict=lambda: {"top_1": 0.5})
        monkeypatch.setattr(measuring, "evaluate", lambda *_, on_report, **__: on_report(report))
        assert json.loads(run("evaluate", "a-run", "--json")[1]) == {"top_1": 0.5}

    def test_a_file_is_no_run_and_no_place_for_one(self, run, tmp_path):
        (tmp_path / "mk.py").write_text("")
        code, _, err = run("evaluate", tmp_path / "mk.py")
        assert code == 2
        assert "is a file" in err
        assert "--out" not in err


ANSWERS = [
    Ranked("a, b.jpg", ("rose", "daisy"), (0.75, 0.25)),
    Ranked("c.jpg", ("daisy", "rose"), (0.5, 0.5)),
]


@pytest.fixture
def predicts(monkeypatch):
    """Return a function that sets what the predictor answers."""

    def set_answers(answers, unreadable=None):
        fake = SimpleNamespace(predict_files=lambda *_, **__: (answers, unreadable or {}))
        monkeypatch.setattr(predictor.Predictor, "load", lambda *_, **__: fake)

    return set_answers


class TestPredict:
    def test_csv_has_a_row_an_image(self, run, predicts, tmp_path):
        predicts(ANSWERS)
        out = tmp_path / "answers.csv"
        assert run("predict", "a-run", "a, b.jpg", "c.jpg", "--out", out)[0] == 0
        with out.open(newline="") as file:
            rows = list(csv.reader(file))
        assert rows[0] == ["image", "class_1", "probability_1", "class_2", "probability_2"]
        assert rows[1] == ["a, b.jpg", "rose", "0.75", "daisy", "0.25"]
        assert len(rows) == 3

    def test_jsonl_has_an_object_an_image(self, run, predicts, tmp_path):
        predicts(ANSWERS)
        out = tmp_path / "answers.jsonl"
        run("predict", "a-run", "c.jpg", "--out", out)
        first, _ = map(json.loads, out.read_text().splitlines())
        best, second = ({"class": "rose", "probability": 0.75}, {"class": "daisy", "probability": 0.25})
        assert first == {"image": "a, b.jpg", "top": [best, second]}

    def test_without_out_it_prints_a_table(self, run, predicts):
        predicts(ANSWERS)
        code, out, _ = run("predict", "a-run", "c.jpg")
        assert code == 0
        assert "rose" in out
        assert "0.7500" in out

    def test_unreadable_files_are_reported_and_skipped(self, run, predicts):
        predicts(ANSWERS, {"broken.jpg": "truncated"})
        code, _, err = run("predict", "a-run", "a.jpg", "broken.jpg")
        assert code == 0
        assert "skipped broken.jpg: truncated" in err

    def test_paths_without_permission_are_left_to_the_predictor(self, run, predicts, monkeypatch, tmp_path):
        predicts(ANSWERS)
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
        assert run("predict", tmp_path, tmp_path)[0] == 0

    def test_no_readable_file_is_exit_code_2(self, run, predicts):
        predicts([], {"broken.jpg": "truncated"})
        code, _, err = run("predict", "a-run", "broken.jpg")
        assert code == 2
        assert err == "skipped broken.jpg: truncated\nerror: there is no photograph that can be read\n"

    def test_an_unknown_ending_is_refused_before_the_model_is_loaded(self, run):
        code, _, err = run("predict", "no-run", "a.jpg", "--out", "answers.xlsx")
        assert code == 2
        assert "'.xlsx'; allowed: .csv, .jsonl" in err

    def test_a_place_that_cannot_be_written_is_refused_before_the_model_is_loaded(self, run, monkeypatch, tmp_path):
        (tmp_path / "folder.csv").mkdir()
        assert (
            "is a folder: give a file in it" in run("predict", "no-run", "a.jpg", "--out", tmp_path / "folder.csv")[2]
        )
        assert "there is no folder" in run("predict", "no-run", "a.jpg", "--out", tmp_path / "no" / "a.csv")[2]
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
        assert "cannot be written" in run("predict", "no-run", "a.jpg", "--out", tmp_path / "a.csv")[2]


class TestRecipes:
    def test_every_recipe_is_listed_with_its_source(self, run):
        _, out, _ = run("recipes")
        assert "flowers102_dinov2_b14\n    " in out

    def test_a_recipe_is_printed_as_yaml_that_reads_back_equal(self, run, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text(run("recipes", "demo")[1])
        assert load_config(path) == load_config("demo")

    def test_each_setting_has_its_description_behind_it(self, run):
        assert "# images an optimiser step, over all processes" in run("recipes", "demo")[1]


class TestDataShow:
    @pytest.fixture
    def photographs(self, tmp_path):
        for name in ("ash", "beech", "cedar"):
            (tmp_path / "trees" / name).mkdir(parents=True)
            for number in range(4):
                pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "trees" / name / f"{number}.png")
        return tmp_path / "trees"

    def test_it_counts_and_draws(self, run, photographs, tmp_path):
        code, out, _ = run("data", "show", photographs, "--out", tmp_path / "sheet.png", "--per-class", 2)
        assert code == 0
        assert "3 classes; images: 12 train" in out
        assert "there is no test split, which training does not need\n" in out
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.width > 500

    def test_a_sheet_is_a_png(self, run, photographs):
        assert "'.xyz'; allowed: .png" in run("data", "show", photographs, "--out", "sheet.xyz")[2]

    @pytest.mark.slow
    def test_the_drawn_birds_are_counted_and_drawn(self, run, tmp_path):
        code, out, _ = run("data", "show", "synthetic", "--out", tmp_path / "birds.png", "--per-class", 1)
        assert code == 0
        assert "synthetic: 12 classes; images: 960 train, 240 val, 480 test" in out
        with Image.open(tmp_path / "birds.png") as sheet:
            assert sheet.width > 500

    def test_the_sheet_is_bounded_by_leaving_classes_out_evenly(self, photographs, monkeypatch):
        from finevote.data.registry import open_source

        monkeypatch.setattr(cli_data, "SHEET_IMAGES", 4)
        records = cli_data._sheet_records(open_source(photographs, splits=("train",)), 2)
        assert [record.label for record in records] == [0, 0, 1, 1]


class TestImport:
    @pytest.fixture
    def checkpoint(self, tmp_path, monkeypatch):
        state = legacy_files.dinov2_state(dim=64, num_classes=3, depth=3)
        return legacy_files.save(tmp_path / "old.bin", state, settings={}, monkeypatch=monkeypatch)

    def test_a_checkpoint_becomes_a_bundle_that_names_photographs(self, run, checkpoint, tmp_path):
        make_photographs(tmp_path / "data")
        classes = tmp_path / "classes.txt"
        classes.write_text("rose\n\ntulip \niris\n")
        code, out, err = run("import", checkpoint, "--out", tmp_path / "bundle", "--classes", classes)
        assert (code, out.splitlines()[1]) == (0, str(tmp_path / "bundle"))
        assert "note: the rates of dynamic selection were not saved" in err
        code, out, _ = run("predict", tmp_path / "bundle", tmp_path / "data", "--top", "3")
        assert code == 0
        assert "tulip" in out

    def test_the_names_come_from_a_data_set_too(self, run, checkpoint, tmp_path):
        make_photographs(tmp_path / "data")
        code, _, err = run("import", checkpoint, "--out", tmp_path / "bundle", "--data", tmp_path / "data")
        assert (code, "class names" in err) == (0, False)
        names = json.loads((tmp_path / "bundle" / "bundle.json").read_text())["class_names"]
        assert names == ["blue", "green", "red"]

    def test_names_from_two_places_are_refused(self, run):
        code, _, err = run("import", "old.bin", "--out", "bundle", "--classes", "a.txt", "--data", "b")
        assert (code, "--classes and --data both give the class names" in err) == (2, True)


class TestBackbones:
    def test_every_short_name_is_listed_by_family_with_its_licence(self, run):
        code, out, _ = run("backbones")
        assert code == 0
        lines = {words[0]: words[1:] for line in out.splitlines() if (words := line.split())}
        assert lines["dinov3_vith16plus"] == ["841", "M", "16", "256", "vit_huge_plus_patch16_dinov3.lvd1689m"]
        assert set(PUBLISHED) <= set(lines)
        assert "DINOv3 (dinov3-license)\nthe DINOv3 licence also binds weights derived from these" in out
        assert max(len(line) for line in out.splitlines()) < 80

    def test_weights_in_the_hub_s_cache_are_marked(self, run, cached):
        cached("timm/eva02_small_patch14_224.mim_in22k")
        out = run("backbones")[1]
        assert [line.split()[1] for line in out.splitlines() if line.startswith("* eva")] == ["eva02_vits14"]
        assert "* weights at hand (1)" in out

    def test_one_is_described_with_what_its_licence_asks(self, run):
        out = run("backbones", "dinov3_vitb16")[1]
        assert "85,641,216" in out
        assert "https://huggingface.co/timm/vit_base_patch16_dinov3.lvd1689m" in out
        assert "binds weights derived from these" in out
        assert "not at hand; fetched the first time, or give a file by --set model.weights=FILE" in out

    def test_the_file_of_weights_at_hand_is_named(self, run, cached):
        file = cached("timm/vit_base_patch16_clip_224.openai")
        assert f"weights      {file}" in run("backbones", "clip_vitb16")[1]

    def test_any_vit_of_timm_is_described(self, run):
        out = run("backbones", "vit_tiny_patch16_224.augreg_in21k")[1]
        assert "parameters   5,524,416" in out
        assert "licence      apache-2.0\n" in out

    def test_a_model_without_published_weights_says_so(self, run):
        assert "source       none are published" in run("backbones", "compact_vit")[1]

    def test_one_that_cannot_vote_is_an_error(self, run):
        code, _, err = run("backbones", "swin_tiny_patch4_window7_224")
        assert code == 2
        assert "SwinTransformer is not a timm" in err

    def test_the_list_waits_for_no_heavy_library(self):
        code = "import sys; from finevote.cli import app; app(['backbones'], standalone_mode=False); "
        code += "assert not {'torch', 'timm', 'numpy'} & set(sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.fixture
def cached(monkeypatch, tmp_path):
    """Return a function that puts weights into the hub's cache, as its client does, and gives the file."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    def put(hub_id):
        folder = tmp_path / f"models--{hub_id.replace('/', '--')}"
        file = folder / "snapshots" / "0123" / "model.safetensors"
        for path, text in ((folder / "refs" / "main", "0123"), (file, "weights")):
            path.parent.mkdir(parents=True)
            path.write_text(text)
        return file

    return put


class TestBackbonesOfAFile:
    def test_a_weight_file_is_told_to_be_of_the_backbone_that_it_fits(self, run, tmp_path):
        vit = create_vit("vit_small_patch14_reg4_dinov2.lvd142m", image_size=(28, 28), timm_args={})
        torch.save(vit.state_dict(), tmp_path / "weights")
        code, out, _ = run("backbones", tmp_path / "weights")
        assert code == 0
        assert out.splitlines() == [
            "DINOv2 ViT-S/14 (12 blocks of width 384, MLP of 1536, 4 registers), in timm's own layout",
            "fits dinov2_vits14_reg4",
        ]

    def test_a_size_without_a_name_says_so(self, run, tmp_path):
        torch.save(legacy_files.dinov2_state(dim=64, num_classes=3, depth=3), tmp_path / "weights")
        code, out, _ = run("backbones", tmp_path / "weights")
        assert (code, "no backbone with a short name is of this size" in out) == (0, True)
