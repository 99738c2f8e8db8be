from fulcrum_adapters.upstream.stdio.breaker import Breaker


def test_first_restart_is_immediate_and_the_pause_doubles_up_to_its_limit() -> None:
    breaker = Breaker(4.0, 30.0)
    pauses = []
    for _ in range(6):
        breaker.failed(100.0, 0.1, "why")
        pauses.append(breaker.waits(100.0))
    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 4.0]


def test_process_that_lived_long_starts_the_count_anew() -> None:
    breaker = Breaker(4.0, 30.0)
    for _ in range(5):
        breaker.failed(100.0, 0.1, "why")
    breaker.failed(200.0, 31.0, "why")
    assert breaker.waits(200.0) == 0.0


def test_thousand_crashes_wait_no_longer_than_the_limit() -> None:
    breaker = Breaker(30.0, 30.0)
    for _ in range(1000):
        breaker.failed(0.0, 0.0, "why")
    assert breaker.waits(0.0) == 30.0
    assert breaker.waits(31.0) == 0.0
