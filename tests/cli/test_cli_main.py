import argparse
import errno
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from kinema.cli import main as command
from kinema.cli.arguments import positive, size
from kinema.config import options_of
from kinema.errors import RequestError
from kinema.generation.request import Request


@pytest.fixture
def verb(monkeypatch):
    """A function that makes `kinema act` do what it is given."""

    def install(act):
        module = SimpleNamespace(
            __doc__="Acts.", add_arguments=lambda parser: parser.add_argument("words", nargs="*"), run=act
        )
        monkeypatch.setitem(sys.modules, "a_verb_of_the_tests", module)
        monkeypatch.setitem(command.VERBS, "act", ("a_verb_of_the_tests", "acts"))

    return install


def raises(error):
    def act(arguments):
        raise error

    return act


def test_help_lists_every_verb_and_imports_no_large_package():
    script = """
import sys
from kinema.cli.main import main
try:
    main(["--help"])
finally:
    print("imported:", *({"torch", "numpy", "av", "cv2", "rich", "PIL"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported:"
    for name, (_, help_line) in command.VERBS.items():
        assert f"{name} " in done.stdout
        assert help_line in done.stdout


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "kinema", "generat"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith("kinema: unknown verb 'generat'; did you mean 'generate'?")


@pytest.mark.parametrize("name", command.VERBS)
def test_every_verb_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main([name, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: kinema {name}")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["generate", "a fox", "-o", "a.mp4", "--stesp", "3"],
            "kinema: unrecognized arguments: --stesp 3; see 'kinema generate --help'\n",
        ),
        (
            ["generate", "a fox", "-o", "a.mp4", "--size", "12"],
            "kinema: argument --size: '12' is not a size: write WIDTHxHEIGHT in pixels, e.g. 128x128; "
            "see 'kinema generate --help'\n",
        ),
        (
            ["data", "build", "clips"],
            "kinema: the following arguments are required: -o/--out; see 'kinema data build --help'\n",
        ),
        (["--quiet"], "kinema: the following arguments are required: VERB; see 'kinema --help'\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_invalid_argument_is_one_line_and_exit_code_2(words, line, capsys):
    assert command.main(words) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", line)


def test_a_verb_gets_its_words_and_gives_the_exit_code(verb):
    seen = []
    verb(lambda arguments: seen.append(arguments.words) or 1)
    assert command.main(["act", "a", "b"]) == 1
    assert seen == [["a", "b"]]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RequestError("steps=0 is out of range:\n use 1"), "kinema: steps=0 is out of range: use 1\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out.mp4"),
            "kinema: out.mp4: No space left on device\n",
        ),
        (PermissionError(errno.EACCES, "Permission denied"), "kinema: Permission denied\n"),
        (OSError("the disk is gone"), "kinema: the disk is gone\n"),
        (MemoryError("Unable to allocate 46 TiB"), "kinema: out of memory: Unable to allocate 46 TiB\n"),
    ],
)
def test_what_a_user_can_put_right_is_one_line_and_exit_code_2(verb, capsys, error, line):
    verb(raises(error))
    assert command.main(["act"]) == 2
    assert capsys.readouterr().err == line


def test_ctrl_c_says_stopped(verb, capsys):
    verb(raises(KeyboardInterrupt()))
    assert command.main(["act"]) == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize("words", [["--debug", "act"], ["act", "--debug"], ["act", "a", "--debug", "b"]])
def test_debug_shows_where_an_error_came_from(verb, words):
    verb(raises(RequestError("no")))
    with pytest.raises(RequestError):
        command.main(words)


def test_debug_after_two_dashes_is_a_word_of_the_verb(verb, capsys):
    seen = []
    verb(lambda arguments: seen.extend(arguments.words) or raises(RequestError("no"))(arguments))
    assert command.main(["act", "--", "--debug"]) == 2
    assert seen == ["--debug"]


def test_our_own_mistakes_are_not_hidden(verb):
    verb(raises(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        command.main(["act"])


def test_a_size_is_width_then_height():
    assert size("128x96") == (128, 96)
    assert size(" 1280X720 ") == (1280, 720)


@pytest.mark.parametrize("text", ["128", "128x", "x128", "0x128", "128x-4", "1.5x2", "128*128"])
def test_what_is_no_size_is_an_error_that_shows_one(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"e\.g\. 128x128"):
        size(text)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many"])
def test_what_is_no_count_is_an_error(text):
    with pytest.raises(argparse.ArgumentTypeError, match="above zero"):
        positive(text)


@pytest.mark.parametrize("name", [name for name in options_of(Request) if name not in ("width", "height")])
def test_every_option_of_a_request_is_a_flag_with_its_help(name, capsys):
    with pytest.raises(SystemExit):
        command.main(["generate", "--help"])
    option = options_of(Request)[name][1]
    words = capsys.readouterr().out.split()
    assert "--" + (option.flag or name).replace("_", "-") in words
    assert " ".join(option.help.split()) in " ".join(words)


@pytest.mark.parametrize("name", [name for name, (_, option) in options_of(Request).items() if option.limits])
def test_a_value_outside_the_limits_of_a_field_is_refused_with_them(name):
    low, high = options_of(Request)[name][1].limits
    for value in (low - 1, 2 * high):
        with pytest.raises(
            RequestError, match=re.escape(f"{name}={value} is out of range: use {low} to {high}")
        ):
            Request("a fox", **{name: value})
