from dataclasses import replace

from fulcrum_mcp.ports import Metric
from fulcrum_mcp.processor.metrics import processor_metrics
from fulcrum_mcp.processor.service import Figures

FIGURES = Figures(
    stored=5,
    dead_letters=1,
    messages=2,
    unacknowledged=3,
    lag_seconds=1.5,
    leader=True,
    broken={"w.a": "why"},
    gaps={"w.b": (4, 2.0), "w.c": (9, 7.0)},
    unsigned=6,
    checkpoints=8,
    last_checkpoint=1.0,
    faults={},
)


def values(figures: Figures) -> dict[str, object]:
    found: dict[str, object] = {}
    for metric in processor_metrics(figures):
        assert isinstance(metric, Metric)
        found[metric.name.removeprefix("fulcrum_processor_")] = metric.points[0].value
    return found


def test_every_figure_has_its_family() -> None:
    assert values(FIGURES) == {
        "records": 5,
        "dead_letters": 1,
        "lag_messages": 5,
        "lag_seconds": 1.5,
        "leader": True,
        "broken_chains": 1,
        "waiting_chains": 2,
        "waiting_seconds": 7.0,
        "unsigned_records": 6,
        "checkpoints": 8,
    }


def test_a_lag_that_is_not_known_is_left_out() -> None:
    assert "lag_messages" not in values(replace(FIGURES, messages=None))
    assert values(replace(FIGURES, gaps={}))["waiting_seconds"] == 0.0
