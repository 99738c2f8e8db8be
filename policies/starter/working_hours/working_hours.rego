# Calls of the tools in `data.working_hours.tools` only on `days`, from hour `first` to before hour `last`, in the time
# zone of the gateway. At other times a person may approve when `data.working_hours.approve` is true. Denies only.
package fulcrum.policies.working_hours

import data.fulcrum.lib
import data.fulcrum.lib.target

deny contains {"code": "outside_hours", "message": _message} if {
	input.phase == "call"
	_outside
	not data.working_hours.approve == true
}

require_approval contains {"code": "outside_hours", "message": _message} if {
	input.phase == "call"
	_outside
	data.working_hours.approve == true
}

_outside if {
	lib.name_matches_any(target, data.working_hours.tools)
	not lib.within_hours(input.context.time, data.working_hours.days, data.working_hours.first, data.working_hours.last)
}

_message := sprintf("%s may be used %s, %d:00 to %d:00", [target, concat(" ", data.working_hours.days), data.working_hours.first, data.working_hours.last])
