import contextlib

import psutil
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


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
        ),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: "
            "you tried to allocate 9 bytes."
        ),
        RuntimeError("MPS backend out of memory (MPS allocated: 20.48 GiB)."),
    ],
)
def test_a_failed_allocation_is_out_of_memory(error):
    assert device.is_out_of_memory(error)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: an illegal memory access was encountered",
        "unsupported operation: some elements of the input tensor refer to a single memory location",
        "shape '[2]' is invalid for input of size 3",
    ],
)
def test_other_errors_that_mention_memory_are_not(message):
    assert not device.is_out_of_memory(RuntimeError(message))


def test_the_cpu_allocator_raises_an_error_that_is_recognised():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**55, dtype=torch.uint8)
    assert device.is_out_of_memory(raised.value)


def test_the_cpu_has_used_some_memory():
    assert device.peak_memory_bytes(device.CPU) > 2**20


def test_free_memory_is_some_of_what_there_is():
    free = device.free_memory_bytes(device.CPU)
    assert free is not None
    assert 0 < free < psutil.virtual_memory().total
