"""`refstream demo`: the main job in one go over all five programs, checked to the cent.

data      a year of a made-up platform, as facts (pure, from a seed)
lines     the facts as JSON lines that any platform could have written
promise   what keycrm and jupsoft promise for these facts, worked out without any code of the services
takings   who of their partners takes money out (pure)
platform  what the platform, its partners and their visitors do over HTTP
settled   whether every service has caught up
report    what was promised beside what refstream paid
scene     what the other three programs have in common; of each, facts and promise (pure), and what is done over HTTP:
          purchases (proxy-credits), integrators (message-help), discounts (active-referrals), each with its …_play
command   the command: all of it in order
"""
