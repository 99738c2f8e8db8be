# No key, token or private key leaves in an argument. What was found is masked in the audit copy. The net has holes:
# it knows common forms. Tools of `data.secrets_in_arguments.except` may be given secrets. Denies only.
package fulcrum.policies.secrets_in_arguments

import data.fulcrum.lib

deny contains {"code": "secret", "message": sprintf("the argument at %s looks like a secret; refer to it by name instead", [pointer])} if some pointer in _found

redact contains pointer if {
	input.phase == "call"
	some pointer in _found
}

_found := lib.secrets_in(input.arguments) if {
	input.phase == "call"
	not _excepted
}

_excepted if lib.name_matches_any(lib.target_of(input), data.secrets_in_arguments.except)
