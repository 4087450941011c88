"""What every test of helpers.word2vec can ask for."""

from pathlib import Path

import pytest


@pytest.fixture
def put(tmp_path):
    """Writes bytes into a file, and gives its path."""

    def write(data: bytes, name: str = "vectors") -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write
