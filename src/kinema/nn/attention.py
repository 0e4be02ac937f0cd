"""Attention over packed tokens: the one place that calls an attention kernel."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from kinema.errors import ConfigError
from kinema.registry import lookup
from kinema.shapes import Bool, Float, Int

MAX_PADDED_QUERIES = 32
"""Up to this many queries padding is cheaper than a kernel call per segment (on a CPU, 25 to 80)."""


ATTENTION_KERNELS: dict[str, SDPBackend | None] = {
    "auto": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
"""Kernels of PyTorch. With "auto" PyTorch chooses one for every call."""


@contextmanager
def attention_kernel(name: str) -> Iterator[None]:
    """A context in which attention uses only the kernel `name` of `ATTENTION_KERNELS`.

    Raises `ConfigError` when the kernel does not support the device or the sizes.
    """
    kernel = lookup(ATTENTION_KERNELS, name, kind="attention kernel")
    if kernel is None:
        yield
        return
    try:
        with sdpa_kernel(kernel):
            yield
    except RuntimeError as error:
        if not any(words in str(error) for words in ("No available kernel", "No viable backend")):
            raise
        raise ConfigError(
            f"the attention kernel '{name}' does not work on this device for these sizes: use auto"
        ) from error


@dataclass(frozen=True, eq=False)
class Segments:
    """The segments of packed queries and keys, computed once for all layers with the same segments.

    If all queries have one length, lengths are encoded in tensor shapes and not in integers, so that one
    compiled layer serves all lengths.
    """

    num: int
    scores: Tensor | None = None
    """(num, 1, 1, longest): added to the scores of each key, or (bool) the keys that are attended to."""
    key_rows: Int[Tensor, " m"] | None = None
    """Rows of the keys after padding their segments to the longest. None without padding."""
    query_rows: Int[Tensor, " n"] | None = None
    num_padded: int = 0
    """Number of rows of the padded queries."""
    parts: "tuple[tuple[int, int, Segments], ...]" = ()
    """Lengths and segments of each segment if they run one by one."""

    @classmethod
    def of(
        cls,
        q_lengths: tuple[int, ...],
        kv_lengths: tuple[int, ...],
        device: torch.device,
        bias: Float[Tensor, " m"] | None = None,
    ) -> "Segments":
        """Segment i of the queries attends to segment i of the keys. `bias` is added to the scores of each
        key.

        Segments with queries of one length form one batch, in which shorter keys are padded and masked.
        Queries of several lengths are padded too if all are short; otherwise segments run one by one (on a
        CPU 1.1 to 2 times faster for 60 to 320 tokens).
        """
        b, longest_query, longest = len(q_lengths), max(q_lengths, default=0), max(kv_lengths, default=0)
        is_even = longest_query == min(q_lengths, default=0)
        if not is_even and longest_query > MAX_PADDED_QUERIES:
            biases = (None,) * b if bias is None else bias.split(kv_lengths)
            rows = zip(q_lengths, kv_lengths, biases)
            return cls(b, parts=tuple((n, m, cls.of((n,), (m,), device, own)) for n, m, own in rows))
        query_rows = None if is_even else _rows(q_lengths, device)
        num_padded = 0 if is_even else b * longest_query
        if min(kv_lengths, default=0) == longest:
            return cls(b, None if bias is None else bias.view(b, 1, 1, -1), None, query_rows, num_padded)
        key_rows, scores = _rows(kv_lengths, device), _key_mask(kv_lengths, device)[:, None, None, :]
        if bias is not None:
            padded = _pad(bias[:, None, None], key_rows, b * longest).view(b, 1, 1, longest)
            scores = padded.masked_fill(~scores, -torch.inf)
        return cls(b, scores, key_rows, query_rows, num_padded)


def attend(
    q: Float[Tensor, "n k dh"],
    k: Float[Tensor, "m k dh"],
    v: Float[Tensor, "m k dh"],
    q_lengths: tuple[int, ...],
    kv_lengths: tuple[int, ...],
    bias: Float[Tensor, " m"] | None = None,
) -> Float[Tensor, "n k dh"]:
    """Attention of segment i of the queries to segment i of the keys and values, scaled by 1/sqrt(dh).

    The lengths are the rows of each segment. A query whose segment has no keys gets zeros. `bias`
    is added to the scores of each key: a key with the bias log(n) counts as n equal ones. Raises `ValueError`
    when lengths do not add up.
    """
    if len(q_lengths) != len(kv_lengths) or sum(q_lengths) != q.shape[0] or sum(kv_lengths) != k.shape[0]:
        raise ValueError(
            f"{q.shape[0]} queries in {len(q_lengths)} segments of {sum(q_lengths)} in all and "
            f"{k.shape[0]} keys in {len(kv_lengths)} segments of {sum(kv_lengths)} in all do not fit together"
        )
    return attend_within(q, k, v, Segments.of(q_lengths, kv_lengths, q.device, bias))


def attend_within(
    q: Float[Tensor, "n k dh"], k: Float[Tensor, "m k dh"], v: Float[Tensor, "m k dh"], segments: Segments
) -> Float[Tensor, "n k dh"]:
    """`attend` with precomputed segments."""
    if segments.parts:
        q_lengths, kv_lengths, own = zip(*segments.parts)
        rows = zip(q.split(q_lengths), k.split(kv_lengths), v.split(kv_lengths), own)
        return torch.cat([attend_within(*row) for row in rows])
    if len(q) == 0 or len(k) == 0:
        return torch.zeros_like(q)
    b, scores, query_rows = segments.num, segments.scores, segments.query_rows
    if query_rows is not None:
        q = _pad(q, query_rows, segments.num_padded)
    if segments.key_rows is not None:
        assert scores is not None, "padded keys are masked"
        k, v = (_pad(x, segments.key_rows, scores.numel()) for x in (k, v))
    if scores is not None and scores.is_floating_point():
        scores = scores.to(q.dtype)
    q, k, v = (x.unflatten(0, (b, -1)).transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=scores).transpose(1, 2).flatten(0, 1)
    return out if query_rows is None else out.index_select(0, query_rows)


def attend_causal(
    q: Float[Tensor, "b n k dh"], k: Float[Tensor, "b n k dh"], v: Float[Tensor, "b n k dh"]
) -> Float[Tensor, "b n k dh"]:
    """Attention of every token to itself and the tokens before it, scaled by 1/sqrt(dh)."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def _pad(x: Float[Tensor, "m k dh"], rows: Int[Tensor, " m"], num_rows: int) -> Float[Tensor, "padded k dh"]:
    """`num_rows` rows with `x` at `rows` and zeros elsewhere."""
    return x.new_zeros(num_rows, *x.shape[1:]).index_copy(0, rows, x)


def _rows(lengths: tuple[int, ...], device: torch.device) -> Int[Tensor, " m"]:
    """Indices of the rows of the segments after padding to the longest length."""
    longest = max(lengths)
    return torch.tensor(
        [i * longest + j for i, length in enumerate(lengths) for j in range(length)], device=device
    )


def _key_mask(lengths: tuple[int, ...], device: torch.device) -> Bool[Tensor, "b longest"]:
    """True for keys that are attended to.

    An empty segment attends to its first padding, whose value is zero, so that its result is zero and not
    NaN.
    """
    seen = torch.tensor([max(length, 1) for length in lengths], device=device)
    return torch.arange(max(lengths), device=device) < seen[:, None]
