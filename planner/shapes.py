"""From a parameter count to a concrete shape, aligned to the hardware."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from configs.errors import InputError
from configs.mlp_config import GATED, MLPConfig, MoEConfig
from configs.model_config import AttentionConfig, ModelConfig
from configs.position_config import RopeConfig
from planner.parameters import matmul_params, total_params


@dataclass(frozen=True, kw_only=True)
class Tile:
    """What widths are multiples of.

    width: emb_dim. mlp: mlp_dim.
    """

    width: int
    mlp: int


# CPUs have no matrix unit to fill: small steps let small models come close to their target.
CPU_TILE = Tile(width=16, mlp=32)
ACCELERATOR_TILE = Tile(width=128, mlp=128)
_WIDE_HEAD_FROM = 2048  # published models go from heads of 64 to heads of 128 about here
_COARSE_FROM = 4096
_MAX_LAYERS = 160
_STRAY = 1.6  # how far a shape may be off the published width per layer

# Vocabulary by matmul parameters: larger models afford and want more pieces. A rule of thumb
# between published models (GPT-2 small 50k, Llama 7B 32k, Llama 3 8B 128k) and, below them,
# what keeps the head from eating the model.
_VOCABULARIES = ((2e5, 1024), (1e7, 2048), (3e7, 4096), (1e8, 8192), (3e9, 32_768))
_LARGEST_VOCABULARY = 131_072
# Pieces that every tokenizer has: padding, unknown, both ends of a document, and 256 bytes.
_FIXED_PIECES = 4 + 256
_MIN_LEARNED_PIECES = 512  # fewer would leave hardly a word whole


def vocabulary_for(params: float, num_symbols: int = 0) -> int:
    """Number of tokenizer pieces for a model of about `params` matmul parameters.

    Args:
      num_symbols: control symbols that the objective adds to the tokenizer; they count as pieces,
        and where they would leave too few for the text the next larger vocabulary is taken.
    """
    needed = _FIXED_PIECES + num_symbols + _MIN_LEARNED_PIECES
    for below, vocab_size in _VOCABULARIES:
        if params < below and needed <= vocab_size:
            return vocab_size
    return _LARGEST_VOCABULARY


def shape_for(
    params: float,
    *,
    template: ModelConfig,
    vocab_size: int,
    tile: Tile,
    count: Callable[[ModelConfig], float] = matmul_params,
    at_most: float | None = None,
) -> ModelConfig:
    """The shape whose count comes closest to `params` among well-proportioned ones.

    Widths are multiples of the tile; depth follows for each width; a shape whose width per layer
    strays from published ratios (about 64 at 100M to 100 at 70B, lower below) by more than a
    factor of 1.6 is left out unless all do. MLP width is 8/3 of the model width where it is gated
    (Shazeer 2020), each expert's too, else 4 times. Both sides of an encoder-decoder are equally
    deep.

    Args:
      params: target, in the definition that `count` uses.
      template: everything that is no size (architecture, norms, positions, experts, ties, dtypes)
        is taken from it.
      at_most: total parameters the shape may have; None for no limit.

    Raises:
      InputError: not even the narrowest shape is small enough.
    """
    if at_most is not None:
        params = min(params, at_most)
    best = _closest(params, template, vocab_size, tile, count, at_most, stray=_STRAY)
    # Below the smallest well-proportioned shape, any proportion is better than none.
    best = best or _closest(params, template, vocab_size, tile, count, at_most, stray=math.inf)
    if best is None:
        smallest = count(_shape(tile.width, 1, template, vocab_size, tile))
        field = "budget" if at_most is None or at_most > params else "max_params"
        raise InputError(
            f"{field}: got a model of {params:,.0f} parameters, expected at least "
            f"{smallest:,.0f} (one layer of width {tile.width} with {vocab_size} pieces)"
        )
    return best


def _closest(
    params: float,
    template: ModelConfig,
    vocab_size: int,
    tile: Tile,
    count: Callable[[ModelConfig], float],
    at_most: float | None,
    *,
    stray: float,
) -> ModelConfig | None:
    """The closest shape whose width per layer is off the published ratio by `stray` at most."""
    best: tuple[float, ModelConfig] | None = None
    for width in _widths(tile):
        if count(_shape(width, 1, template, vocab_size, tile)) > _STRAY * params:
            break
        for num_layers in range(1, _MAX_LAYERS + 1):
            off = abs(math.log(width / num_layers / _aspect_ratio(params)))
            if off > math.log(stray):
                continue
            config = _shape(width, num_layers, template, vocab_size, tile)
            if at_most is not None and total_params(config) > at_most:
                continue
            # Being off the ratio weighs less than being off the count.
            score = abs(math.log(count(config) / params)) + 0.3 * off
            if best is None or score < best[0]:
                best = score, config
    return None if best is None else best[1]


def _widths(tile: Tile) -> Iterator[int]:
    """Multiples of the tile; wide models in the coarse steps that published ones take, so that
    heads and shards divide them."""
    width = 0
    while True:
        width += tile.width
        step = 512 if width >= _WIDE_HEAD_FROM else 1
        step = 1024 if width >= _COARSE_FROM else step
        if width % step == 0:
            yield width


def _aspect_ratio(params: float) -> float:
    """Published widths per layer: GPT-2 small 64, Chinchilla 70B 102, Llama 3 405B 130.

    Below 100M the ratio is kept falling towards 40 at half a million.
    """
    log_params = math.log10(max(params, 1e5))
    return min(130.0, max(40.0, 40.0 + (log_params - 5.7) * 12.0))


def _shape(
    width: int, num_layers: int, template: ModelConfig, vocab_size: int, tile: Tile
) -> ModelConfig:
    # As many heads of about 64 (128 in wide models) as divide the width, and never a single one:
    # small runs with one head fell behind by more than their width (benchmarks/RESULTS.md).
    num_heads = max(2, round(width / (128 if width >= _WIDE_HEAD_FROM else 64)))
    while width % (2 * num_heads):
        num_heads -= 1
    head_dim = width // num_heads
    # Grouped queries came with rotary decoders: formats of other families cannot express them.
    groups = template.architecture == "decoder_only" and isinstance(template.position, RopeConfig)
    grouped = groups and width >= _WIDE_HEAD_FROM and num_heads % 8 == 0
    mlp_tile = 1024 if width >= _COARSE_FROM else tile.mlp
    mlp_dim = max(mlp_tile, round(mlp_ratio(template.mlp) * width / mlp_tile) * mlp_tile)
    return replace(
        template,
        vocab_size=vocab_size,
        emb_dim=width,
        num_layers=num_layers,
        num_encoder_layers=num_layers if template.architecture == "encoder_decoder" else 0,
        attention=replace(
            template.attention,
            num_heads=num_heads,
            num_kv_heads=8 if grouped else num_heads,
            head_dim=head_dim,
            query_scale=_query_scale(template.attention),
        ),
        mlp=replace(template.mlp, mlp_dim=mlp_dim),
    )


def mlp_ratio(mlp: MLPConfig) -> float:
    """MLP width over model width: a gated MLP has three matrices instead of two."""
    return 8 / 3 if isinstance(mlp, (*GATED, MoEConfig)) else 4.0


def _query_scale(template: AttentionConfig) -> float:
    """The template's; where it was 1/sqrt(head_dim) written out, that of the new heads."""
    is_usual = math.isclose(template.query_scale, template.head_dim**-0.5)
    return 0.0 if is_usual else template.query_scale
