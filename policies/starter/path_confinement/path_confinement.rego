# Paths in arguments stay within `data.path_confinement.roots`. An argument is a path when its name, at any depth, is
# in `data.path_confinement.names`, or when its text begins like an absolute path. Denies only: use it beside a policy
# that allows. What a symbolic link points to cannot be seen from here.
package fulcrum.policies.path_confinement

import data.fulcrum.lib

deny contains {"code": "outside_roots", "message": sprintf("%v is not within %s", [text, concat(", ", data.path_confinement.roots)])} if {
	input.phase == "call"
	some text in _paths
	not lib.path_within_any(text, data.path_confinement.roots)
}

deny contains {"code": "outside_roots", "message": sprintf("%v is not within %s", [input.resource.uri, concat(", ", data.path_confinement.roots)])} if {
	input.phase == "call"
	startswith(lower(input.resource.uri), "file:")
	not _resource_within
}

_resource_within if lib.path_within_any(lib.path_of_uri(input.resource.uri), data.path_confinement.roots)

_paths contains text if {
	walk(input.arguments, [place, text])
	_names_path(place)
	not is_object(text)
	not is_array(text)
}

_paths contains text if {
	walk(input.arguments, [_, text])
	is_string(text)
	regex.match(`^(?:/|~|\\|[A-Za-z]:[\\/]|(?i:file:)|\.\.?(?:[\\/]|$))`, text)
}

# A member named `path`, or an element of an array named `paths`.
_names_path(place) if {
	some name in array.slice(place, count(place) - 2, count(place))
	lower(sprintf("%v", [name])) in _names
}

_names_path(place) if {
	count(place) == 1
	lower(sprintf("%v", [place[0]])) in _names
}

_names := {lower(name) | some name in data.path_confinement.names}
