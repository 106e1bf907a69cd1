"""Does an exported folder hold this model? Always answered from the files on disk.

Every tensor is read back, mapped to our layout and compared bit for bit; tokenizer.json is read
back and compared on lines of text; outputs and greedy continuations are compared with
`transformers` where it is installed, else with our own forward pass on the tensors read back.

Outputs are logits, of an encoder at every place of padded rows; activations of a model without a
head. An encoder-decoder continues from its first token alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from configs.errors import InputError
from configs.model_config import ModelConfig
from export.convert import first_layers, flatten, from_hf, table_name
from export.express import require_same_meaning
from export.families import family_of
from export.families.family import Family
from export.manifest import read_json
from export.reference import (
    GREEDY_TOKENS,
    PROMPT_TOKENS,
    ApplyFn,
    LoadError,
    Outputs,
    Rows,
    load_with_transformers,
    our_outputs,
    torch_outputs,
)
from export.tensors import read_tensors
from export.tokenizer import TOKENIZER_FILE, Template

# fp32 sums in another order differ by a few 1e-6 at logits of order 10, and by 1e-4 where scores
# are large (a T5's are not scaled): a softmax turns their rounding into relative error. A wrong
# layout, base or epsilon shows as 1e-2 and more.
LOGIT_TOLERANCE = 1e-4
_RELATIVE_TOLERANCE = 2e-5


def logit_tolerance(largest: float) -> float:
    """How far logits may be apart, the largest of which (in magnitude) is given."""
    return max(LOGIT_TOLERANCE, _RELATIVE_TOLERANCE * largest)


# How an export's tokenizer frames a text: as our rows frame a document.
TEMPLATES: dict[str, Template] = {
    "decoder_only": "bos",
    "encoder_only": "bos_eos",
    "encoder_decoder": "eos",
}

# Text that breaks tokenizers: runs of blanks, specials and bytes spelled out, every UTF-8 length,
# combining marks, control characters.
PROBES = (
    "",
    " ",
    "   ",
    "\t\tx = 1\n",
    "\n\n\n    return  x \n",
    "  leading and trailing  ",
    "a  b   c    d",
    "def f(x):\r\n\treturn x\r\n",
    "<s> </s> <pad> <unk> <s",
    "<0x41><0x0A> <0xE2>",
    "\u2581a \u2581 \u2581\u2581b",
    "naïve café e\u0301 Ünïcödé",
    "漢字かな 한국어 עברית العربية हिन्दी",
    "🎉👩\u200d👩\u200d👧\U000e0001",
    "\u00a0\u2003\u200b\ufeff\u2028",
    "\x00\x01\x7f\x1b[0m",
    "🮲\U0010ffff\ufffd",
)


class EncodesText(Protocol):
    """What is needed of `data.tokenizer.Tokenizer`."""

    @property
    def bos_id(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    def encode(self, text: str, /) -> Sequence[int]: ...
    def decode(self, ids: Sequence[int], /) -> str: ...


class VerificationError(RuntimeError):
    """The folder on disk is not the model it was written from."""


@dataclass(frozen=True, kw_only=True)
class VerificationReport:
    """What was compared, and with what.

    Attributes:
      reference: "transformers 5.23.0, torch 2.13.0" or "reload from disk".
      num_tensors: tensors of the folder, all equal bit for bit.
      num_lines: lines whose ids and decoded text are equal.
      max_abs_logit_difference: over all outputs compared, in fp32.
      greedy_tokens: greedy tokens equal in every row, up to 32; fewer only where two tokens tie
        within the tolerance; 0 of a model that writes none.
    """

    reference: str
    num_tensors: int
    num_lines: int
    max_abs_logit_difference: float
    greedy_tokens: int


def verify_export(
    folder: Path,
    params: Mapping[str, Any],
    config: ModelConfig,
    tokenizer: EncodesText,
    apply_fn: ApplyFn,
    lines: Sequence[str] = (),
) -> VerificationReport:
    """Compares a folder with the model it was written from.

    Args:
      folder: the exported folder.
      params: our nested fp32 parameters.
      config: their model.
      tokenizer: ours.
      apply_fn: our forward pass, as `model_apply` gives it.
      lines: text to tokenize both ways, in addition to `PROBES`.

    Raises:
      VerificationError: anything missing, unreadable or different; the message names it.
    """
    lines = (*PROBES, *lines)
    try:
        family, reloaded, num_tensors = _reload(folder, config)
    except InputError as error:
        raise VerificationError(f"{folder}: {error}") from error
    _compare_params(params, reloaded, first_layers(config, family))
    _compare_file_tokenizer(folder / TOKENIZER_FILE, tokenizer, lines)
    rows = probe_rows(tokenizer, lines, config)
    ours = our_outputs(apply_fn, params, rows)

    def reaches_no_output(name: str) -> bool:
        return table_name(name, config, family) is None

    try:
        loaded = load_with_transformers(folder, config, reaches_no_output)
    except LoadError as error:
        raise VerificationError(f"{folder}: {error}") from error
    if loaded is None:
        reference = "reload from disk"
        theirs = our_outputs(apply_fn, reloaded, rows)
    else:
        reference, torch_model, auto_tokenizer = loaded
        _compare_auto_tokenizer(auto_tokenizer, tokenizer, lines, TEMPLATES[config.architecture])
        theirs = torch_outputs(torch_model, rows)
    differences_BLV = np.abs(ours.logits_BLV - theirs.logits_BLV)
    difference = float(np.max(differences_BLV[rows.mask_BL]))
    tolerance = logit_tolerance(float(np.max(np.abs(ours.logits_BLV[rows.mask_BL]))))
    if not difference <= tolerance:  # also true of NaN
        raise VerificationError(
            f"logits: got a difference of {difference:.3g} from {reference}, "
            f"expected at most {tolerance:.3g}"
        )
    return VerificationReport(
        reference=reference,
        num_tensors=num_tensors,
        num_lines=len(lines),
        max_abs_logit_difference=difference,
        greedy_tokens=compare_greedy(ours, theirs, reference),
    )


def compare_greedy(ours: Outputs, theirs: Outputs, reference: str) -> int:
    """Number of leading greedy tokens equal in every row.

    Where two tokens tie within what rounding moves, either is right, and the row is compared no
    further: the texts go apart from there.

    Raises:
      VerificationError: a row differs where its tokens do not tie.
    """
    assert ours.greedy_logits_BGV is not None
    fewest = ours.greedy_BG.shape[1]
    for row, (mine, other) in enumerate(zip(ours.greedy_BG, theirs.greedy_BG, strict=True)):
        different = np.flatnonzero(mine != other)
        if not different.size:
            continue
        at = int(different[0])
        logits_V = ours.greedy_logits_BGV[row, at]
        gap = float(logits_V[mine[at]] - logits_V[other[at]])
        if not gap <= 2 * logit_tolerance(float(np.max(np.abs(logits_V)))):
            raise VerificationError(
                f"greedy tokens: got {other.tolist()} from {reference}, expected {mine.tolist()}"
            )
        fewest = min(fewest, at)
    return fewest


def _reload(folder: Path, config: ModelConfig) -> tuple[Family, dict[str, Any], int]:
    """(family, parameters on disk in our layout, number of tensors). Raises InputError."""
    theirs = read_json(folder / "config.json")
    family = family_of(theirs)
    # How to compute is not in their config: only what the model is can be compared.
    read_config, _ = family.from_config(theirs)
    require_same_meaning(config, read_config, "the model's (config.json)")
    tensors = read_tensors(folder, partial(table_name, config=config, family=family))
    return family, from_hf(tensors, config, family), len(tensors)


def _compare_params(
    params: Mapping[str, Any], reloaded: Mapping[str, Any], first_layers: Mapping[str, int]
) -> None:
    ours, theirs = flatten(params), flatten(reloaded)
    if ours.keys() != theirs.keys():
        odd = ", ".join(sorted(ours.keys() ^ theirs.keys()))
        raise VerificationError(f"parameters: got a difference in names: {odd}")
    for path, array in ours.items():
        stored = slice(first_layers.get(path, 0), None) if array.ndim else ...
        mine, read = np.ascontiguousarray(array[stored]), theirs[path][stored]
        # As integers: NaN equals itself and -0.0 differs from 0.0.
        equal = mine.view(np.uint32) == read.view(np.uint32)
        if not equal.all():
            raise VerificationError(
                f"{path}: got {np.size(equal) - np.count_nonzero(equal)} of {np.size(equal)} "
                "numbers on disk different, expected none"
            )


def _compare_file_tokenizer(path: Path, tokenizer: EncodesText, lines: Sequence[str]) -> None:
    from tokenizers import Tokenizer

    theirs = Tokenizer.from_file(str(path))
    theirs.encode_special_tokens = True  # the file format has no place for it

    def encode(text: str) -> list[int]:
        return theirs.encode(text, add_special_tokens=False).ids

    _compare_lines(path.name, encode, theirs.decode, tokenizer, lines)


def _compare_auto_tokenizer(
    theirs: Any, tokenizer: EncodesText, lines: Sequence[str], template: Template
) -> None:
    def encode(text: str) -> list[int]:
        return theirs.encode(text, add_special_tokens=False, verbose=False)

    def decode(ids: Sequence[int]) -> str:
        return theirs.decode(ids, skip_special_tokens=True)

    _compare_lines("AutoTokenizer", encode, decode, tokenizer, lines)
    with_specials = theirs("x")["input_ids"]
    begin = () if template == "eos" else (tokenizer.bos_id,)
    end = () if template == "bos" else (tokenizer.eos_id,)
    expected = [*begin, *tokenizer.encode("x"), *end]
    if with_specials != expected:
        raise VerificationError(f"AutoTokenizer: got {with_specials} for 'x', expected {expected}")


def _compare_lines(
    name: str,
    encode: Callable[[str], Sequence[int]],
    decode: Callable[[Sequence[int]], str],
    tokenizer: EncodesText,
    lines: Sequence[str],
) -> None:
    for line in lines:
        ids, expected_ids = list(encode(line)), list(tokenizer.encode(line))
        if ids != expected_ids:
            raise VerificationError(f"{name}: got ids {ids} for {line!r}, expected {expected_ids}")
        text, expected_text = decode(ids), tokenizer.decode(ids)
        if text != expected_text:
            raise VerificationError(f"{name}: got {text!r} for {ids}, expected {expected_text!r}")
        if text != line:
            raise VerificationError(f"{name}: decode(encode(text)): got {text!r} for {line!r}")


def probe_rows(tokenizer: EncodesText, lines: Sequence[str], config: ModelConfig) -> Rows:
    """The given lines, the lines from the end, and random ids; each after <s>.

    An encoder's rows end at different lengths. The random ids are ordinary tokens: what some of
    their encoders read as padding must not stand in a text.
    """
    length = PROMPT_TOKENS + GREEDY_TOKENS
    rows = []
    for chosen in (lines[len(PROBES) :] or lines, lines[::-1]):
        ids = [tokenizer.bos_id]
        for line in chosen:
            ids += [*tokenizer.encode(line), *tokenizer.encode("\n")]
            if len(ids) >= length:
                break
        rows.append(np.resize(np.asarray(ids, np.int32), length))
    first_ordinary = 1 + max(tokenizer.bos_id, tokenizer.eos_id)
    noise = np.random.default_rng(0).integers(
        first_ordinary, config.vocab_size, length, dtype=np.int32
    )
    noise[0] = tokenizer.bos_id
    tokens_BL = np.stack([*rows, noise])
    whole_BL = np.ones(tokens_BL.shape, bool)
    lengths_B1 = np.asarray([[length], [length - 5], [length // 2]])
    padded_BL = np.arange(length) < lengths_B1
    padded_tokens_BL = np.where(padded_BL, tokens_BL, 0)
    if config.architecture == "decoder_only":
        return Rows(tokens_BL, whole_BL, PROMPT_TOKENS)
    if config.architecture == "encoder_only":
        return Rows(padded_tokens_BL, padded_BL, 0)
    return Rows(tokens_BL, whole_BL, 1, padded_tokens_BL, padded_BL)
