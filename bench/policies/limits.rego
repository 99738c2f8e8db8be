# The bench's third policy: large arguments need a person, odd ones a warning; every call has a price.
package fulcrum.policies.limits

import rego.v1

require_approval contains {"code": "large", "message": "more than 64 kB of text"} if {
	input.phase == "call"
	count(input.arguments.text) > 65536
}

warn contains {"code": "path", "message": "the text names a system path"} if {
	input.phase == "call"
	some prefix in ["/etc/", "/proc/", "/sys/"]
	startswith(input.arguments.text, prefix)
}

cost := {"usd_micros": 10} if input.phase == "call"
