package fulcrum.policies.role_allow_list_test

import data.fulcrum.policies.role_allow_list

_input(roles, tool) := {"phase": "call", "principal": {"roles": roles}, "server": {"name": "files"}, "tool": {"name": tool}}

test_a_role_gets_what_it_is_named_for if role_allow_list.allow with input as _input(["reader"], "read_text")

test_no_role_gets_nothing if not role_allow_list.allow with input as _input([], "read_text")

test_without_data_nothing_is_allowed if {
	not role_allow_list.allow with input as _input(["reader"], "read_text") with data.role_allow_list as {}
}
