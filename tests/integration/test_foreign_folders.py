"""A folder transformers saved, tokenizer.json and all, is used as transformers uses it."""

import json
from pathlib import Path
from typing import Any

import pytest

import isoflop as front_door
from configs.errors import InputError
from inference.fill_mask import fill_mask
from inference.generate import TextGenerator
from inference.sampling import Sampling
from tests.data.foreign_tokenizers import save
from workflows.load import load

PROMPTS = ["def add(x, y):", "The quick brown fox jumps over the"]
NEW_TOKENS = 12
SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 40,
}


def gpt2(vocab_size: int, **ids: Any) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=vocab_size, n_embd=24, n_layer=2, n_head=2, n_positions=64, **ids)
    )


def llama(vocab_size: int, **ids: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(vocab_size=vocab_size, max_position_embeddings=64, **SIZES, **ids)
    )


def t5(vocab_size: int, **ids: Any) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    ids |= {"decoder_start_token_id": 0}
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=vocab_size, d_model=24, d_kv=12, d_ff=40, num_layers=2, num_heads=2,
            **ids,
        )
    )  # fmt: skip


def bart(vocab_size: int, **ids: Any) -> Any:
    from transformers import BartConfig, BartForConditionalGeneration

    sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in
             {"layers": 2, "attention_heads": 2, "ffn_dim": 40}.items()}  # fmt: skip
    ids |= {"decoder_start_token_id": 2, "forced_bos_token_id": None, "forced_eos_token_id": None}
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=vocab_size, d_model=24, max_position_embeddings=64, **sides, **ids,
        )
    )  # fmt: skip


def bert(vocab_size: int, **ids: Any) -> Any:
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(
        BertConfig(vocab_size=vocab_size, max_position_embeddings=64, **SIZES, **ids)
    )


def roberta(vocab_size: int, **ids: Any) -> Any:
    from transformers import RobertaConfig, RobertaForMaskedLM

    return RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=vocab_size, max_position_embeddings=66, type_vocab_size=1, **SIZES, **ids
        )
    )


MODELS = {"gpt2": gpt2, "llama": llama, "t5": t5, "bart": bart, "bert": bert, "roberta": roberta}


def wander(model: Any) -> Any:
    """Random weights whose texts wander, where small ones settle on one token: matrices large,
    positions larger, tables of tokens and biases small."""
    import torch

    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.add_(0.05 * noise)
                continue
            is_table = any(part in name for part in ("wte", "embed_tokens", "shared"))
            is_place = any(part in name for part in ("wpe", "embed_positions", "relative"))
            factor = 0.1 if is_table else 30.0 if is_place else 3.0
            parameter.copy_(factor * parameter.shape[-1] ** -0.5 * noise)
    return model.eval()


def make_folder(kind: str, folder: Path) -> tuple[Any, Any]:
    """Saves a random model with its tokenizer; gives both as transformers loads them."""
    import torch
    from transformers import AutoTokenizer

    save("roberta" if kind == "bart" else kind, folder)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    ids = {
        f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")
    }
    torch.manual_seed(0)
    model = wander(MODELS[kind](len(tokenizer), **ids))
    model.save_pretrained(str(folder))
    return model, tokenizer


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5", "bart"])
def test_greedy_text_is_that_of_transformers(kind, tmp_path):
    theirs, tokenizer = make_folder(kind, tmp_path)
    loaded = load(tmp_path)
    generator = TextGenerator(
        loaded.config, loaded.params, loaded.tokenizer, prompt_format=loaded.prompt_format
    )
    greedy = Sampling(temperature=0.0)
    ours = generator.generate(PROMPTS, max_tokens=NEW_TOKENS, sampling=greedy)
    texts = []
    for prompt, one in zip(PROMPTS, ours, strict=True):
        read = tokenizer(prompt, return_tensors="pt")
        read.pop("token_type_ids", None)
        written = theirs.generate(
            **read, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=loaded.tokenizer.pad_id
        )[0]
        skipped = 1 if theirs.config.is_encoder_decoder else read["input_ids"].shape[1]
        new = written[skipped:].tolist()
        ends = [at for at, token in enumerate(new) if token == tokenizer.eos_token_id]
        new = new[: min(ends, default=len(new))]
        assert list(one.tokens) == new
        texts.append(tokenizer.decode(new, skip_special_tokens=True))
    assert [loaded.tokenizer.decode(one.tokens) for one in ours] == texts
    assert len({token for one in ours for token in one.tokens}) > 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_masks_are_filled_as_transformers_fills_them(kind, tmp_path):
    import torch

    theirs, tokenizer = make_folder(kind, tmp_path)
    loaded = load(tmp_path)
    (filled,) = fill_mask(
        loaded.config, loaded.params, loaded.tokenizer, ["the <mask> fox"],
        prompt_format=loaded.prompt_format,
    )  # fmt: skip
    text = f"the {tokenizer.mask_token} fox"
    with torch.no_grad():
        logits = theirs(**tokenizer(text, return_tensors="pt")).logits[0]
    place = tokenizer.encode(text).index(tokenizer.mask_token_id)
    best = logits[place].softmax(-1).topk(5)
    assert [c.token for c in filled.candidates[0]] == best.indices.tolist()
    assert [c.probability for c in filled.candidates[0]] == pytest.approx(
        best.values.tolist(), rel=1e-3
    )


@pytest.mark.filterwarnings("ignore")
def test_what_stands_around_texts_comes_from_the_folder(tmp_path):
    _, tokenizer = make_folder("t5", tmp_path)
    found = load(tmp_path).prompt_format
    assert found is not None
    assert (found.encoder_before, found.encoder_after) == ((), (tokenizer.eos_token_id,))
    assert (found.decoder_start, found.eos_ids) == (0, (tokenizer.eos_token_id,))
    (tmp_path / "generation_config.json").write_text(
        json.dumps({"decoder_start_token_id": 5, "eos_token_id": [1, 7]})
    )
    found = load(tmp_path).prompt_format
    assert found is not None and (found.decoder_start, found.eos_ids) == (5, (1, 7))


@pytest.mark.filterwarnings("ignore")
def test_a_folders_faults_are_one_line(tmp_path, capsys):
    make_folder("gpt2", tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": "end"}')
    with pytest.raises(InputError, match="^eos_token_id: got 'end', expected a token id"):
        load(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / "tokenizer.json").write_text("{")
    assert front_door.run(["score", str(tmp_path), "x"]) == 2
    assert "tokenizer.json: got" in capsys.readouterr().err
    (tmp_path / "tokenizer.json").unlink()
    assert front_door.run(["score", str(tmp_path), "x"]) == 2
    assert "neither tokenizer.json nor" in capsys.readouterr().err
