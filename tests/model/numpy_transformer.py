"""Every kind of model as its paper describes it: double precision, one row, one head at a time."""

import math
from fractions import Fraction
from typing import Any

import numpy as np

from configs.model_config import LayerNormConfig, MaskedLMHeadConfig, ModelConfig
from configs.position_config import (
    AlibiConfig,
    LearnedPositionConfig,
    LinearScalingConfig,
    RelativeBiasConfig,
    RopeConfig,
    SinusoidalPositionConfig,
)
from model.build import Params
from tests.model.samples import Rows

Tree = dict[str, Any]


def numpy_logits(config: ModelConfig, params: Params, rows: Rows) -> np.ndarray:
    """Logits [B, L, V]; those of padding mean nothing."""
    weights = _doubles(params)
    return np.stack([_row(config, weights, rows, b) for b in range(len(rows.tokens))])


def bucket(distance: int, num_buckets: int, max_distance: int, *, bidirectional: bool) -> int:
    """T5's bucket of key minus query, from where buckets begin, in whole numbers.

    Of a direction's n buckets the first half, e, hold one distance each; bucket e + k begins at
    the least distance d with d / e >= (max_distance / e) ** (k / (n - e)).
    """
    if bidirectional:
        num_buckets //= 2
    first = num_buckets if bidirectional and distance > 0 else 0
    steps = abs(distance) if bidirectional else max(-distance, 0)
    exact = num_buckets // 2
    if steps < exact:
        return first + steps
    powers = num_buckets - exact

    def begins(k: int) -> bool:
        return Fraction(steps, exact) ** powers >= Fraction(max_distance, exact) ** k

    return first + exact + max(k for k in range(powers) if begins(k))


def _doubles(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _doubles(branch) for name, branch in tree.items()}
    return np.asarray(tree, np.float64)


def _row(config: ModelConfig, weights: Tree, rows: Rows, b: int) -> np.ndarray:
    table = weights["token_embedding"]["embedding"]
    memory = None
    if config.architecture == "encoder_decoder":
        assert rows.encoder_tokens is not None and rows.encoder_positions is not None
        assert rows.encoder_segment_ids is not None
        segments = rows.encoder_segment_ids[b]
        x = table[rows.encoder_tokens[b]]
        memory = _side(config, weights, "encoder", x, rows.encoder_positions[b], segments)
        memory = (memory, segments)
    side = "encoder" if config.architecture == "encoder_only" else "decoder"
    prefix = None if rows.prefix is None else rows.prefix[b]
    x = table[rows.tokens[b]]
    x = _side(config, weights, side, x, rows.positions[b], rows.segment_ids[b], prefix, memory)
    return _head(config, weights, x)


def _side(config, weights, side, x, positions, segments, prefix=None, memory=None):
    own, layers = weights[side], weights[side]["layers"]
    c, x = config.attention, _embed(config, weights.get(f"{side}_embedding", {}), x, positions)
    num_layers = len(layers["mlp_norm"]["scale"])
    visible = _visible(segments, segments)
    order = np.arange(len(x))[None, :] - np.arange(len(x))[:, None]  # key minus query
    if side == "decoder":
        may_see_later = np.zeros(len(x), bool) if prefix is None else prefix > 0
        visible = visible & ((order <= 0) | may_see_later[None, :])
    bias = _score_bias(config, own, order, bidirectional=side == "encoder")
    for n in range(num_layers):
        w = _layer(layers, n)
        is_window = c.layer_pattern[n % len(c.layer_pattern)] == "window"
        mask = visible & (np.abs(order) < c.window) if is_window else visible

        def attend(h, w=w["attention"], mask=mask, is_window=is_window):
            def turned(x_LHC):
                return _rotated(config, x_LHC, positions, is_window=is_window)

            return _attention(config, w, h, h, mask, bias, turned)

        skip = config.skip_first_norm and n == 0
        x = _residual(config, w, "attention", x, attend, skip_norm=skip)
        if memory is not None:
            activations, memory_segments = memory
            mask = _visible(segments, memory_segments)

            def read(h, w=w["cross_attention"], mask=mask, memory=activations):
                return _attention(config, w, h, memory, mask, None, _unturned)

            x = _residual(config, w, "cross_attention", x, read)
        x = _residual(config, w, "mlp", x, lambda h, w=w["mlp"]: _mlp(config, w, h))
    return x if config.norm_placement == "post" else _norm(config.norm, own["final_norm"], x)


def _layer(layers: Tree, n: int) -> Tree:
    return {
        name: _layer(branch, n) if isinstance(branch, dict) else branch[n]
        for name, branch in layers.items()
    }


