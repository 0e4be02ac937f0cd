"""CPU milliseconds of a causal 3x3x3 convolution in float32, as a 3D and as a 2D convolution.

    python bench/conv_forms.py

The 2D form stacks the frames of the kernel as channels. Sizes are those of a decoder of base 32 for 96x96
pixels and four frames. Reported is the minimum of three runs on one thread.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from kinema.nn.causal_conv import conv3d


def milliseconds(run: Callable[[], Tensor]) -> float:
    """The least of three runs after one."""
    run()
    times = []
    for _ in range(3):
        begun = time.process_time()
        run()
        times.append(time.process_time() - begun)
    return 1000 * min(times)


@torch.inference_mode()
def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for channels, side in ((32, 96), (64, 48), (128, 24), (128, 12)):
        x = torch.randn(1, channels, 6, side, side).contiguous(memory_format=torch.channels_last_3d)
        weight, bias = torch.randn(channels, channels, 3, 3, 3) / 50, torch.randn(channels)
        gflop = 2 * 27 * channels**2 * side**2 * 4 / 1e9
        deep = milliseconds(lambda x=x, w=weight, b=bias: F.conv3d(x, w, b, padding=(0, 1, 1)))
        flat = milliseconds(lambda x=x, w=weight, b=bias: conv3d(x, w, b, padding=(1, 1)))
        print(
            f"{channels} channels, {side}x{side}: conv3d {deep:.1f} ms ({gflop / deep * 1e3:.0f} GFLOP/s), "
            f"stacked {flat:.1f} ms ({gflop / flat * 1e3:.0f} GFLOP/s), {deep / flat:.1f} times as fast",
            flush=True,
        )


if __name__ == "__main__":
    main()
