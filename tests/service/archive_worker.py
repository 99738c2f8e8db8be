"""A processor's process: stores the batches that every such process has, from one end or the other.

Arguments: database, batches, records in each, time (us), forwards | backwards | lead. Says each batch that is stored.
"""

import sys

from archive_rig import batches

from fulcrum_adapters.postgres.archive import PostgresArchive
from fulcrum_adapters.postgres.config import PostgresConfig
from fulcrum_adapters.postgres.database import Database
from fulcrum_adapters.postgres.leader import PostgresLeadership


def say(what: str) -> None:
    sys.stdout.write(what + "\n")
    sys.stdout.flush()


def main() -> None:
    url, number, size, at, how = sys.argv[1:]
    config = PostgresConfig(url, pool=1)
    if how == "lead":
        leadership = PostgresLeadership(config)
        say(str(leadership.acquire()))
        sys.stdin.readline()
        return
    work = list(enumerate(batches(int(number), int(size), int(at))))
    archive = PostgresArchive(Database(config))
    say("ready")
    sys.stdin.readline()
    for place, (records, inputs) in work if how == "forwards" else reversed(work):
        letters = archive.store(records, inputs)
        say(f"{place} {len(letters)}")


if __name__ == "__main__":
    main()
