package fulcrum.policies.interop

import rego.v1

allow := true

deny contains {"code": "forbidden", "message": "this tool is not for you"} if {
	input.phase == "call"
	input.tool.name == "forbidden"
}
