"""Seconds of our backbone and VAE beside those of diffusers on the same float32 weights, in turns, with the error beside the speed.

    python bench/wan_speed.py [--pairs 5] [--parts backbone,decode,encode] [--frames 17]

CPU seconds of one thread, and in brackets those of the wall's clock; the ratio is the median of the pairs' CPU seconds, with their least
and most. The text is 40 tokens of 512. The VAE has the shape of Wan 2.1's with 32 channels for 96, its videos are 96x96. "bound" is what
the backbone's matrix products and attention take by themselves: nothing that does these in float32 is faster.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor

from kinema.checkpoints.key_maps import dit_diffusers_config, dit_to_diffusers, vae_diffusers_config
from kinema.models.conditioning import TextStates
from kinema.models.dit import DiT, DiTConfig, apply_to_grid
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


def compare(name: str, ours: Callable[[], Tensor], theirs: Callable[[], Tensor], pairs: int) -> None:
    """Print one line: seconds of both, the ratio, and the greatest difference relative to the greatest number."""
    first, second = ours(), theirs()
    error = ((first - second).abs().max() / second.abs().max()).item()
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
        f"{name}: {mine:.3f} s ({mine_wall:.3f}), diffusers {peer:.3f} s ({peer_wall:.3f}), {statistics.median(ratios):.2f} times as fast "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}), error {error:.1e}",
        flush=True,
    )


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--parts", default="backbone,decode,encode", help="which of these, between commas")
    parser.add_argument("--frames", type=int, default=17, help="frames of the VAE's videos, 4k+1")
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if "backbone" in parts:
        backbone(arguments.pairs)
    codec(arguments.pairs, arguments.frames, [part for part in parts if part != "backbone"])


def backbone(pairs: int) -> None:
    """Compare forward passes."""
    dit = DiT(DIT).eval()
    torch.nn.init.normal_(dit.head.projection.weight, std=0.02)
    values = dit_diffusers_config(DIT)
    peer = WanTransformer3DModel.from_config(values).eval()
    peer.load_state_dict(dit_to_diffusers(dit.state_dict(), DIT))
    states = torch.randn(40, 512)
    padded = torch.nn.functional.pad(states, (0, 0, 0, 472)).unsqueeze(0)
    text = dit.prepare_text(TextStates(states, (40,)))
    t = torch.tensor([0.5])
    for lf, lh, lw in ((5, 16, 16), (5, 32, 32)):
        x = torch.randn(1, 16, lf, lh, lw)
        tokens = lf * lh * lw // 4
        compare(
            f"backbone, {tokens} tokens",
            lambda x=x: apply_to_grid(dit, x, t, text),
            lambda x=x: peer(x, 1000 * t, padded, return_dict=False)[0],
            pairs,
        )
        times = []
        for _ in range(pairs + 1):
            begun = time.process_time()
            products(tokens, len(states) + 1)
            times.append(time.process_time() - begun)
        print(f"bound, {tokens} tokens: {statistics.median(times[1:]):.3f} s", flush=True)


def products(tokens: int, text: int) -> None:
    """Do the matrix products and the attention of a forward pass, and nothing between them."""
    d, wide = DIT.d, DIT.ffn_dim
    square, expand, project, bias = (
        torch.randn(d, d),
        torch.randn(wide, d),
        torch.randn(d, wide),
        torch.randn(wide),
    )
    x, hidden = torch.randn(tokens, d), torch.randn(tokens, wide)
    q, context = (
        torch.randn(1, DIT.num_heads, tokens, DIT.head_dim),
        torch.randn(1, DIT.num_heads, text, DIT.head_dim),
    )
    for _ in range(DIT.num_layers):
        for _ in range(6):
            torch.nn.functional.linear(x, square, bias[:d])
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
        torch.nn.functional.scaled_dot_product_attention(q, context, context)
        torch.nn.functional.linear(x, expand, bias)
        torch.nn.functional.linear(hidden, project, bias[:d])


def codec(pairs: int, frames: int, parts: list[str]) -> None:
    """Compare decoding and encoding, whichever is in `parts`."""
    vae = VAE(CODEC).eval()
    for parameter in vae.parameters():  # so that residual branches, which begin at zero, count
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    twin = AutoencoderKLWan.from_config(vae_diffusers_config(CODEC)).eval()
    twin.load_state_dict(vae.state_dict())
    z, video = torch.randn(1, 16, (frames + 3) // 4, 12, 12), torch.rand(1, 3, frames, 96, 96) * 2 - 1
    ways: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "decode": (
            lambda: torch.cat(list(vae.stream_decode([z], clamp=True)), dim=2),
            lambda: twin.decode(z, return_dict=False)[0],
        ),
        "encode": (
            lambda: torch.cat([posterior.mean for posterior in vae.stream_encode([video])], dim=2),
            lambda: twin.encode(video).latent_dist.mean,
        ),
    }
    for part in parts:
        compare(f"{part}, {frames} frames of 96x96", *ways[part], pairs)


if __name__ == "__main__":
    main()
