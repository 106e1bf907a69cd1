"""However layers are repeated, the numbers are the same."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.model_config import ModelConfig
from model.build import abstract_params, build_model, forward
from tests.model.samples import (
    VARIANTS,
    assert_trees_close,
    logits_and_gradient,
    logits_of,
    random_params,
    rows_for,
    tiny_model,
)

# The same sums, fused by the compiler in another order.
TOLERANCE = 1e-5


@pytest.mark.parametrize(
    "changes",
    [{"scan_layers": True}, {"remat": "full"}, {"scan_layers": True, "remat": "full"}],
    ids=["scanned", "unrolled with remat", "scanned with remat"],
)
def test_scanned_and_rematerialised_equal_unrolled_in_logits_and_gradients(baseline, changes):
    logits, gradient = logits_and_gradient(tiny_model(**changes), baseline.params, baseline.rows)
    np.testing.assert_allclose(logits, baseline.logits, atol=TOLERANCE)
    assert_trees_close(gradient, baseline.gradient, TOLERANCE)


# Layers that differ from one another: windows in a pattern and a first layer without its norm; two
# stacks with one table of biases each.
OTHERS = ("modernbert", "t5")


@pytest.mark.parametrize("name", OTHERS)
def test_other_architectures_scanned_equal_unrolled(name):
    config = VARIANTS[name]
    params, rows = random_params(config), rows_for(config)
    scanned = logits_of(replace(config, scan_layers=True), params, rows)
    unrolled, is_token = logits_of(config, params, rows), rows.segment_ids > 0
    np.testing.assert_allclose(scanned[is_token], unrolled[is_token], atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_architectures_scanned_with_remat_equal_unrolled_in_gradients_too(name):
    config = VARIANTS[name]
    params, rows = random_params(config), rows_for(config)
    logits, gradient = logits_and_gradient(config, params, rows)
    scanned = replace(config, scan_layers=True, remat="full")
    other_logits, other_gradient = logits_and_gradient(scanned, params, rows)
    is_token = rows.segment_ids > 0
    np.testing.assert_allclose(other_logits[is_token], logits[is_token], atol=TOLERANCE)
    assert_trees_close(other_gradient, gradient, TOLERANCE)


@pytest.mark.parametrize("scan_layers", [True, False])
def test_rematerialisation_computes_the_forward_pass_again(baseline, scan_layers):
    def count_products(remat: str) -> int:
        config = tiny_model(remat=remat, scan_layers=scan_layers)
        model = build_model(config)
        tokens = jnp.asarray(baseline.rows.tokens)

        def loss(params):
            return forward(model, params, tokens, **baseline.rows.fields).sum()

        return str(jax.make_jaxpr(jax.grad(loss))(abstract_params(config))).count("dot_general")

    assert count_products("full") > count_products("none")


@pytest.mark.parametrize(
    ("changes", "is_protected"),
    [
        ({"scan_layers": True}, False),  # a loop of its own for either pass
        ({"scan_layers": False}, True),
        # A pattern longer than the stack: no layer is in a loop.
        ({"scan_layers": True, "remat_pattern": ("remat",) * 3}, True),
    ],
    ids=["looped", "unrolled", "left over"],
)
def test_outside_of_loops_recomputation_is_kept_from_being_merged_away(
    baseline, changes, is_protected
):
    config = tiny_model(remat="full", **changes)
    model, tokens = build_model(config), jnp.asarray(baseline.rows.tokens)

    def logits(params):
        return forward(model, params, tokens, **baseline.rows.fields)

    program = str(jax.make_jaxpr(logits)(abstract_params(config)))
    assert f"prevent_cse={is_protected}" in program
    assert f"prevent_cse={not is_protected}" not in program


@pytest.mark.parametrize(
    "config",
    [tiny_model(), VARIANTS["modernbert"], VARIANTS["t5"]],
    ids=["llama", "modernbert", "t5"],
)
def test_parameters_do_not_depend_on_how_layers_are_repeated(config: ModelConfig):
    scanned, unrolled = (
        abstract_params(replace(config, scan_layers=scan)) for scan in (True, False)
    )
    assert jax.tree.structure(scanned) == jax.tree.structure(unrolled)
    assert jax.tree.leaves(scanned) == jax.tree.leaves(unrolled)


def test_a_deeper_stack_runs_every_layer_in_order(baseline):
    # Swapping two layers' parameters, or leaving one out, must show.
    layers = baseline.params["decoder"]["layers"]

    def with_layers(change):
        decoder = baseline.params["decoder"] | {"layers": jax.tree.map(change, layers)}
        params = baseline.params | {"decoder": decoder}
        return logits_and_gradient(baseline.config, params, baseline.rows)[0]

    swapped = with_layers(lambda leaf: leaf[::-1])
    assert np.abs(swapped - baseline.logits).max() > 1e-2
    repeated = with_layers(lambda leaf: leaf[jnp.array([0, 0])])
    assert np.abs(repeated - baseline.logits).max() > 1e-2
