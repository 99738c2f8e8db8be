from fulcrum_adapters.redis.breaker import PAUSE, Breaker


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_everybody_passes_until_a_failure() -> None:
    breaker = Breaker(Time())
    assert [breaker.enter() for _ in range(3)] == [False] * 3
    breaker.leave(probe=False, failed=False)
    assert breaker.enter() is False


def test_after_a_failure_one_probe_passes_each_pause() -> None:
    clock = Time()
    breaker = Breaker(clock)
    breaker.enter()
    breaker.leave(probe=False, failed=True)
    assert breaker.enter() is None
    clock.now += PAUSE
    assert [breaker.enter() for _ in range(3)] == [True, None, None]
    breaker.leave(probe=True, failed=True)
    assert breaker.enter() is None
    clock.now += PAUSE
    assert breaker.enter() is True
    breaker.leave(probe=True, failed=False)
    assert [breaker.enter() for _ in range(3)] == [False] * 3


def test_success_that_began_before_the_failure_closes_nothing() -> None:
    breaker = Breaker(Time())
    breaker.enter()
    breaker.enter()
    breaker.leave(probe=False, failed=True)
    breaker.leave(probe=False, failed=False)
    assert breaker.enter() is None
