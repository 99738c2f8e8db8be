# No key, token or private key leaves in an argument. What was found is masked in the audit copy. The net has holes:
# it knows common forms. Tools of `data.secrets_in_arguments.except` may be given secrets. Denies only.
package fulcrum.policies.secrets_in_arguments

import data.fulcrum.lib
import data.fulcrum.lib.target

deny contains {"code": "secret", "message": sprintf("the argument at %s looks like a secret; refer to it by name instead", [pointer])} if {
	input.phase == "call"
	some pointer in _found
}

redact contains pointer if {
	input.phase == "call"
	some pointer in _found
}

_found := lib.secrets_in(input.arguments) if not _excepted

_excepted if lib.name_matches_any(target, data.secrets_in_arguments.except)
