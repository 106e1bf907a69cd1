"""What is asked of a generator, a text while it grows, and what comes back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from configs.errors import require
from inference.inspect_sampling import Step
from inference.sampling import DEFAULT_SAMPLING, Sampling
from inference.streaming import TextStream

OnText = Callable[[int, str], None]


@dataclass(frozen=True, kw_only=True)
class TokenGeneration:
    """What followed a prompt, in ids.

    tokens: chosen ids, the end-of-sequence token not among them. finished: whether the model ended
    the text itself; False when max_tokens cut it off. log_probabilities: of each token under the
    model's own distribution, before penalty, temperature and cuts (nats). score: their sum, that
    of the end-of-sequence token included; of a beam divided by length ** length_penalty. steps:
    the candidates at each step, the end included, where they were asked for.
    """

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    finished: bool
    log_probabilities: tuple[float, ...]
    score: float
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What followed a prompt: the fields of a `TokenGeneration`, and the text.

    A stop string finishes a text, which ends before it; `tokens` go on to the one that completed
    the stop string.
    """

    prompt: str
    tokens: tuple[int, ...]
    text: str
    finished: bool
    log_probabilities: tuple[float, ...]
    score: float
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Beams:
    """A search for the likeliest text.

    number: texts kept at each step; 1 is greedy but for the last choice among ended texts.
    length_penalty: a text's score is its log-likelihood / length ** length_penalty; above 0 longer
      texts gain. (Wu et al. 2016, arXiv 1609.08144, divide by ((5 + length) / 6) ** penalty; this
      is the form that `transformers` has.)
    """

    number: int = 4
    length_penalty: float = 1.0

    def __post_init__(self):
        require(self.number >= 1, "beams", self.number, "1 or more")
        penalty = self.length_penalty
        require(abs(penalty) < 1e3, "length_penalty", penalty, "a number of ordinary size")


@dataclass(frozen=True, kw_only=True)
class Request:
    """How prompts are to be continued; fields as `TextGenerator.generate` has them."""

    max_tokens: int
    sampling: Sampling
    num_samples: int
    beams: Beams | None
    num_candidates: int

    def check(self, vocab_size: int) -> None:
        """Raises InputError where settings contradict one another or the vocabulary."""
        s, beams = self.sampling, self.beams
        require(self.max_tokens > 0, "max_tokens", self.max_tokens, "1 or more")
        require(self.num_samples >= 1, "num_samples", self.num_samples, "1 or more")
        up_to_vocabulary = f"at most {vocab_size}, the size of the vocabulary"
        require(s.top_k <= vocab_size, "top_k", s.top_k, up_to_vocabulary)
        n = self.num_candidates
        require(0 <= n <= vocab_size, "show_probabilities", n, f"0 or more, {up_to_vocabulary}")
        if beams is None:
            require(
                self.num_samples == 1 or not s.is_greedy,
                "num_samples",
                self.num_samples,
                "1 at temperature 0: greedy gives one text",
            )
            return
        require(
            s.is_greedy or replace(s, repetition_penalty=1.0) == DEFAULT_SAMPLING,
            "temperature",
            s.temperature,
            "none with beams, which draw nothing",
        )
        require(
            beams.number <= vocab_size,
            "beams",
            beams.number,
            up_to_vocabulary,
        )
        require(
            self.num_samples <= beams.number,
            "num_samples",
            self.num_samples,
            f"at most the number of beams, {beams.number}",
        )
        require(n == 0, "show_probabilities", n, "0 with beams: no single token is chosen")


@dataclass
class GrowingRow:
    """One continuation while it grows.

    Attributes:
      eos_ids: tokens that end it.
      stream: its text, where that is streamed or a stop string may end it.
      on_text: told of new characters.
    """

    number: int
    eos_ids: tuple[int, ...]
    stream: TextStream | None = None
    on_text: OnText | None = None
    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    score: float = 0.0
    finished: bool = False

    def add(self, token: int, log_probability: float) -> None:
        """Adds a token, unless the text has ended; an end-of-sequence token ends it."""
        if self.finished:
            return
        self.score += log_probability
        if token in self.eos_ids:
            self.finished = True
            return
        self.tokens.append(token)
        self.log_probabilities.append(log_probability)
        if self.stream is not None:
            self._tell(self.stream.add(token))
            self.finished = self.stream.has_stopped

    def end(self) -> None:
        """Tells of what was held back; to be called once, when no token follows."""
        if self.stream is not None:
            self._tell(self.stream.end())
            self.finished = self.finished or self.stream.has_stopped

    def result(self, prompt: Sequence[int]) -> TokenGeneration:
        return TokenGeneration(
            prompt=tuple(prompt),
            tokens=tuple(self.tokens),
            finished=self.finished,
            log_probabilities=tuple(self.log_probabilities),
            score=self.score,
            steps=tuple(self.steps),
        )

    def _tell(self, text: str) -> None:
        if text and self.on_text is not None:
            self.on_text(self.number, text)
