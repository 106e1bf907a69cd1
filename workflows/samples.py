"""What a trained model makes of held-out text: each architecture in the way it is used."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from configs.objective_config import MASK, sentinel
from data.corpus import Corpus
from inference.fill_mask import fill_mask
from inference.generate import generate
from inference.sampling import Sampling
from workflows.load import Loaded

_SAMPLES = 3
_PROMPT_TOKENS = 48
_SAMPLE_TOKENS = 96
_MASKED_EVERY = 12
_SPAN_TOKENS = 3
_SAMPLING = Sampling(temperature=0.7, top_p=0.95)
_GREEDY = Sampling(temperature=0.0)

Record = dict[str, Any]


def take_samples(loaded: Loaded, corpus: Corpus) -> list[Record]:
    """Records for samples.jsonl: prompt, the model's text, and what the document really says.

    A decoder continues the first tokens of held-out documents; an encoder fills in masked ones; an
    encoder-decoder writes what stands for sentinels, or the text again, whichever its tokenizer
    has the symbols for.
    """
    return _SAMPLERS[loaded.config.architecture](loaded, corpus)


def _continued(loaded: Loaded, corpus: Corpus) -> list[Record]:
    decode = corpus.tokenizer.decode
    prompts, expected = [], []
    for tokens in _documents(corpus, _PROMPT_TOKENS + _SAMPLE_TOKENS):
        cut = min(_PROMPT_TOKENS, len(tokens) // 2)
        prompts.append(decode(tokens[:cut]))
        expected.append(decode(tokens[cut : cut + _SAMPLE_TOKENS]))
    return _generated(loaded, prompts, expected, _SAMPLING)


def _filled_in(loaded: Loaded, corpus: Corpus) -> list[Record]:
    prompts, expected = [], []
    for tokens in _documents(corpus, _PROMPT_TOKENS):
        tokens = tokens[:_PROMPT_TOKENS]
        places = range(min(_MASKED_EVERY, len(tokens)) - 1, len(tokens), _MASKED_EVERY)
        prompts.append(_with(corpus, tokens, {place: (1, MASK) for place in places}))
        expected.append(corpus.tokenizer.decode(tokens))
    filled = fill_mask(loaded.config, loaded.params, loaded.tokenizer, prompts)
    return [
        {
            "prompt": one.prompt,
            "text": one.text,
            "expected": truth,
            "candidates": [[asdict(c) for c in place] for place in one.candidates],
        }
        for one, truth in zip(filled, expected, strict=True)
    ]


def _answered(loaded: Loaded, corpus: Corpus) -> list[Record]:
    """What stands for the sentinels a prompt has; a model goes on to others as in training."""
    prompts, expected = [], []
    has_sentinels = sentinel(1) in corpus.tokenizer.symbols.ids
    decode = corpus.tokenizer.decode
    for tokens in _documents(corpus, _PROMPT_TOKENS):
        tokens = tokens[:_PROMPT_TOKENS]
        if has_sentinels and len(tokens) > 4 * _SPAN_TOKENS:
            starts = (len(tokens) // 3, 2 * len(tokens) // 3)
            cuts = {start: (_SPAN_TOKENS, sentinel(i)) for i, start in enumerate(starts)}
            prompts.append(_with(corpus, tokens, cuts))
            spans = [decode(tokens[start : start + _SPAN_TOKENS]) for start in starts]
            expected.append("".join(sentinel(i) + span for i, span in enumerate(spans)))
        else:
            prompts.append(decode(tokens))
            expected.append(decode(tokens))
    records = _generated(loaded, prompts, expected, _GREEDY)
    if has_sentinels:
        for record in records:
            record["text"] = record["text"].split(sentinel(2))[0]
    return records


_SAMPLERS: dict[str, Callable[[Loaded, Corpus], list[Record]]] = {
    "decoder_only": _continued,
    "encoder_only": _filled_in,
    "encoder_decoder": _answered,
}


def _generated(
    loaded: Loaded, prompts: Sequence[str], expected: Sequence[str], sampling: Sampling
) -> list[Record]:
    generations = generate(
        loaded.config,
        loaded.params,
        loaded.tokenizer,
        prompts,
        max_tokens=_SAMPLE_TOKENS,
        sampling=sampling,
        prompt_is_prefix=loaded.prompt_is_prefix,
    )
    return [
        {"prompt": one.prompt, "text": one.text, "expected": truth, "sampling": asdict(sampling)}
        for one, truth in zip(generations, expected, strict=True)
    ]


def _documents(corpus: Corpus, num_tokens: int) -> Iterator[list[int]]:
    """The first held-out documents of so many tokens; the very first one if none is as long."""
    found = 0
    for document in corpus.documents("held_out"):
        if len(document.tokens) >= num_tokens:
            found += 1
            yield document.tokens.tolist()
        if found == _SAMPLES:
            return
    if not found:
        yield next(iter(corpus.documents("held_out"))).tokens.tolist()


def _with(corpus: Corpus, tokens: list[int], cuts: dict[int, tuple[int, str]]) -> str:
    """The text of tokens in which runs of (length, symbol) at some places are a symbol's name."""
    text, place = "", 0
    for start, (length, symbol) in sorted(cuts.items()):
        text += corpus.tokenizer.decode(tokens[place:start]) + symbol
        place = start + length
    return text + corpus.tokenizer.decode(tokens[place:])
