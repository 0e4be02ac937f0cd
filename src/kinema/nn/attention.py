"""Attention over packed tokens: the one place that calls an attention kernel."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from kinema.errors import ConfigError
from kinema.lookup import lookup
from kinema.shapes import Bool, Float, Int

SHORT = 32  # queries up to which padding is cheaper than a kernel for each segment; on a CPU they cross between 25 and 80


KERNELS: dict[str, SDPBackend | None] = {
    "auto": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
"""PyTorch's own kernels; with "auto" it chooses for every call."""


@contextmanager
def attention_kernel(name: str) -> Iterator[None]:
    """Attention inside is by the kernel `name` of `KERNELS` and no other. Raises `ConfigError` where that cannot do it."""
    kernel = lookup(KERNELS, name, kind="attention kernel")
    if kernel is None:
        yield
        return
    try:
        with sdpa_kernel(kernel):
            yield
    except RuntimeError as error:
        if not any(words in str(error) for words in ("No available kernel", "No viable backend")):
            raise
        raise ConfigError(f"the attention kernel '{name}' does not work on this device for these sizes: use auto") from error


def attend(
    q: Float[Tensor, "n k dh"],
    k: Float[Tensor, "m k dh"],
    v: Float[Tensor, "m k dh"],
    q_lengths: tuple[int, ...],
    kv_lengths: tuple[int, ...],
    bias: Float[Tensor, " m"] | None = None,
) -> Float[Tensor, "n k dh"]:
    """Bidirectional attention in which segment i of the queries sees segment i of the keys and values, scaled by 1/sqrt(dh).

    The lengths say how the rows are cut into segments; a query whose segment has no keys gets zeros. Segments with queries of one
    length are one batch, in which shorter keys are padded and masked. Queries of several lengths are padded too while all are short, and
    run segment by segment when not (on a CPU 1.1 to 2 times faster for 60 to 320 tokens). `bias` is added to the scores of each key: a key
    with the bias log(n) counts as n equal ones. Raises `ValueError` when lengths do not add up.
    """
    if len(q_lengths) != len(kv_lengths) or sum(q_lengths) != q.shape[0] or sum(kv_lengths) != k.shape[0]:
        raise ValueError(
            f"{q.shape[0]} queries in {len(q_lengths)} segments of {sum(q_lengths)} in all and "
            f"{k.shape[0]} keys in {len(kv_lengths)} segments of {sum(kv_lengths)} in all do not fit together"
        )
    if len(set(q_lengths)) <= 1:
        return _batched(q, k, v, kv_lengths, bias)
    if max(q_lengths) <= SHORT:
        return _batched(_pad(q, q_lengths), k, v, kv_lengths, bias).index_select(0, _rows(q_lengths, q.device))
    biases = (None,) * len(kv_lengths) if bias is None else bias.split(kv_lengths)
    segments = zip(q.split(q_lengths), k.split(kv_lengths), v.split(kv_lengths), biases)
    return torch.cat([_batched(queries, keys, values, (len(keys),), own) for queries, keys, values, own in segments])


def attend_causal(q: Float[Tensor, "b n k dh"], k: Float[Tensor, "b n k dh"], v: Float[Tensor, "b n k dh"]) -> Float[Tensor, "b n k dh"]:
    """Attention in which every token of a sequence sees itself and those before it, scaled by 1/sqrt(dh)."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def _batched(q: Tensor, k: Tensor, v: Tensor, kv_lengths: tuple[int, ...], bias: Tensor | None = None) -> Tensor:
    """Attention as one batch, for segments whose queries are equally many."""
    b, longest = len(kv_lengths), max(kv_lengths) if kv_lengths else 0  # dynamo cannot trace default=
    if longest == 0 or len(q) == 0:
        return torch.zeros_like(q)
    mask = None
    if min(kv_lengths) < longest:
        mask = _key_mask(kv_lengths, q.device)[:, None, None, :]
        k, v = _pad(k, kv_lengths), _pad(v, kv_lengths)
    if bias is not None:
        rows = bias if mask is None else _pad(bias[:, None, None], kv_lengths)
        rows = rows.to(q.dtype).view(b, 1, 1, longest)
        mask = rows if mask is None else rows.masked_fill(~mask, -torch.inf)
    q, k, v = (x.unflatten(0, (b, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(0, 1)


def _pad(x: Float[Tensor, "m k dh"], lengths: tuple[int, ...]) -> Float[Tensor, "padded k dh"]:
    """Segments filled up with zeros to the longest length."""
    return x.new_zeros(len(lengths) * max(lengths), *x.shape[1:]).index_copy(0, _rows(lengths, x.device), x)


def _rows(lengths: tuple[int, ...], device: torch.device) -> Int[Tensor, " m"]:
    """Where the rows of the segments are once these are padded to the longest length."""
    longest = max(lengths)
    return torch.tensor([i * longest + j for i, length in enumerate(lengths) for j in range(length)], device=device)


def _key_mask(lengths: tuple[int, ...], device: torch.device) -> Bool[Tensor, "b longest"]:
    """True for keys that are seen. An empty segment sees its first padding, whose value is zero, so that its result is zero and not NaN."""
    seen = torch.tensor([max(length, 1) for length in lengths], device=device)
    return torch.arange(max(lengths), device=device) < seen[:, None]
