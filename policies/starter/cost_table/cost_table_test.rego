package fulcrum.policies.cost_table_test

import data.fulcrum.policies.cost_table

_call(name) := {"phase": "call", "server": {"name": "search"}, "tool": {"name": name}}

test_a_pattern_prices if cost_table.cost == {"usd_micros": 5000} with input as _call("quick")

test_the_largest_price_counts if cost_table.cost == {"usd_micros": 40000, "seconds": 30} with input as _call("deep")

test_what_is_in_no_table_costs_nothing if cost_table.cost == {} with input as {"phase": "call", "server": {"name": "x"}, "tool": {"name": "y"}}
