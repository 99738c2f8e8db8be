# SQL in arguments does only what its role may: `data.sql_kind.roles` maps roles ("*": everybody) to kinds of
# statements, `data.sql_kind.arguments` names the arguments that hold SQL, `data.sql_kind.tools` the tools concerned
# (patterns). Denies only: use it beside a policy that allows.
package fulcrum.policies.sql_kind

import data.fulcrum.lib
import data.fulcrum.lib.target

deny contains {"code": concat("_", ["sql", kind]), "message": sprintf("a statement of kind %s; allowed here: %s", [kind, concat(", ", sort(_kinds))])} if {
	input.phase == "call"
	some kind in _found
	not kind in _kinds
}

_found contains lib.sql_kind(text) if {
	lib.name_matches_any(target, data.sql_kind.tools)
	some place
	walk(input.arguments, [place, text])
	count(place) > 0
	lower(sprintf("%v", [place[count(place) - 1]])) in _names
}

_names := {lower(name) | some name in data.sql_kind.arguments}

_kinds contains kind if some kind in data.sql_kind.roles["*"]

_kinds contains kind if {
	some role in input.principal.roles
	some kind in data.sql_kind.roles[role]
}
