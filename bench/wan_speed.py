"""Seconds of our backbone and VAE next to diffusers on the same weights, in turns, each with its error.

    python bench/wan_speed.py [--pairs 5] [--parts backbone,decode] [--forms fp32,compiled] [--frames 17]

The first line names the CPU and PyTorch's instruction set: a figure holds for that CPU. Forms:

fp32      both in float32
bf16      ours under autocast, diffusers' weights and inputs in bfloat16; by default where bf16 is fast
compiled  both in float32, diffusers by torch.compile, ours as it is; compilation is timed apart

Times are CPU seconds of one thread, wall-clock seconds in brackets. The ratio is the median of the pairs'
CPU seconds, with the least and the greatest. Errors are relative to diffusers in float32: PSNR over the
range of its output, ours and then diffusers'. The text is 40 tokens of 512. The VAE has the shape of Wan
2.1's with 32 channels for 96; its videos are 96x96. "bound" is the time of the backbone's matrix products
and attention alone, the lower limit for that dtype.
"""

import argparse
import copy
import platform
import re
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor

from kinema.checkpoints.key_maps import dit_diffusers_config, dit_to_diffusers, vae_diffusers_config
from kinema.device import CPU, Precision, autocast, has_fast_bf16
from kinema.models.conditioning import Conditioning, TextStates
from kinema.models.dit import DiT, DiTConfig
from kinema.models.vae import VAE, VAEConfig

DIT = DiTConfig(d=768, num_layers=4, num_heads=6, ffn_dim=3072, text_dim=512, text_padding="zeros")
CODEC = VAEConfig(
    base_dim=32,
    dim_mult=(1, 2, 4, 4),
    num_res_blocks=2,
    z_dim=16,
    temporal_downsample=(False, True, True),
    patch_size=1,
)


Run = Callable[[], Tensor]
FORMS = ("fp32", "bf16", "compiled")


def cpu_name() -> str:
    """The CPU's model, or its architecture where no file names the model."""
    file = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", file.read_text()) if file.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def psnr(values: Tensor, exact: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, over the range of `exact`."""
    error = (values.float() - exact).square().mean().clamp_min(1e-20)
    return 10 * torch.log10((exact.max() - exact.min()) ** 2 / error).item()


def compare(name: str, ours: Run, theirs: Run, exact: Tensor, pairs: int) -> None:
    """Print one line: seconds of both, the ratio, and both errors."""
    begun = time.perf_counter()
    second = theirs()
    first_call = time.perf_counter() - begun
    errors = psnr(ours(), exact), psnr(second, exact)
    times = []
    for _ in range(pairs):
        row = []
        for run in (ours, theirs):
            begun, begun_wall = time.process_time(), time.perf_counter()
            run()
            row += [time.process_time() - begun, time.perf_counter() - begun_wall]
        times.append(row)
    ratios = sorted(row[2] / row[0] for row in times)
    mine, mine_wall, peer, peer_wall = (statistics.median(column) for column in zip(*times))
    print(
        f"{name}: {mine:.3f} s ({mine_wall:.3f}), diffusers {peer:.3f} s ({peer_wall:.3f}), "
        f"{statistics.median(ratios):.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f}), "
        f"{errors[0]:.1f} and {errors[1]:.1f} dB; first call of diffusers {first_call:.1f} s",
        flush=True,
    )


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    forms = "fp32,bf16,compiled" if has_fast_bf16(CPU) else "fp32,compiled"
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--parts", default="backbone,decode,encode", help="which of these, between commas")
    parser.add_argument("--forms", default=forms, help=f"which of {', '.join(FORMS)} (default: {forms})")
    parser.add_argument("--frames", type=int, default=17, help="frames of the VAE's videos, 4k+1")
    arguments = parser.parse_args()
    parts, forms = arguments.parts.split(","), arguments.forms.split(",")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    cpu = f"{cpu_name()}, {torch.backends.cpu.get_cpu_capability()}"
    bf16 = "with fast bf16" if has_fast_bf16(CPU) else "bf16 is emulated"
    packages = f"torch {torch.__version__}, diffusers {version('diffusers')}"
    print(f"{cpu}, {bf16}, one thread, {packages}", flush=True)
    if "backbone" in parts:
        backbone(arguments.pairs, forms)
    codec(arguments.pairs, arguments.frames, [part for part in parts if part != "backbone"], forms)


