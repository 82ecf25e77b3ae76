import json

import pytest

from finevote.bench import run as bench
from finevote.bench.plan import Action, Plan, What
from finevote.bench.results import Sample
from finevote.bench.run import run_bench
from finevote.errors import RunError
from tests.bench.cases import tiny_plan

SMALL = (
    *("--backbone", "vit_tiny_patch16_224", "--size", 32, "--batch", 2, "--rounds", 1, "--device", "cpu"),
    *("--set", "model.backbone_args={patch_size: 8, embed_dim: 24, depth: 3, num_heads: 3}"),
    *("--set", "model.voting.num_votes_per_head=4", "--set", "model.voting.num_selected=10"),
    *("--set", "model.voting.num_key_tokens=4"),
)


def read(folder):
    return json.loads((folder / "bench.json").read_text())


def test_the_command_leaves_json_and_a_table(run, tmp_path):
    code, out, err = run("bench", "step", "--action", "forward", *SMALL, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert "ours time ratio: " in out
    content = read(tmp_path / "out")
    assert {"torch", "timm", "python", "finevote"} <= set(content["versions"])
    assert content["machine"]["num_cores"] >= 1
    assert content["plan"]["batch"] == 2
    assert {sample["contender"] for sample in content["samples"]} == {"plain", "plain_cls", "ours"}
    assert all(sample["backbone"] == "vit_tiny_patch16_224" for sample in content["samples"])
    table = (tmp_path / "out" / "bench.md").read_text()
    assert "| quantity | plain | plain_cls | ours |" in table
    assert "tokens 17" in table


def test_what_was_measured_before_an_interruption_is_kept(tmp_path, monkeypatch):
    def interrupted(plan):
        yield from bench.MEASURES[What.STEP](plan)
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "MEASURES", {What.MEMORY: interrupted, What.STEP: bench.MEASURES[What.STEP]})
    with pytest.raises(KeyboardInterrupt):
        run_bench(tiny_plan(whats=(What.MEMORY,), rounds=1, actions=(Action.FORWARD,)), out=tmp_path)
    assert {sample["what"] for sample in read(tmp_path)["samples"]} == {"step"}


def test_where_nothing_can_be_measured_the_first_reason_is_the_error(tmp_path, monkeypatch):
    def fail(_):
        yield [Sample(What.STEP, "time", "ours", None, "s", note="does not fit into memory")]

    monkeypatch.setattr(bench, "MEASURES", {What.STEP: fail})
    with pytest.raises(RunError, match="nothing could be measured: does not fit into memory"):
        run_bench(tiny_plan(whats=(What.STEP,)), out=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--backbone", "vit_tny"), "no backbone is called 'vit_tny'"),
        (("--set", "model.voting.num_selcted=3"), "did you mean 'model.voting.num_selected'"),
        (("--set", "data.image_size=64"), "--set data.image_size=64: use --size 64"),
        (("--set", "model.backbone=x"), "--set model.backbone=x: use --backbone x"),
        (("--set", "model.voting.enabled=false"), "the contender `plain` is the backbone without voting"),
        (("--contender", "nowhere.at_all:X"), "--contender nowhere.at_all:X cannot be imported"),
        ((*SMALL, "loader", "--data", "nowhere"), "nowhere is not there"),
        ((*SMALL, "--size", 8), "num_votes_per_head=4 exceeds 1 patches"),
    ],
)
def test_an_option_that_cannot_work_is_refused_before_anything_is_measured(run, tmp_path, options, message):
    code, _, err = run("bench", "step", *options, "--device", "cpu", "--out", tmp_path / "out")
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_measured(run, tmp_path):
    (tmp_path / "file").touch()
    code, out, err = run("bench", "step", *SMALL, "--out", tmp_path / "file" / "out")
    assert (code, out) == (2, "")
    assert "Not a directory: choose another place" in err


def test_growth_goes_through_sizes_and_then_classes_one_image_at_a_time():
    plan = Plan(
        backbones=("a",), sizes=(448,), actions=(Action.STEP,), growth_sizes=(224, 448), growth_classes=(10, 99)
    )
    cells = [(case.size, case.num_classes, case.batch) for case in plan.growth_cases()]
    assert cells == [(224, 200, 1), (448, 200, 1), (448, 10, 1), (448, 99, 1)]
