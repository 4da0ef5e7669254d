"""The template "attention": scaled dot-product attention."""

from __future__ import annotations

from taut.codegen._recipe import Operand, Recipe
from taut.errors import ArgumentError

MAX_HEAD_SIZE = 256


def attention_recipe(
    heads: int,
    head_size: int,
    *,
    scale: float | None = None,
    causal: bool = False,
    mask: Operand | None = None,
) -> Recipe:
    """A kernel for `softmax(scale q k^T + mask) v`, with the semantics of torch's scaled_dot_product_attention.

    The scores of 16 query rows at a time live in a scratch of `64 S` bytes, so nothing of size T times S is stored. A
    row whose keys are all masked, or that has none, gives zeros.

    Args:
        heads: H.
        head_size: D, of queries, keys and values.
        scale: by default 1 / sqrt(D).
        causal: whether query t sees only keys up to t.
        mask: float32 to be added, or bool where True means that the key is seen; [B or 1, H or 1, T or 1, S], where
            None stands for a size that is not 1.

    Returns:
        A recipe with the operands: q [B, H, T, D], k and v [B, H, S, D], the mask if there is one, then the output
        [B, H, T, D]. All are views with dense D and any other strides; B, T and S may be any number, 0 included.

    Raises:
        ArgumentError: a size is out of range or the mask does not fit.
    """
    if heads < 1:
        raise ArgumentError("heads", heads, expected="at least 1")
    if not 1 <= head_size <= MAX_HEAD_SIZE:
        raise ArgumentError("head_size", head_size, expected=f"1 to {MAX_HEAD_SIZE}")
    if mask is not None and (
        mask.dtype not in ("float32", "bool") or len(mask.shape) != 4 or mask.shape[1] not in (1, heads, None)
    ):
        raise ArgumentError("mask", mask, expected=f"float32 or bool of shape [B|1, {heads}|1, T|1, S]")
    view = Operand("float32", (None, heads, None, head_size))
    masks = () if mask is None else (mask,)
    parameters = {"scale": float(head_size**-0.5 if scale is None else scale), "causal": causal}
    return Recipe("attention", (view, view, view, *masks, view), parameters=parameters)