def backbone(pairs: int, forms: list[str]) -> None:
    """Compare forward passes."""
    dit = DiT(DIT).eval()
    torch.nn.init.normal_(dit.head.projection.weight, std=0.02)
    peer = WanTransformer3DModel.from_config(dit_diffusers_config(DIT)).eval()
    peer.load_state_dict(dit_to_diffusers(dit.state_dict(), DIT))
    half, compiled = copy.deepcopy(peer).bfloat16(), torch.compile(peer)
    states = torch.randn(40, 512)
    padded = torch.nn.functional.pad(states, (0, 0, 0, 472)).unsqueeze(0)
    text = dit.prepare(Conditioning(TextStates(states, (40,))))
    t = torch.tensor([0.5])
    for lf, lh, lw in ((5, 16, 16), (5, 32, 32)):
        x = torch.randn(1, 16, lf, lh, lw)
        tokens = lf * lh * lw // 4

        def ours(precision: Precision, x: Tensor = x) -> Tensor:
            with autocast(CPU, precision):
                return dit.predict(x, t, text)

        def theirs(model: torch.nn.Module, dtype: torch.dtype = torch.float32, x: Tensor = x) -> Tensor:
            return model(x.to(dtype), 1000 * t, padded.to(dtype), return_dict=False)[0]

        exact = theirs(peer)
        runs: dict[str, tuple[Run, Run]] = {
            "fp32": (lambda: ours("fp32"), lambda: theirs(peer)),
            "bf16": (lambda: ours("bf16"), lambda: theirs(half, torch.bfloat16)),
            "compiled": (lambda: ours("fp32"), lambda: theirs(compiled)),
        }
        for form in forms:
            compare(f"backbone, {tokens} tokens, {form}", *runs[form], exact, pairs)
        for dtype in (torch.float32, *[torch.bfloat16] * ("bf16" in forms)):
            times = []
            for _ in range(pairs + 1):
                begun = time.process_time()
                products(tokens, len(states) + 1, dtype)
                times.append(time.process_time() - begun)
            print(f"bound, {tokens} tokens, {dtype}: {statistics.median(times[1:]):.3f} s", flush=True)


def products(tokens: int, text: int, dtype: torch.dtype) -> None:
    """Do the matrix products and the attention of a forward pass, and nothing between them."""
    d, wide, heads, head_dim = DIT.d, DIT.ffn_dim, DIT.num_heads, DIT.head_dim
    draw = partial(torch.randn, dtype=dtype)
    square, expand, project, bias = draw(d, d), draw(wide, d), draw(d, wide), draw(wide)
    x, hidden = draw(tokens, d), draw(tokens, wide)
    q, context = draw(1, heads, tokens, head_dim), draw(1, heads, text, head_dim)
    for _ in range(DIT.num_layers):
        for _ in range(6):
            torch.nn.functional.linear(x, square, bias[:d])
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
        torch.nn.functional.scaled_dot_product_attention(q, context, context)
        torch.nn.functional.linear(x, expand, bias)
        torch.nn.functional.linear(hidden, project, bias[:d])


def codec(pairs: int, frames: int, parts: list[str], forms: list[str]) -> None:
    """Compare decoding and encoding, whichever is in `parts`."""
    vae = VAE(CODEC).eval()
    for parameter in vae.parameters():  # so that residual branches, which begin at zero, count
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    twin = AutoencoderKLWan.from_config(vae_diffusers_config(CODEC)).eval()
    twin.load_state_dict(vae.state_dict())
    half, compiled = copy.deepcopy(twin).bfloat16(), copy.deepcopy(twin)
    compiled.encoder, compiled.decoder = torch.compile(compiled.encoder), torch.compile(compiled.decoder)
    z, video = torch.randn(1, 16, (frames + 3) // 4, 12, 12), torch.rand(1, 3, frames, 96, 96) * 2 - 1

    def ours(part: str, precision: Precision) -> Tensor:
        vae.precision = precision
        if part == "decode":
            return torch.cat(list(vae.stream_decode([z], clamp=True)), dim=2)
        return torch.cat([posterior.mean for posterior in vae.stream_encode([video])], dim=2)

    def theirs(part: str, model: AutoencoderKLWan) -> Tensor:
        if part == "decode":
            return model.decode(z.to(model.dtype), return_dict=False)[0]
        return model.encode(video.to(model.dtype)).latent_dist.mean

    for part in parts:
        exact = theirs(part, twin)
        runs: dict[str, tuple[Run, Run]] = {
            "fp32": (partial(ours, part, "fp32"), partial(theirs, part, twin)),
            "bf16": (partial(ours, part, "bf16"), partial(theirs, part, half)),
            "compiled": (partial(ours, part, "fp32"), partial(theirs, part, compiled)),
        }
        for form in forms:
            compare(f"{part}, {frames} frames of 96x96, {form}", *runs[form], exact, pairs)


if __name__ == "__main__":
    main()
