package fulcrum.policies.observe_test

import data.fulcrum.policies.observe

test_any_method_is_allowed if observe.allow with input as {"phase": "call", "method": "unknown/method"}
