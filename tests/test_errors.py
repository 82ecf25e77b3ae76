import pytest

from finevote.errors import DataError, MissingExtraError, find_known_error, plain_message

TRACE = 'Traceback (most recent call last):\n  File "loop.py", line 1, in run\n'
CHAINED = f"{TRACE}OSError: no\n\nThe above exception was the direct cause of the following exception:\n\n{TRACE}"
UNREADABLE = "finevote.errors.DataError: 2 images cannot be read:\n  a.jpg\n  b.jpg\n"


@pytest.mark.parametrize(
    "before", [TRACE, CHAINED, f"{TRACE}finevote.errors.DataError: Caught DataError in a worker.\nOriginal {TRACE}"]
)
def test_an_error_of_ours_in_another_process_is_known_again(before):
    error = find_known_error(f"\n\n-- Process 1 terminated with the following error:\n{before}{UNREADABLE}")
    assert isinstance(error, DataError)
    assert str(error) == "2 images cannot be read:\n  a.jpg\n  b.jpg"


def test_an_error_with_arguments_of_its_own_is_known_again():
    error = MissingExtraError("onnx", "export")
    known = find_known_error(f"{TRACE}finevote.errors.MissingExtraError: {error}\n")
    assert isinstance(known, MissingExtraError)
    assert str(known) == str(error)


@pytest.mark.parametrize(
    "trace",
    [
        f"{TRACE}RuntimeError: out of memory",
        "finevote.errors.NoSuchError: what",
        f"{TRACE}{UNREADABLE}\nDuring handling of the above exception, another exception occurred:\n\n{TRACE}OSError",
    ],
)
def test_any_other_error_is_not(trace):
    assert find_known_error(trace) is None


def test_a_message_without_a_trace_stays_as_it_is():
    assert plain_message(DataError("no such folder:\n  a")) == "no such folder:\n  a"
