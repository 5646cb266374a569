from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Connect
from tests.sql.attached import open_all  # noqa: F401  (a fixture)
from tests.sql.twins import Twins

MakeTwins = Callable[..., Twins]


@pytest.fixture
def make_twins(connect: Connect, tmp_path: Path) -> Iterator[MakeTwins]:
    made: list[Twins] = []

    def make(*setup: str, **options: object) -> Twins:
        twins = Twins(lambda: connect(**options), tmp_path / f"plain-{len(made)}.sqlite", setup)
        made.append(twins)
        return twins

    yield make
    for twins in made:
        twins.close()


@pytest.fixture
def twins(make_twins: MakeTwins) -> Twins:
    return make_twins()
