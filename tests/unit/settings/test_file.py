import pytest

from fulcrum_mcp.errors import Invalid
from fulcrum_mcp.settings.file import FileSettings, guess, validate
from fulcrum_mcp.settings.place import Places


def test_an_empty_file_is_all_defaults() -> None:
    assert validate({}, Places("f")) == FileSettings()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"policy": {"engin": "rego"}}, 'f: [policy] unknown key "engin"; did you mean "engine"?'),
        ({"server": [{"command": ["x"]}]}, 'f: server 1: key "name" is missing; add name = ...'),
        ({"server": [{"name": "a", "timeout": -1}]}, 'f: server "a": timeout: must be greater than 0'),
        (
            {"nats": {"sync_always": True}},
            'f: [nats] key "url" is missing; add url = ..., or set FULCRUM_NATS_URL',
        ),
        ({"server": {}}, "f: server: must be a valid tuple"),
        ({"limits": {"max_depth": True}}, "f: [limits] max_depth: must be a valid integer"),
        ({"policy": {"data": 1}}, "f: [policy] data: must be"),
        ({"audit": []}, "f: audit: must be"),
    ],
)
def test_faults_are_said_as_people_would(raw: dict[str, object], said: str) -> None:
    with pytest.raises(Invalid) as caught:
        validate(raw, Places("f"))
    assert str(caught.value).startswith(said)


def test_a_guess_is_made_only_when_it_is_near() -> None:
    assert guess("nam", ("name", "url")) == '; did you mean "name"?'
    assert guess("zzz", ("url", "name")) == "; known: name, url"
