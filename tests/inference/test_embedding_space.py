"""Neighbours by hand, maps whose answer is known."""

import sys

import numpy as np
import pytest

from configs.errors import InputError
from inference.embedding_space import (
    nearest,
    normalised,
    project_pca,
    project_umap,
    random_cosines,
    token_table,
)


def test_neighbours_are_by_angle_not_length_and_never_the_vector_itself():
    vectors = np.array([[1, 0], [100, 10], [0, 1], [-1, 0], [2, 0.5]], np.float32)
    found = nearest(vectors, np.array([0, 3]), 3)
    assert found.indices_QK.tolist() == [[1, 4, 2], [2, 4, 1]]
    expected = [100 / np.hypot(100, 10), 2 / np.hypot(2, 0.5), 0]
    np.testing.assert_allclose(found.cosines_QK[0], expected, atol=1e-6)  # fp32 cosines


def test_many_queries_are_answered_as_one_by_one():
    vectors = np.random.default_rng(0).standard_normal((2100, 6)).astype(np.float32)
    found = nearest(vectors, np.arange(2100), 4)
    for query in (0, 1023, 1024, 2099):
        alone = nearest(vectors, np.array([query]), 4)
        assert found.indices_QK[query].tolist() == alone.indices_QK[0].tolist()
        assert query not in found.indices_QK[query]


def test_more_neighbours_than_there_are_is_refused():
    with pytest.raises(InputError, match="neighbours: got 3, expected 1 to 2"):
        nearest(np.eye(3, dtype=np.float32), np.array([0]), 3)


def test_a_zero_vector_stays_zero():
    assert normalised(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist() == [[0, 0], [0.6, 0.8]]


def test_random_directions_in_many_dimensions_are_nearly_orthogonal():
    vectors = np.random.default_rng(0).standard_normal((400, 100)).astype(np.float32)
    spread = random_cosines(vectors)
    # Standard deviation 1/sqrt(100); the mean of 20,000 pairs varies by a hundredth of that.
    assert abs(spread.mean) < 0.005 and abs(spread.deviation - 0.1) < 0.005
    assert random_cosines(vectors + 5).mean > 0.9


def test_pca_finds_the_plane_that_points_lie_in():
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.standard_normal((7, 2)))[0].T
    inside = rng.standard_normal((300, 2)) * [5, 2]
    points = (inside @ plane + 3).astype(np.float32)
    found = project_pca(points)
    assert found.explained is not None and sum(found.explained) == pytest.approx(1, abs=1e-6)
    assert found.explained[0] == pytest.approx(25 / 29, abs=0.03)  # of 300 draws
    np.testing.assert_allclose(found.points_N2.mean(0), 0, atol=1e-4)
    distances = np.linalg.norm(inside[:, None] - inside[None], axis=-1)
    mapped = np.linalg.norm(found.points_N2[:, None] - found.points_N2[None], axis=-1)
    np.testing.assert_allclose(mapped, distances, atol=1e-4)  # fp32 coordinates up to 15


def test_a_map_does_not_depend_on_the_signs_of_the_decomposition():
    points = np.random.default_rng(1).standard_normal((50, 5)).astype(np.float32)
    there, mirrored = project_pca(points), project_pca(-points)
    np.testing.assert_allclose(there.points_N2, -mirrored.points_N2, atol=1e-5)


def test_umap_that_is_not_installed_is_told_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(InputError, match="umap-learn installed") as raised:
        project_umap(np.eye(20, dtype=np.float32))
    assert "\n" not in str(raised.value)


def test_the_token_table_is_the_models(sample):
    table = token_table(sample.params)
    assert table.shape == (sample.config.vocab_size, sample.config.emb_dim)
    np.testing.assert_array_equal(table, sample.params["token_embedding"]["embedding"])
