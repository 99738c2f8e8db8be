package fulcrum.policies.reader_test

import data.fulcrum.policies.reader
import rego.v1

call(name, reads) := {
	"phase": "call",
	"principal": {"roles": ["reader"]},
	"tool": {"name": name, "annotations": {"readOnlyHint": reads}},
}

test_reading_is_allowed if {
	reader.allow with input as call("git_log", true)
	count(reader.deny) == 0 with input as call("git_log", true)
}

test_writing_is_denied_by_name if {
	some reason in reader.deny with input as call("git_commit", false)
	reason.code == "writes"
	contains(reason.message, "git_commit")
}

test_commit_is_listed_and_reset_is_not if {
	reader.allow with input as object.union(call("git_commit", false), {"phase": "list"})
	not reader.allow with input as object.union(call("git_reset", false), {"phase": "list"})
}
