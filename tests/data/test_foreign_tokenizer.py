"""A foreign tokenizer's ids and texts are those of transformers; damage is one line."""

import json
from pathlib import Path

import numpy as np
import pytest

from configs.errors import InputError
from data.foreign_tokenizer import ForeignTokenizer
from tests.data.foreign_tokenizers import KINDS, save

PROBES = [
    "def add(x, y):\n    return x + y",
    "The quick brown fox",
    "  two  spaces  \n",
    "naïve café 漢字 🎉 ",
    "é",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("foreign")
    for kind in KINDS:
        save(kind, root / kind)
    return {kind: root / kind for kind in KINDS}


@pytest.fixture(params=KINDS)
def pair(request, folders):
    """(ours, transformers') of each kind."""
    from transformers import AutoTokenizer

    folder = folders[request.param]
    return ForeignTokenizer(folder), AutoTokenizer.from_pretrained(str(folder))


def test_ids_are_those_of_transformers(pair):
    ours, theirs = pair
    for text in PROBES:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), text
    assert any(len(ours.encode(text)) < len(text) for text in PROBES)  # it has pieces to use


def test_what_stands_around_a_text_is_what_transformers_adds(pair):
    ours, theirs = pair
    before, after = ours.added_around
    for text in PROBES:
        assert [*before, *ours.encode(text), *after] == theirs.encode(text)


def test_decoded_text_is_that_of_transformers(pair):
    ours, theirs = pair
    for text in PROBES:
        ids = theirs.encode(text)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_special_ids_are_those_of_transformers(pair):
    ours, theirs = pair
    assert ours.vocab_size == len(theirs)
    end = theirs.eos_token_id if theirs.eos_token_id is not None else theirs.sep_token_id
    assert ours.eos_id == end
    begin = theirs.bos_token_id if theirs.bos_token_id is not None else theirs.cls_token_id
    assert ours.bos_id == (end if begin is None else begin)
    pad = theirs.pad_token_id
    assert ours.pad_id == (end if pad is None else pad)
    is_special = np.zeros(len(theirs), bool)
    is_special[theirs.all_special_ids] = True
    np.testing.assert_array_equal(ours.symbols.is_special, is_special)
    assert all(
        theirs.convert_tokens_to_ids(n) == i for n, i in ours.symbols.ids.items() if n != "<mask>"
    )


@pytest.mark.parametrize("kind", ["gpt2", "roberta", "llama"])
def test_bytes_of_pieces_add_up_to_the_text(folders, kind):
    tokenizer = ForeignTokenizer(folders[kind])
    marks = 1 if kind == "llama" else 0  # the space Llama's kind puts in front
    for text in PROBES:
        total = tokenizer.piece_bytes[tokenizer.encode(text)].sum()
        assert total == len(text.encode()) + marks


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_mask_goes_by_our_name_too(folders, kind):
    from transformers import AutoTokenizer

    tokenizer, theirs = (
        ForeignTokenizer(folders[kind]),
        AutoTokenizer.from_pretrained(folders[kind]),
    )
    assert tokenizer.symbols.id_of("<mask>") == theirs.mask_token_id
    expected = theirs.encode(f"the {theirs.mask_token} dog", add_special_tokens=False)
    assert theirs.mask_token_id in expected
    assert tokenizer.encode_with_symbols("the <mask> dog") == expected


def test_ids_of_config_json_name_what_the_tokenizer_files_do_not(folders, tmp_path):
    source = folders["gpt2"] / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(source.read_bytes())
    (tmp_path / "config.json").write_text('{"eos_token_id": [0, 1], "pad_token_id": 999999}')
    tokenizer = ForeignTokenizer(tmp_path)
    assert tokenizer.eos_id == tokenizer.pad_id == 0


def damaged(folder: Path, target: Path, name: str, content: bytes) -> Path:
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (target / file).write_bytes((folder / file).read_bytes())
    (target / name).write_bytes(content)
    return target


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b""),
        ("tokenizer.json", b'{"model": '),
        ("tokenizer.json", b"\x80\x04\x95\x00"),
        ("tokenizer.json", b'{"version": "1.0", "model": {"type": "Novel"}}'),
        (
            "tokenizer.json",
            b'{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}',
        ),
        ("tokenizer_config.json", b"[]"),
        ("tokenizer_config.json", b'{"eos_token": "no such token"}'),
        ("config.json", b"{"),
    ],
)
def test_damage_is_one_line(folders, tmp_path, name, content):
    folder = damaged(folders["gpt2"], tmp_path, name, content)
    with pytest.raises(InputError, match="got .*, expected") as caught:
        ForeignTokenizer(folder)
    assert str(tmp_path) in str(caught.value)


def test_a_truncated_tokenizer_is_refused_wherever_it_is_cut(folders, tmp_path):
    whole = (folders["bert"] / "tokenizer.json").read_bytes()
    json.loads(whole)
    for cut in range(0, len(whole) - 2, 1999):
        with pytest.raises(InputError):
            ForeignTokenizer(damaged(folders["bert"], tmp_path, "tokenizer.json", whole[:cut]))
