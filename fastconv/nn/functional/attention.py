"""Attention: weighted means of values, the weights from the products of queries and keys."""

from __future__ import annotations

import math

import numpy as np
from numpy import ndarray

from ...devices import array_module
from ...differentiable import A, Array, apply, differentiable
from ...random import generator
from ...tensor_arithmetic import fit
from .parameters import check_floating, check_same_dtype, compute_dtype, largest


def _swapped(x: ndarray) -> ndarray:
    return x.swapaxes(-1, -2)


def _check(query, key, value, attn_mask, dropout_p, is_causal):
    check_floating(query, "query")
    for name, x in (("key", key), ("value", value)):
        check_same_dtype(x, name, query, "query")
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise ValueError(
            f"query, key and value must have at least 2 dimensions, got {query.shape}, {key.shape}, {value.shape}"
        )
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(f"key must have the query's {query.shape[-1]} features, got shape {key.shape}")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError(f"value must have one row for each of the {key.shape[-2]} keys, got shape {value.shape}")
    if not 0 <= dropout_p <= 1:
        raise ValueError(f"dropout_p must be from 0 to 1, got {dropout_p}")
    if is_causal and attn_mask is not None:
        raise ValueError("attn_mask must be left out where is_causal is set")
    if attn_mask is not None and attn_mask.dtype != np.bool_:
        check_same_dtype(attn_mask, "attn_mask", query, "query")


def _grouped_heads(x: ndarray, heads: int, name: str) -> ndarray:
    """Each head as often as several of the query's share it."""
    if x.ndim < 3 or x.shape[-3] < 1 or heads % x.shape[-3]:
        raise ValueError(f"{name} must have a number of heads that divides the query's {heads}, got shape {x.shape}")
    shared_by = heads // x.shape[-3]
    return x[..., array_module(x).arange(heads) // shared_by, :, :]


def _attention_rule(wanted, query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa, rng):
    _check(query, key, value, attn_mask, dropout_p, is_causal)
    library, wide = array_module(query), compute_dtype(query)
    factor = wide.type(scale if scale is not None else 1 / math.sqrt(max(query.shape[-1], 1)))
    heads = query.shape[-3] if query.ndim > 2 else 1
    spread_key = _grouped_heads(key, heads, "key") if enable_gqa else key
    spread_value = _grouped_heads(value, heads, "value") if enable_gqa else value
    q, k, v = (x.astype(wide, copy=False) for x in (query, spread_key, spread_value))
    scores = (q * factor) @ _swapped(k)
    mask = attn_mask
    if is_causal:
        mask = library.arange(scores.shape[-1]) <= library.arange(scores.shape[-2])[:, None]
    if mask is not None:
        scores = np.where(mask, scores, -np.inf).astype(wide) if mask.dtype == np.bool_ else scores + mask.astype(wide)
    highest = largest(scores, -1, -np.inf)
    weights = np.exp(scores - np.where(np.isfinite(highest), highest, 0).astype(wide))
    total = weights.sum(axis=-1, keepdims=True)
    weights = weights / np.where(total == 0, 1, total).astype(wide)  # where all is masked, nothing comes through
    kept = None
    if dropout_p > 0:
        drawn = generator(rng).random(weights.shape, np.float32) >= dropout_p
        kept = library.asarray(drawn) * wide.type(1 / (1 - dropout_p) if dropout_p < 1 else 0)
    used = weights if kept is None else weights * kept
    y = used @ v

    def joined(gradient: ndarray, like: ndarray) -> ndarray:
        """Of an array whose heads several heads of the query may share."""
        if enable_gqa:
            shape = (*gradient.shape[:-3], like.shape[-3], heads // like.shape[-3], *gradient.shape[-2:])
            gradient = gradient.reshape(shape).sum(axis=-3)
        return fit(gradient, like.shape, like.dtype)

    def pullback(dy):
        dy = dy.astype(wide, copy=False)
        dv = _swapped(used) @ dy
        dweights = dy @ _swapped(v)
        dweights = dweights if kept is None else dweights * kept
        dscores = weights * (dweights - (dweights * weights).sum(axis=-1, keepdims=True))
        dk = _swapped(dscores) @ (q * factor)
        learned = attn_mask is not None and attn_mask.dtype != np.bool_
        return (
            fit((dscores @ k) * factor, query.shape, query.dtype) if wanted[0] else None,
            joined(dk, key) if wanted[1] else None,
            joined(dv, value) if wanted[2] else None,
            fit(dscores, attn_mask.shape, attn_mask.dtype) if wanted[3] and learned else None,
        )

    return y.astype(query.dtype, copy=False), pullback


@differentiable(_attention_rule, wrt=("query", "key", "value", "attn_mask"))
def scaled_dot_product_attention(
    query: A,
    key: Array,
    value: Array,
    attn_mask: Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    rng: np.random.Generator | None = None,
) -> A:
    """softmax(query key^T scale + mask) value, as torch.nn.functional.scaled_dot_product_attention.

    Parameters
    ----------
    query : array, shape (..., L, E)
        float32, float64, float16 or bfloat16; the leading dimensions of all arrays broadcast.
    key : array, shape (..., S, E)
    value : array, shape (..., S, Ev)
    attn_mask : array, broadcastable to (..., L, S), optional
        bool: which keys a query may see; or numbers that are added to the scores, of the query's dtype.
    dropout_p : float
        Probability with which a weight becomes 0; there is no evaluation mode that would switch it off.
    is_causal : bool
        Query i sees the keys up to number i; instead of `attn_mask`.
    scale : float, optional
        1 / sqrt(E) by default.
    enable_gqa : bool
        Several heads of the query (dimension -3) share one of key and value.
    rng : numpy.random.Generator, optional
        Default: the generator that `fastconv.manual_seed` seeds.

    Returns
    -------
    array, shape (..., L, Ev)
        0 for a query that sees no key.

    Raises
    ------
    ValueError
        Shapes that do not fit, `dropout_p` out of range, a mask besides `is_causal`.
    TypeError
        A dtype that is not supported, or dtypes that differ.

    Notes
    -----
    Vaswani et al., 2017, arXiv:1706.03762. All scores are in memory at once.

    Examples
    --------
    >>> import numpy as np, fastconv.nn.functional as F
    >>> query, value = np.zeros((2, 4)), np.array([[1.0], [3.0]])
    >>> F.scaled_dot_product_attention(query, query, value, is_causal=True)
    array([[1.],
           [2.]])
    """
    return apply(
        scaled_dot_product_attention, query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa, rng
    )
