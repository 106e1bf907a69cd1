"""RoBERTa (Liu et al. 2019, arXiv 1907.11692): BERT's layers; positions count from after the id of
padding, and its head's GELU is exact whatever the layers have."""

from collections.abc import Mapping
from typing import Any

from configs.errors import InputError
from configs.model_config import HeadConfig, MaskedLMHeadConfig, ModelConfig, NoHeadConfig
from configs.position_config import LearnedPositionConfig
from export.families import bert
from export.families.family import Entry, Family, SpecialIds, entries_of
from export.families.fields import Fields

HEAD = entries_of(
    ("head/dense/kernel", "lm_head.dense.weight", "D O", "O D"),
    ("head/dense/bias", "lm_head.dense.bias", "D", "D"),
    ("head/norm/scale", "lm_head.layer_norm.weight", "D", "D"),
    ("head/norm/bias", "lm_head.layer_norm.bias", "D", "D"),
    ("head/bias", "lm_head.bias", "V", "V"),
)


def entries(config: ModelConfig) -> tuple[Entry, ...]:
    """The table: a model without a head is saved without the prefix."""
    has_head = isinstance(config.head, MaskedLMHeadConfig)
    return (*bert.encoder_entries("roberta."), *HEAD) if has_head else bert.encoder_entries("")


def copies(config: ModelConfig) -> dict[str, str]:
    """The tied head's table and bias, under the names of the layer that applies them."""
    return {
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }


def to_config(config: ModelConfig, seq_len: int, ids: SpecialIds) -> dict[str, Any]:
    """Their config.json; the longest context is what the table of positions has after the offset.

    The offset is not theirs to choose: it is the tokenizer's id of padding plus one.
    """
    assert isinstance(config.position, LearnedPositionConfig)
    has_head = isinstance(config.head, MaskedLMHeadConfig)
    return {
        "architectures": ["RobertaForMaskedLM" if has_head else "RobertaModel"],
        "model_type": "roberta",
        **bert.write_encoder(config, ids),
        "pad_token_id": config.position.offset - 1 if ids.pad is None else ids.pad,
    }


def from_config(theirs: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """(our config, longest context) of a RoBERTa config.json.

    Raises:
      InputError: a field is missing, has a wrong type, or asks for what our model has not.
    """
    fields = Fields(theirs)
    head: HeadConfig = NoHeadConfig()
    if theirs.get("architectures") != ["RobertaModel"]:
        head = MaskedLMHeadConfig(gelu="exact")
    pad_id = theirs.get("pad_token_id", 1)
    if not isinstance(pad_id, int) or isinstance(pad_id, bool) or pad_id < 0:
        raise InputError(
            f"pad_token_id: got {pad_id!r}, expected a token id, after which positions count"
        )
    config = bert.read_encoder(fields, offset=pad_id + 1, head=head)
    fields.finish()
    return config, fields.whole("max_position_embeddings", 512) - pad_id - 1


ROBERTA = Family(
    name="roberta",
    model_type="roberta",
    architectures=("RobertaForMaskedLM", "RobertaModel"),
    architecture="encoder_only",
    blocks=bert.BLOCKS,
    entries=entries,
    to_config=to_config,
    from_config=from_config,
    renames=lambda config: bert.OLD_NAMES,
    left_out=bert.LEFT_OUT,
    copies=copies,
)
