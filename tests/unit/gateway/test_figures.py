"""What a gateway counts about calls; metrics are made of it."""

from fulcrum_mcp.gateway.figures import BOUNDS, Figures, Histogram


def test_durations_fall_into_the_bucket_that_bounds_them() -> None:
    histogram = Histogram()
    for microseconds in (0, 500, 501, 30_000_000, 30_000_001):
        histogram.observe(microseconds)
    assert histogram.buckets == [2, 1, *[0] * (len(BOUNDS) - 3), 1, 1]
    assert histogram.total_us == 60_001_002


def test_ends_and_denials_are_counted_by_what_people_ask_for() -> None:
    figures = Figures()
    figures.ended("files", "tools/call", "ok", 1200)
    figures.ended("files", "tools/call", "ok", 1200)
    figures.denied("files", "tools/call", "deny", "budget_exceeded")
    figures.stage("policy", 10)
    assert figures.calls == {("files", "tools/call", "allow", "ok"): 2, ("files", "tools/call", "deny", "denied"): 1}
    assert figures.denials == {"budget_exceeded": 1}
    assert sum(figures.durations["files"].buckets) == 2
    assert figures.stages["policy"].total_us == 10


def test_codes_of_policies_cannot_grow_without_bound() -> None:
    figures = Figures()
    for number in range(1000):
        figures.denied("files", "tools/call", "deny", f"c{number}")
    figures.denied("files", "tools/call", "deny", "c5")
    assert len(figures.denials) == 101
    assert figures.denials["c5"] == 2
    assert figures.denials["other"] == 900
