"""A lease is held only as long as nobody can have taken the gateway for dead."""

from fulcrum_mcp.gateway.lease import Hearing, Lease, lease_clock


def test_nothing_may_be_written_before_the_store_has_heard_of_it() -> None:
    lease = Lease()
    assert "not known" in (lease.fault() or "")
    lease.renew(lease_clock())
    assert lease.fault() is None


def test_it_lasts_from_when_the_sign_of_life_was_sent() -> None:
    lease = Lease(10.0)
    lease.renew(lease_clock() - 9.0)
    assert lease.fault() is None
    lease.renew(lease_clock() - 10.0)
    assert "has not heard" in (lease.fault() or "")
    lease.renew(lease_clock())
    assert lease.fault() is None


def test_one_that_was_taken_over_never_writes_again() -> None:
    lease = Lease()
    lease.renew(lease_clock())
    lease.end()
    lease.renew(lease_clock())
    assert lease.ended
    assert "took this one for dead" in (lease.fault() or "")


def test_one_with_a_spool_is_stopped_only_where_neither_the_store_nor_the_stream_hears_it() -> None:
    stream: list[str] = ["refused"]
    hearing = Hearing(lambda: stream[0] if stream else None, 10.0)
    assert hearing.fault() is None
    hearing.heard(lease_clock() - 9.0)
    assert hearing.fault() is None
    hearing.heard(lease_clock() - 10.0)
    said = hearing.fault() or ""
    assert "Postgres has not heard" in said
    assert "NATS takes no records of it (refused)" in said
    stream.clear()
    assert hearing.fault() is None
    stream.append("not connected")
    assert "not connected" in (hearing.fault() or "")
    hearing.heard(lease_clock())
    assert hearing.fault() is None
