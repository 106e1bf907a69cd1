"""The fast tokenizer gives our ids and our text back, on text made to break it."""

import json
import random
import sysconfig
from pathlib import Path

import pytest
from tokenizers import Tokenizer as FastTokenizer

from configs.errors import InputError
from data.tokenizer import Tokenizer
from export.tokenizer import fast_tokenizer, special_ids, write_tokenizer
from export.verify import PROBES
from tests.export.samples import nasty_lines, train_model


def test_1000_nasty_lines_have_equal_ids_and_come_back(tokenizer):
    fast = fast_tokenizer(tokenizer.model_bytes)
    for line in nasty_lines(1000):
        ids = fast.encode(line, add_special_tokens=False).ids
        assert ids == tokenizer.encode(line)
        assert fast.decode(ids) == tokenizer.decode(ids) == line


def test_long_runs_of_one_character_merge_in_the_same_order(tokenizer):
    fast = fast_tokenizer(tokenizer.model_bytes)
    rng = random.Random(0)
    for alphabet in (" ", "a", "=", "-", " \n", "ab", "es", "te", "\t "):
        for _ in range(100):
            text = "".join(rng.choices(alphabet, k=rng.randint(1, 80)))
            assert fast.encode(text, add_special_tokens=False).ids == tokenizer.encode(text)


def test_a_whole_file_as_one_text_has_equal_ids(tokenizer):
    text = Path(sysconfig.get_path("stdlib"), "argparse.py").read_text(encoding="utf-8")
    ids = fast_tokenizer(tokenizer.model_bytes).encode(text, add_special_tokens=False).ids
    assert ids == tokenizer.encode(text)


