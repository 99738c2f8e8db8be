"""Every change to an exported trail is found, whoever made it, as long as he lacks the private key."""

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from audit_trails import small_trail, split_file, verdict

from fulcrum_adapters.signing import AuditKeys
from fulcrum_mcp.core.audit import parse_record, record_hash
from fulcrum_mcp.core.checkpoint import ChainState, checkpoint_line
from fulcrum_mcp.core.trail import TrailVerifier

MUTATIONS = 1_000
NIGHTLY = 10_000

Lines = list[bytes]
Mutation = Callable[[Lines, random.Random], Lines]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> AuditKeys:
    return AuditKeys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> AuditKeys:
    return AuditKeys(tmp_path_factory.mktemp("foreign"))


@pytest.fixture(scope="module")
def trail(keys: AuditKeys) -> Lines:
    return small_trail(keys)


def is_record(line: bytes) -> bool:
    return line.startswith(b'{"specversion"')


def records(lines: Lines) -> list[int]:
    return [place for place, line in enumerate(lines) if is_record(line)]


def rehashed(lines: Lines, start: int) -> Lines:
    """What a clever forger does: every later record of the chain gets its right prev and hash again."""
    lines = list(lines)
    chain = json.loads(lines[start])["chain"]
    head: str | None = None
    for place in range(start, len(lines)):
        if not is_record(lines[place]) or json.loads(lines[place])["chain"] != chain:
            continue
        text = lines[place][:-1]
        if head is not None:
            text = re.sub(rb'"prev":"[0-9a-f]{64}"', b'"prev":"%b"' % head.encode(), text, count=1)
        head = record_hash(text)
        lines[place] = text[:-66] + head.encode() + b'"}\n'
    return lines


def edit_byte(lines: Lines, dice: random.Random) -> Lines:
    raw = bytearray(b"".join(lines))
    place = dice.randrange(len(raw))
    raw[place] = dice.choice([byte for byte in range(256) if byte != raw[place]])
    return split_file(bytes(raw))


def edit_member(lines: Lines, dice: random.Random) -> Lines:
    """Another value for one member of one record, the record's JSON otherwise as it was."""
    place = dice.choice(records(lines))
    text = lines[place]
    members = list(re.finditer(rb'"(?:[^"\\]|\\.)*":("(?:[^"\\]|\\.)*"|[0-9]+)', text))
    member = dice.choice(members)
    value = dice.choice([b'"other"', b"7", b"null", b'"' + b"f" * 64 + b'"', b'""'])
    changed = text[: member.start(1)] + value + text[member.end(1) :]
    if changed == text:
        return delete(lines, dice)
    lines[place] = changed
    return rehashed(lines, place) if dice.random() < 0.5 and b'"hash":"' in changed[-80:] else lines


def edit_and_rehash(lines: Lines, dice: random.Random) -> Lines:
    place = dice.choice(records(lines))
    old, new = dice.choice([(b'"alice"', b'"bobby"'), (b'"files"', b'"filez"'), (b'"data":{', b'"data":{"x":1,')])
    if old not in lines[place]:
        old, new = b'"outcome":"ok"', b'"outcome":"error"'
    lines[place] = lines[place].replace(old, new, 1)
    return rehashed(lines, place)


def delete(lines: Lines, dice: random.Random) -> Lines:
    del lines[dice.randrange(len(lines))]
    return lines


def delete_and_rehash(lines: Lines, dice: random.Random) -> Lines:
    """Take a record out and renumber what follows in its chain."""
    place = dice.choice(records(lines))
    gone = json.loads(lines.pop(place))
    for later in range(place, len(lines)):
        event = json.loads(lines[later])
        if is_record(lines[later]) and event["chain"] == gone["chain"]:
            lines[later] = lines[later].replace(b'"seq":%d,' % event["seq"], b'"seq":%d,' % (event["seq"] - 1), 1)
    following = [p for p in records(lines) if p >= place and json.loads(lines[p])["chain"] == gone["chain"]]
    if following:
        prev = gone["prev"].encode()
        lines[following[0]] = re.sub(rb'"prev":"[0-9a-f]{64}"', b'"prev":"%b"' % prev, lines[following[0]], count=1)
        return rehashed(lines, following[0])
    return lines


def insert_copy(lines: Lines, dice: random.Random) -> Lines:
    lines.insert(dice.randrange(len(lines) + 1), dice.choice(lines))
    return lines


def insert_noise(lines: Lines, dice: random.Random) -> Lines:
    noise = dice.choice([b"\n", b"{}\n", b"not json\n", b'{"specversion":"1.0"}\n', b" \n", b"\xff\xfe\n", b"[]\n"])
    lines.insert(dice.randrange(len(lines) + 1), noise)
    return lines


