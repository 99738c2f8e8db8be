# Hosts of URLs. What two parsers could read in two ways has no host: a rule that allows by host then does not allow.
package fulcrum.lib

# The host of an absolute URL, in lower case, without a port or a final dot; undefined when the URL holds user
# information, a backslash, white space, control characters, percent-encoding or letters beyond ASCII before its path.
host_of(url) := host if {
	is_string(url)
	found := regex.find_all_string_submatch_n(`^[A-Za-z][A-Za-z0-9+.-]*://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[^\\\s\x00-\x20]*|[?#][^@\\\s\x00-\x20]*)?$`, url, 1)
	host := trim_suffix(lower(found[0][1]), ".")
	host != ""
}

# True when `host` is `pattern`, or below it where the pattern begins with `*.`.
host_matches(host, pattern) if {
	not startswith(pattern, "*.")
	host == lower(pattern)
}

host_matches(host, pattern) if {
	startswith(pattern, "*.")
	endswith(host, lower(substring(pattern, 1, -1)))
}

# True when `host` names this machine, a private network, or an address in a form that hides which one it is.
host_is_private(host) if host in {"localhost", "ip6-localhost", "metadata", "[::]"}

host_is_private(host) if regex.match(`\.(?:localhost|local|localdomain|internal|intranet|lan|home|corp)$`, host)

host_is_private(host) if not contains(host, ".")

host_is_private(host) if regex.match(`^\[`, host)

host_is_private(host) if _is_odd_number(host)

host_is_private(host) if {
	_is_ipv4(host)
	some range in ["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3"]
	net.cidr_contains(range, host)
}

_is_ipv4(host) if regex.match(`^(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])$`, host)

_is_odd_number(host) if {
	regex.match(`^(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+))*$`, host)
	not _is_ipv4(host)
}
