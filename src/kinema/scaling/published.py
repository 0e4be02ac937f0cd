"""Published training runs and models beside the estimates, and statements about the cost of Sora."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from kinema.checkpoints.families.wan.published import PUBLISHED
from kinema.generation.cost.counting import backbone_flops
from kinema.generation.cost.estimate import IMAGE_MODELS
from kinema.scaling.planner import GPUS, Training, energy_kwh

RATE = GPUS["H100"].tflops * 1e12
"""Dense bfloat16 rate of an H100 and an H200."""


@dataclass(frozen=True)
class TransformerShape:
    """Sizes of a published transformer, for formulas that need no network.

    `text` enters by cross-attention, joins the tokens in one attention ("joint", with `single_blocks` blocks
    that share their weights between text and video), or is absent. `gated` MLPs have three matrices.
    """

    width: int
    blocks: int
    mlp: int
    gated: bool = False
    text: Literal["cross", "joint", "none"] = "cross"
    single_blocks: int = 0

    @property
    def parameters(self) -> int:
        """Parameters of the matrices of all blocks, with the modulation of DiT and MMDiT."""
        d, mlp = self.width, (3 if self.gated else 2) * self.width * self.mlp
        if self.text == "cross":
            return self.blocks * (8 * d * d + mlp)
        if self.text == "none":
            return self.blocks * (10 * d * d + mlp)
        double = self.blocks * 2 * (10 * d * d + mlp)
        return double + self.single_blocks * (7 * d * d + mlp)

    def forward_flops(self, tokens: int, text_tokens: int = 0) -> float:
        """FLOPs, two per multiply-add, of a forward pass of one clip."""
        d, mlp = self.width, (6 if self.gated else 4) * self.width * self.mlp
        if self.text == "joint":
            joined = tokens + text_tokens
            return (self.blocks + self.single_blocks) * (joined * (8 * d * d + mlp) + 4 * joined**2 * d)

        own = tokens * (8 * d * d + mlp) + 4 * tokens**2 * d
        crossed = 4 * tokens * d * d + 4 * tokens * text_tokens * d + 4 * text_tokens * d * d
        return self.blocks * (own + (crossed if self.text == "cross" else 0))


OPEN_SORA_2 = TransformerShape(3072, 19, 12_288, text="joint", single_blocks=38)
HUNYUAN = TransformerShape(3072, 20, 12_288, text="joint", single_blocks=40)
MOVIE_GEN = TransformerShape(6144, 48, 16_384, gated=True)
STEP_VIDEO = TransformerShape(6144, 48, 4 * 6144)
DIT_XL_2 = TransformerShape(1152, 28, 4608, text="none")
SORA_SIZED = TransformerShape(4096, 36, 16_384)
"""The largest plain DiT below 10 billion parameters."""


@dataclass(frozen=True)
class Check:
    """A stated figure beside the estimate. `limit` is the factor within which they must agree; None where the
    source states too little to compute the figure independently."""

    run: str
    quantity: str
    stated: float
    estimate: float
    limit: float | None
    note: str
    source: str

    @property
    def factor(self) -> float:
        """The estimate as a multiple of the stated figure."""
        return self.estimate / self.stated

    @property
    def is_within(self) -> bool:
        """Whether the factor is within the limit."""
        return self.limit is None or 1 / self.limit <= self.factor <= self.limit


TIME, EXACT = 2.5, 1.05
"""Limits: a factor for hours and rates, 5 % for parameters, tokens and dollars."""


def checks() -> list[Check]:
    """All published figures with their estimates."""
    return [*_open_sora(), *_model_sizes(), *_hours()]


def _open_sora() -> Iterator[Check]:
    run, source = "Open-Sora 2.0", "arXiv 2503.09642"
    small = OPEN_SORA_2.forward_flops(33 * 16 * 16, 512)
    large = OPEN_SORA_2.forward_flops(33 * 48 * 48, 512)
    days = 70e6 * 4 * small / (0.3819 * RATE) / 86_400
    yield Check(
        run,
        "H200 days, 256 px stage",
        2240,
        days,
        TIME,
        "70M clips of 129 frames, 8,448 tokens, MFU 38.19 %, with checkpointing; buckets, restarts unknown",
        source,
    )
    for side, stated, mfu, flops in ((256, 3.2, 0.3819, small), (768, 0.08, 0.3575, large)):
        rate = 8 * RATE * mfu / (3 * flops)
        yield Check(run, f"clips/s on 8 H200, {side} px", stated, rate, TIME, f"MFU {mfu:.2%}", source)
    yield Check(run, "dollars", 199.6e3, 4160 * 24 * 2.0, EXACT, "4,160 H200 days at $2 per hour", source)


def _model_sizes() -> Iterator[Check]:
    rows = (
        ("Movie Gen Video", 30e9, MOVIE_GEN, "arXiv 2410.13720"),
        ("Step-Video-T2V", 30e9, STEP_VIDEO, "arXiv 2502.10248"),
        ("HunyuanVideo", 13e9, HUNYUAN, "arXiv 2412.03603"),
        ("DiT-XL/2", 675e6, DIT_XL_2, "arXiv 2212.09748"),
    )
    for run, stated, shape, source in rows:
        note = f"{shape.blocks + shape.single_blocks} blocks of width {shape.width}, embeddings left out"
        yield Check(run, "parameters", stated, shape.parameters, EXACT, note, source)
    wan = Training("wan-2.1-14b", PUBLISHED["wan-2.1-14b"].backbone, ())
    yield Check("Wan 2.1 14B", "parameters", 14e9, wan.parameters, EXACT, "counted", "arXiv 2503.20314")
    yield Check(
        "Movie Gen Video",
        "tokens of a clip",
        73e3,
        32 * 48 * 48,
        EXACT,
        "256 frames of 768 px, 8x8x8 latents, 1x2x2 patches",
        "arXiv 2410.13720",
    )
    yield Check(
        "DiT-XL/2",
        "multiply-adds of a forward",
        118.6e9,
        DIT_XL_2.forward_flops(256) / 2,
        EXACT,
        "256 tokens; the paper's Gflops are multiply-adds",
        "arXiv 2212.09748",
    )


def _hours() -> Iterator[Check]:
    seconds = 50 * HUNYUAN.forward_flops(33 * 45 * 80, 256) / (0.4 * RATE)
    yield Check(
        "HunyuanVideo",
        "seconds, 50 steps on an H100",
        1904,
        seconds,
        TIME,
        "129 frames of 720p, 118,800 tokens, 40 % of the peak",
        "github.com/Tencent-Hunyuan/HunyuanVideo",
    )
    seaweed = 665e3 * 3600 * 0.38 * RATE
    yield Check(
        "Seaweed-7B",
        "FLOP in 665k H100 hours",
        seaweed,
        seaweed,
        None,
        f"MFU 38 %; {energy_kwh(665e3, 700) / 1e6:.2f} GWh with servers and cooling; tokens unknown",
        "arXiv 2504.08685",
    )
    early = 35e3 * 3600 * 0.35 * RATE
    yield Check(
        "Open-Sora 1.2",
        "FLOP in 35k H100 hours",
        early,
        early,
        None,
        "at 35 %, assumed; its utilisation is not stated",
        "github.com/hpcaitech/Open-Sora, report_03",
    )


def claims() -> list[str]:
    """Statements about Sora's cost, each with what the formulas give."""
    small, large = (PUBLISHED[name].backbone for name in ("wan-2.1-1.3b", "wan-2.1-14b"))
    minute = (1 + 16 * 60 // 4, 90, 160)
    states = 16 * SORA_SIZED.parameters / 8 / 1e9
    days = 1e24 / (0.4 * RATE * 500) / 86_400
    return [
        "below 10 billion parameters: a DiT of 36 blocks of width 4096 has "
        f"{SORA_SIZED.parameters / 1e9:.1f} billion; its weights, gradients and optimizer "
        f"take {states:.0f} GB on each of 8 GPUs",
        f"hundreds of GPUs: 1e24 FLOP take {days:.0f} days on 500 H100 at 40 % of the peak",
        "a video costs two to three orders of magnitude more than an image, per forward pass: "
        + _ratios("Wan 2.1 1.3B, 480p, 81 frames", backbone_flops(small, (21, 60, 104)))
        + "; "
        + _ratios("Wan 2.1 14B, 720p, 81 frames", backbone_flops(large, (21, 90, 160))),
        "a minute in one attention: "
        + _ratios("Wan 2.1 14B, 720p, 16 fps", backbone_flops(large, minute))
        + "; attention grows with the square of the length, so long videos are made in windows",
    ]


def _ratios(what: str, flops: float) -> str:
    sd, sdxl = (flops / IMAGE_MODELS[name].forward_flops for name in ("sd", "sdxl"))
    return f"{what}: {sd:,.0f} times Stable Diffusion 1.5, {sdxl:,.0f} times SDXL"