def swap(lines: Lines, dice: random.Random) -> Lines:
    one, two = dice.sample(range(len(lines)), 2)
    lines[one], lines[two] = lines[two], lines[one]
    return lines


def truncate(lines: Lines, dice: random.Random) -> Lines:
    raw = b"".join(lines)
    return split_file(raw[: dice.randrange(len(raw))])


def drop_tail(lines: Lines, dice: random.Random) -> Lines:
    """Cut whole lines off before the manifest, which stays."""
    return [*lines[: dice.randrange(len(lines) - 1)], lines[-1]]


def drop_chain(lines: Lines, dice: random.Random) -> Lines:
    chain = json.loads(lines[dice.choice(records(lines))])["chain"]
    return [line for line in lines if not is_record(line) or json.loads(line)["chain"] != chain]


def rename_chain(lines: Lines, dice: random.Random) -> Lines:
    start = dice.choice(records(lines))
    chain = json.loads(lines[start])["chain"].encode()
    other = b"w9." + chain.partition(b".")[2]
    lines = [line.replace(b'"chain":"%b"' % chain, b'"chain":"%b"' % other) for line in lines]
    return rehashed(lines, next(place for place in records(lines) if other in lines[place]))


def fork(lines: Lines, dice: random.Random) -> Lines:
    """From some record on the chain goes another way, all hashes right."""
    place = dice.choice(records(lines))
    lines[place] = lines[place].replace(b'"data":{', b'"data":{"forked":true,', 1)
    return rehashed(lines, place)


def append(lines: Lines, dice: random.Random) -> Lines:
    return [*lines, dice.choice([b"\n", b"x", dice.choice(lines), lines[-1]])]


def edit_sealed(lines: Lines, dice: random.Random) -> Lines:
    """Another number in a checkpoint or in the manifest."""
    sealed = [place for place in range(len(lines)) if not is_record(lines[place])]
    place = dice.choice(sealed)
    number = dice.choice(list(re.finditer(rb"[0-9a-f]{2,}|[0-9]", lines[place])))
    text = lines[place]
    lines[place] = text[: number.start()] + b"9" + text[number.end() :]
    if lines[place] == text:
        return delete(lines, dice)
    return lines


MUTATE: tuple[Mutation, ...] = (
    edit_byte,
    edit_member,
    edit_and_rehash,
    delete,
    delete_and_rehash,
    insert_copy,
    insert_noise,
    swap,
    truncate,
    drop_tail,
    drop_chain,
    rename_chain,
    fork,
    append,
    edit_sealed,
)


def mutants(trail: Lines, number: int) -> Iterator[tuple[str, Lines]]:
    dice = random.Random(7)
    made = 0
    while made < number:
        mutation = MUTATE[made % len(MUTATE)]
        changed = mutation(list(trail), dice)
        if b"".join(changed) != b"".join(trail):
            made += 1
            yield mutation.__name__, changed


def undetected(trail: Lines, number: int, judge: Callable[[Lines], object]) -> list[str]:
    return [name for name, changed in mutants(trail, number) if judge(changed) is None]


def blind(lines: Lines) -> object:
    """A verifier that looks at hashes and links only: it must not pass this test."""
    heads: dict[str, str] = {}
    for line in lines:
        if is_record(line):
            record = parse_record(line[:-1])
            if record is None or not record.whole or heads.get(record.chain, record.prev) != record.prev:
                return "broken"
            heads[record.chain] = record.hash
    return None


def test_a_clean_trail_is_whole_and_counted(trail: Lines, keys: AuditKeys) -> None:
    verifier = TrailVerifier(keys.key_id, keys.check)
    assert [fault for line in trail if (fault := verifier.feed(line))] == []
    assert verifier.finish() is None
    assert (verifier.records, verifier.chains, verifier.checkpoints) == (26, 3, 5)


def test_the_mutations_catch_a_verifier_that_ignores_signatures(trail: Lines) -> None:
    missed = undetected(trail, 300, blind)
    assert {"edit_and_rehash", "drop_tail", "edit_sealed", "fork"} <= set(missed)


def test_every_change_is_found(trail: Lines, keys: AuditKeys) -> None:
    assert undetected(trail, MUTATIONS, lambda lines: verdict(lines, keys)) == []


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_every_change_of_many_is_found(trail: Lines, keys: AuditKeys) -> None:
    assert undetected(trail, NIGHTLY, lambda lines: verdict(lines, keys)) == []


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_every_truncation_is_found(trail: Lines, keys: AuditKeys) -> None:
    raw = b"".join(trail)
    assert [n for n in range(0, len(raw), 7) if verdict(split_file(raw[:n]), keys) is None] == []


