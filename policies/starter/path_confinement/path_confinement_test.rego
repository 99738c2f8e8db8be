package fulcrum.policies.path_confinement_test

import data.fulcrum.policies.path_confinement

_denied(arguments) if count(path_confinement.deny) > 0 with input as {"phase": "call", "arguments": arguments}

test_a_path_within_passes if not _denied({"path": "/srv/a"})

test_a_path_outside_is_denied if _denied({"path": "/etc/passwd"})

test_a_nested_path_is_found if _denied({"edits": [{"path": "/etc/passwd"}]})

test_a_relative_path_is_denied if _denied({"path": "a.md"})

test_text_that_is_no_path_passes if not _denied({"content": "see /etc/passwd"})

test_lists_are_not_judged if count(path_confinement.deny) == 0 with input as {"phase": "list", "arguments": {"path": "/etc"}}
