"""The rules and the words, pure: no I/O, no clock, no settings. Times are integers, seconds since 1970 in UTC."""
