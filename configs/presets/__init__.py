"""Named starting points: plain functions that return a `RunConfig`, in one table."""

from collections.abc import Callable, Mapping

from configs.presets import decoder_only
from configs.schema import RunConfig

PRESETS: Mapping[str, Callable[[], RunConfig]] = {
    "decoder_only": decoder_only.tiny,
    "decoder_only/tiny": decoder_only.tiny,
    "decoder_only/small": decoder_only.small,
    "decoder_only/base_1b": decoder_only.base_1b,
}
