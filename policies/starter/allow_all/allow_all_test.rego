package fulcrum.policies.allow_all_test

import data.fulcrum.policies.allow_all

test_any_method_is_allowed if allow_all.allow with input as {"phase": "call", "method": "unknown/method"}
