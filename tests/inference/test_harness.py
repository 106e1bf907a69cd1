"""lm_eval's model `isoflop` gives what lm_eval's own `hf` gives on the same weights."""

import importlib
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from configs.errors import InputError
from configs.mlp_config import ReLUConfig
from configs.model_config import LinearHeadConfig, ModelConfig
from data.tokenizer import Tokenizer
from export.write import export_run
from inference.generate import TextGenerator
from inference.harness import Adaptor, register
from inference.sampling import Sampling
from inference.scoring import Scorer
from tests.export.families.test_t5 import our_t5
from tests.export.samples import make_config, make_params, quick_apply, train_model
from tests.inference.conftest import Sample
from workflows.load import Loaded, load

GREEDY = {"until": [], "max_gen_toks": 12, "do_sample": False}


class Alone(Adaptor):
    """Without lm_eval's base."""

    cache_hook = SimpleNamespace(add_partial=lambda *_: None)


def adaptor(sample: Sample, **options: Any) -> Alone:
    config, params, tokenizer = sample
    loaded = Loaded(config=config, params=params, tokenizer=tokenizer, seq_len=64)
    kind = type("Loading", (Alone,), {"load": staticmethod(lambda _: loaded)})
    return kind("runs/x", **options)


def requests(*args: tuple[Any, ...]) -> list[Any]:
    return [SimpleNamespace(args=arg) for arg in args]


@pytest.fixture(scope="module")
def model(sample) -> Alone:
    return adaptor(sample)


def test_texts_are_written_in_the_order_asked_for_and_end_before_a_stop_string(sample, model):
    contexts = ["class Point:\n    pass\n", "x", "def add(x, y):"]
    whole = model.generate_until(requests(*((text, GREEDY) for text in contexts)))
    expected = TextGenerator(*sample).generate(
        contexts, max_tokens=12, sampling=Sampling(temperature=0.0)
    )
    assert whole == [one.text for one in expected]
    stops = [text[number + 2 : number + 4] for number, text in enumerate(whole)]
    asked = [(text, GREEDY | {"until": [s]}) for text, s in zip(contexts, stops, strict=True)]
    cut = model.generate_until(requests(*asked))
    assert cut == [text[: text.index(s)] for text, s in zip(whole, stops, strict=True)]
    assert all(map(len, stops)) and cut != whole


def test_a_context_too_long_is_continued_from_its_end(sample, model):
    text = "def add(x, y):\n    return x + y\n" * 9
    tokens = [sample.tokenizer.bos_id, *sample.tokenizer.encode(text)]
    assert len(tokens) > 64
    (written,) = model.generate_until(requests((text, GREEDY)))
    (expected,) = TextGenerator(*sample).generate_tokens(
        [tokens[12 - 64 :]], max_tokens=12, sampling=Sampling(temperature=0.0)
    )
    assert written == sample.tokenizer.decode(expected.tokens)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_gen_toks": 64}, "^max_gen_toks: got 64, expected fewer"),
        ({"num_beams": 4}, "^generation_kwargs: got .'num_beams'., expected"),
        ({"do_sample": True, "temperature": -1.0}, "^temperature: got -1.0"),
    ],
)
def test_what_cannot_be_done_is_one_line(model, settings, message):
    with pytest.raises(InputError, match=message):
        model.generate_until(requests(("x", GREEDY | settings)))


def test_tokens_begin_as_training_documents_do_unless_told_otherwise(sample, model):
    tokens = sample.tokenizer.encode("x = 1")
    assert model.tok_encode("x = 1") == [sample.tokenizer.bos_id, *tokens]
    assert model.tok_encode("x = 1", add_special_tokens=False) == tokens
    assert adaptor(sample, add_bos_token=False).tok_encode("x = 1") == tokens


def test_rolling_without_a_begin_token_twice_is_the_score_of_the_text(sample):
    pytest.importorskip("lm_eval")
    text = "def add(x, y):\n    return x + y  # é\n"
    (rolling,) = adaptor(sample, add_bos_token=False).loglikelihood_rolling(requests((text,)))
    result = Scorer(*sample, seq_len=64).score(text)
    assert result.tokens < 64
    assert rolling == pytest.approx(result.log_likelihood, abs=1e-4)


def test_without_lm_eval_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install"):
        register(load)


