import os
import pickle
import sys
import types

import pytest
import torch

from finevote.backbones.weight_files import read_weight_file
from finevote.errors import WeightsError

STATE = {"blocks.0.norm1.weight": torch.arange(3.0)}


@pytest.fixture
def settings_kind(monkeypatch):
    """A dict that pickles under the name of yacs's settings, as they do: with attributes of its own."""
    kind = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    module = types.ModuleType("yacs.config")
    module.CfgNode = kind
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    return kind


def write(path, content, monkeypatch):
    """Save, and forget yacs, which a reader need not have."""
    torch.save(content, path)
    monkeypatch.delitem(sys.modules, "yacs.config")
    monkeypatch.delitem(sys.modules, "yacs")
    return path


def test_yacs_settings_beside_the_weights_are_read_as_plain_values(tmp_path, settings_kind, monkeypatch):
    inner = settings_kind(dataset="cub", betas=(0.9, 0.999), clip=None)
    inner.__dict__["__immutable__"] = True
    settings = settings_kind(data=inner)
    path = write(tmp_path / "old.bin", {"model": STATE, "config": settings, "epoch": 3}, monkeypatch)
    content = read_weight_file(path)
    assert torch.equal(content.tensors["blocks.0.norm1.weight"], torch.arange(3.0))
    assert content.beside == {
        "config": {"data": {"dataset": "cub", "betas": [0.9, 0.999], "clip": None}},
        "epoch": 3,
    }


def test_settings_that_carry_attributes_named_like_methods_are_read_all_the_same(tmp_path, settings_kind, monkeypatch):
    class Settings:
        def __reduce__(self):
            attributes = {"items": "no method", "get": "neither", "keys": "nor this"}
            return settings_kind, (), attributes, None, iter([("data", "cub")])

    path = write(tmp_path / "old.bin", {"model": STATE, "config": Settings()}, monkeypatch)
    assert read_weight_file(path).beside == {"config": {"data": "cub"}}


def test_code_that_calls_itself_yacs_settings_is_refused_and_nothing_runs(tmp_path, settings_kind, monkeypatch):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    class Factory:
        """A call of the settings' name with an argument that would have to be made by code."""

        def __reduce__(self):
            return settings_kind, ({"data": Malicious()},)

    class State:
        """Settings whose attributes would be set by code."""

        def __reduce__(self):
            return settings_kind, (), {"__class__": Malicious()}

    for name, content in (("call", Factory()), ("state", State()), ("value", settings_kind(data=Malicious()))):
        with monkeypatch.context() as patch:
            path = write(tmp_path / f"{name}.bin", {"model": STATE, "config": content}, patch)
            with pytest.raises(WeightsError, match="python objects besides tensors and is not opened"):
                read_weight_file(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "posix.system"])
def test_an_attribute_of_yacs_settings_cannot_be_reached_for_code(tmp_path, target):
    module, name = target.rsplit(".", 1)
    command = f"mkdir {tmp_path / 'ran'}"
    program = b"\x80\x02" + f"c{module}\n{name}\n".encode() + pickle.dumps(command, 2)[2:-1] + b"\x85R."
    (tmp_path / "bad.pth").write_bytes(program)
    with pytest.raises(WeightsError, match="could run code"):
        read_weight_file(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()


def test_nothing_stays_allowed_after_a_file_was_read(tmp_path):
    torch.save(STATE, tmp_path / "weights.pth")
    allowed = set(torch.serialization.get_safe_globals())
    read_weight_file(tmp_path / "weights.pth")
    assert set(torch.serialization.get_safe_globals()) == allowed


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80", b"PK\x03\x04" + bytes(60), bytes(8) + b"{", b"\xff" * 40])
def test_bytes_that_are_no_weights_are_refused(tmp_path, content):
    (tmp_path / "weights").write_bytes(content)
    with pytest.raises(WeightsError, match=r"is not a weight file|cannot be read|is not opened"):
        read_weight_file(tmp_path / "weights")


def test_numbers_without_tensors_are_no_state_dict(tmp_path):
    torch.save({"model": {"epoch": 3}}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="holds a dict, not a state_dict of tensors"):
        read_weight_file(tmp_path / "weights.pth")
