# What a call costs, from a table: `data.cost_table.prices` maps patterns of names to amounts (`usd_micros` are
# millionths of a dollar). Where several patterns match, the largest amount of each kind counts. Says nothing about
# whether a call is allowed.
package fulcrum.policies.cost_table

import data.fulcrum.lib
import data.fulcrum.lib.target

cost[kind] := max(amounts) if {
	input.phase == "call"
	some kind in {"calls", "usd_micros", "input_tokens", "output_tokens", "bytes", "seconds"}
	amounts := {amount |
		some pattern, price in data.cost_table.prices
		lib.name_matches(target, pattern)
		amount := price[kind]
	}
	count(amounts) > 0
}
