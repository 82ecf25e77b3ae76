import errno
import pickle

import pytest
import torch

from finevote.config import Config
from finevote.errors import RunError, StorageError
from finevote.training.checkpoint import config_hash, load_best, load_checkpoint, save_checkpoint

STATE = {"model": {"weight": torch.arange(4000.0)}, "epoch": 3, "best": {"top1": 0.5}}


def test_a_checkpoint_comes_back_equal(tmp_path):
    save_checkpoint(tmp_path / "last.pt", STATE)
    loaded = load_checkpoint(tmp_path / "last.pt")
    assert torch.equal(loaded["model"]["weight"], STATE["model"]["weight"])
    assert loaded["epoch"] == 3
    assert loaded["best"] == {"top1": 0.5}
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.99])
def test_a_cut_file_is_named_with_the_other_checkpoint(tmp_path, share):
    save_checkpoint(tmp_path / "best.pt", STATE)
    save_checkpoint(tmp_path / "last.pt", STATE)
    whole = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(RunError, match=r"last\.pt is cut short or is not .*; .*best\.pt is whole: copy it to"):
        load_checkpoint(tmp_path / "last.pt")


def test_a_cut_file_alone_says_to_start_anew(tmp_path):
    (tmp_path / "last.pt").write_bytes(b"PK\x03\x04 not much")
    with pytest.raises(RunError, match="there is no other checkpoint beside it that can be read: start the run anew"):
        load_checkpoint(tmp_path / "last.pt")


def test_a_broken_best_checkpoint_is_not_offered(tmp_path):
    for name in ("last.pt", "best.pt"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 not much")
    with pytest.raises(RunError, match="no other checkpoint beside it that can be read: start the run anew"):
        load_checkpoint(tmp_path / "last.pt")


def test_the_last_checkpoint_is_never_offered_for_the_best(tmp_path):
    save_checkpoint(tmp_path / "last.pt", STATE)
    (tmp_path / "best.pt").write_bytes(b"PK\x03\x04 not much")
    with pytest.raises(RunError, match="no other file holds the weights of the best epoch: start the run") as caught:
        load_checkpoint(tmp_path / "best.pt")
    assert "copy" not in str(caught.value)


def test_a_file_that_may_not_be_read_is_not_called_broken(tmp_path, monkeypatch):
    def locked(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(torch, "load", locked)
    with pytest.raises(RunError, match=r"^cannot read .*last\.pt: Permission denied; check its permissions$"):
        load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize(
    ("position", "is_best"),
    [
        ({"epoch": 2, "step": 0, "best": {"epoch": 2}}, True),
        ({"epoch": 3, "step": 0, "best": {"epoch": 2}}, False),
        ({"epoch": 2, "step": 1, "best": {"epoch": 2}}, False),
        ({"epoch": 2, "step": 0, "best": None}, False),
    ],
)
def test_the_best_checkpoint_must_hold_the_weights_of_the_best_epoch(tmp_path, position, is_best):
    save_checkpoint(tmp_path / "best.pt", STATE | {"position": position})
    if is_best:
        assert load_best(tmp_path / "best.pt")["position"] == position
        return
    with pytest.raises(RunError, match=r"best\.pt holds the weights after . epochs, but the best epoch is .*start"):
        load_best(tmp_path / "best.pt")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RunError, match=r"there is no checkpoint .*last\.pt"):
        load_checkpoint(tmp_path / "last.pt")


def test_a_checkpoint_of_another_program_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "last.pt")
    with pytest.raises(RunError, match="not a checkpoint of this version of finevote"):
        load_checkpoint(tmp_path / "last.pt")


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("code in the file was run",))


def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path):
    torch.save({"format": Trap()}, tmp_path / "last.pt", pickle_module=pickle)
    with pytest.raises(RunError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "last.pt")


def test_a_full_disk_keeps_the_old_checkpoint_and_says_how_much_room_there_is(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "last.pt", STATE)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*last\.pt: No space left.*MiB free there"):
        save_checkpoint(tmp_path / "last.pt", STATE | {"epoch": 4})
    assert load_checkpoint(tmp_path / "last.pt")["epoch"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_the_config_hash_tells_settings_apart():
    config = Config()
    other = config.model_copy(update={"training": config.training.model_copy(update={"seed": 1})})
    assert config_hash(config) == config_hash(Config())
    assert config_hash(config) != config_hash(other)
