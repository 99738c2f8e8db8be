import dataclasses

from audit_trails import calls, decided
from hypothesis import given
from hypothesis import strategies as st
from processor_doubles import parcels_of

from fulcrum_mcp.core.frames import INPUTS, RECORD, SNAPSHOT, frame
from fulcrum_mcp.processor.parcels import unpack

NOW = 2**60
PARCEL = parcels_of("w", [calls(3, tenant="acme")])[0]


def seqs(body: bytes) -> list[int]:
    return [entry.record.seq for entry in unpack("s", "acme", body, NOW)[0]]


def test_a_parcel_gives_its_records_each_with_its_inputs() -> None:
    entries, letters = unpack("s", "acme", PARCEL.body, NOW)
    assert [entry.record.seq for entry in entries] == [1, 2, 3, 4, 5, 6]
    assert [len(entry.inputs) for entry in entries] == [1, 0, 1, 0, 1, 0]
    first = entries[0]
    assert first.inputs == ((first.record.id, "acme", first.record.time, b'{"arguments":{}}'),)
    assert letters == []


def test_inputs_are_never_kept_longer_because_a_clock_was_ahead() -> None:
    entries, _ = unpack("s", "acme", PARCEL.body, 5)
    assert entries[0].inputs[0][2] == 5


def test_a_flipped_bit_is_a_dead_letter_whole_and_the_records_beside_it_are_stored() -> None:
    body = bytearray(PARCEL.body)
    place = body.index(b'"seq":3')
    body[place + 6] ^= 1
    entries, letters = unpack("s", "acme", bytes(body), NOW)
    assert [entry.record.seq for entry in entries] == [1, 2, 4, 5, 6]
    assert [(letter.source, letter.body) for letter in letters] == [("s", bytes(body))]


def test_a_record_that_was_framed_anew_after_a_change_is_a_dead_letter() -> None:
    entries, _ = unpack("s", "acme", PARCEL.body, NOW)
    forged = entries[1].record.line.replace(b'"outcome":"ok"', b'"outcome":"no"')
    body = frame(RECORD, entries[0].record.line) + frame(RECORD, forged) + frame(RECORD, entries[2].record.line)
    found, letters = unpack("s", "acme", body, NOW)
    assert [entry.record.seq for entry in found] == [1, 3]
    assert [(letter.what, letter.body) for letter in letters] == [("its hash differs", forged)]


def test_a_record_under_another_tenants_subject_is_a_dead_letter() -> None:
    entries, letters = unpack("audit/other", "other", PARCEL.body, NOW)
    assert entries == []
    assert {letter.what for letter in letters} == {
        "a record of another tenant than its subject's",
        "inputs that do not follow their record",
    }
    entries, letters = unpack("elsewhere", None, PARCEL.body, NOW)
    assert (entries, [letter.body for letter in letters]) == ([], [PARCEL.body])


def test_inputs_of_a_record_that_is_not_here_are_a_dead_letter() -> None:
    """Else whoever may publish could overwrite what another record's inputs are."""
    line = unpack("s", "acme", PARCEL.body, NOW)[0][0].record.line
    foreign = frame(INPUTS, b"another-id\n{}")
    for body in (foreign, frame(RECORD, line) + foreign, frame(RECORD, line) + frame(INPUTS, b"no newline")):
        _, letters = unpack("s", "acme", body, NOW)
        assert [letter.what for letter in letters] == ["inputs that do not follow their record"]


def test_other_inputs_of_the_same_record_are_a_dead_letter_and_the_same_are_not() -> None:
    entry = unpack("s", "acme", PARCEL.body, NOW)[0][0]
    name = entry.record.id.encode()
    body = frame(RECORD, entry.record.line) + frame(INPUTS, name + b"\na") + frame(INPUTS, name + b"\na")
    entries, letters = unpack("s", "acme", body, NOW)
    assert (len(entries[0].inputs), letters) == (1, [])
    _, letters = unpack("s", "acme", body + frame(INPUTS, name + b"\nb"), NOW)
    assert [letter.what for letter in letters] == ["other inputs of the same record"]


def test_what_is_no_parcel_is_a_dead_letter_whole() -> None:
    for body in (b"", b"noise", b"\0" * 100, PARCEL.body[:5], frame(SNAPSHOT, b'{"writer":"w"}')):
        entries, letters = unpack("s", "acme", body, NOW)
        assert entries == []
        assert len(letters) == 1
        assert letters[0].body in body


@given(st.integers(0, len(PARCEL.body)))
def test_a_parcel_cut_anywhere_keeps_every_whole_record_and_loses_no_byte(cut: int) -> None:
    body = PARCEL.body[:cut]
    entries, letters = unpack("s", "acme", body, NOW)
    found = [entry.record.seq for entry in entries]
    assert found == list(range(1, len(found) + 1))
    kept = sum(len(frame(RECORD, entry.record.line)) for entry in entries)
    kept += sum(len(frame(INPUTS, text[0].encode() + b"\n" + text[3])) for entry in entries for text in entry.inputs)
    assert kept == cut or [letter.body for letter in letters] == [body]


@given(st.integers(0, len(PARCEL.body) - 1), st.integers(1, 255))
def test_a_changed_byte_changes_no_record(place: int, bits: int) -> None:
    body = bytearray(PARCEL.body)
    body[place] ^= bits
    entries, letters = unpack("s", "acme", bytes(body), NOW)
    whole = {entry.record.line for entry in unpack("s", "acme", PARCEL.body, NOW)[0]}
    assert {entry.record.line for entry in entries} <= whole
    assert letters


def test_one_record_of_many_mebibytes_is_read() -> None:
    draft = decided("call_1", tenant="acme")
    large = dataclasses.replace(draft, data=draft.data[:-1] + b',"x":"' + b"y" * (8 << 20) + b'"}')
    assert seqs(parcels_of("w", [[large]])[0].body) == [1]
