import pytest

from kinema.errors import KinemaError, UnknownName
from kinema.registry import lookup, nearest, unknown

SAMPLERS = {"euler": 1, "heun": 2, "ddim": 3}


def test_lookup_gives_the_entry():
    assert lookup(SAMPLERS, "heun", kind="sampler") == 2


def test_an_unknown_name_lists_the_known_ones_and_the_nearest():
    with pytest.raises(
        UnknownName, match=r"^unknown sampler 'eular'; did you mean 'euler'\? \(known: ddim, euler, heun\)$"
    ):
        lookup(SAMPLERS, "eular", kind="sampler")


def test_no_hint_is_given_when_nothing_is_near():
    assert nearest("zzz", SAMPLERS) is None
    assert unknown("sampler", "zzz", SAMPLERS) == "unknown sampler 'zzz' (known: ddim, euler, heun)"


def test_an_unknown_name_is_an_error_that_the_command_line_prints():
    assert issubclass(UnknownName, KinemaError)
