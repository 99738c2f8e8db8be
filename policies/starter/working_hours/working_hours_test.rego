package fulcrum.policies.working_hours_test

import data.fulcrum.policies.working_hours

_at(weekday, hour) := {"phase": "call", "server": {"name": "s"}, "tool": {"name": "t"}, "context": {"time": {"weekday": weekday, "hour": hour}}}

test_within if count(working_hours.deny) == 0 with input as _at("Tuesday", 8)

test_the_last_hour_is_out if count(working_hours.deny) == 1 with input as _at("Tuesday", 18)

test_the_weekend_is_out if count(working_hours.deny) == 1 with input as _at("Sunday", 12)

test_a_person_may_approve if {
	table := {"tools": ["*"], "days": ["mon"], "first": 8, "last": 18, "approve": true}
	count(working_hours.require_approval) == 1 with input as _at("Sunday", 12) with data.working_hours as table
	count(working_hours.deny) == 0 with input as _at("Sunday", 12) with data.working_hours as table
}

test_a_window_over_midnight if {
	table := {"tools": ["*"], "days": ["mon"], "first": 22, "last": 6, "approve": false}
	count(working_hours.deny) == 0 with input as _at("Monday", 23) with data.working_hours as table
	count(working_hours.deny) == 0 with input as _at("Monday", 5) with data.working_hours as table
	count(working_hours.deny) == 1 with input as _at("Monday", 12) with data.working_hours as table
}
