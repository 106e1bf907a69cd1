"""Vectors near and far: nearest neighbours by cosine, and maps in two dimensions.

Legend: N vectors, D their width, K neighbours.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from configs.errors import InputError, require
from model.build import Params

_ROWS_AT_ONCE = 1024
_PAIRS = 20_000


class Neighbours(NamedTuple):
    """The nearest vectors of each query, best first: their rows and cosines."""

    indices_QK: Int[np.ndarray, "Q K"]
    cosines_QK: Float[np.ndarray, "Q K"]


class Projection(NamedTuple):
    """Points in a plane, and the share of the variance along each axis: None where it has none."""

    points_N2: Float[np.ndarray, "N 2"]
    explained: tuple[float, float] | None


class Cosines(NamedTuple):
    """What two vectors drawn at random have: the measure of how near "near" is."""

    mean: float
    deviation: float


def token_table(params: Params) -> Float[np.ndarray, "V D"]:
    """The rows that tokens are looked up in."""
    return np.asarray(params["token_embedding"]["embedding"], np.float32)


def nearest(
    vectors_ND: Float[np.ndarray, "N D"], queries: Int[np.ndarray, " Q"], count: int
) -> Neighbours:
    """The `count` rows nearest to each of some rows by cosine, the row itself left out.

    Equal cosines come in the order of the rows. A zero vector has the cosine 0 with all.

    Raises:
      InputError: not 1 to N − 1 neighbours asked for.
    """
    N = len(vectors_ND)
    require(1 <= count < N, "neighbours", count, f"1 to {N - 1}")
    units_ND = normalised(vectors_ND)
    parts = []
    for begin in range(0, len(queries), _ROWS_AT_ONCE):
        rows_Q = queries[begin : begin + _ROWS_AT_ONCE]
        cosines_QN = units_ND[rows_Q] @ units_ND.T
        cosines_QN[np.arange(len(rows_Q)), rows_Q] = -np.inf
        order_QK = np.argsort(-cosines_QN, axis=1, kind="stable")[:, :count]
        parts.append((order_QK, np.take_along_axis(cosines_QN, order_QK, axis=1)))
    indices, cosines = zip(*parts, strict=True)
    return Neighbours(np.concatenate(indices), np.concatenate(cosines))


def normalised(vectors_ND: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Vectors of length 1; zero stays zero."""
    lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return vectors_ND / np.where(lengths_N1 == 0, 1, lengths_N1)


def random_cosines(vectors_ND: Float[np.ndarray, "N D"], *, seed: int = 0) -> Cosines:
    """Mean and standard deviation of the cosine of two different rows, from 20,000 pairs."""
    units_ND, rng = normalised(vectors_ND), np.random.default_rng(seed)
    first = rng.integers(0, len(units_ND), _PAIRS)
    second = (first + rng.integers(1, len(units_ND), _PAIRS)) % len(units_ND)
    cosines = np.einsum("ND,ND->N", units_ND[first], units_ND[second])
    return Cosines(float(cosines.mean()), float(cosines.std()))


def project_pca(vectors_ND: Float[np.ndarray, "N D"]) -> Projection:
    """The two directions of the largest variance, by a singular value decomposition.

    Each axis points where its largest entry is positive, so that a map does not flip from one
    machine to another.

    Raises:
      InputError: fewer than three vectors.
    """
    require(len(vectors_ND) >= 3, "tokens", len(vectors_ND), "three or more for a map")
    centred_ND = vectors_ND.astype(np.float64) - vectors_ND.mean(0, dtype=np.float64)
    _, singular, axes_DD = np.linalg.svd(centred_ND, full_matrices=False)
    axes_2D = axes_DD[:2]
    largest_2 = axes_2D[np.arange(2), np.argmax(np.abs(axes_2D), axis=1)]
    variance = singular**2
    shares = variance[:2] / max(variance.sum(), 1e-30)
    points_N2 = centred_ND @ (axes_2D * np.sign(largest_2)[:, None]).T
    return Projection(points_N2.astype(np.float32), (float(shares[0]), float(shares[1])))


def project_umap(vectors_ND: Float[np.ndarray, "N D"], *, seed: int = 0) -> Projection:
    """UMAP (McInnes et al. 2018, arXiv 1802.03426) by cosine: keeps neighbours, not distances.

    Raises:
      InputError: umap-learn is not installed, or there are fewer than sixteen vectors.
    """
    try:
        from umap import UMAP
    except ImportError as error:
        raise InputError(
            "method: got 'umap', expected 'pca', or umap-learn installed (pip install umap-learn)"
        ) from error
    require(len(vectors_ND) >= 16, "tokens", len(vectors_ND), "16 or more for UMAP")
    points_N2 = UMAP(metric="cosine", random_state=seed, n_jobs=1).fit_transform(vectors_ND)
    return Projection(np.asarray(points_N2, np.float32), None)
