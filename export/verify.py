"""Does an exported folder hold this model? Always answered from the files on disk.

Every tensor is read back, mapped to our layout and compared bit for bit; tokenizer.json is read
back and compared on lines of text; logits and greedy continuations are compared with
`transformers` where it is installed, else with our own forward pass on the tensors read back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from configs.errors import InputError
from configs.model_config import ModelConfig
from export.convert import flatten, from_hf
from export.families import family_of
from export.manifest import read_json
from export.reference import (
    GREEDY_TOKENS,
    PROMPT_TOKENS,
    ApplyFn,
    LoadError,
    Outputs,
    load_with_transformers,
    our_outputs,
    torch_outputs,
)
from export.tensors import read_tensors
from export.tokenizer import TOKENIZER_FILE

# fp32 sums in another order differ by a few 1e-6 at logits of order 10; a wrong layout, base or
# epsilon shows as 1e-2 and more.
LOGIT_TOLERANCE = 1e-4

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
      max_abs_logit_difference: over all logits compared, in fp32.
      greedy_tokens: greedy tokens equal in every row, up to 32; fewer only where two tokens tie
        within the tolerance.
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
        reloaded, num_tensors = _reload(folder, config)
    except InputError as error:
        raise VerificationError(f"{folder}: {error}") from error
    _compare_params(params, reloaded)
    _compare_file_tokenizer(folder / TOKENIZER_FILE, tokenizer, lines)
    rows_BL = _rows(tokenizer, lines, config.vocab_size)
    ours = our_outputs(apply_fn, params, rows_BL)
    try:
        loaded = load_with_transformers(folder)
    except LoadError as error:
        raise VerificationError(f"{folder}: {error}") from error
    if loaded is None:
        reference = "reload from disk"
        theirs = our_outputs(apply_fn, reloaded, rows_BL)
    else:
        reference, torch_model, auto_tokenizer = loaded
        _compare_auto_tokenizer(auto_tokenizer, tokenizer, lines)
        theirs = torch_outputs(torch_model, rows_BL)
    difference = float(np.max(np.abs(ours.logits_BLV - theirs.logits_BLV)))
    if not difference <= LOGIT_TOLERANCE:  # also true of NaN
        raise VerificationError(
            f"logits: got a difference of {difference:.3g} from {reference}, "
            f"expected at most {LOGIT_TOLERANCE:g}"
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
        if not gap <= 2 * LOGIT_TOLERANCE:
            raise VerificationError(
                f"greedy tokens: got {other.tolist()} from {reference}, expected {mine.tolist()}"
            )
        fewest = min(fewest, at)
    return fewest


def _reload(folder: Path, config: ModelConfig) -> tuple[dict[str, Any], int]:
    """(parameters on disk in our layout, number of tensors). Raises InputError."""
    theirs = read_json(folder / "config.json")
    family = family_of(theirs.get("model_type"))
    read_config, _ = family.from_config(theirs)
    # How to compute is not in their config: only what the model is can be compared.
    read_config = replace(
        read_config,
        attention=replace(read_config.attention, causal_blocks=config.attention.causal_blocks),
        compute_dtype=config.compute_dtype,
        scan_layers=config.scan_layers,
        remat=config.remat,
    )
    if read_config != config:
        raise InputError(f"config.json: got {read_config}, expected {config}")
    tensors = read_tensors(folder)
    return from_hf(tensors, config, family), len(tensors)


def _compare_params(params: Mapping[str, Any], reloaded: Mapping[str, Any]) -> None:
    ours, theirs = flatten(params), flatten(reloaded)
    if ours.keys() != theirs.keys():
        odd = ", ".join(sorted(ours.keys() ^ theirs.keys()))
        raise VerificationError(f"parameters: got a difference in names: {odd}")
    for path, array in ours.items():
        # As integers: NaN equals itself and -0.0 differs from 0.0.
        equal = np.ascontiguousarray(array).view(np.uint32) == theirs[path].view(np.uint32)
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


def _compare_auto_tokenizer(theirs: Any, tokenizer: EncodesText, lines: Sequence[str]) -> None:
    def encode(text: str) -> list[int]:
        return theirs.encode(text, add_special_tokens=False, verbose=False)

    def decode(ids: Sequence[int]) -> str:
        return theirs.decode(ids, skip_special_tokens=True)

    _compare_lines("AutoTokenizer", encode, decode, tokenizer, lines)
    with_specials = theirs("x")["input_ids"]
    expected = [tokenizer.bos_id, *tokenizer.encode("x")]
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


def _rows(tokenizer: EncodesText, lines: Sequence[str], vocab_size: int) -> np.ndarray:
    """tokens_BL: the given lines, the lines from the end, and random ids; each after <s>."""
    length = PROMPT_TOKENS + GREEDY_TOKENS
    rows = []
    for chosen in (lines[len(PROBES) :] or lines, lines[::-1]):
        ids = [tokenizer.bos_id]
        for line in chosen:
            ids += [*tokenizer.encode(line), *tokenizer.encode("\n")]
            if len(ids) >= length:
                break
        rows.append(np.resize(np.asarray(ids, np.int32), length))
    noise = np.random.default_rng(0).integers(0, vocab_size, length, dtype=np.int32)
    noise[0] = tokenizer.bos_id
    return np.stack([*rows, noise])
