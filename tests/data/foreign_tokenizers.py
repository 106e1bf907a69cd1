"""Small tokenizers of every foreign kind, trained here and saved as transformers saves them."""

from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

VOCAB_SIZE = 320
_UNKNOWN, _BERT_UNKNOWN = "<unk>", "[UNK]"
TEXTS = (
    "def add(x, y):\n    return x + y\n",
    "class Point:\n    pass  # a point\n",
    "The quick brown fox jumps over the lazy dog, and the dog sleeps.",
    "for line in lines:\n    print(line.strip())\n",
) * 10


def gpt2() -> tuple[Tokenizer, dict[str, Any]]:
    """Byte-level BPE; nothing is added to a text."""
    end = "<|endoftext|>"
    return _byte_level([end]), {"bos_token": end, "eos_token": end, "unk_token": end}


def roberta() -> tuple[Tokenizer, dict[str, Any]]:
    """Byte-level BPE with both ends, as BART's too."""
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = _byte_level(specials[:-1])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer, _names(bos="<s>", eos="</s>", cls="<s>", sep="</s>", mask="<mask>")


def llama() -> tuple[Tokenizer, dict[str, Any]]:
    """BPE over characters with byte fallback, spaces as U+2581, <s> in front."""
    tokenizer = Tokenizer(models.BPE(unk_token=_UNKNOWN, byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=specials, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    content = tokenizer.to_str()
    tokenizer = Tokenizer.from_str(_without_special_bytes(content))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def bert() -> tuple[Tokenizer, dict[str, Any]]:
    """WordPiece, lower-cased, [CLS] and [SEP] around."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=_BERT_UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=specials, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ("pad", "unk", "cls", "sep", "mask")
    return tokenizer, {f"{name}_token": f"[{name.upper()}]" for name in names}


def t5() -> tuple[Tokenizer, dict[str, Any]]:
    """Unigram over U+2581 words, </s> behind, two sentinels."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    specials = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCAB_SIZE - 2,
        special_tokens=specials,
        unk_token=_UNKNOWN,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    sentinels = ["<extra_id_0>", "<extra_id_1>"]
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in sentinels])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return tokenizer, {
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "additional_special_tokens": sentinels,
    }


KINDS = {"gpt2": gpt2, "roberta": roberta, "llama": llama, "bert": bert, "t5": t5}


def save(kind: str, folder: Path) -> Tokenizer:
    """Writes tokenizer.json and its configs; gives the tokenizer."""
    from transformers import PreTrainedTokenizerFast

    tokenizer, names = KINDS[kind]()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(str(folder))
    return tokenizer


def _byte_level(specials: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _names(**names: str) -> dict[str, Any]:
    common = {"pad": "<pad>", "unk": "<unk>"}
    return {f"{role}_token": name for role, name in (common | names).items()}


def _without_special_bytes(content: str) -> str:
    """A tokenizer whose byte pieces are ordinary ones: the trainer adds pieces only as specials."""
    import json

    parsed = json.loads(content)
    parsed["added_tokens"] = [
        t for t in parsed["added_tokens"] if not t["content"].startswith("<0x")
    ]
    return json.dumps(parsed)
