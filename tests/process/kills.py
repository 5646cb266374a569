"""How often a test kills its writers, and how these write."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.conftest import on_cluster
from tests.process.place import VARIANTS


def killing(
    chosen: Iterable[str], kills: int, often: int, *, on_a_cluster: tuple[int, int]
) -> pytest.MarkDecorator:
    """Parameters `shared`, `variant` and `kills`: the chosen variants in a folder, `kills` times, and one on
    a cluster; in the long run all of them, `often`.  `on_a_cluster`: both numbers there."""
    few, many = on_a_cluster
    long = [pytest.mark.long, pytest.mark.timeout(900)]
    return pytest.mark.parametrize(
        ("shared", "variant", "kills"),
        [
            *(pytest.param("folder", VARIANTS[name], kills, id=name) for name in chosen),
            on_cluster(VARIANTS["deferred"], few, id="cluster"),
            *(
                pytest.param("folder", variant, often, id=f"{name}, often", marks=long)
                for name, variant in VARIANTS.items()
            ),
            *(
                on_cluster(variant, many, long=True, id=f"cluster, {name}, often")
                for name, variant in VARIANTS.items()
            ),
        ],
        indirect=["shared"],
    )
