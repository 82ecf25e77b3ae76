"""Ctrl-C while the processes of a loader start: it reaches every process of a terminal."""

import multiprocessing
import os
import signal
from multiprocessing import popen_fork, process

import pytest
from PIL import Image

from finevote.build import build_eval_loader
from finevote.data.images import read_record
from finevote.types import Preprocessing, Record

pytestmark = pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="it begins anew elsewhere")


@pytest.fixture(autouse=True)
def _interrupts_act():
    """Whatever other tests left: SIGINT raises KeyboardInterrupt, as in a command."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def loader(tmp_path):
    Image.new("RGB", (30, 24), (255, 0, 0)).save(tmp_path / "red.png")
    records = [Record(f"{number}", number % 2, tmp_path / "red.png") for number in range(6)]
    view = Preprocessing((16, 16), (20, 20), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return build_eval_loader(records, read=read_record, preprocessing=view, batch_size=2, num_workers=2)


def before(monkeypatch, owner, name, act):
    original = getattr(owner, name)

    def act_first(*arguments, **options):
        act()
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, act_first)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_a_process_that_it_reaches_too_early_lives_on(loader, monkeypatch):
    before(monkeypatch, process.BaseProcess, "_bootstrap", interrupt)  # the first that a new process does
    assert [batch.indices.tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5]]


def test_it_acts_once_the_processes_are_there(loader, monkeypatch):
    started = []
    before(monkeypatch, popen_fork.Popen, "_launch", lambda: started.append(interrupt()))
    with pytest.raises(KeyboardInterrupt):
        iter(loader)
    assert len(started) == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
