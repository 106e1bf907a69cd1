"""Our SentencePiece BPE tokenizer as a Hugging Face fast tokenizer, exact by construction.

What is equal, and what is not:

- `AutoTokenizer.from_pretrained(folder)` gives our ids for every text (`add_special_tokens=False`;
  by default it adds what its template says: <s> in front, as training documents begin, or </s> at
  the end, or both). That includes text that spells a special token or a control symbol such as
  <mask>: no text can produce ours, and `"split_special_tokens": true` in tokenizer_config.json
  tells transformers the same. A pipeline that fills masks looks for the id of <mask>, so set
  `tokenizer.split_special_tokens = False` for text that holds one on purpose.
- `tokenizers.Tokenizer.from_file(...)` cannot store that switch: set
  `tokenizer.encode_special_tokens = True`, or text that spells "<s>" becomes the special token.
- Decoding what was encoded is equal. An id sequence whose byte tokens are not UTF-8 (a model may
  generate one) differs in the number of U+FFFD: ours replaces each invalid byte, theirs each byte
  of the whole run of byte tokens.
"""

from pathlib import Path
from typing import Any, Literal

from tokenizers import AddedToken, Tokenizer, decoders, models, processors

from configs.errors import InputError
from configs.objective_config import MASK
from export.families.family import SpecialIds
from export.manifest import write_json

TOKENIZER_FILE = "tokenizer.json"
# SentencePiece writes a space as U+2581, and data/tokenizer.py spells that character in bytes when
# text holds it. Here pieces keep their spaces, which leaves U+2581 to the bytes as well.
_SPACE_MARK = "\u2581"

# What is added to a text, and to a pair of texts. A decoder begins a document with <s>; BERT and
# BART put both ends around it, T5's encoder reads </s> after it.
Template = Literal["bos", "bos_eos", "eos"]
_TEMPLATES: dict[Template, tuple[str, str]] = {
    "bos": ("{bos} $A", "{bos} $A {bos}:1 $B:1"),
    "bos_eos": ("{bos} $A {eos}", "{bos} $A {eos} $B:1 {eos}:1"),
    "eos": ("$A {eos}", "$A {eos} $B:1 {eos}:1"),
}


def fast_tokenizer(model_bytes: bytes, template: Template = "bos") -> Tokenizer:
    """The `tokenizers` equivalent of a SentencePiece BPE model.

    SentencePiece merges the adjacent pair whose piece has the best score. The merge list is
    therefore every split of every piece into two pieces, by score. Only ordinary pieces are parts
    or results: control, unknown and byte pieces are never spelled out by text.

    Raises:
      InputError: not BPE, or made with options whose effect this does not reproduce.
    """
    proto = _parse(model_bytes)
    kinds = proto.SentencePiece
    texts = [piece.piece.replace(_SPACE_MARK, " ") for piece in proto.pieces]
    vocab = {text: i for i, text in enumerate(texts)}
    ordinary = {
        text: piece.score
        for text, piece in zip(texts, proto.pieces, strict=True)
        if piece.type == kinds.NORMAL
    }
    merges = sorted(
        (-score, vocab[left], vocab[right], left, right)
        for piece, score in ordinary.items()
        for left, right in ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        if left in ordinary and right in ordinary
    )
    unk_piece = proto.trainer_spec.unk_piece
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=[(left, right) for *_, left, right in merges],
            unk_token=unk_piece,
            byte_fallback=True,
        )
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    specials = [p.piece for p in proto.pieces if p.type in (kinds.CONTROL, kinds.UNKNOWN)]
    tokenizer.add_special_tokens(
        [AddedToken(piece, special=True, normalized=False) for piece in specials]
    )
    tokenizer.encode_special_tokens = True
    ends = {"bos": proto.trainer_spec.bos_piece, "eos": proto.trainer_spec.eos_piece}
    single, pair = (text.format(**ends) for text in _TEMPLATES[template])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(end, vocab[end]) for end in ends.values()]
    )
    return tokenizer


def special_ids(model_bytes: bytes) -> SpecialIds:
    """Ids of the specials of a SentencePiece model."""
    spec = _parse(model_bytes).trainer_spec
    ids = {"pad": spec.pad_id, "bos": spec.bos_id, "eos": spec.eos_id}
    return SpecialIds(**{name: i if i >= 0 else None for name, i in ids.items()})


def write_tokenizer(
    model_bytes: bytes, folder: Path, seq_len: int, *, template: Template = "bos"
) -> None:
    """Writes tokenizer.json, its configs and the SentencePiece model itself.

    transformers reads tokenizer.json; tokenizer.model is for our own import and for programs that
    take SentencePiece models.

    Args:
      model_bytes: the SentencePiece model.
      folder: to write into.
      seq_len: tokens of the longest text.
      template: what is added to a text. With "bos", for decoders that go on from a prompt's end,
        shorter texts of a batch are padded in front, else behind.
    """
    proto = _parse(model_bytes)
    spec = proto.trainer_spec
    specials: dict[str, Any] = {
        "bos_token": spec.bos_piece,
        "eos_token": spec.eos_piece,
        "unk_token": spec.unk_piece,
        "pad_token": spec.pad_piece,
    }
    symbols = [
        piece.piece
        for piece in proto.pieces
        if piece.type == proto.SentencePiece.CONTROL and piece.piece not in specials.values()
    ]
    if MASK in symbols:
        specials["mask_token"] = MASK
    if others := [symbol for symbol in symbols if symbol != MASK]:
        specials["additional_special_tokens"] = others
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **specials,
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": seq_len,
        "padding_side": "left" if template == "bos" else "right",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / TOKENIZER_FILE).write_text(
        fast_tokenizer(model_bytes, template).to_str(pretty=True), encoding="utf-8"
    )
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", specials)
    (folder / "tokenizer.model").write_bytes(model_bytes)


def _parse(model_bytes: bytes) -> Any:
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
    try:
        proto.ParseFromString(model_bytes)
    except DecodeError as error:
        raise InputError(f"tokenizer: got {error}, expected a SentencePiece model") from error
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    for field, got, expected in (
        ("model_type", trainer.model_type, trainer.BPE),
        ("byte_fallback", trainer.byte_fallback, True),
        ("treat_whitespace_as_suffix", trainer.treat_whitespace_as_suffix, False),
        ("normalizer", normalizer.name, "identity"),
        ("add_dummy_prefix", normalizer.add_dummy_prefix, False),
        ("remove_extra_whitespaces", normalizer.remove_extra_whitespaces, False),
        ("escape_whitespaces", normalizer.escape_whitespaces, True),
        ("a <s> piece", 0 <= trainer.bos_id < len(proto.pieces), True),
        ("a </s> piece", 0 <= trainer.eos_id < len(proto.pieces), True),
        ("user_defined_symbols", len(trainer.user_defined_symbols), 0),
    ):
        if got != expected:
            raise InputError(f"tokenizer: {field}: got {got!r}, expected {expected!r} to export")
    return proto
