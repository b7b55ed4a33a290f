"""The four services, as an argument of commands."""

from enum import StrEnum


class Service(StrEnum):
    attribution = "attribution"
    commission = "commission"
    rewards = "rewards"
    payouts = "payouts"
