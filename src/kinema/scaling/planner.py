"""Estimates of a training run on many GPUs before it starts: FLOPs, memory of each GPU, communication, time,
energy and cost.

The executed FLOPs of a step are three forward passes, four with activation checkpointing. Weights are
float32 and sharded as by FSDP2; matrix products run in bfloat16.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, prod
from typing import Any

from kinema.errors import ConfigError
from kinema.generation.cost.counting import backbone_flops, training_bytes
from kinema.models.backbone import entry_of, without_weights
from kinema.registry import lookup

NODE_GPUS = 8
"""GPUs of a node, which are joined by the faster links."""
USABLE = 0.92
"""Share of the memory of a GPU for tensors; the rest is for the driver, kernels and fragmentation."""
HOST_FACTOR, PUE = 1.5, 1.2
"""Power of a server in units of its GPUs' power, and power of the building in units of its servers'."""


@dataclass(frozen=True)
class GPU:
    """A kind of GPU from its maker's data sheet: dense bfloat16 rate, board power, and bytes per second to
    the other GPUs of its node and to other nodes. The hourly price is an assumption of this table."""

    memory_gib: float
    tflops: float
    watts: float
    price: float
    node_bandwidth: float
    network_bandwidth: float = 50e9


GPUS = {
    "H100": GPU(80, 989, 700, 2.5, 450e9),
    "H200": GPU(141, 989, 700, 3.0, 450e9),
    "B200": GPU(180, 2250, 1000, 5.0, 900e9),
    "A100": GPU(80, 312, 400, 1.5, 300e9, 25e9),
    "L40S": GPU(48, 362, 350, 1.0, 32e9, 25e9),
    "RTX4090": GPU(24, 165, 450, 0.4, 32e9, 12.5e9),
    "MI300X": GPU(192, 1307, 750, 2.5, 448e9),
}
"""GPUs by the name that `kinema plan --gpus` takes."""


@dataclass(frozen=True)
class Cluster:
    """GPUs and how a run is spread over them. Raises `ConfigError` for numbers that do not divide.

    Weights, gradients and the optimizer are divided over `shard` GPUs, and the tokens of a clip over
    `sequence` GPUs (Ulysses).
    """

    name: str
    count: int
    gpu: GPU
    shard: int = 1
    sequence: int = 1
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        for what, size in (("shard", self.shard), ("sequence", self.sequence)):
            if size < 1 or self.count % size:
                raise ConfigError(f"{self.count} GPUs do not divide into groups of {what} = {size}")

    @property
    def num_groups(self) -> int:
        """Groups of GPUs that train on clips of their own."""
        return self.count // self.sequence

    def bandwidth(self, size: int) -> float:
        """Bytes per second of a GPU within a group of `size` GPUs."""
        return self.gpu.node_bandwidth if size <= NODE_GPUS else self.gpu.network_bandwidth


def cluster_of(text: str) -> Cluster:
    """The cluster of "8xH100", sharded within a node. Raises `ConfigError` or `UnknownName`."""
    count, _, name = text.partition("x")
    if not count.isdecimal() or int(count) < 1:
        raise ConfigError(f"--gpus {text} is not a number of GPUs: write COUNTxNAME, e.g. 8xH100")
    number = int(count)
    kinds = {key.lower(): key for key in GPUS}
    key = kinds.get(name.lower(), name)
    shard = max(size for size in range(1, NODE_GPUS + 1) if number % size == 0)
    return Cluster(key, number, lookup(GPUS, key, kind="GPU"), shard)


@dataclass(frozen=True)
class StepKind:
    """`steps` steps of `clips` clips with latents of size `grid` = (lf, lh, lw)."""

    steps: float
    clips: float
    grid: tuple[int, int, int]


@dataclass(frozen=True)
class Training:
    """A run: the configuration of its backbone, a class of `BACKBONES`, and its steps."""

    name: str
    backbone: Any
    kinds: tuple[StepKind, ...]
    uses_muon: bool = False

    @cached_property
    def parameters(self) -> int:
        """All parameters of the backbone."""
        return sum(p.numel() for p in without_weights(self.backbone).parameters())

    @cached_property
    def block_parameters(self) -> int:
        """Parameters of one of the equal blocks."""
        entry = entry_of(self.backbone)
        one, two = (without_weights(entry.with_blocks(self.backbone, number)) for number in (1, 2))
        return sum(p.numel() for p in two.parameters()) - sum(p.numel() for p in one.parameters())

    @property
    def num_blocks(self) -> int:
        """The number of equal blocks."""
        return entry_of(self.backbone).num_blocks(self.backbone)

    def tokens(self, kind: StepKind) -> int:
        """Tokens of a clip."""
        return prod(-(-size // p) for size, p in zip(kind.grid, without_weights(self.backbone).patch))  # type: ignore[arg-type]

    def with_clips(self, factor: float) -> "Training":
        """The run with `factor` times the clips of a step, and as many clips in all."""
        kinds = tuple(replace(k, clips=k.clips * factor, steps=k.steps / factor) for k in self.kinds)
        return replace(self, kinds=kinds)


@dataclass(frozen=True)
class TrainingPlan:
    """The estimate of a run. Memory is in bytes per GPU, `traffic` in bytes per GPU and step, at most."""

    memory: dict[str, float]
    flops: float
    """FLOPs of the model: three forward passes of all clips."""
    clips: float
    tokens: float
    traffic: dict[str, float]
    seconds: float
    gpu_hours: float
    kwh: float
    cost: float
    """In the currency of the GPU's price."""

    @property
    def peak_bytes(self) -> float:
        """Memory of a GPU at its peak."""
        return sum(self.memory.values())


