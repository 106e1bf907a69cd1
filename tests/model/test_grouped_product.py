"""Rows sorted into groups and back, and products with each group's kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.grouped_product import (
    block_size,
    group_choices,
    grouped_product,
    rows_to_slots,
    slots_to_rows,
)
from tests.model.samples import assert_trees_close, relative_difference
from train.hlo import dot_flops

D, F, E = 8, 12, 5


def random_groups(seed: int, block: int, num_tokens: int = 33, k: int = 2):
    """Some choices of no group; in seed 0 a group without choices; in seed 1 one with most."""
    rng = np.random.default_rng(seed)
    odds = np.array([[3, 1, 0, 2, 1, 2], [20, 1, 1, 1, 1, 1]][seed], float)
    group_Tk = rng.choice(E + 1, (num_tokens, k), p=odds / odds.sum())
    return group_Tk, group_choices(jnp.asarray(group_Tk), E, block)


def test_the_docstrings_example():
    groups = group_choices(jnp.array([[1], [0], [1], [9]]), 2, 2)
    assert groups.slot_Tk.tolist() == [[2], [0], [3], [6]]
    assert groups.choice_S.tolist() == [1, 4, 0, 2, 4, 4]
    assert groups.sizes_E.tolist() == [2, 2]


@pytest.mark.parametrize("block", [1, 4, 16])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_choice_has_one_slot_in_its_own_group(seed, block):
    group_Tk, groups = random_groups(seed, block)
    sizes, choices = np.asarray(groups.sizes_E), np.asarray(groups.choice_S)
    assert not np.any(sizes % block) and sizes.sum() <= len(choices)
    group_of_slot = np.repeat(np.arange(E), sizes)
    slots = np.asarray(groups.slot_Tk)
    has_group = group_Tk < E
    np.testing.assert_array_equal(group_of_slot[slots[has_group]], group_Tk[has_group])
    np.testing.assert_array_equal(choices[slots[has_group]], np.flatnonzero(has_group))
    assert np.all(slots[~has_group] == len(choices))
    assert np.sum(choices < group_Tk.size) == has_group.sum()


def test_there_are_slots_enough_for_the_worst_spread():
    # One choice in every group but one, which has the rest: the most gaps there can be.
    group_Tk = np.array([[0], [1], [2], [3], *[[4]] * 9])
    groups = group_choices(jnp.asarray(group_Tk), E, 4)
    assert groups.sizes_E.tolist() == [4, 4, 4, 4, 12]
    assert len(groups.choice_S) == 28


@pytest.mark.parametrize("block", [1, 4])
def test_the_way_there_and_back_gives_rows_back_and_its_gradient_counts_them(block):
    group_Tk, groups = random_groups(0, block)
    x_TD = jnp.asarray(np.random.default_rng(2).standard_normal((len(group_Tk), D)), jnp.float32)

    def there_and_back(x_TD):
        return slots_to_rows(rows_to_slots(x_TD, groups), groups)

    has_group = (group_Tk < E)[..., None]
    np.testing.assert_array_equal(there_and_back(x_TD), np.asarray(x_TD)[:, None] * has_group)
    gradient = jax.grad(lambda x: jnp.sum(there_and_back(x)))(x_TD)
    np.testing.assert_array_equal(gradient, np.broadcast_to(has_group.sum(1), x_TD.shape))


@pytest.mark.parametrize("seed", [0, 1])
def test_products_and_gradients_equal_a_loop_over_groups_on_every_platform(seed):
    # 1e-5: sums over widths of about ten, in fp32, in another order.
    rng = np.random.default_rng(3)
    kernel = jnp.asarray(rng.standard_normal((E, D, F)), jnp.float32)
    x_TD = jnp.asarray(rng.standard_normal((33, D)), jnp.float32)
    reading = jnp.asarray(rng.standard_normal((33, 2, F)), jnp.float32)
    group_Tk, _ = random_groups(seed, 1)

    def looped(x_TD, kernel):
        rows = [
            [x_TD[t] @ kernel[e] if e < E else jnp.zeros(F) for e in chosen]
            for t, chosen in enumerate(group_Tk)
        ]
        return jnp.array(rows)

    def grouped(x_TD, kernel, platform: str, block: int):
        _, groups = random_groups(seed, block)
        x_SD = rows_to_slots(x_TD, groups)
        y_SF = grouped_product(x_SD, kernel, groups.sizes_E, block=block, platform=platform)
        return slots_to_rows(y_SF, groups)

    def gradients(f, *static):
        return jax.grad(lambda *a: jnp.sum(f(*a, *static) * reading), (0, 1))(x_TD, kernel)

    expected, expected_gradients = looped(x_TD, kernel), gradients(looped)
    for static in (("tpu", 1), ("cpu", 1), ("cpu", 4), ("gpu", 64)):
        assert relative_difference(grouped(x_TD, kernel, *static), expected) <= 1e-5
        assert_trees_close(gradients(grouped, *static), expected_gradients, 1e-5)


def test_blocks_are_about_a_quarter_of_a_group_and_none_where_the_product_is_native():
    sizes = [block_size(n, 8, "cpu") for n in (1, 16, 63, 64, 8192, 10**6)]
    assert sizes == [1, 1, 1, 2, 256, 512]
    assert block_size(8192, 8, "tpu") == 1


def test_a_tpu_gets_the_native_product_and_a_gpu_does_not():
    def lowered(platform: str, name: str) -> str:
        def product(x, kernel, sizes):
            return grouped_product(x, kernel, sizes, block=1, platform=platform)

        arguments = jnp.zeros((6, D)), jnp.zeros((E, D, F)), jnp.zeros(E, jnp.int32)
        return jax.jit(product).trace(*arguments).lower(lowering_platforms=(name,)).as_text()

    assert "ragged_dot" in lowered("tpu", "tpu")
    assert "ragged_dot" not in lowered("gpu", "cuda")


def test_the_compiled_program_does_not_multiply_every_row_with_every_kernel():
    rows, block = 512, block_size(512, 8, "cpu")
    num_slots = len(group_choices(jnp.zeros((rows, 1), jnp.int32), 8, block).choice_S)

    def product(x, kernel, sizes):
        return grouped_product(x, kernel, sizes, block=block, platform="cpu")

    arguments = jnp.zeros((num_slots, D)), jnp.zeros((8, D, F)), jnp.zeros(8, jnp.int32)
    text = jax.jit(product).lower(*arguments).compile().as_text()
    assert text is not None
    # The gaps of the worst spread: 8 · 15 slots for 512 rows.
    assert dot_flops(text) == pytest.approx(2 * num_slots * D * F)
    assert num_slots < 1.25 * rows
