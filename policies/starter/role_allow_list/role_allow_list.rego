# Each role may use what `data.role_allow_list` names for it: patterns over "server__tool", "prompt:server__name" and
# "resource:server__uri". The role "*" is everybody. Nothing else is allowed.
package fulcrum.policies.role_allow_list

import data.fulcrum.lib
import data.fulcrum.lib.target

allow if {
	some role in _roles
	lib.name_matches_any(target, data.role_allow_list[role])
}

_roles contains role if some role in input.principal.roles

_roles contains "*"
