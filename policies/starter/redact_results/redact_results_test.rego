package fulcrum.policies.redact_results_test

import data.fulcrum.policies.redact_results

test_patterns_apply_to_results if {
	count(redact_results.redact) == 4 with input as {"phase": "result", "server": {"name": "s"}, "tool": {"name": "t"}}
}

test_calls_are_left_alone if {
	count(redact_results.redact) == 0 with input as {"phase": "call", "server": {"name": "s"}, "tool": {"name": "t"}}
}

test_pointers_apply_by_tool if {
	redact_results.redact == {"/structuredContent/email"} with input as {"phase": "result", "server": {"name": "crm"}, "tool": {"name": "get"}} with data.redact_results as {"patterns": [], "pointers": {"crm__*": ["/structuredContent/email"]}}
}
