"""Milliseconds of a pass in the shape of Wan 2.1 1.3B, 32,760 tokens, bf16, on a GPU, eager and compiled.

    python bench/gpu_forward.py                 # under 8 minutes on one H100
    python bench/gpu_forward.py --tiny --device cpu      # the same code at a tiny size, in float32

If diffusers is installed, its transformer runs alternately on the same weights. The text has 120 tokens of
512. Its keys and values are computed before the timed pass here, as in sampling, and in every pass of
diffusers. The error is relative to diffusers (to our eager pass if diffusers is missing). Operations are
counted dense: attention, matrices, cross-attention.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kinema.checkpoints.components import with_weights
from kinema.checkpoints.key_maps import dit_diffusers_config, dit_to_diffusers
from kinema.device import describe_device, pick_device, synchronize
from kinema.models.conditioning import Conditioning, TextStates
from kinema.models.dit import DiT, DiTConfig

WAN_13B = DiTConfig(d=1536, num_layers=30, num_heads=12, ffn_dim=8960, text_dim=4096, text_padding="zeros")
TINY = DiTConfig(d=96, num_layers=2, num_heads=2, ffn_dim=192, text_dim=32, text_padding="zeros")


@dataclass(frozen=True)
class Case:
    """What is run: latents, text and how often."""

    config: DiTConfig
    grid: tuple[int, int, int]
    dtype: torch.dtype
    passes: int

    @property
    def tokens(self) -> int:
        """Tokens of the clip."""
        lf, lh, lw = self.grid
        return lf * lh * lw // 4

    @property
    def operations(self) -> float:
        """Dense floating-point operations of a forward pass with prepared text (sum over blocks)."""
        n, d, c = self.tokens, self.config.d, self.config
        return c.num_layers * (
            n * (12 * d * d + 4 * d * c.ffn_dim) + 4 * n * n * d + 4 * n * c.text_length * d
        )


FULL = Case(WAN_13B, (21, 60, 104), torch.bfloat16, 5)
SMALL = Case(TINY, (2, 8, 8), torch.float32, 2)


def timed(run: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, float]:
    """The result and the seconds of one pass."""
    synchronize(device)
    begun = time.perf_counter()
    out = run()
    synchronize(device)
    return out, time.perf_counter() - begun


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiny", action="store_true", help="a tiny network in float32")
    parser.add_argument("--no-compile", action="store_true", help="eager alone")
    arguments = parser.parse_args()
    case, device = SMALL if arguments.tiny else FULL, pick_device(arguments.device)
    torch.manual_seed(0)
    config = case.config
    dit = DiT(config)
    torch.nn.init.normal_(dit.head.projection.weight, std=0.02)
    state = dit.state_dict()
    dit = with_weights(dit, state, device, case.dtype)
    x = torch.randn(1, config.in_channels, *case.grid, device=device, dtype=case.dtype)
    t = torch.tensor([0.5], device=device)
    words = torch.randn(120, config.text_dim, device=device, dtype=case.dtype)
    text = dit.prepare(Conditioning(TextStates(words, (120,))))
    ways: dict[str, Callable[[], Tensor]] = {"ours, eager": lambda: dit.predict(x, t, text)}
    if importlib.util.find_spec("diffusers"):
        from diffusers import WanTransformer3DModel

        peer = WanTransformer3DModel.from_config(dit_diffusers_config(config)).eval()
        peer.load_state_dict(dit_to_diffusers(state, config))
        for name, parameter in peer.named_parameters():  # as from_pretrained does it
            is_kept = any(part in name for part in peer._keep_in_fp32_modules)
            parameter.data = parameter.data.to(device, torch.float32 if is_kept else case.dtype)
        peer.to(device)
        padded = torch.nn.functional.pad(words, (0, 0, 0, config.text_length - 120)).unsqueeze(0)
        ways["diffusers, eager"] = lambda: peer(x, 1000 * t, padded, return_dict=False)[0]
    print(
        f"{describe_device(device)}, torch {torch.__version__}: {case.tokens} tokens, {case.dtype}, "
        f"{case.operations / 1e12:.3g} TFLOP a pass"
    )
    reference = ways.get("diffusers, eager", ways["ours, eager"])().float()
    compare(ways, reference, case, device)
    if arguments.no_compile:
        return
    dit.blocks = torch.nn.ModuleList(torch.compile(block) for block in dit.blocks)  # type: ignore[misc]
    compiled = {"ours, compiled": ways["ours, eager"]}
    if "diffusers, eager" in ways:
        peer.blocks = torch.nn.ModuleList(torch.compile(block) for block in peer.blocks)
        compiled["diffusers, compiled"] = ways["diffusers, eager"]
    compare(compiled, reference, case, device)


def compare(
    ways: dict[str, Callable[[], Tensor]], reference: Tensor, case: Case, device: torch.device
) -> None:
    """Print a line per variant. They run alternately after a first pass, whose time includes compilation."""
    first = {name: timed(run, device) for name, run in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(case.passes):
        for name, run in ways.items():
            seconds[name].append(timed(run, device)[1])
    for name, (out, begin_s) in first.items():
        error = ((out.float() - reference).abs().max() / reference.abs().max()).item()
        median = statistics.median(seconds[name])
        print(
            f"{name}: {1000 * median:.1f} ms "
            f"({1000 * min(seconds[name]):.1f} to {1000 * max(seconds[name]):.1f}), "
            f"{case.operations / median / 1e12:.3g} TFLOP/s, first pass {begin_s:.1f} s, error {error:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
