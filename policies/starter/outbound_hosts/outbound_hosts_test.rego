package fulcrum.policies.outbound_hosts_test

import data.fulcrum.policies.outbound_hosts

_denied(arguments) if count(outbound_hosts.deny) > 0 with input as {"phase": "call", "arguments": arguments}

test_a_named_host_passes if not _denied({"url": "https://example.com/a"})

test_a_host_below_passes if not _denied({"url": "https://api.example.com/a"})

test_another_host_is_denied if _denied({"url": "https://example.org/"})

test_a_url_under_any_name_is_found if _denied({"text": "https://example.org/"})

test_text_about_a_url_passes if not _denied({"text": "see https://example.org/"})

test_too_many_urls_are_denied if _denied({"urls": [sprintf("https://h%d.example.com/", [number]) | some number in numbers.range(1, 101)]})
