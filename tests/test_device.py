import contextlib
import os

import pytest
import torch

from kinema import device
from kinema.errors import ConfigError


def test_the_cpu_is_always_there_and_last():
    assert device.available()[-1] == "cpu"


def test_auto_takes_the_first_available():
    assert device.pick_device().type == device.available()[0]


def test_a_device_that_is_not_here_is_an_error_that_lists_those_that_are():
    with pytest.raises(ConfigError, match=r"device 'tpu:0' is not available here \(available: .*cpu\)"):
        device.pick_device("tpu:0")


@pytest.mark.parametrize("name", device.available())
def test_every_available_device_computes_and_describes_itself(name):
    here = device.pick_device(name)
    assert torch.ones(2, device=here).sum().item() == 2
    device.synchronize(here)
    assert device.peak_memory_bytes(here) >= 0
    assert "\n" not in device.describe_device(here)


def test_fp32_is_left_alone():
    with device.autocast(device.CPU, "fp32"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_bf16_is_used_when_asked_for():
    with device.autocast(device.CPU, "bf16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_auto_uses_bf16_only_where_it_is_fast(monkeypatch):
    monkeypatch.setattr(device, "has_fast_bf16", lambda device: False)
    assert isinstance(device.autocast(device.CPU, "auto"), contextlib.nullcontext)
    monkeypatch.setattr(device, "has_fast_bf16", lambda device: True)
    assert isinstance(device.autocast(device.CPU, "auto"), torch.autocast)


def test_the_cpu_has_used_some_memory():
    assert device.peak_memory_bytes(device.CPU) > 2**20


def test_free_memory_is_some_of_what_there_is():
    free = device.free_memory_bytes(device.CPU)
    assert free is None or 0 < free < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
