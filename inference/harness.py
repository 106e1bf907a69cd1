"""The model `isoflop` of EleutherAI's lm-evaluation-harness (0.4).

lm_eval finds no models outside its own package, so it must be told of this one before it looks for
it: `register`, or `isoflop harness`, which registers and hands over to lm_eval's command line.

Conventions are those of lm_eval's own `hf` model, so that a run and its export score alike:

- A text's tokens begin with what the tokenizer puts there (<s>, in our exports), unless
  add_bos_token=False. With it a rolling log-likelihood counts log p(<s> | <s>) once a text, as
  `hf` does; without it, it is that of `isoflop score`.
- An empty context is the begin token, or the end token where there is none.
- Contexts too long lose their begin; a rolling one is read in windows that each give a token as
  much context as fits.
"""

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

from rich.console import Console
from rich.progress import Progress

from configs.errors import InputError, require
from configs.model_config import ModelConfig
from data.tokenizer import Tokenizer
from inference.generate import TextGenerator
from inference.prompts import PromptFormat
from inference.sampling import Sampling
from inference.scoring import Scorer
from model.build import Params

MODEL = "isoflop"
_GENERATED_AT_ONCE = 16  # prompts
# What a task may say of sampling, besides temperature and do_sample.
_SAMPLING = {"top_k": int, "top_p": float, "min_p": float, "repetition_penalty": float}


class LoadedModel(Protocol):
    """`workflows.load.Loaded`, which this room may not import."""

    config: ModelConfig
    params: Params
    tokenizer: Tokenizer
    seq_len: int
    prompt_is_prefix: bool
    prompt_format: PromptFormat | None


