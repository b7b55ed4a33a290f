"""The four folds (attribution, commission, rewards, payouts), the loop they share, and the command line.

Services never import each other: what one needs from another comes to it as an event.
"""