def test_auto_tokenizer_gives_equal_ids_for_text_that_spells_specials(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    write_tokenizer(tokenizer.model_bytes, tmp_path, seq_len=64)
    theirs = AutoTokenizer.from_pretrained(str(tmp_path), trust_remote_code=False)
    for line in nasty_lines(1000):
        ids = theirs.encode(line, add_special_tokens=False)
        assert ids == tokenizer.encode(line)
        assert theirs.decode(ids) == line
        assert theirs.decode([2, *ids, 3], skip_special_tokens=True) == line


def test_auto_tokenizer_begins_a_document_as_training_does(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    write_tokenizer(tokenizer.model_bytes, tmp_path, seq_len=64)
    theirs = AutoTokenizer.from_pretrained(str(tmp_path), trust_remote_code=False)
    assert theirs("self")["input_ids"] == [2, *tokenizer.encode("self")]
    assert (theirs.pad_token_id, theirs.unk_token_id) == (0, 1)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (2, 3)
    assert theirs.model_max_length == 64
    padded = theirs(["a", "a b c d"], padding=True)
    assert padded["input_ids"][0][0] == 0 and padded["attention_mask"][0][0] == 0


def test_a_saved_copy_of_the_auto_tokenizer_still_gives_equal_ids(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    write_tokenizer(tokenizer.model_bytes, tmp_path, seq_len=64)
    theirs = AutoTokenizer.from_pretrained(str(tmp_path))
    theirs.save_pretrained(str(tmp_path / "copy"))
    copy = AutoTokenizer.from_pretrained(str(tmp_path / "copy"))
    for line in PROBES:
        assert copy.encode(line, add_special_tokens=False) == tokenizer.encode(line)


def test_tokenizer_json_alone_needs_its_switch_for_text_that_spells_specials(tokenizer, tmp_path):
    write_tokenizer(tokenizer.model_bytes, tmp_path, seq_len=64)
    theirs = FastTokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.encode("<s>", add_special_tokens=False).ids == [2]
    theirs.encode_special_tokens = True
    assert theirs.encode("<s>", add_special_tokens=False).ids == tokenizer.encode("<s>")


def test_no_merge_makes_or_uses_a_special_or_byte_piece(tokenizer):
    model = json.loads(fast_tokenizer(tokenizer.model_bytes).to_str())["model"]
    reserved = {piece for piece, i in model["vocab"].items() if i < 4 + 256}
    parts = {part for merge in model["merges"] for part in (*merge, "".join(merge))}
    assert "<s>" in reserved and "<0x0A>" in reserved
    assert not parts & reserved


def test_special_ids_are_those_of_the_model(tokenizer):
    ids = special_ids(tokenizer.model_bytes)
    assert (ids.pad, ids.bos, ids.eos) == (0, 2, 3)


SYMBOLS = ["<mask>", "<extra_id_0>", "<extra_id_1>", "<R>", "<fim_middle>"]


@pytest.fixture(scope="module")
def with_symbols() -> Tokenizer:
    return Tokenizer(train_model(control_symbols=SYMBOLS))


SPELLED = [
    *SYMBOLS,
    "a <mask> b",
    "<mask><extra_id_0>",
    "\n<R> x<R>",
    "<extra_id_00><mask",
    "<s><R>",
]


def test_text_that_spells_control_symbols_has_equal_ids_and_comes_back(with_symbols, tmp_path):
    from transformers import AutoTokenizer

    write_tokenizer(with_symbols.model_bytes, tmp_path, seq_len=64)
    fast = fast_tokenizer(with_symbols.model_bytes)
    theirs = AutoTokenizer.from_pretrained(str(tmp_path), trust_remote_code=False)
    special = set(with_symbols.symbols.ids.values())
    for line in [*SPELLED, *nasty_lines(400)]:
        ids = with_symbols.encode(line)
        assert not special & set(ids)
        assert fast.encode(line, add_special_tokens=False).ids == ids
        assert theirs.encode(line, add_special_tokens=False) == ids
        assert theirs.decode(ids) == fast.decode(ids) == with_symbols.decode(ids) == line


def test_control_symbols_are_special_tokens_under_their_names(with_symbols, tmp_path):
    from transformers import AutoTokenizer

    write_tokenizer(with_symbols.model_bytes, tmp_path, seq_len=64)
    ids = with_symbols.symbols.ids
    for folder in ("", "copy"):
        theirs = AutoTokenizer.from_pretrained(str(tmp_path / folder))
        assert theirs.mask_token == SYMBOLS[0] and theirs.mask_token_id == ids["<mask>"]
        assert theirs.convert_tokens_to_ids(SYMBOLS) == [ids[name] for name in SYMBOLS]
        assert set(SYMBOLS) <= set(theirs.all_special_tokens)
        marked = [2, ids["<mask>"], *with_symbols.encode("def"), ids["<R>"], 3]
        assert theirs.decode(marked, skip_special_tokens=True) == "def"
        assert theirs.decode(marked) == "<s><mask>def<R></s>"
        for line in SPELLED:
            assert theirs.encode(line, add_special_tokens=False) == with_symbols.encode(line)
        theirs.save_pretrained(str(tmp_path / "copy"))
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["mask_token"] == SYMBOLS[0] and config["split_special_tokens"] is True
    assert config["additional_special_tokens"] == SYMBOLS[1:]


def test_a_mask_is_found_in_text_once_special_tokens_are_not_split(with_symbols, tmp_path):
    from transformers import AutoTokenizer

    write_tokenizer(with_symbols.model_bytes, tmp_path, seq_len=64, template="bos_eos")
    theirs = AutoTokenizer.from_pretrained(str(tmp_path))
    theirs.split_special_tokens = False
    before, after = with_symbols.encode("self."), with_symbols.encode("(x)")
    mask = with_symbols.symbols.id_of("<mask>")
    assert theirs("self.<mask>(x)")["input_ids"] == [2, *before, mask, *after, 3]


def test_a_tokenizer_without_symbols_names_none(tokenizer, tmp_path):
    write_tokenizer(tokenizer.model_bytes, tmp_path, seq_len=64)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert not {"mask_token", "additional_special_tokens"} & set(config)


@pytest.mark.parametrize(
    ("template", "single", "pair", "side"),
    [
        ("bos", ["<s>", "a"], ["<s>", "a", "<s>", "b"], "left"),
        ("bos_eos", ["<s>", "a", "</s>"], ["<s>", "a", "</s>", "b", "</s>"], "right"),
        ("eos", ["a", "</s>"], ["a", "</s>", "b", "</s>"], "right"),
    ],
)
def test_templates_add_what_they_say(tokenizer, tmp_path, template, single, pair, side):
    from transformers import AutoTokenizer

    write_tokenizer(tokenizer.model_bytes, tmp_path, seq_len=64, template=template)
    theirs = AutoTokenizer.from_pretrained(str(tmp_path))
    texts = {"a": "def f(x):", "b": " return"}
    ids = {"<s>": [2], "</s>": [3]} | {name: tokenizer.encode(t) for name, t in texts.items()}

    def joined(names: list[str]) -> list[int]:
        return [i for name in names for i in ids[name]]

    assert theirs(texts["a"])["input_ids"] == joined(single)
    assert theirs(texts["a"], texts["b"])["input_ids"] == joined(pair)
    assert theirs(texts["a"], add_special_tokens=False)["input_ids"] == ids["a"]
    padded = theirs([texts["a"], texts["a"] * 2], padding=True)["attention_mask"][0]
    assert (padded[0], padded[-1]) == ((0, 1) if side == "left" else (1, 0))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model_type": "unigram"}, "model_type"),
        ({"byte_fallback": False, "hard_vocab_limit": False}, "byte_fallback"),
        ({"normalization_rule_name": "nmt_nfkc"}, "normalizer"),
        ({"add_dummy_prefix": True}, "add_dummy_prefix"),
        ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces"),
        ({"user_defined_symbols": ["[MASK]"]}, "user_defined_symbols"),
        ({"bos_id": -1}, "a <s> piece"),
        ({"eos_id": -1}, "a </s> piece"),
    ],
)
def test_tokenizers_whose_effect_would_differ_are_refused(changes, field):
    with pytest.raises(InputError, match=f"^tokenizer: {field}: "):
        fast_tokenizer(train_model(**changes))


def test_bytes_that_are_no_model_are_refused():
    with pytest.raises(InputError, match="^tokenizer: "):
        fast_tokenizer(b"not a model")
