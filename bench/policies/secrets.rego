# The bench's second policy: no secret may leave in an argument; looks at every string with a regular expression.
package fulcrum.policies.secrets

import rego.v1

deny contains {"code": "secret_in_argument", "message": sprintf("argument %s holds a secret", [name])} if {
	input.phase == "call"
	some name, value in input.arguments
	is_string(value)
	regex.match(`AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY-----|ghp_[A-Za-z0-9]{36}`, value)
}
