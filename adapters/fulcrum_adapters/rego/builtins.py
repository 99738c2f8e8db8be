"""The functions that a policy may call, and those it may not although the engine has them."""

__all__ = ["COSTLY", "OFFERED", "REFUSED"]

REFUSED = {
    "http.send": "policies do not reach the network; put what they need to know into a data document",
    "net.lookup_ip_addr": "policies do not reach the network; put addresses into a data document",
    "opa.runtime": "a decision must not depend on the process's environment",
    "rand.intn": "a decision must be the same for the same input",
    "time.now_ns": "use input.context.time, which is recorded with the decision",
    "trace": "use print while you test",
    "uuid.rfc4122": "a decision must be the same for the same input",
}
"""Refused when policies are loaded: what reaches outside or answers differently each time, and what to do instead."""

COSTLY = {
    "bits.lsh": (1,),
    "glob.match": (0,),
    "net.cidr_expand": (0,),
    "numbers.range": (0, 1),
    "numbers.range_step": (0, 1, 2),
    "regex.find_all_string_submatch_n": (0,),
    "regex.find_n": (0,),
    "regex.match": (0,),
    "regex.replace": (1,),
    "regex.split": (0,),
    "sprintf": (0,),
}
"""Parameters by position that decide how much work a call is: they must not come from a caller's arguments."""

_OFFERED = {
    "": """abs ceil concat contains count endswith floor format_int indexof indexof_n intersection is_array
    is_boolean is_null is_number is_object is_set is_string lower max min print product replace round
    sort split sprintf startswith substring sum to_number trim trim_left trim_prefix trim_right
    trim_space trim_suffix type_name union upper walk""",
    "array": """concat reverse slice""",
    "base64": """decode encode is_valid""",
    "base64url": """decode encode encode_no_pad""",
    "bits": """and lsh negate or rsh xor""",
    "glob": """match quote_meta""",
    "graph": """reachable reachable_paths""",
    "hex": """decode encode""",
    "json": """filter is_valid marshal marshal_with_options match_schema patch remove unmarshal verify_schema""",
    "net": """cidr_contains cidr_expand cidr_is_valid""",
    "numbers": """range range_step""",
    "object": """filter get keys remove subset union union_n""",
    "regex": """find_all_string_submatch_n find_n is_valid match replace split template_match""",
    "semver": """compare is_valid""",
    "strings": """any_prefix_match any_suffix_match count replace_n reverse""",
    "time": """add_date clock date diff format parse_duration_ns parse_ns parse_rfc3339_ns weekday""",
    "units": """parse parse_bytes""",
    "urlquery": """decode decode_object encode encode_object""",
    "uuid": """parse""",
    "yaml": """is_valid marshal unmarshal""",
}

OFFERED = frozenset(f"{space}.{name}".lstrip(".") for space, names in _OFFERED.items() for name in names.split())
