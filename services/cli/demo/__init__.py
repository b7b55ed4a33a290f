"""`refstream demo`: the main job in one go, checked to the cent.

data      a year of a made-up platform, as facts (pure, from a seed)
lines     the facts as JSON lines that any platform could have written
promise   what the programs promise for these facts, worked out without any code of the services
platform  what the platform, its partners and their visitors do over HTTP
settled   whether every service has caught up
report    what was promised beside what refstream paid
command   the command: all of it in order
"""
