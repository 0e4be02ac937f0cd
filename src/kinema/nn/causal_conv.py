"""Convolutions that are causal in time, and the cache with which they run over a video of any length.

A layer pads time with zeros at the start only. Without a cache its input is the whole video (the one-pass
form). With a `FeatureCache` its input is the next chunk, and the cache keeps the last frames that the
following chunk needs.

"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kinema.device import has_slow_conv3d
from kinema.shapes import Float

GROUP_ELEMENTS = 2**23
"""Elements of stacked frames per convolution without gradients, which bounds memory. At least two frames."""


class FeatureCache:
    """The last input frames of every layer of a causal network, for one video.

    All state of a stream is here, so that one network can process many streams at a time. The outermost call
    of the network sets `is_first` to False after each chunk. Histories are detached: no gradient flows
    through them.
    """

    def __init__(self) -> None:
        self.is_first = True
        self._histories: dict[nn.Module, Tensor] = {}

    def past(self, layer: nn.Module) -> Tensor | None:
        """The last input frames of `layer`, None at the start. `keep` overwrites them."""
        return self._histories.get(layer)

    def keep(self, layer: nn.Module, x: Float[Tensor, "b c f h w"], num_frames: int) -> None:
        """Store the last `num_frames` input frames of `layer`, of which `x` are the newest."""
        history = self._histories.get(layer)
        recent = x.detach()[:, :, -num_frames:]
        missing = num_frames - recent.shape[2]
        if missing > 0 and history is not None:
            recent = torch.cat([history[:, :, -missing:], recent], dim=2)
        if history is not None and history.shape == recent.shape:
            # In the same place: new memory for each chunk would leave gaps among what a chunk needs, and the
            # peak would grow with length.
            history.copy_(recent)
        else:
            # A copy: a slice would keep the whole chunk in memory.
            self._histories[layer] = recent.clone()

    def size_bytes(self) -> int:
        """Bytes held for the next chunk."""
        return sum(history.numel() * history.element_size() for history in self._histories.values())


def causal_conv3d(
    x: Float[Tensor, "b c f h w"],
    weight: Float[Tensor, "c_out c kf kh kw"],
    bias: Float[Tensor, "c_out"],
    history: Float[Tensor, "b c f_past h w"] | None = None,
) -> Float[Tensor, "b c_out f h w"]:
    """The convolution of `x` in which frame f depends on frames up to f, with stride one and unchanged size.

    Kernels are odd in space. `history` holds the frames before `x`; earlier frames are zeros. A single frame
    without a history depends only on the last slice of the kernel and is convolved in two dimensions, at 1/kf
    of the cost. Where `has_slow_conv3d` the frames that the kernel spans are stacked as channels and
    convolved in two dimensions.
    """
    _, _, kf, kh, kw = weight.shape
    padding = (kh // 2, kw // 2)
    if history is None and x.shape[2] == 1:
        return F.conv2d(x.squeeze(2), weight[:, :, -1], bias, padding=padding).unsqueeze(2)
    if history is not None:
        x = torch.cat([history, x], dim=2)
    num_zeros = kf - 1 - (0 if history is None else history.shape[2])
    if num_zeros > 0:
        x = F.pad(x, (0, 0, 0, 0, num_zeros, 0))
    return conv3d(x, weight, bias, padding=padding)


def conv3d(
    x: Float[Tensor, "b c f h w"],
    weight: Float[Tensor, "c_out c kf kh kw"],
    bias: Float[Tensor, "c_out"],
    *,
    padding: tuple[int, int] = (0, 0),
    stride_time: int = 1,
) -> Float[Tensor, "b c_out f_out h_out w_out"]:
    """The convolution of `x`, padded in space only.

    On a CPU a 2-D convolution of stacked frames is 2 to 9 times as fast as the 3-D one of oneDNN
    (`bench/conv_forms.py`). It sums in another order.
    """
    if not has_slow_conv3d(x.device):
        return F.conv3d(x, weight, bias, padding=(0, *padding), stride=(stride_time, 1, 1))
    frames = x.movedim(1, -1)
    b, num_read, h, w, c = frames.shape
    kf = weight.shape[2]
    last = num_read - kf + 1
    flat = rearrange(weight, "c_out c kf kh kw -> c_out (kf c) kh kw")

    def convolved(first: int, stop: int) -> Tensor:
        """Output frames `first` to `stop` (exclusive), without padding in time."""
        slices = [
            frames[:, k + stride_time * first : k + min(last, stride_time * stop) : stride_time]
            for k in range(kf)
        ]
        stacked = rearrange(torch.cat(slices, dim=-1) if kf > 1 else slices[0], "b f h w c -> (b f) c h w")
        return rearrange(F.conv2d(stacked, flat, bias, padding=padding), "(b f) c h w -> b f h w c", b=b)

    num_frames = -(-last // stride_time)
    group = max(2, GROUP_ELEMENTS // (b * kf * c * h * w))
    if kf == 1 or group >= num_frames or torch.is_grad_enabled():
        return convolved(0, num_frames).movedim(-1, 1)
    made = convolved(0, group)
    out = made.new_empty(b, num_frames, *made.shape[2:])
    out[:, :group] = made
    del made
    for first in range(group, num_frames, group):
        out[:, first : first + group] = convolved(first, first + group)
    return out.movedim(-1, 1)


class CausalConv3d(nn.Conv3d):
    """A 3-D convolution of stride one with all temporal padding, kf - 1 zeros, at the start."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int, int]) -> None:
        super().__init__(in_channels, out_channels, kernel_size)
        self.num_past = self.kernel_size[0] - 1

    def forward(
        self, x: Float[Tensor, "b c f h w"], cache: FeatureCache | None = None
    ) -> Float[Tensor, "b c_out f h w"]:
        """The convolution of `x`, preceded by the frames in `cache` if there is one."""
        assert self.bias is not None, "causal convolutions have a bias"
        if cache is None or not self.num_past:
            return causal_conv3d(x, self.weight, self.bias)
        out = causal_conv3d(x, self.weight, self.bias, cache.past(self))
        cache.keep(self, x, self.num_past)
        return out
