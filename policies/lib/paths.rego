# Paths, judged by their text alone: a symbolic link that leads elsewhere cannot be seen from here.
package fulcrum.lib

# True when `path` is `root` or below it. Anything that could mean something else to a server is outside: relative
# paths, `.` and `..`, empty segments, backslashes, percent-encoding of separators and dots, control characters,
# characters that look like a dot or a slash or that are invisible. Letters' case must match.
path_within(path, root) if {
	_plain_path(path)
	_plain_path(root)
	trimmed := trim_right(root, "/")
	_under(path, trimmed)
}

# True when `path` is within at least one of `roots`.
path_within_any(path, roots) if {
	some root in roots
	path_within(path, root)
}

# The path of a `file://` URI without host, query and fragment; undefined for any other.
path_of_uri(uri) := path if {
	startswith(uri, "file:///")
	path := trim_prefix(uri, "file://")
	not regex.match(`[?#]`, path)
}

_under(path, root) if path == root

_under(path, root) if startswith(path, concat("", [root, "/"]))

_plain_path(path) if {
	is_string(path)
	startswith(path, "/")
	not regex.match(`\\|[\x00-\x1f\x7f]|%(?i:2e|2f|5c|00|25|u)|//`, path)
	not regex.match(`/\.{1,2}(?:/|$)`, path)
	not regex.match(`[\x{2024}\x{2025}\x{2026}\x{2044}\x{2215}\x{29f5}\x{29f8}\x{fe52}\x{fe68}\x{ff0e}\x{ff0f}\x{ff3c}\x{3002}]`, path)
	not regex.match(`[\x{80}-\x{a0}\x{ad}\x{200b}-\x{200f}\x{2028}-\x{202e}\x{2060}-\x{206f}\x{fe00}-\x{fe0f}\x{feff}\x{fffd}]`, path)
}