# Questions whose choices begin with tokens of their own: where a token spans the two, `hf` stops.
QUESTIONS = [
    ("import os\nimport", [" sys", " parrot", " else"], 0),
    ("def add(x, y):\n    return x ", ["+ y", "else", "import"], 0),
    ("for i in ", ["range(10)", "while", "self."], 0),
    ("class Point:\n", ["    pass", "    import", "    zebra"], 0),
    ("if x is", [" not None:", " self", " lambda"], 1),
]
_COMMON = """
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
"""
TASKS = {
    "local_choice": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: answer
doc_to_choice: choices
target_delimiter: ""
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "local_generate": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 16, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
    "local_rolling": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
""",
}


@pytest.fixture
def tasks(tmp_path) -> Path:
    """A folder of local tasks: --include_path."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    lines = [
        {"question": question, "choices": choices, "answer": answer, "text": question * 30}
        for question, choices, answer in QUESTIONS
    ]
    data = folder / "questions.jsonl"
    data.write_text("\n".join(map(json.dumps, lines)))
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(f"task: {name}{_COMMON % data}{text}")
    return folder


def evaluate(tasks: Path, monkeypatch: Any, tmp_path: Path, **model: Any) -> dict[str, Any]:
    """Results and samples of the local tasks."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    import lm_eval
    from lm_eval.tasks import TaskManager

    evaluate_tasks: Any = lm_eval.simple_evaluate
    found = evaluate_tasks(
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
        verbosity="ERROR",
        **model,
    )
    assert found is not None
    return found


DECODER = make_config()
# A tied T5: lm_eval ties one that is not, with transformers 5, and scores another model.
ENCODER_DECODER = our_t5(
    mlp=ReLUConfig(mlp_dim=40), tie_embeddings=True, head=LinearHeadConfig(logit_scale=24**-0.5)
)


def export(config: ModelConfig, folder: Path) -> None:
    """A random model that writes no bytes: transformers reads what is no UTF-8 in its own way."""
    tokenizer, params = Tokenizer(train_model()), make_params(config)
    bytes_ = [i for i, piece in enumerate(tokenizer.pieces) if piece.startswith("<0x")]
    params["token_embedding"]["embedding"][bytes_] = 0.0
    family = "llama" if config.architecture == "decoder_only" else "t5"
    export_run(
        params, config, tokenizer, folder, family=family, seq_len=64, apply_fn=quick_apply(config)
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("config", "add_bos_token"),
    [(DECODER, None), (DECODER, False), (ENCODER_DECODER, None)],
    ids=["decoder", "decoder without <s>", "encoder-decoder"],
)
def test_scores_equal_those_of_lm_evals_own_backend(
    config, add_bos_token, tasks, tmp_path, monkeypatch
):
    pytest.importorskip("lm_eval")
    pytest.importorskip("accelerate")
    folder = tmp_path / "export"
    export(config, folder)
    register(load)
    options = {} if add_bos_token is None else {"add_bos_token": add_bos_token}
    ours = evaluate(
        tasks, monkeypatch, tmp_path, model="isoflop", model_args={"run": str(folder), **options}
    )
    theirs = evaluate(
        tasks, monkeypatch, tmp_path, model="hf", device="cpu", batch_size=4,
        model_args={"pretrained": str(folder), "dtype": "float32", **options},
    )  # fmt: skip
    assert (
        ours["results"]["local_choice"]["acc,none"] == theirs["results"]["local_choice"]["acc,none"]
    )
    compared = 0
    for task in TASKS:
        pairs = zip(ours["samples"][task], theirs["samples"][task], strict=True)
        for mine, yours in pairs:
            assert mine["doc_id"] == yours["doc_id"]
            for got, expected in zip(mine["resps"], yours["resps"], strict=True):
                got, expected = got[0], expected[0]
                compared += 1
                if task == "local_generate":
                    # lm_eval lets an encoder-decoder write as many tokens more as its prompt has.
                    shown = expected[: len(got)] if config is ENCODER_DECODER else expected
                    assert got == shown
                elif task == "local_rolling":
                    # fp32 sums in another order, over some two hundred tokens.
                    assert got == pytest.approx(expected, abs=1e-3)
                else:
                    assert got[1] == expected[1]
                    assert got[0] == pytest.approx(expected[0], abs=1e-3)
    assert compared == 5 * (3 + 1 + 1)
    written = [sample["resps"][0][0] for sample in ours["samples"]["local_generate"]]
    assert len(set(written)) > 1 and np.mean(list(map(len, written))) > 4
