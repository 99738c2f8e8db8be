from fulcrum_adapters.upstream.breaker import Breaker


def failed(breaker: Breaker, times: int, now: float) -> None:
    for _ in range(times):
        assert breaker.admit(now) == 0
        breaker.failed(now)


def test_failures_below_the_threshold_let_everything_pass() -> None:
    breaker = Breaker(threshold=3)
    failed(breaker, 2, 0)
    assert not breaker.open
    assert breaker.admit(0) == 0


def test_enough_failures_in_a_row_fail_fast_and_say_for_how_long() -> None:
    breaker = Breaker(threshold=3, first=0.5)
    failed(breaker, 3, 10)
    assert breaker.open
    assert breaker.admit(10.25) == 0.25


def test_success_in_between_starts_the_count_anew() -> None:
    breaker = Breaker(threshold=3)
    failed(breaker, 2, 0)
    breaker.succeeded()
    failed(breaker, 2, 0)
    assert not breaker.open


def test_one_call_probes_and_the_others_wait_for_it() -> None:
    breaker = Breaker(threshold=1, first=0.5)
    failed(breaker, 1, 0)
    assert breaker.admit(0.5) == 0
    assert breaker.admit(0.5) > 0
    breaker.succeeded()
    assert breaker.admit(0.5) == 0
    assert breaker.admit(0.5) == 0


def test_every_failed_probe_doubles_the_wait_up_to_the_longest() -> None:
    breaker = Breaker(threshold=1, first=0.5, longest=15)
    failed(breaker, 1, 0)
    now, waits = 0.0, []
    for _ in range(8):
        wait = breaker.admit(now)
        waits.append(wait)
        now += wait
        failed(breaker, 1, now)
    assert waits == [0.5, 1, 2, 4, 8, 15, 15, 15]


def test_abandoned_probe_leaves_the_next_call_to_probe() -> None:
    breaker = Breaker(threshold=1, first=0.5)
    failed(breaker, 1, 0)
    assert breaker.admit(1) == 0
    breaker.abandoned()
    assert breaker.admit(1) == 0


def test_failures_at_once_count_as_one_wait() -> None:
    breaker = Breaker(threshold=2, first=0.5)
    for _ in range(10):
        breaker.failed(0)
    assert breaker.admit(0) == 0.5