def test_clean_trails_raise_no_alarm(keys: AuditKeys) -> None:
    assert [verdict(small_trail(keys), keys) for _ in range(20)] == [None] * 20


def test_an_empty_export_is_whole_only_with_its_manifest(keys: AuditKeys) -> None:
    verifier = TrailVerifier(keys.key_id, keys.check)
    assert verdict([verifier.manifest("2026-08-01T12:00:00Z", keys.sign) + b"\n"], keys) is None
    assert str(verdict([], keys)) == "broken at line 1: the signed manifest is missing, the tail was cut off"


def test_the_changed_record_is_named(trail: Lines, keys: AuditKeys) -> None:
    place = records(trail)[5]
    event = json.loads(trail[place])
    changed = [*trail[:place], trail[place].replace(b'"seq"', b'"seQ"', 1), *trail[place + 1 :]]
    assert "line 6" in str(verdict(changed, keys))
    changed[place] = trail[place].replace(b"alice", b"malic").replace(b'"ok"', b'"no"')
    assert str(verdict(changed, keys)) == f"broken at chain {event['chain']} seq {event['seq']}: hash differs"


def test_a_missing_record_is_named(trail: Lines, keys: AuditKeys) -> None:
    place = records(trail)[2]
    event = json.loads(trail[place])
    fault = str(verdict([*trail[:place], *trail[place + 1 :]], keys))
    assert fault == f"broken at chain {event['chain']} seq {event['seq'] + 1}: seq {event['seq']} is missing"


def test_a_forger_who_hashes_anew_is_caught_by_the_checkpoint(trail: Lines, keys: AuditKeys) -> None:
    fault = str(verdict(edit_and_rehash(list(trail), random.Random(1)), keys))
    assert "signed other records" in fault


def test_a_trail_signed_by_another_key_is_not_believed(trail: Lines, keys: AuditKeys, foreign: AuditKeys) -> None:
    assert foreign.key_id in str(verdict(small_trail(foreign), keys))
    verifier = TrailVerifier(keys.key_id, foreign.check)
    assert any(verifier.feed(line) for line in trail)


def test_a_manifest_of_another_export_does_not_fit(trail: Lines, keys: AuditKeys) -> None:
    assert verdict([*trail[:-1], small_trail(keys)[-1]], keys) is not None


def test_a_whole_tenant_left_out_is_missed_by_the_manifest(trail: Lines, keys: AuditKeys) -> None:
    rest = [line for line in trail if json.loads(line).get("tenant") != "other"]
    assert "w1.other" in str(verdict(rest, keys))


def test_a_checkpoint_with_another_forest_is_refused(keys: AuditKeys) -> None:
    """A chain that is not mentioned must still be there."""
    one, two = ChainState("w1.t", "t"), ChainState("w2.t", "t")
    one.add("11" * 32)
    two.add("22" * 32)
    two.signed = 1
    line = checkpoint_line("t", 1, "0" * 64, [one, two], time="x", key=keys.key_id, sign=keys.sign)
    verifier = TrailVerifier(keys.key_id, keys.check)
    assert verifier.feed(line + b"\n") is not None


def test_hostile_lines_never_raise(keys: AuditKeys) -> None:
    start = b'{"type":"dev.fulcrum.audit.checkpoint"'
    for text in (
        start + b"[" * 100_000,
        start + b',"signature":"' + b"zz" * 64 + b'"}',
        start + b',"signature":"' + b"00" * 64 + b'"}',
        start + b',"key":"' + keys.key_id.encode() + b'","signature":"' + b"00" * 64 + b'"}',
        b"\x00" * 500,
        b"",
    ):
        assert verdict([text + b"\n"], keys) is not None
        assert verdict([text], keys) is not None


def test_what_is_said_of_hostile_names_is_safe_for_a_terminal(keys: AuditKeys) -> None:
    line = b'{"type":"dev.fulcrum.audit.checkpoint","key":"\\u001b[31m","signature":"' + b"00" * 64 + b'"}\n'
    assert str(verdict([line], keys)).isprintable()


def test_the_digest_of_an_export_covers_its_bytes(trail: Lines) -> None:
    assert json.loads(trail[-1])["digest"] == hashlib.sha256(b"".join(trail[:-1])).hexdigest()


def test_keys_stay_what_they_are(tmp_path: Path) -> None:
    assert AuditKeys(tmp_path).key_id == AuditKeys(tmp_path).key_id
