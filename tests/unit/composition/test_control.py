import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest

from fulcrum_mcp.composition.control import ControlPlane, admin_key, client_key, open_control
from fulcrum_mcp.errors import Invalid, Unauthenticated
from fulcrum_mcp.ports import Credentials
from fulcrum_mcp.settings import Settings, load

BROUGHT = "0123456789abcdefghijklmnopqrstuvwxyz"


def settings(folder: Path, **environ: str) -> Settings:
    return load(None, environ=environ, overrides={"data": str(folder)})


def plane(given: Settings) -> ControlPlane:
    return open_control(given, lambda _budgets, _at: ())


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[ControlPlane, Settings]]:
    given = settings(tmp_path / "data")
    control = plane(given)
    yield control, given
    control.close()


def who(control: ControlPlane, text: str) -> Any:
    return anyio.run(control.identity.verify, Credentials(f"Bearer {text}"))


def first_key(folder: str) -> str:
    given = settings(Path(folder))
    control = plane(given)
    found = admin_key(control, given)
    assert found is not None
    assert who(control, found.text).agent == "admin"
    control.close()
    return f"{found.text} {found.made}"


def test_processes_that_start_at_once_agree_on_the_first_key(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
        for round_number in range(8):
            folder = str(tmp_path / str(round_number))
            answers = list(pool.map(first_key, [folder] * 6))
            assert len({answer.split()[0] for answer in answers}) == 1
            assert sum(answer.endswith("True") for answer in answers) == 1
            control = plane(settings(Path(folder)))
            assert len(control.key_repository.list("default")) == 1
            control.close()


def test_the_first_key_lies_in_a_private_file_and_stays(opened: tuple[ControlPlane, Settings]) -> None:
    control, given = opened
    first, again = admin_key(control, given), admin_key(control, given)
    assert first is not None
    assert again is not None
    assert (first.text, first.made, again.made) == (again.text, True, False)
    assert first.path is not None
    assert first.path.stat().st_mode & 0o777 == 0o600
    assert given.data.stat().st_mode & 0o777 == 0o700
    assert first.text not in repr(first)
    assert sorted(path.name for path in given.data.iterdir() if "key" in path.name) == ["admin.key"]


def test_a_file_that_was_taken_away_is_not_made_anew(opened: tuple[ControlPlane, Settings]) -> None:
    control, given = opened
    assert admin_key(control, given) is not None
    (given.data / "admin.key").unlink()
    assert admin_key(control, given) is None


def test_a_revoked_first_key_is_not_brought_back(opened: tuple[ControlPlane, Settings]) -> None:
    control, given = opened
    first = admin_key(control, given)
    assert first is not None
    control.key_repository.revoke("default", control.key_repository.list("default")[0].id, 1)
    assert admin_key(control, given) is None
    with pytest.raises(Unauthenticated):
        who(control, first.text)


def test_a_lost_store_takes_the_key_of_the_file_again(tmp_path: Path) -> None:
    given = settings(tmp_path)
    control = plane(given)
    first = admin_key(control, given)
    control.close()
    for path in tmp_path.glob("fulcrum.db*"):
        path.unlink()
    control = plane(given)
    again = admin_key(control, given)
    assert first is not None
    assert again is not None
    assert who(control, first.text).scopes == {"admin", "platform"}
    control.close()


@pytest.mark.parametrize("content", ["", "garbage", "flcrm_sk_x_short"])
def test_a_spoilt_key_file_is_named_with_the_remedy(opened: tuple[ControlPlane, Settings], content: str) -> None:
    control, given = opened
    (given.data / "admin.key").write_text(content)
    with pytest.raises(Invalid, match=r"admin\.key: holds no key; remove it"):
        admin_key(control, given)


def test_a_key_file_that_others_can_read_is_closed_again(opened: tuple[ControlPlane, Settings]) -> None:
    control, given = opened
    assert admin_key(control, given) is not None
    (given.data / "admin.key").chmod(0o644)
    assert admin_key(control, given) is not None
    assert (given.data / "admin.key").stat().st_mode & 0o777 == 0o600


def test_the_operators_own_key_replaces_the_one_before(tmp_path: Path) -> None:
    one = settings(tmp_path, FULCRUM_ADMIN_KEY=BROUGHT)
    two = settings(tmp_path, FULCRUM_ADMIN_KEY=BROUGHT[::-1])
    control = plane(one)
    first = admin_key(control, one)
    assert first is not None
    assert (first.path, first.text) == (None, BROUGHT)
    assert who(control, BROUGHT).agent == "admin"
    assert admin_key(control, two) is not None
    control.forget()
    assert who(control, BROUGHT[::-1]).agent == "admin"
    with pytest.raises(Unauthenticated):
        who(control, BROUGHT)
    assert not (tmp_path / "admin.key").exists()
    with pytest.raises(Invalid, match="this key was revoked"):
        admin_key(control, one)
    control.close()


def test_the_clients_key_can_only_call(opened: tuple[ControlPlane, Settings]) -> None:
    control, given = opened
    found = client_key(control, given)
    assert found is not None
    assert who(control, found.text).scopes == {"tool:call"}


def test_anonymous_requests_reach_the_mcp_faces_only(tmp_path: Path) -> None:
    given = load(None, environ={}, overrides={"data": str(tmp_path), "anonymous": "reader"})
    control = plane(given)
    assert anyio.run(control.mcp_identity.verify, Credentials(loopback=True)).roles == ("reader",)
    with pytest.raises(Unauthenticated):
        anyio.run(control.identity.verify, Credentials(loopback=True))
    control.close()


def test_a_revocation_by_another_process_is_seen_with_the_revision(tmp_path: Path) -> None:
    given = settings(tmp_path)
    mine, theirs = plane(given), plane(given)
    first = admin_key(mine, given)
    assert first is not None
    assert who(mine, first.text).agent == "admin"
    before = mine.config.revision()
    theirs.key_repository.revoke("default", theirs.key_repository.list("default")[0].id, 1)
    assert mine.config.revision() > before
    mine.forget()
    with pytest.raises(Unauthenticated):
        who(mine, first.text)
    mine.close()
    theirs.close()


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(Invalid, match="others may write to it; run: chmod 700"):
        plane(settings(shared))
