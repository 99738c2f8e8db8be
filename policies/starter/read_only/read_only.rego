# Only what its server declares to be reading. An annotation is a server's own claim: combine this policy with servers
# that you trust, or with an allow-list. Tools of `data.read_only.also` are allowed without the annotation, tools of
# `data.read_only.never` are denied with it; both hold patterns of names such as "files__read_*".
package fulcrum.policies.read_only

import data.fulcrum.lib
import data.fulcrum.lib.target

allow if {
	input.tool.annotations.readOnlyHint == true
	not input.tool.annotations.destructiveHint == true
	not lib.name_matches_any(target, data.read_only.never)
}

allow if lib.name_matches_any(target, data.read_only.also)

allow if input.method in {"prompts/get", "resources/read"}

deny contains {"code": "writes", "message": sprintf("%s writes, or its server does not say that it only reads", [input.tool.name])} if {
	input.tool.name
	not allow
}
