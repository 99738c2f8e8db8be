"""Loading and writing back the ledger's working set; every statement of the ledger's hot path is here."""

from collections.abc import Collection, Sequence
from sqlite3 import Connection

import msgspec

from fulcrum_mcp.core.account import Account, AccountKey, Arrival, ArrivalKey, Book, Hold, HoldKey, State
from fulcrum_mcp.core.amount import MAX_AMOUNT
from fulcrum_mcp.core.budget import Commit, Release, Reserve

__all__ = ["SqliteBook", "load", "load_holds", "save"]

_BY_KEY = (
    "SELECT ends, cap, thresholds, committed, reserved, notified, warned, id FROM account"
    " WHERE owner=? AND budget=? AND bucket=? AND amount=? AND starts=?"
)
_BY_ID = (
    "SELECT owner, budget, bucket, amount, starts,"
    " ends, cap, thresholds, committed, reserved, notified, warned, account.id"
    " FROM json_each(?) AS wanted JOIN account ON account.id = wanted.value"
)
_ARRIVAL = "SELECT at, warned FROM arrival WHERE owner=? AND budget=? AND bucket=?"
_HOLDS = (
    "SELECT call, leg, tenant, writer, expires, state, settled_at, lines"
    " FROM json_each(?) AS wanted JOIN hold ON call = wanted.value"
)
_INSERT_ACCOUNT = (
    "INSERT INTO account (owner, budget, bucket, amount, starts, ends, cap, thresholds, committed, reserved, notified,"
    " warned) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPDATE_ACCOUNT = "UPDATE account SET committed=?, reserved=?, cap=?, thresholds=?, notified=?, warned=? WHERE id=?"
_MOVE_END = "UPDATE account SET ends=? WHERE id=?"
"""On its own: a statement that sets `ends` writes its index anew even where it stays what it is."""
_PUT_ARRIVAL = (
    "INSERT INTO arrival VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = excluded.at, warned = excluded.warned"
)
_INSERT_HOLD = "INSERT INTO hold VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_UPDATE_HOLD = "UPDATE hold SET state=?, settled_at=?, lines=? WHERE call=? AND leg=?"
_HORIZON = "SELECT at FROM horizon"

_json = msgspec.json.Encoder().encode
_STATES = {int(state): state for state in State}


class SqliteBook(Book):
    """A book that reads each account and arrival once, when it is first asked for; the horizon once one is missing.

    `ends`: of each account as it is stored, by its id.
    """

    __slots__ = ("_connection", "_missing", "ends")

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self._missing: set[AccountKey | ArrivalKey] = set()
        self.ends: dict[int, int] = {}

    def account(self, key: AccountKey) -> Account | None:
        """The account, if there is one."""
        found = self.accounts.get(key)
        if found is None and key not in self._missing:
            row = self._connection.execute(_BY_KEY, key).fetchone()
            if row is None:
                self._miss(key)
            else:
                found = self.accounts[key] = self.read_account(key, row)
        return found

    def arrival(self, key: ArrivalKey) -> Arrival | None:
        """The arrival, if there is one."""
        found = self.arrivals.get(key)
        if found is None and key not in self._missing:
            row = self._connection.execute(_ARRIVAL, key).fetchone()
            if row is None:
                self._miss(key)
            else:
                found = self.arrivals[key] = Arrival(key, row[0], bool(row[1]))
        return found

    def read_account(self, key: AccountKey, row: Sequence[int]) -> Account:
        """An account from its row."""
        ends, limit, thresholds, committed, reserved, notified, warned, number = row
        percents = tuple([int(percent) for percent in str(thresholds).split()])
        self.ends[number] = ends
        return Account(key, ends, limit, percents, committed, reserved, notified, bool(warned), number)

    def _miss(self, key: AccountKey | ArrivalKey) -> None:
        """It is not stored: whether it ever was, the horizon says, of which nobody else asks."""
        if not self._missing:
            (self.horizon,) = self._connection.execute(_HORIZON).fetchone()
        self._missing.add(key)


def load(connection: Connection, operations: Sequence[Reserve | Commit | Release]) -> SqliteBook:
    """A book with every hold that the operations name, as far as it is stored."""
    book = SqliteBook(connection)
    load_holds(connection, book, {operation.call for operation in operations})
    return book


def load_holds(connection: Connection, book: SqliteBook, calls: Collection[str]) -> None:
    """The holds of `calls` and the accounts they hold in. An account that was forgotten is left out."""
    rows = connection.execute(_HOLDS, (_json(list(calls)).decode(),)).fetchall()
    if not rows:
        return
    parsed: list[tuple[HoldKey, Hold, list[int]]] = []
    wanted: set[int] = set()
    for call, leg, tenant, writer, expires, state, settled_at, lines in rows:
        numbers = [int(number) for number in lines.split()]
        wanted.update(numbers[::2])
        hold = Hold(call, leg, tenant, writer, expires, [], _STATES[state], settled_at, stored=True)
        parsed.append(((call, leg), hold, numbers))
    by_id: dict[int, Account] = {}
    if wanted:
        for row in connection.execute(_BY_ID, (_json(list(wanted)).decode(),)):
            key: AccountKey = row[:5]
            known = book.accounts.get(key)
            if known is None:
                known = book.accounts[key] = book.read_account(key, row[5:])
            by_id[row[12]] = known
    for place, hold, numbers in parsed:
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        hold.lines = [(by_id[number], amount) for number, amount in pairs if number in by_id]
        book.holds[place] = hold


def save(connection: Connection, book: SqliteBook) -> None:
    """Write what was changed."""
    _save_accounts(connection, book)
    arrivals = [(*a.key, a.at, a.warned) for a in book.arrivals.values() if a.changed]
    if arrivals:
        connection.executemany(_PUT_ARRIVAL, arrivals)
    inserts: list[tuple[str | int, ...]] = []
    updates: list[tuple[str | int, ...]] = []
    for hold in book.holds.values():
        if not hold.changed:
            continue
        ended = hold.state is State.COMMITTED or hold.state is State.RELEASED
        lines = "" if ended else " ".join([f"{account.id} {amount}" for account, amount in hold.lines])
        state = int(hold.state)
        if hold.stored:
            updates.append((state, hold.settled_at, lines, hold.call, hold.leg))
        else:
            inserts.append((hold.call, hold.leg, hold.tenant, hold.writer, hold.expires, state, hold.settled_at, lines))
    if inserts:
        connection.executemany(_INSERT_HOLD, inserts)
    if updates:
        connection.executemany(_UPDATE_HOLD, updates)


def _save_accounts(connection: Connection, book: SqliteBook) -> None:
    updates: list[tuple[str | int, ...]] = []
    moved: list[tuple[int, int]] = []
    for account in book.accounts.values():
        if not account.changed:
            continue
        limit = min(account.limit, MAX_AMOUNT)
        percents = " ".join([str(percent) for percent in account.thresholds])
        if account.id:
            values = (account.committed, account.reserved, limit, percents, account.notified, account.warned)
            updates.append((*values, account.id))
            if book.ends[account.id] != account.ends:
                moved.append((account.ends, account.id))
        else:
            row = (*account.key, account.ends, limit, percents, account.committed, account.reserved, account.notified)
            account.id = connection.execute(_INSERT_ACCOUNT, (*row, account.warned)).lastrowid or 0
    if updates:
        connection.executemany(_UPDATE_ACCOUNT, updates)
    if moved:
        connection.executemany(_MOVE_END, moved)
