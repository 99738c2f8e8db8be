# The time of a call as the gateway took it; it stands in the record of the decision.
package fulcrum.lib

# True when `time` (`input.context.time`) is on one of `days` ("mon", "tue", ...) and its hour is at least `first` and
# below `last`. A window over midnight (22 to 6) belongs to the day it is on.
within_hours(time, days, first, last) if {
	lower(substring(time.weekday, 0, 3)) in {lower(substring(day, 0, 3)) | some day in days}
	_hour_between(time.hour, first, last)
}

_hour_between(hour, first, last) if {
	first < last
	hour >= first
	hour < last
}

_hour_between(hour, first, last) if {
	first > last
	hour >= first
}

_hour_between(hour, first, last) if {
	first > last
	hour < last
}
