"""`fulcrum audit reconcile`: what differs between spool, stream and store, as a table or as JSON."""

from pathlib import Path

from fulcrum_mcp.cli.output import clean, note, say, say_json, table
from fulcrum_mcp.cli.progress import progress
from fulcrum_mcp.composition.reconcile import Reconciled, reconcile
from fulcrum_mcp.processor.reconcile import Difference
from fulcrum_mcp.settings import Settings

__all__ = ["run"]

_SHOWN = 200
"""Rows of the table; JSON has all."""


def run(settings: Settings, *, mend: bool, patience: float, as_json: bool) -> int:
    """The exit code: 0 the same everywhere, 1 not. Raises `Unavailable` when a part cannot be asked."""
    with progress() as line:
        found = reconcile(settings, line.show, mend=mend, patience=patience)
    if as_json:
        say_json(_document(found))
    else:
        _show(found, settings.data / "spool")
    return 1 if found.differences else 0


def _show(found: Reconciled, spool: Path) -> None:
    differences = found.differences
    if found.repaired:
        say(f"{found.repaired} records stored from the spool")
    if differences:
        rows = [(each.chain or "-", _span(each), each.what, each.where) for each in differences[:_SHOWN]]
        for line in table(rows, ("CHAIN", "SEQ", "WHAT", "WHERE")):
            say(line)
        if len(differences) > _SHOWN:
            note(f"and {len(differences) - _SHOWN} more; --json has all")
        if any(each.repairable for each in differences):
            note("fulcrum audit reconcile --repair stores what a spool of this machine has")
    counts = found.found
    told = [f"spool {sum(counts.spool.counts.values())}" if found.spooled else "no spool"]
    if found.streamed:
        told.append(f"stream {sum(counts.stream.counts.values())}")
    told.append(f"store {counts.records} records in {len(counts.store)} chains")
    same = "the same everywhere" if found.spooled else "no differences"
    said = f"{len(differences)} differences" if differences else same
    if not found.spooled:
        said += f"; nothing to compare on this machine: no spool in {clean(spool)}, --data names another folder"
    (note if differences else say)(f"{', '.join(told)}: {said}")


def _span(each: Difference) -> str:
    if not each.first:
        return "-"
    return str(each.first) if each.first == each.last else f"{each.first}-{each.last}"


def _document(found: Reconciled) -> dict[str, object]:
    counts = found.found
    spool, stream, store = counts.spool.counts, counts.stream.counts, counts.store
    chains = [
        {
            "chain": name,
            "spool": spool.get(name, 0),
            "stream": stream.get(name, 0),
            "contiguous": store[name].size if name in store else 0,
            "last": store[name].last if name in store else 0,
        }
        for name in sorted({*spool, *stream, *store})
    ]
    return {
        "clean": not found.differences,
        "repaired": found.repaired,
        "spool": sum(spool.values()) if found.spooled else None,
        "stream": sum(stream.values()) if found.streamed else None,
        "store": counts.records,
        "chains": chains,
        "differences": [each._asdict() for each in found.differences],
    }
