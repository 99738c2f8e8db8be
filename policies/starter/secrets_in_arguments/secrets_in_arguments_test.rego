package fulcrum.policies.secrets_in_arguments_test

import data.fulcrum.policies.secrets_in_arguments

_input(arguments) := {"phase": "call", "server": {"name": "mail"}, "tool": {"name": "send"}, "arguments": arguments}

test_a_key_is_denied_and_masked if {
	given := _input({"body": "use sk-abcdefghijklmnop1234"})
	count(secrets_in_arguments.deny) == 1 with input as given
	secrets_in_arguments.redact == {"/body"} with input as given
}

test_plain_text_passes if count(secrets_in_arguments.deny) == 0 with input as _input({"body": "good morning"})

test_an_excepted_tool_may if {
	count(secrets_in_arguments.deny) == 0 with input as _input({"body": "sk-abcdefghijklmnop1234"}) with data.secrets_in_arguments as {"except": ["mail__*"]}
}
