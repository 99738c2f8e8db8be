package fulcrum.policies.read_only_test

import data.fulcrum.policies.read_only

_call(annotations) := {"phase": "call", "server": {"name": "files"}, "tool": {"name": "t", "annotations": annotations}}

test_reading_is_allowed if read_only.allow with input as _call({"readOnlyHint": true})

test_a_string_is_not_true if not read_only.allow with input as _call({"readOnlyHint": "true"})

test_destructive_reading_is_not_allowed if {
	not read_only.allow with input as _call({"readOnlyHint": true, "destructiveHint": true})
}

test_also_allows_by_name if {
	read_only.allow with input as _call({}) with data.read_only as {"also": ["files__t"], "never": []}
}

test_never_denies_by_name if {
	not read_only.allow with input as _call({"readOnlyHint": true}) with data.read_only as {"also": [], "never": ["files__*"]}
}
