# A reader may call what only reads, and is told why when it tries to write.
package fulcrum.policies.reader

import rego.v1

allow if input.tool.annotations.readOnlyHint == true

# Shown, so that the agent knows that it exists and can ask a person; every other tool that writes is hidden.
allow if {
	input.phase == "list"
	input.tool.name == "git_commit"
}

deny contains {"code": "writes", "message": sprintf("%s writes; the role reader may not", [input.tool.name])} if {
	input.phase == "call"
	input.tool.annotations.readOnlyHint == false
	"reader" in input.principal.roles
}
