"""What must hold after a course, whatever was done in it."""

from collections import Counter
from typing import Any, Final

from steps.books import spent
from steps.course import Course
from steps.rules import MOST

from fulcrum_mcp.gateway.records import DECIDED, FINISHED

__all__ = ["violations"]

SECOND: Final = 1.0
_SLOW: Final = ("slow",)


def violations(course: Course) -> list[str]:
    """Everything that is not as promised; empty when all is well."""
    return [*course.wrong, *_calls(course), *(_trail(course) if course.budgets else ["it went not far"])]


def _calls(course: Course) -> list[str]:
    seen = course.asked.seen
    found = [f"forwarded although {each.complaint}: {each}" for each in seen if each.complaint]
    times = Counter(each.text for each in seen)
    found += [
        f"{each.text} ({each.tool}) was forwarded {times[each.text]} times"
        for each in seen
        if times[each.text] > (2 if each.tool == "ask" else 1)
    ]
    refused = {answer.text: answer for answer in course.answers if answer.refused and answer.tool != "ask"}
    found += [f"refused, and forwarded: {refused[text]}" for text in times if text in refused]
    found += [
        f"answered late: {answer}" for answer in course.answers if answer.seconds > SECOND and answer.tool not in _SLOW
    ]
    tools = Counter(each.tool for each in seen)
    found += [f"{tools[tool]} calls of {tool} were forwarded" for tool, most in MOST.items() if tools[tool] > most]
    return found


def _trail(course: Course) -> list[str]:
    records = course.records()
    allowed = Counter((r.subject, r.leg) for r in records if r.type == DECIDED and r.effect == "allow")
    ended = Counter((r.subject, r.leg) for r in records if r.type == FINISHED)
    found = [f"{call} was decided {number} times" for call, number in allowed.items() if number > 1]
    found += [f"{call} has {ended[call]} ends" for call in allowed if ended[call] != 1]
    limits: dict[str, Any] = {budget.name: budget.limits for budget in course.budgets if budget.action == "hard"}
    for (name, bucket, amount), number in spent(records, course.budgets).items():
        if name in limits and number > limits[name][amount]:
            found.append(f"budget {name} of {bucket}: {number} {amount} spent of {limits[name][amount]}")
    return found
