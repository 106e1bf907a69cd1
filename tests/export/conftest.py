"""A tokenizer trained once for the folder's tests."""

import pytest

from data.tokenizer import Tokenizer
from tests.export.samples import train_model


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(train_model())
    return Tokenizer.load(path)
