"""Mistakes on the command line: one line that says what was wrong, and exit code 2."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("predict",), "missing argument 'RUN' (see `finevote predict --help`)"),
        (("predict", "run", "a.jpg", "--top", "0"), "invalid value for '--top'"),
        (
            ("evaluate", "run", "--split", "train"),
            "'train' is not one of 'val', 'test' (see `finevote evaluate --help`)",
        ),
        (("evaluate", "run", "--sabed"), "--sabed"),
        (("evaluat", "run"), "'evaluat'"),
        (("data", "shwo", "x"), "(see `finevote data --help`)"),
        (("sweep", "demo", "synthetic", "--seeds", "five"), "invalid value for '--seeds'"),
    ],
)
def test_what_the_parser_refuses_is_one_line_too(run, arguments, words):
    code, out, err = run(*arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith("error: ")
    assert words in err


@pytest.mark.parametrize("arguments", [(), ("data",)])
def test_a_group_of_commands_alone_gives_its_help(run, arguments):
    code, out, err = run(*arguments)
    assert code == 2
    assert f"Usage: finevote {' '.join([*arguments, '[OPTIONS]'])} COMMAND" in out + err
    assert "error:" not in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--sets", "aps"), "--sets without --coverage"),
        (("--each-class",), "--each-class without --coverage"),
        (("--each-class", "--sets", "raps", "--false-alarms", "0.1"), "--sets and --each-class without --coverage"),
        (("--unknown-by", "energy"), "--unknown-by without --false-alarms"),
        (("--unknown-by", "energy", "--coverage", "0.9"), "--unknown-by without --false-alarms"),
        (("--top", "3", "--coverage", "0.9"), "--top with --coverage: a set has as many classes as it takes"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused_before_anything_is_loaded(run, options, words):
    code, _, err = run("predict", "no-run", "a.jpg", *options)
    assert (code, len(err.splitlines())) == (2, 1)
    assert words in err