def plan_training(training: Training, cluster: Cluster, utilisation: float = 0.4) -> TrainingPlan:
    """The cost of a run. `utilisation` is the share of the peak rate at which the executed FLOPs run.

    Raises `ConfigError` for a batch with fewer clips than there are groups of GPUs.
    """
    gpu, passes = cluster.gpu, 4 if cluster.activation_checkpointing else 3
    for kind in training.kinds:
        if kind.clips < cluster.num_groups:
            raise ConfigError(
                f"a step of {kind.clips:g} clips leaves some of {cluster.count} GPUs without one: use "
                f"--batch {cluster.num_groups} or more, or --sequence N to divide the tokens of a clip"
            )

    traffic = _traffic(training, cluster)
    hidden = sum(_seconds(traffic, cluster)[name] for name in ("weights", "replicas"))
    exposed = _seconds(traffic, cluster)["tokens"]
    flops = [kind.clips * backbone_flops(training.backbone, kind.grid) for kind in training.kinds]
    rate = cluster.count * gpu.tflops * 1e12 * utilisation
    seconds = sum(
        kind.steps * (max(passes * each / rate, hidden) + exposed)
        for kind, each in zip(training.kinds, flops)
    )
    hours = cluster.count * seconds / 3600
    return TrainingPlan(
        memory=_memory(training, cluster),
        flops=3 * sum(kind.steps * each for kind, each in zip(training.kinds, flops)),
        clips=sum(kind.steps * kind.clips for kind in training.kinds),
        tokens=sum(kind.steps * kind.clips * training.tokens(kind) for kind in training.kinds),
        traffic=traffic,
        seconds=seconds,
        gpu_hours=hours,
        kwh=energy_kwh(hours, gpu.watts),
        cost=hours * gpu.price,
    )


def energy_kwh(gpu_hours: float, watts: float) -> float:
    """Energy of GPUs of this board power with their servers and cooling."""
    return gpu_hours * watts / 1000 * HOST_FACTOR * PUE


def _memory(training: Training, cluster: Cluster) -> dict[str, float]:
    """Bytes on a GPU by category."""
    parameters, blocks = training.parameters, training.num_blocks * training.block_parameters
    with_momentum_only = blocks if training.uses_muon else 0  # AdamW keeps two moments, Muon one
    activations = max(
        ceil(kind.clips / cluster.num_groups)
        * training_bytes(
            training.backbone, kind.grid, activation_checkpointing=cluster.activation_checkpointing
        )
        for kind in training.kinds
    )
    return {
        "weights": 4 * parameters / cluster.shard,
        "gradients": 4 * parameters / cluster.shard,
        "optimizer": (8 * parameters - 4 * with_momentum_only) / cluster.shard,
        "average (EMA)": 4 * parameters / cluster.shard,
        "gathered blocks": 2 * 2 * training.block_parameters,
        "activations": activations / cluster.sequence,
    }


