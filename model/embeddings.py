"""Token ids to vectors, and what is added to them before the first layer."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from configs.model_config import ModelConfig
from configs.position_config import LearnedPositionConfig, SinusoidalPositionConfig
from model.constrain import Constrain
from model.initializers import Init
from model.lookup import look_up
from model.norms import make_norm
from model.parameters import normal, parameter
from model.positions import Table, position_rows, position_start, sinusoids


class TokenEmbedding(nn.Module):
    """A table of one row per token, which a tied head reuses."""

    config: ModelConfig
    constrain: Constrain

    def setup(self):
        c = self.config
        self.embedding = parameter(
            self,
            "embedding",
            normal(Init(c).stddev("embedding", c.emb_dim)),
            (c.vocab_size, c.emb_dim),
            ("vocab", "embed"),
        )

    def __call__(self, tokens_BL: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """Looks tokens up; ids out of range give NaN."""
        x_BLD = look_up(self.table_VD, tokens_BL, self.constrain)
        return self.constrain(x_BLD, "batch", "length", "activation_embed")

    @property
    def table_VD(self) -> Float[Array, "V D"]:
        """The table in compute dtype."""
        return self.embedding.astype(jnp.dtype(self.config.compute_dtype))


class InputEmbedding(nn.Module):
    """Scales a token's vector, adds its position's and type's, norms the sum: each if asked for."""

    config: ModelConfig
    constrain: Constrain

    @nn.compact
    def __call__(
        self,
        x_BLD: Float[Array, "B L D"],
        positions_BL: Int[Array, "B L"],
        token_types_BL: Int[Array, "B L"] | None = None,
    ) -> Float[Array, "B L D"]:
        c, dtype = self.config, jnp.dtype(self.config.compute_dtype)
        stddev = Init(c).stddev("embedding", c.emb_dim)
        if c.embedding.scale_by_width:
            x_BLD = x_BLD * jnp.asarray(math.sqrt(c.emb_dim), dtype)
        if c.embedding.num_token_types:
            types = (c.embedding.num_token_types, c.emb_dim, "token_types")
            table = Table(*types, normal(stddev), dtype, self.constrain, name="token_type")
            types_BL = jnp.zeros_like(positions_BL) if token_types_BL is None else token_types_BL
            x_BLD = x_BLD + table(types_BL)
        match c.position:
            case LearnedPositionConfig() as position:
                size = (position.num_positions, c.emb_dim, "positions")
                start = position_start(position, stddev)
                table = Table(*size, start, dtype, self.constrain, name="position")
                x_BLD = x_BLD + table(position_rows(position, positions_BL))
            case SinusoidalPositionConfig() as position:
                x_BLD = x_BLD + sinusoids(position, positions_BL, c.emb_dim).astype(dtype)
        if c.embedding.use_norm:
            x_BLD = make_norm(c.norm, dtype, "norm")(x_BLD)
        return self.constrain(x_BLD, "batch", "length", "activation_embed")
