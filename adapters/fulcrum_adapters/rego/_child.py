"""The admission subprocess: compiles and evaluates policies where they may loop, panic or eat memory.

Run as a script with the folder of `native.py` and of `regorus` as arguments; reads one JSON job from standard input. It
says on standard output, one JSON line at a time, what it begins and what it finds, so that when it dies its parent
knows of what. Imports `native` alone, to start in a few milliseconds.
"""

import contextlib
import importlib
import json
import resource
import signal
import sys
import time
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Do the job on standard input."""
    sys.path.extend(sys.argv[1:])
    job = json.load(sys.stdin)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses this one
        resource.setrlimit(resource.RLIMIT_AS, (job["memory"], job["memory"]))
    resource.setrlimit(resource.RLIMIT_CPU, (job["seconds"], job["seconds"] + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    native = importlib.import_module("native")

    if job["stage"] == "parse":
        for path, source in job["modules"]:
            say(begin=path)
            began = time.process_time()
            try:
                engine = native.build([(path, source)], {}, evaluate_once=False)
                native.syntax_trees(engine)
            except native.RegoFault as fault:
                say(fault=str(fault), panicked=fault.panicked)
            say(read=path, seconds=time.process_time() - began)
    else:
        judge(native, job)
    say(done=True)


def judge(native: Any, job: dict[str, Any]) -> None:
    """Evaluate every rule against every input, each on a fresh clone and within its processor time."""
    say(begin="the whole set")
    began = time.process_time()
    engine = native.build(job["modules"], job["data"])
    say(ready=time.process_time() - began)
    for rules, documents in job["work"]:
        for name, document in documents:
            for policy, rule in rules:
                say(begin=policy, rule=rule, input=name)
                clone = engine.clone()
                signal.setitimer(signal.ITIMER_PROF, job["each"])  # its signal ends the process, whatever it is doing
                try:
                    native.guarded(lambda clone=clone, document=document: clone.set_input_json(document))
                    native.evaluate(clone, rule)
                except native.RegoFault as fault:
                    if fault.panicked:
                        say(fault=str(fault), panicked=True)
                signal.setitimer(signal.ITIMER_PROF, 0)


def say(**what: Any) -> None:
    """One line; flushed at once, since the next step may be the last."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