def _embed(config, weights, x, positions):
    D = config.emb_dim
    if config.embedding.scale_by_width:
        x = x * np.sqrt(D)
    if config.embedding.num_token_types:
        x = x + weights["token_type"]["embedding"][0]
    if isinstance(config.position, LearnedPositionConfig):
        x = x + weights["position"]["embedding"][positions + config.position.offset]
    if isinstance(config.position, SinusoidalPositionConfig):
        for feature in range(D):
            angle = positions / config.position.theta ** (feature // 2 * 2 / D)
            x = x + np.eye(D)[feature] * (np.cos if feature % 2 else np.sin)(angle)[:, None]
    return _norm(config.norm, weights["norm"], x) if config.embedding.use_norm else x


def _visible(queries, keys):
    return (queries[:, None] == keys[None, :]) & (keys > 0)[None, :]


def _score_bias(config, weights, order, *, bidirectional):
    H, bias = config.attention.num_heads, np.zeros((config.attention.num_heads, *order.shape))
    for (i, j), distance in np.ndenumerate(order):
        match config.position:
            case RelativeBiasConfig(num_buckets=R, max_distance=longest):
                number = bucket(int(distance), R, longest, bidirectional=bidirectional)
                bias[:, i, j] = weights["relative_bias"]["embedding"][number]
            case AlibiConfig():
                bias[:, i, j] = [-slope * abs(distance) for slope in alibi_slopes(H)]
    return bias


def alibi_slopes(num_heads: int) -> list[float]:
    """The paper's: geometric from 2^(-8/n), n the power of two below, then the odd ones between."""
    power = 1
    while 2 * power <= num_heads:
        power *= 2
    return [
        2 ** (-8 * (h + 1) / power) if h < power else 2 ** (-4 * (2 * (h - power) + 1) / power)
        for h in range(num_heads)
    ]


def _rotated(config, x_LHC, positions, *, is_window):
    p = config.position
    if not isinstance(p, RopeConfig):
        return x_LHC
    is_local = is_window and p.local_theta > 0
    factor = p.scaling.factor if isinstance(p.scaling, LinearScalingConfig) else 1.0
    half, theta = x_LHC.shape[-1] // 2, p.local_theta if is_local else p.theta
    angle = positions[:, None] / theta ** (np.arange(half) / half) / (1.0 if is_local else factor)
    turned = (x_LHC[..., :half] + 1j * x_LHC[..., half:]) * np.exp(1j * angle)[:, None, :]
    return np.concatenate([turned.real, turned.imag], axis=-1)


def _unturned(x_LHC):
    return x_LHC


def _attention(config, w, x_LD, memory_MD, mask_LM, bias_HLM, turned):
    c = config.attention
    q, k, v = (
        np.einsum("ld,dhc->lhc", source, w[name]["kernel"]) + w[name].get("bias", 0.0)
        for name, source in (("query", x_LD), ("key", memory_MD), ("value", memory_MD))
    )
    if c.qk_norm:
        q, k = (_norm(config.norm, w[f"{name}_norm"], x) for name, x in (("query", q), ("key", k)))
    q, k, out = turned(q), turned(k), np.zeros(q.shape)
    for h in range(c.num_heads):
        kv = h * c.num_kv_heads // c.num_heads
        scores = (q[:, h] @ k[:, kv].T) * (c.query_scale or 1 / math.sqrt(c.head_dim))
        if bias_HLM is not None:
            scores = scores + bias_HLM[h]
        if c.logit_softcap:
            scores = c.logit_softcap * np.tanh(scores / c.logit_softcap)
        for place in np.flatnonzero(mask_LM.any(-1)):
            seen = mask_LM[place]
            exponents = np.exp(scores[place, seen] - scores[place, seen].max())
            out[place, h] = exponents / exponents.sum() @ v[seen, kv]
    return np.einsum("lhc,hcd->ld", out, w["out"]["kernel"]) + w["out"].get("bias", 0.0)


def _residual(config, w, name, x, sublayer, *, skip_norm=False):
    norm = w[f"{name}_norm"]
    if config.norm_placement == "post":
        return _norm(config.norm, norm, x + sublayer(x))
    h = sublayer(x if skip_norm else _norm(config.norm, norm, x))
    if config.norm_placement == "sandwich":
        h = _norm(config.norm, w[f"{name}_post_norm"], h)
    return x + h


def _norm(config, w, x):
    if isinstance(config, LayerNormConfig):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + config.epsilon)
        return x * w["scale"] + w.get("bias", 0.0)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + config.epsilon)
    return x * (w["scale"] + config.scale_offset)


def gelu(kind: str, x: np.ndarray) -> np.ndarray:
    """x times the normal distribution, exactly or by Hendrycks and Gimpel's approximation."""
    if kind == "exact":
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _mlp(config, w, x):
    m = config.mlp
    wide = {name: x @ w[name]["kernel"] + w[name].get("bias", 0.0) for name in w if name != "down"}
    match m.kind:
        case "swiglu":
            h = wide["gate"] / (1 + np.exp(-wide["gate"])) * wide["up"]
        case "geglu":
            h = gelu(m.gelu, wide["gate"]) * wide["up"]
        case "gelu":
            h = gelu(m.gelu, wide["up"])
        case "relu":
            h = np.maximum(wide["up"], 0)
        case "squared_relu":
            h = np.maximum(wide["up"], 0) ** 2
    return h @ w["down"]["kernel"] + w["down"].get("bias", 0.0)


def _head(config, weights, x):
    w, head = weights.get("head", {}), config.head
    if isinstance(head, MaskedLMHeadConfig):
        x = gelu(head.gelu, x @ w["dense"]["kernel"] + w["dense"].get("bias", 0.0))
        x = _norm(config.norm, w["norm"], x)
    tied = weights["token_embedding"]["embedding"].T
    logits = x @ (tied if config.tie_embeddings else w["kernel"])
    logits = logits * getattr(head, "logit_scale", 1.0) + w.get("bias", 0.0)
    softcap = getattr(head, "logit_softcap", 0.0)
    return softcap * np.tanh(logits / softcap) if softcap else logits
