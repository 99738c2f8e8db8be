package fulcrum.policies.sql_kind_test

import data.fulcrum.policies.sql_kind

_codes(roles, text) := {reason.code |
	some reason in sql_kind.deny with input as {"phase": "call", "principal": {"roles": roles}, "server": {"name": "db"}, "tool": {"name": "run"}, "arguments": {"sql": text}}
}

test_everybody_selects if _codes([], "select 1") == set()

test_writing_needs_a_role if _codes([], "delete from t") == {"sql_delete"}

test_a_writer_writes if _codes(["writer"], "delete from t") == set()

test_only_an_owner_changes_tables if _codes(["writer"], "drop table t") == {"sql_ddl"}

test_two_statements_are_denied if _codes(["owner"], "select 1; drop table t") == {"sql_multiple"}
