"""What a run that was adapted to classes answers: each text's class, or the spans in it."""

import json
from collections.abc import Sequence

from configs.errors import require
from inference.classify import classify, tag
from workflows.load import Loaded


def answer_classes(loaded: Loaded, texts: Sequence[str], *, as_json: bool) -> int:
    """Prints an answer for each text, or a JSON object.

    Raises:
      InputError: a run without the names of its classes, or an empty text.
    """
    require(bool(loaded.labels), "run", "none of its classes' names", "its labels.json")
    model = loaded.config, loaded.params, loaded.tokenizer
    if loaded.config.head.kind == "sequence_classification":
        for one in classify(*model, texts, loaded.labels, seq_len=loaded.seq_len):
            likely = sorted(one.probabilities.items(), key=lambda item: -item[1])
            shown = ", ".join(f"{label} {probability:.3f}" for label, probability in likely)
            print(json.dumps({"schema_version": 1, **one._asdict()}) if as_json else shown)
        return 0
    for one in tag(*model, texts, loaded.labels, seq_len=loaded.seq_len):
        spans = [span._asdict() for span in one.spans]
        if as_json:
            print(json.dumps({"schema_version": 1, "text": one.text, "spans": spans}))
            continue
        print(one.text)
        for span in one.spans:
            print(f"  {span.label:<12} {one.text[span.start : span.end]}")
    return 0
