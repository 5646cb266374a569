"""The model of several connections, over the embedded engine, in memory and on a cluster."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests import cluster
from tests.model.sql_model import MODELS, SqlModel

ON_CLUSTER = [type(f"{model.__name__}OnCluster", (model,), {"kind": "cluster"}) for model in MODELS]


def options(*, examples: int, steps: int, phases: tuple[Phase, ...]) -> settings:
    return settings(max_examples=examples, stateful_step_count=steps, deadline=None, phases=phases)


@pytest.mark.parametrize("model", MODELS)
def test_sql(model: type[SqlModel]) -> None:
    """What fails is shown as it was found: making it short may take minutes."""
    phases = (Phase.explicit, Phase.reuse, Phase.generate)
    run_state_machine_as_test(
        model, settings=options(examples=8 if model.homes else 15, steps=50, phases=phases)
    )


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("model", MODELS)
def test_for_longer(model: type[SqlModel]) -> None:
    phases = (Phase.reuse, Phase.generate, Phase.shrink)
    run_state_machine_as_test(model, settings=options(examples=1000, steps=60, phases=phases))


@pytest.mark.foundationdb
@pytest.mark.parametrize("model", ON_CLUSTER)
@pytest.mark.parametrize(
    "examples",
    [2, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(1800)])],
    ids=["few", "many"],
)
def test_on_a_cluster(model: type[SqlModel], examples: int) -> None:
    cluster.need()
    phases = (Phase.generate,)
    run_state_machine_as_test(model, settings=options(examples=examples, steps=50, phases=phases))
