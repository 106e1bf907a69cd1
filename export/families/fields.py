"""Reading a family's config.json strictly: every key is understood, or refused by name.

A reader remembers which keys it was asked for; `finish` refuses the rest, but for those that
cannot change what a loaded model computes.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from configs.errors import InputError, require
from configs.model_config import NormalInitConfig

Choice = TypeVar("Choice")

# Names, ids, how a model is run or trained, what `generate` does by default: none of it changes
# the logits of given tokens. We train without dropout, and evaluation never has any.
_WITHOUT_EFFECT = frozenset(
    """
    architectures model_type name_or_path transformers_version dtype torch_dtype torchscript
    use_bfloat16 use_cache cache_implementation attn_implementation gradient_checkpointing
    chunk_size_feed_forward output_attentions output_hidden_states output_past
    output_router_logits return_dict
    return_dict_in_generate use_return_dict problem_type id2label label2id num_labels
    finetuning_task task_specific_params tokenizer_class prefix initializer_range
    initializer_factor init_std
    pad_token_id bos_token_id eos_token_id sep_token_id cls_token_id mask_token_id unk_token_id
    decoder_start_token_id forced_bos_token_id forced_eos_token_id suppress_tokens
    begin_suppress_tokens max_length min_length max_new_tokens do_sample early_stopping num_beams
    num_beam_groups diversity_penalty temperature top_k top_p typical_p min_p repetition_penalty
    length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    num_return_sequences output_scores remove_invalid_values exponential_decay_length_penalty
    attention_dropout attention_probs_dropout_prob hidden_dropout hidden_dropout_prob
    activation_dropout classifier_dropout classif_dropout dropout dropout_rate embd_pdrop
    attn_pdrop resid_pdrop embedding_dropout mlp_dropout layerdrop encoder_layerdrop
    decoder_layerdrop summary_first_dropout router_jitter_noise
    """.split()
)


class Fields:
    """A config.json, read key by key. A missing key and a null one mean the default."""

    def __init__(self, theirs: Mapping[str, Any]):
        self._theirs = theirs
        self._read: set[str] = set()

    def get(self, name: str) -> Any:
        """Whatever the key holds; None where it is missing."""
        self._read.add(name)
        return self._theirs.get(name)

    def has(self, name: str) -> bool:
        """Whether the key is there, be it null."""
        return name in self._theirs

    def ignore(self, *names: str) -> None:
        """Keys that the family has, whatever they hold: they do not reach the outputs."""
        self._read.update(names)

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number above 0; without a default the key must be there."""
        value = self.get(name)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise InputError(f"{name}: got {value!r}, expected a whole number above 0")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A number; without a default the key must be there."""
        value = self.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{name}: got {value!r}, expected a number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.get(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise InputError(f"{name}: got {value!r}, expected true or false")
        return value

    def choice(self, name: str, choices: Mapping[str, Choice], default: str) -> Choice:
        """What `choices` has for the key's word."""
        value = self.get(name)
        value = default if value is None else value
        if not isinstance(value, str) or value not in choices:
            raise InputError(f"{name}: got {value!r}, expected {' or '.join(map(repr, choices))}")
        return choices[value]

    def softcap(self, name: str, default: float = 0.0) -> float:
        """A number above 0, or 0 for null: here a null key is no default, it says "none"."""
        value = self.get(name)
        if value is None:
            return 0.0 if self.has(name) else default
        fits = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
        if not fits:
            raise InputError(f"{name}: got {value!r}, expected a number above 0, or null")
        return float(value)

    def fixed(self, table: Mapping[str, tuple[Any, str]]) -> None:
        """Each key must be missing or hold the value that the table has for it, with its reason.

        A null stands for a missing key, and for False.
        """
        for name, (value, reason) in table.items():
            got = self.get(name)
            require(got is None or got == value, name, got, f"{value!r}: {reason}")

    def normal_init(self, *, scale_residual: bool = False) -> NormalInitConfig:
        """How a fresh model of the family begins."""
        stddev = self.number("initializer_range", 0.02)
        return NormalInitConfig(stddev=stddev or 0.02, scale_residual=scale_residual)

    def finish(self) -> None:
        """Raises InputError on a key that nobody read and that could change the computation."""
        for name, value in self._theirs.items():
            empty = value is None or value in ({}, [], "")
            known = name in self._read or name in _WITHOUT_EFFECT or name.startswith("_")
            if not known and not empty:
                raise InputError(
                    f"{name}: got {value!r}, expected no such key: its meaning is not known here"
                )
