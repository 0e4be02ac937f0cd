"""Devices: the only file that names cuda, npu, mps, xpu or cpu.

Everything else takes its device and dtype from its inputs. No float64 is used on the device path.
"""

import contextlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import psutil
import torch
from torch import Tensor

from kinema.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16"]

ACCELERATORS = ("cuda", "npu", "xpu", "mps")
CPU = torch.device("cpu")


def available() -> list[str]:
    """Names of the available device types, fastest first. The last is always the CPU."""
    names = [name for name in ACCELERATORS if hasattr(torch, name) and getattr(torch, name).is_available()]
    return [*names, "cpu"]


def pick_device(name: str = "auto") -> torch.device:
    """The device `name`; "auto" is the first accelerator, else the CPU. Raises `ConfigError` without it."""
    here = available()
    if name == "auto":
        return torch.device(here[0])
    if name.split(":")[0] not in here:
        raise ConfigError(f"device '{name}' is not available here (available: {', '.join(here)})")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"'{name}' names no device: write e.g. {here[0]} or {here[0]}:0") from error


def device_of_rank(device: torch.device, index: int) -> torch.device:
    """The accelerator of the `index`th process on this machine, which becomes the current one; a CPU is
    shared.

    Raises `ConfigError` if there are fewer accelerators.
    """
    if device.type == "cpu" or device.index is not None:
        return device
    count = getattr(torch, device.type).device_count()
    if index >= count:
        raise ConfigError(
            f"rank {index} of this machine has no {device.type} device of its own, there are {count}: "
            f"use --nproc-per-node {count}"
        )
    torch.accelerator.set_device_index(index)
    return torch.device(device.type, index)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is faster than float32 on `device`.

    A CPU without AVX512-BF16 or AMX emulates it: on an AVX2 machine a bf16 convolution was measured 50 times
    slower than fp32.
    """
    if device.type != "cpu":
        return True
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def has_slow_conv3d(device: torch.device) -> bool:
    """Whether a 3-D convolution is slower on `device` than a 2-D convolution with as many products."""
    return device.type == "cpu"


def uses_bf16(device: torch.device, precision: Precision) -> bool:
    """Whether `precision` means bfloat16 on this device; "auto" does where it is fast."""
    return precision == "bf16" or (precision == "auto" and has_fast_bf16(device))


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[object]:
    """Context in which matrix products and convolutions run in `precision`."""
    if uses_bf16(device, precision):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def weight_dtype(device: torch.device, precision: Precision) -> torch.dtype:
    """The dtype of weight matrices: the one that `precision` names, or bfloat16 where it is fast."""
    return torch.bfloat16 if uses_bf16(device, precision) else torch.float32


def describe_device(device: torch.device) -> str:
    """One line for logs and `kinema doctor`."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if device.type == "cpu":
        return f"cpu, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    return str(device)


def synchronize(device: torch.device) -> None:
    """Wait for the work of an accelerator. Does nothing on the CPU."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory held so far: allocated on the accelerator, or resident for the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "darwin":  # psutil reports no peak there
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(peak[1]) * 1024 if peak else psutil.Process().memory_info().rss


CGROUPS = {
    Path("/sys/fs/cgroup"): ("memory.max", "memory.current"),
    Path("/sys/fs/cgroup/memory"): ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}
"""Files with the memory limit and use of a Linux container, for cgroups version 2 and 1."""


def free_memory_bytes(device: torch.device) -> int | None:
    """Memory that is free now, in bytes; None for an accelerator that does not report it.

    On a CPU the limit of a container counts too.
    """
    if device.type != "cpu":
        module = getattr(torch, device.type)
        return int(module.mem_get_info(device)[0]) if hasattr(module, "mem_get_info") else None
    free = [int(psutil.virtual_memory().available)]
    for folder, (limit, used) in CGROUPS.items():
        with contextlib.suppress(OSError, KeyError, ValueError):  # no such file, or the word "max"
            numbers = _numbers(
                folder / "memory.stat"
            )  # files that are kept in memory are counted as used, and given up when asked for
            cached = numbers["inactive_file"] + numbers["active_file"]
            free.append(int((folder / limit).read_text()) - int((folder / used).read_text()) + cached)
    return max(0, min(free))


def _numbers(file: Path) -> dict[str, int]:
    """The number behind the first word of every line."""
    return {
        words[0]: int(words[1]) for line in file.read_text().splitlines() if len(words := line.split()) > 1
    }


OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",  # Linux and macOS
    "DefaultCPUAllocator: not enough memory",  # Windows
    "MPS backend out of memory",
)
"""Messages of the allocators that raise a plain RuntimeError (PyTorch 2.13)."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the host or on an accelerator."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in OUT_OF_MEMORY)


class Copier:
    """Copies from host memory to an accelerator, concurrent with its work if it has streams."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.module = getattr(torch, device.type)
        self.stream = self.module.Stream(device) if hasattr(self.module, "Stream") else None

    def hold(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`tensors` in the form from which they are copied: pinned memory if the accelerator has streams."""
        return {
            name: tensor if self.stream is None else tensor.pin_memory() for name, tensor in tensors.items()
        }

    def copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`tensors` on the device, once the copy is done. Blocks the calling thread."""
        if self.stream is None:
            return {name: tensor.to(self.device) for name, tensor in tensors.items()}
        # The copies are used on the default stream of the device, with which every thread starts.
        using = self.module.default_stream(self.device)
        with self.module.stream(self.stream):
            copied = {name: tensor.to(self.device, non_blocking=True) for name, tensor in tensors.items()}
        for tensor in copied.values():
            tensor.record_stream(using)  # keeps their memory until that use ends
        self.stream.synchronize()
        return copied
