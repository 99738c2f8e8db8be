# Takes personal and secret text out of results before the model reads them: every pattern of
# `data.redact_results.patterns` (RE2 syntax) is replaced in all strings, every pointer of `data.redact_results.pointers`
# (by pattern of the tool's name) is replaced whole.
package fulcrum.policies.redact_results

import data.fulcrum.lib
import data.fulcrum.lib.target

redact contains {"pattern": item.pattern, "with": item["with"]} if {
	input.phase == "result"
	some item in data.redact_results.patterns
}

redact contains pointer if {
	input.phase == "result"
	some pattern, pointers in data.redact_results.pointers
	lib.name_matches(target, pattern)
	some pointer in pointers
}
