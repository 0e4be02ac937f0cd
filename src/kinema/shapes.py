"""Shapes in signatures: `Float[Tensor, "b c f h w"]`.

With jaxtyping installed (extra `dev`) the tests check shapes at every call. Without it an annotation is the
plain tensor type and costs nothing. Axes have one meaning in the whole package: b batch, f frames, h w
pixels, c channels, lf lh lw latent grid, n tokens, d width, k heads, s text tokens, u distinct times. `t` is
only diffusion time.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtyping import Bool, Complex, Float, Int, UInt8
else:
    try:
        from jaxtyping import Bool, Complex, Float, Int, UInt8
    except ImportError:

        class _Shape:
            """Stands in for a jaxtyping dtype: `Float[Tensor, "b n"]` is `Tensor`."""

            def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
                return item[0]

        Bool = Complex = Float = Int = UInt8 = _Shape

__all__ = ["Bool", "Complex", "Float", "Int", "UInt8"]