def _traffic(training: Training, cluster: Cluster) -> dict[str, float]:
    """Bytes that a GPU sends in a step: weights twice in bfloat16 and gradients once in float32 within a
    shard group, gradients among groups, and tokens within a sequence group."""
    shard, sequence = cluster.shard, cluster.sequence
    replicas = cluster.count // shard
    width = getattr(training.backbone, "d", 0)
    per_clip = max(training.tokens(kind) * ceil(kind.clips / cluster.num_groups) for kind in training.kinds)
    passes = 4 if cluster.activation_checkpointing else 3
    exchange = 4 * per_clip / sequence * width * 2 * (sequence - 1) / sequence
    return {
        "weights": 8 * training.parameters * (shard - 1) / shard,
        "replicas": 2 * 4 * training.parameters / shard * (replicas - 1) / replicas,
        "tokens": passes * training.num_blocks * exchange,
    }


def _seconds(traffic: dict[str, float], cluster: Cluster) -> dict[str, float]:
    """Seconds of each kind of traffic. Replicas of one node talk within it."""
    sizes = {"weights": cluster.shard, "replicas": cluster.count, "tokens": cluster.sequence}
    return {name: traffic[name] / cluster.bandwidth(sizes[name]) for name in traffic}


def alternatives(training: Training, cluster: Cluster) -> list[str]:
    """Changes that make a run fit, one line each. Only if none does, activation checkpointing is added to
    each."""
    found = [_first(options) for options in _changes(training, cluster)]
    if not any(found) and not cluster.activation_checkpointing:
        cheaper = replace(cluster, activation_checkpointing=True)
        lines = [_first(options) for options in _changes(training, cheaper)]
        found = [line and f"--activation-checkpointing {line}" for line in lines]
    return [line for line in found if line]


Option = tuple[str, Training, Cluster]
"""Command-line options, and the run and the cluster that they give."""


def _changes(training: Training, cluster: Cluster) -> list[list[Option]]:
    """Options in groups, each from the smallest change to the largest."""
    count, largest = cluster.count, max(kind.clips for kind in training.kinds)
    shards = [size for size in (2, 4, 8, count) if size > cluster.shard and count % size == 0]
    splits = [size for size in (2, 4, 8) if size > cluster.sequence and count % size == 0]
    smallest = min(kind.clips for kind in training.kinds)
    factors = [factor for factor in (0.5, 0.25, 0.125) if smallest * factor >= cluster.num_groups]
    groups = [
        [("--activation-checkpointing", training, replace(cluster, activation_checkpointing=True))],
        [(f"--shard {size}", training, replace(cluster, shard=size)) for size in shards],
        [
            (
                f"--sequence {size} --batch {largest * cluster.sequence / size:g}",
                training.with_clips(cluster.sequence / size),
                replace(cluster, sequence=size),
            )
            for size in splits
        ],
        [(f"--batch {largest * f:g}", training.with_clips(f), cluster) for f in factors],
        [
            (f"--gpus {count}x{name}", training, replace(cluster, gpu=gpu))
            for name, gpu in _larger(cluster.gpu)
        ],
        [
            (f"--gpus {count * n}x{cluster.name} --shard {count * n}", training, wider)
            for n in (2, 4, 8, 16)
            if largest >= (wider := replace(cluster, count=count * n, shard=count * n)).num_groups
        ],
    ]
    return groups[1:] if cluster.activation_checkpointing else groups


def _larger(gpu: GPU) -> Iterator[tuple[str, GPU]]:
    return (
        (name, each)
        for name, each in sorted(GPUS.items(), key=lambda item: item[1].memory_gib)
        if each.memory_gib > gpu.memory_gib
    )


def _first(options: Sequence[Option]) -> str | None:
    """The first option that fits, with what it needs."""
    for text, training, cluster in options:
        needed = sum(_memory(training, cluster).values())
        if fits(needed, cluster):
            return f"{text} needs {needed / 2**30:.1f} GiB"
    return None


def fits(size_bytes: float, cluster: Cluster) -> bool:
    """Whether a GPU of the cluster holds so much."""
    return size_bytes <= USABLE * cluster.gpu.memory_gib * 2**30
