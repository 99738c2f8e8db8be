#!/usr/bin/env python3
"""Whether the process in this container answers: exit 0 when `/healthz` says 200."""

import http.client
import os
import sys


def main() -> int:
    """Ask the port that FULCRUM_HTTP or PORT names, on loopback."""
    port = (os.environ.get("FULCRUM_HTTP") or os.environ.get("PORT") or "8080").rpartition(":")[2]
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=4)
    try:
        connection.request("GET", "/healthz")
        return 0 if connection.getresponse().status == 200 else 1  # noqa: PLR2004 - HTTP's own number
    except OSError as exc:
        sys.stderr.write(f"no answer on port {port}: {exc}\n")
        return 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
