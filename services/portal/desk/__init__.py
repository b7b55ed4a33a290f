"""The administrator's desk: programs, partners and purchases, what waits for somebody, and how the services are."""

from services.portal.desk import home, operating, people, programs, queues

MODULES = (home, programs, people, queues, operating)
