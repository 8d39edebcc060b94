"""Sets of recordings for the tests of this folder."""

import shutil

import pytest
from datasets import Audio, Dataset

from tests.support.recordings import record


@pytest.fixture
def embedded(tmp_path) -> Dataset:
    """Three recordings of 0.1, 0.2 and 0.3 s inside a data set, with words."""
    contents = [record(tmp_path / "in" / f"{n}.wav", n / 10).read_bytes() for n in (1, 2, 3)]
    values = [{"bytes": content, "path": f"{row}.wav"} for row, content in enumerate(contents)]
    shutil.rmtree(tmp_path / "in")
    dataset = Dataset.from_dict({"sound": values, "word": ["a", "b", "a"]})
    return dataset.cast_column("sound", Audio(decode=False))