def register(load: Callable[[Path], Any]) -> None:
    """Tells lm_eval of the model `isoflop`; once is enough, again changes nothing.

    Args:
      load: a run directory or a Hugging Face folder -> LoadedModel.

    Raises:
      InputError: lm_eval is not installed.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise InputError(
            "harness: got no lm_eval, expected the package (pip install 'isoflop[harness]')"
        )
    import lm_eval.models  # noqa: F401 - its own models, which a registry that has one leaves out
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import MODEL_REGISTRY, register_model

    if MODEL not in MODEL_REGISTRY:
        # The base is lm_eval's, which is loaded here and not with this module: it may be absent.
        adaptor = type("IsoflopLM", (Adaptor, TemplateLM), {"load": staticmethod(load)})
        register_model(MODEL)(adaptor)


def run_command_line(load: Callable[[Path], Any], run: Path, args: Sequence[str]) -> None:
    """`lm_eval run --model isoflop`, on a run, with further options of lm_eval's.

    Raises:
      InputError: lm_eval is not installed.
    """
    register(load)
    from lm_eval.__main__ import cli_evaluate

    model_args = json.dumps({"run": str(run)})
    line = ["lm_eval", "run", "--model", MODEL, "--model_args", model_args, *args]
    with mock.patch.object(sys, "argv", line):
        cli_evaluate()


class Adaptor:
    """What lm_eval asks of a model; the rest is inherited from its TemplateLM (see `register`)."""

    load: Callable[[Path], LoadedModel]
    cache_hook: Any
    tokenizer = None  # an attribute in which lm_eval looks for a chat template

    def __init__(
        self,
        run: str,
        *,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        add_bos_token: bool | None = None,
        seed: int = 0,
        **ignored: Any,
    ):
        """Loads a model.

        Args:
          run: a run directory or a Hugging Face folder.
          max_length: tokens of a row; None: as in training.
          max_gen_toks: tokens to generate where a task does not say.
          add_bos_token: None: what the tokenizer puts around a text; False: nothing.
          seed: of sampling.
          ignored: batch sizes and the device, which are chosen here.
        """
        super().__init__()
        loaded = self.load(Path(str(run)))
        self._loaded, self.max_gen_toks, self._seed = loaded, max_gen_toks, seed
        self._format = loaded.prompt_format or PromptFormat.of(loaded.config, loaded.tokenizer)
        if add_bos_token is False:
            nothing = {"before": (), "after": (), "encoder_before": (), "encoder_after": ()}
            self._format = replace(self._format, **nothing)
        self._has_encoder = loaded.config.architecture == "encoder_decoder"
        self.backend = "seq2seq" if self._has_encoder else "causal"
        model = (loaded.config, loaded.params, loaded.tokenizer)
        options = {"prompt_is_prefix": loaded.prompt_is_prefix, "prompt_format": self._format}
        self._scorer = Scorer(*model, seq_len=max_length or loaded.seq_len, **options)
        self.max_length = self._scorer.seq_len
        self._generator = TextGenerator(*model, **options)

    @property
    def eot_token_id(self) -> int:
        return self._loaded.tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        return self._loaded.tokenizer.bos_id

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **ignored: Any
    ) -> list[int]:
        """Ids of a text, with what stands around it unless told otherwise."""
        tokens = self._loaded.tokenizer.encode(string)
        if add_special_tokens is None:
            add_special_tokens = tokens[:1] != [self.prefix_token_id]  # that a text may spell
        if not add_special_tokens:
            return tokens
        f = self._format
        before, after = (
            (f.encoder_before, f.encoder_after) if self._has_encoder else (f.before, f.after)
        )
        return [*before, *tokens, *after]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """lm_eval's, which leaves no token of a continuation that ends within the context's last
        one (`self` before `.`, if `self.` is a token); then the two are tokenized apart."""
        inherited: Any = super()
        head, tail = inherited._encode_pair(context, continuation)
        return head, tail or self.tok_encode(continuation, add_special_tokens=False)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        **ignored: Any,
    ) -> list[tuple[float, bool]]:
        pairs = [(context, continuation) for _, context, continuation in requests]
        with _progress("log-likelihoods", disable_tqdm) as advance:
            scores = self._scorer.score_tokens(pairs, advance=advance)
        answers = [(score.log_likelihood, score.is_greedy) for score in scores]
        for (texts, _, _), answer in zip(requests, answers, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-likelihoods of whole texts, each in windows of max_length tokens."""
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        texts = [request.args[0] for request in requests]
        windows = [
            [
                (None, *make_disjoint_window(window))
                for window in get_rolling_token_windows(
                    token_list=self.tok_encode(text),
                    prefix_token=self.prefix_token_id,
                    max_seq_len=self.max_length,
                    context_len=1,
                )
            ]
            for text in texts
        ]
        scored = iter(self._loglikelihood_tokens([w for of in windows for w in of], disable_tqdm))
        totals = [sum(next(scored)[0] for _ in of_text) for of_text in windows]
        for text, total in zip(texts, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Texts written after contexts, each ending before the first of its stop strings."""
        alike: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            alike.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(index)
        written: dict[int, str] = {}
        with _progress("texts", disable_tqdm) as advance:
            for indices in alike.values():
                # Prompts of about one length together: the shorter ones are padded.
                indices.sort(key=lambda index: len(requests[index].args[0]))
                for first in range(0, len(indices), _GENERATED_AT_ONCE):
                    batch = indices[first : first + _GENERATED_AT_ONCE]
                    contexts = [requests[index].args[0] for index in batch]
                    texts = self._generate(contexts, requests[batch[0]].args[1])
                    written.update(zip(batch, texts, strict=True))
                    advance(len(batch), len(requests))
        for index, request in enumerate(requests):
            self.cache_hook.add_partial("generate_until", request.args, written[index])
        return [written[index] for index in range(len(requests))]

    def _generate(self, contexts: Sequence[str], settings: dict[str, Any]) -> list[str]:
        from lm_eval.models.utils import normalize_gen_kwargs

        given: dict[str, Any] = {**normalize_gen_kwargs(settings, self.max_gen_toks)}
        stop = [text for text in given.pop("until") if text]
        max_tokens, is_sampled = given.pop("max_gen_toks"), given.pop("do_sample")
        temperature = given.pop("temperature", 1.0) if is_sampled else 0.0
        given.pop("temperature", None)
        known = {n: kind(given.pop(n)) for n, kind in _SAMPLING.items() if n in given}
        require(not given, "generation_kwargs", sorted(given), f"none but {sorted(_SAMPLING)}")
        room = self.max_length - (0 if self._has_encoder else max_tokens)
        require(
            room > 0, "max_gen_toks", max_tokens, f"fewer tokens than a row's {self.max_length}"
        )
        prompts = [self.tok_encode(context) or [self.prefix_token_id] for context in contexts]
        sampling = Sampling(temperature=temperature, seed=self._seed, **known)
        if all(contexts) and max(map(len, prompts)) <= room:
            # Ends at a stop string; ids, which may have to be cut, are continued to the end.
            generated = self._generator.generate(
                contexts, max_tokens=max_tokens, sampling=sampling, stop=stop
            )
        else:
            generated = self._generator.generate_tokens(
                [prompt[-room:] for prompt in prompts], max_tokens=max_tokens, sampling=sampling
            )
        texts = [self._loaded.tokenizer.decode(one.tokens) for one in generated]
        return [
            text[: min((at for s in stop if (at := text.find(s)) >= 0), default=len(text))]
            for text in texts
        ]


@contextmanager
def _progress(what: str, is_off: bool) -> Iterator[Callable[[int, int], None]]:
    """Gives a function that is told (how many more are done, of how many)."""
    console = Console(stderr=True)
    is_off = is_off or not console.is_terminal
    with Progress(console=console, transient=True, disable=is_off) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, of: progress.update(task, advance=done, total=of)
