"""What every family must prove, against `transformers` on random tiny models.

1. `check_import`: a model of theirs, saved and imported, gives their outputs: in a padded batch,
   and with several documents packed in a row, each as if it were alone; layers scanned and not.
2. `check_export`: a model of ours, exported, is loaded whole by `transformers` and gives our
   outputs, greedy continuations and token ids (`export_run` verifies all that itself).
3. `check_round_trip`: imported and written again, the tensors are the same bytes, and the config
   means the same.

Every parameter of theirs is moved away from its initial value (`perturb`), norms and biases too:
a scale of one or a bias of zero would hide that it is not used.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from configs.model_config import ModelConfig
from export.convert import table_name, to_hf
from export.express import express, first_difference
from export.families import family_of, get_family
from export.families.family import SpecialIds
from export.import_ import ImportedModel, import_folder
from export.manifest import read_json
from export.tensors import read_tensors
from export.write import ExportResult, export_run
from tests.export.samples import QUICK_COMPILE, make_params, quick_apply

# fp32 sums in another order differ by a few 1e-6 at logits of a few units; a mask that is off by
# one, another epsilon or a missing bias show as 1e-2 and more.
TOLERANCE = 1e-4
SEQ_LEN = 64
IDS = SpecialIds(pad=0, bos=2, eos=3)
# Lengths of the documents in each row: three packed, one alone, two. Windows are to be shorter.
ROWS = ((9, 7, 4), (22,), (3, 13))
ENCODER_ROWS = ((6, 11, 3), (19,), (12, 5))


@dataclass(frozen=True, kw_only=True)
class Text:
    """One document: tokens [L] (the decoder's of two), of the encoder [M], token types [L]."""

    tokens: np.ndarray
    encoder: np.ndarray | None = None
    token_types: np.ndarray | None = None


def perturb(model: Any, seed: int = 0) -> Any:
    """Moves every parameter of a `transformers` model; returns it ready to evaluate."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * (0.3 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5))
    return model.eval()


def check_import(
    theirs: Any, folder: Path, *, scan_layers: tuple[bool, ...] = (True, False)
) -> float:
    """Property 1, once for each way to run the layers. Returns the largest difference."""
    theirs.save_pretrained(str(folder))
    imported = import_folder(folder)
    rows = random_rows(imported.config)
    expected = [[their_outputs(theirs, [text])[0] for text in row] for row in rows]
    differences = []
    for is_scanned in scan_layers:
        config = replace(imported.config, scan_layers=is_scanned)
        got = our_outputs(config, imported.params, rows)
        # The last of each row are theirs in one padded batch, too.
        padded = zip(got, their_outputs(theirs, [row[-1] for row in rows]), strict=True)
        differences += [np.abs(row[-1] - output).max() for row, output in padded]
        for row, outputs in zip(got, expected, strict=True):
            differences += [np.abs(a - b).max() for a, b in zip(row, outputs, strict=True)]
    worst = float(max(differences))
    assert worst <= TOLERANCE, f"outputs differ by {worst:.2e}"
    return worst


def check_export(config: ModelConfig, family: str, tokenizer: Any, folder: Path) -> ExportResult:
    """Property 2, with config.vocab_size at least the tokenizer's."""
    params = make_params(config)
    apply_fn = quick_apply(config)
    result = export_run(
        params, config, tokenizer, folder, family=family, seq_len=SEQ_LEN, apply_fn=apply_fn
    )
    report = result.verification
    assert report.reference.startswith("transformers")
    assert report.max_abs_logit_difference <= TOLERANCE
    assert report.greedy_tokens == (0 if config.architecture == "encoder_only" else 32)
    imported = import_folder(folder)
    assert first_difference(imported.config, config) is None
    return result


def check_round_trip(theirs: Any, folder: Path) -> ImportedModel:
    """Property 3. Returns what was imported."""
    theirs.save_pretrained(str(folder))
    imported = import_folder(folder)
    family = family_of(read_json(folder / "config.json"))
    again = to_hf(imported.params, imported.config, family)
    rename = partial(table_name, config=imported.config, family=family)
    stored = read_tensors(folder, rename)
    for copy, original in family.copies(imported.config).items():
        if copy in stored:
            np.testing.assert_array_equal(stored.pop(copy), stored[original])
    assert again.keys() == stored.keys()
    for name, tensor in stored.items():
        assert again[name].shape == tensor.shape and again[name].tobytes() == tensor.tobytes(), name
    written = express(imported.config, family, imported.seq_len, IDS)
    config, seq_len = get_family(family.name).from_config(written)
    assert first_difference(config, imported.config) is None
    assert seq_len == imported.seq_len
    return imported


def random_rows(config: ModelConfig) -> list[list[Text]]:
    """Documents of random ordinary tokens, of the lengths above."""
    rng = np.random.default_rng(0)

    def tokens(length: int) -> np.ndarray:
        return rng.integers(4, config.vocab_size, length, dtype=np.int32)

    def text(length: int, encoder_length: int) -> Text:
        num_types = config.embedding.num_token_types
        return Text(
            tokens=tokens(length),
            encoder=tokens(encoder_length) if config.architecture == "encoder_decoder" else None,
            token_types=rng.integers(0, num_types, length, dtype=np.int32) if num_types else None,
        )

    return [
        list(map(text, lengths, encoder_lengths))
        for lengths, encoder_lengths in zip(ROWS, ENCODER_ROWS, strict=True)
    ]


def our_outputs(config: ModelConfig, params: Any, rows: list[list[Text]]) -> list[list[np.ndarray]]:
    """Outputs [L, V] of every document of packed rows."""
    import jax

    from model.build import build_model, forward

    def pack(name: str) -> dict[str, np.ndarray]:
        texts = [[getattr(text, name) for text in row] for row in rows]
        width = max(sum(map(len, row)) for row in texts) + 2  # a row is never without padding
        packed = np.zeros((3, len(rows), width), np.int32)
        for at, row in enumerate(texts):
            joined = np.concatenate(row)
            packed[0, at, : len(joined)] = joined
            packed[1, at, : len(joined)] = np.concatenate([np.arange(len(part)) for part in row])
            packed[2, at, : len(joined)] = np.repeat(np.arange(len(row)) + 1, list(map(len, row)))
        return dict(zip(("tokens", "positions", "segment_ids"), packed, strict=True))

    fields = pack("tokens")
    if rows[0][0].token_types is not None:
        fields["token_types"] = pack("token_types")["tokens"]
    if rows[0][0].encoder is not None:
        fields |= {f"encoder_{name}": array for name, array in pack("encoder").items()}
    tokens_BL = fields.pop("tokens")

    def run(params: Any, tokens_BL: Any, fields: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return forward(build_model(config), params, tokens_BL, **fields)

    outputs_BLV = np.asarray(
        jax.jit(run, compiler_options=QUICK_COMPILE)(params, tokens_BL, fields)
    )
    cut = []
    for row, outputs_LV in zip(rows, outputs_BLV, strict=True):
        ends = np.cumsum([len(text.tokens) for text in row])
        cut.append(np.split(outputs_LV, ends)[: len(row)])
    return cut


def their_outputs(model: Any, texts: list[Text]) -> list[np.ndarray]:
    """Outputs [L, V] of documents, in one batch padded on the right."""
    import torch

    def pad(name: str) -> tuple[Any, Any]:
        arrays = [getattr(text, name) for text in texts]
        padded, mask = np.zeros((2, len(texts), max(map(len, arrays))), np.int64)
        for at, array in enumerate(arrays):
            padded[at, : len(array)], mask[at, : len(array)] = array, 1
        return torch.from_numpy(padded), torch.from_numpy(mask)

    tokens_BL, mask_BL = pad("tokens")
    if texts[0].encoder is None:
        inputs = {"input_ids": tokens_BL, "attention_mask": mask_BL}
        if texts[0].token_types is not None:
            inputs["token_type_ids"] = pad("token_types")[0]
    else:
        encoder_BM, encoder_mask_BM = pad("encoder")
        inputs = {
            "input_ids": encoder_BM,
            "attention_mask": encoder_mask_BM,
            "decoder_input_ids": tokens_BL,
            "decoder_attention_mask": mask_BL,
        }
    with torch.no_grad():
        outputs = model(**inputs)
    outputs_BLV = outputs.logits if hasattr(outputs, "logits") else outputs.last_hidden_state
    return [
        output_LV[: len(text.tokens)].numpy()
        for text, output_LV in zip(texts, outputs_BLV, strict=True)
    ]
