# URLs in arguments lead only to `data.outbound_hosts.allowed` ("example.com", "*.example.com"), never to a private
# address unless it is named there. Every text that begins like a URL counts, whatever its argument is called, and so
# do arguments named in `data.outbound_hosts.names`. Denies only: use it beside a policy that allows.
package fulcrum.policies.outbound_hosts

import data.fulcrum.lib

deny contains {"code": "host_not_allowed", "message": sprintf("%v leads to a host that is not allowed", [_shown(text)])} if {
	input.phase == "call"
	count(_urls) <= 100
	some text in _urls
	not _allowed(text)
}

deny contains {"code": "too_many_urls", "message": "more than 100 different URLs in one call; split it"} if {
	input.phase == "call"
	count(_urls) > 100
}

_allowed(text) if {
	host := lib.host_of(text)
	some pattern in data.outbound_hosts.allowed
	lib.host_matches(host, pattern)
	_not_by_accident(host, pattern)
}

# A pattern with `*` does not open private names below it.
_not_by_accident(host, _) if not lib.host_is_private(host)

_not_by_accident(host, pattern) if host == lower(pattern)

_urls contains text if {
	walk(input.arguments, [_, text])
	is_string(text)
	regex.match(`^[\s\x00-\x20]*(?:[A-Za-z][A-Za-z0-9+.\t\r\n-]*:[/\\]|[/\\]{2}|(?i:data|javascript|mailto|view-source|blob|about|urn|jar|dict|gopher|ldap|file):)`, text)
}

_urls contains text if {
	some place
	walk(input.arguments, [place, text])
	count(place) > 0
	lower(sprintf("%v", [place[count(place) - 1]])) in {lower(name) | some name in data.outbound_hosts.names}
	not is_object(text)
	not is_array(text)
}

_shown(text) := substring(sprintf("%v", [text]), 0, 200)
