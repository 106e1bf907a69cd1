"""Sources of text, each a `TextSource`: files, datasets by name, the standard library.

stdlib                     the library of the Python that runs
tfds:NAME/CONFIG:SPLIT     TensorFlow Datasets (tfds_names.py)
hf:NAME@CONFIG:SPLIT       Hugging Face datasets (huggingface_datasets.py)
anything else              paths, globs, folders or URLs of files (text_files.py)
"""

from configs.errors import require
from data.sources.combined import CombinedSource
from data.sources.huggingface_datasets import HuggingFaceSource
from data.sources.locations import require_no_secrets, split_spec
from data.sources.stdlib import StdlibSource
from data.sources.text_files import TextFilesSource
from data.sources.text_source import Document, Problems, SourceShard, TextSource, documents_of
from data.sources.tfds_names import TfdsSource

__all__ = ["Document", "Problems", "SourceShard", "TextSource", "documents_of", "open_source"]

# What ids of a mixture begin with; those of Hugging Face datasets begin with "hf:" by themselves.
_PREFIXES = {"stdlib": "stdlib:", "text_files": "files:", "tfds": "tfds:", "hf": ""}


def open_source(spec: str, *, text_field: str = "text") -> TextSource:
    """The source a user names.

    Args:
        spec: one of the above, or several with commas, e.g. "stdlib,notes/". Ids of a mixture
            begin with "stdlib:", "files:", "tfds:" or "hf:".
        text_field: the field, column or feature of the text, where documents are records.

    Raises:
        InputError: nothing readable is found there, or a URL holds a secret.
    """
    require_no_secrets(spec)
    parts = split_spec(spec)
    named = [part for part in parts if part == "stdlib" or part.startswith(("tfds:", "hf:"))]
    paths = [part for part in parts if part not in named]
    if not named:
        return TextFilesSource(spec, text_field=text_field)
    sources = [_open_named(part, text_field) for part in named]
    if len(parts) == 1:
        return sources[0]
    names = [str(getattr(source, "dataset", source.kind)) for source in sources]
    once = len(set(names)) == len(names)
    require(once, "source", spec, "every dataset once; for two splits of one, 'train+test'")
    mixture: list[tuple[str, TextSource]] = [(_PREFIXES[s.kind], s) for s in sources]
    if paths:
        files = TextFilesSource(",".join(paths), text_field=text_field)
        mixture.append((_PREFIXES[files.kind], files))
    return CombinedSource(mixture)


def _open_named(part: str, text_field: str) -> StdlibSource | TfdsSource | HuggingFaceSource:
    if part == "stdlib":
        return StdlibSource()
    if part.startswith("tfds:"):
        return TfdsSource(part, text_field=text_field)
    return HuggingFaceSource(part, text_field=text_field)
