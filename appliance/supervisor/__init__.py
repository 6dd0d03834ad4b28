"""Keeps the parts of the process up: services declared as data, one table of states, ask, grace, force."""

from appliance.supervisor.bus import BusEvent, EventBus, Subscription
from appliance.supervisor.containing import Bug, contain
from appliance.supervisor.lifecycle import Event, IllegalTransition, State, step
from appliance.supervisor.order import start_order
from appliance.supervisor.restart import Restart
from appliance.supervisor.service import Main, Moment, Service, ServicePicture
from appliance.supervisor.supervisor import GaveUp, Supervisor, describe

__all__ = [
    "Bug",
    "BusEvent",
    "Event",
    "EventBus",
    "GaveUp",
    "IllegalTransition",
    "Main",
    "Moment",
    "Restart",
    "Service",
    "ServicePicture",
    "State",
    "Subscription",
    "Supervisor",
    "contain",
    "describe",
    "start_order",
    "step",
]
